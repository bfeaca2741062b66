"""The commands print what people need, end with the right status, and refuse with a sentence."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from anomaly.errors import DatasetError, SettingError, UnknownNameError
from benchmarks.cli import app
from benchmarks.datasets.registry import SETS


def bench(*words):
    return CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=True)


def refused(result, kind):
    assert isinstance(result.exception, kind), result.output
    return str(result.exception)


def test_datasets_lists_every_set_with_its_licence(monkeypatch, tmp_path):
    monkeypatch.setenv("ANOMALY_SHARED", str(tmp_path))
    (tmp_path / "data/industrial/bsdata").mkdir(parents=True)
    shown = bench("datasets").output
    assert all(f"  {name} " in shown for name in SETS)
    assert shown.count("at hand: ") == 2  # bsdata, and the explanation
    assert "Stanford University Dataset Research Use Agreement" in shown


def test_datasets_shows_a_card_and_suggests_a_name():
    assert "CC BY 4.0" in bench("datasets", "visa").output
    assert "Did you mean 'visa'" in refused(bench("datasets", "vissa"), UnknownNameError)


def test_check_tells_a_partial_copy_with_status_1(make, tmp_path):
    make("mpdd", tmp_path / "mpdd")
    result = bench("check", "mpdd", tmp_path / "mpdd", "--manifest", tmp_path / "m", "--no-hashes")
    assert result.exit_code == 1
    assert "FAULT  tubes: 2 train/normal images instead of 122" in result.output
    assert "no folder" in refused(bench("check", "mpdd", tmp_path / "nowhere"), DatasetError)


def test_download_asks_first_and_says_how_to_get_the_others(tmp_path):
    result = CliRunner().invoke(app, ["download", "visa", str(tmp_path)], input="n\n")
    assert result.exit_code == 1
    assert "licence         CC BY 4.0" in result.output
    assert not list(tmp_path.iterdir())
    assert "fill in the form" in refused(bench("download", "mvtec_ad", tmp_path), DatasetError)
    message = refused(bench("download", "medmnist", tmp_path, "--file", "eyes.npz", "--accept"), UnknownNameError)
    assert "octmnist.npz" in message


@pytest.fixture
def parts(tmp_path):
    rng = np.random.default_rng(0)
    for folder, level in (("train/good", 120), ("test/good", 120), ("test/dark", 60)):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(10):
            image = rng.normal(level, 10, (32, 32)).clip(0, 255).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / folder / f"{i}.png")
    return tmp_path


def test_audit_of_a_folder_in_words_and_as_json(parts):
    words = bench("audit", parts).output
    assert "SHORTCUT: mean grey" in words
    found = json.loads(bench("audit", parts, "--json").stdout)
    assert len(found) == 1
    assert found[0]["findings"][0]["what"] == "mean grey"
    assert found[0]["findings"][0]["says"] == "STRONG"
    assert found[0]["verdict"]


def test_audit_of_the_categories_of_a_set(make, tmp_path):
    make("btad", tmp_path)
    found = json.loads(bench("audit", "btad", tmp_path, "--json").stdout)
    assert [one["name"] for one in found] == ["btad 01", "btad 02", "btad 03"]
    one = json.loads(bench("audit", "btad", tmp_path, "--category", "02", "--json").stdout)
    assert [each["name"] for each in one] == ["btad 02"]


def test_audit_refuses_with_a_sentence(parts, monkeypatch, tmp_path_factory):
    monkeypatch.setenv("ANOMALY_SHARED", str(tmp_path_factory.mktemp("empty")))
    assert "ANOMALY_SHARED" in refused(bench("audit", "elpv"), DatasetError)
    assert "go with the name" in refused(bench("audit", parts, "--category", "x"), SettingError)
    assert "copy at hand has one part" in refused(bench("audit", "elpv", "--category", "mono"), SettingError)
    refused(bench("audit", "nothing"), UnknownNameError)
