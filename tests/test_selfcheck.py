import json

import cv2
import pytest
from typer.testing import CliRunner

from anomaly.artifact import load, save
from anomaly.cli import app
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.errors import DatasetError, SettingError
from anomaly.fitting import Plan, fit_files
from anomaly.images import infer_input
from anomaly.images.synthetic import normal
from anomaly.selfcheck import LABEL, Trials, self_check

SIZE = (96, 128)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A model of brushed metal, and a folder of normals that it has not seen."""
    root = tmp_path_factory.mktemp("parts")
    for folder, seeds in (("fit", range(60)), ("held_out", range(1000, 1006))):
        (root / folder).mkdir()
        for seed in seeds:
            cv2.imwrite(str(root / folder / f"{seed}.png"), normal("brushed_metal", SIZE, seed))
    paths = sorted((root / "fit").iterdir())
    artifact = fit_files(SubspaceDetector(input=infer_input(paths)), paths, Plan(), [])
    save(root / "model.safetensors", artifact)
    return root


def test_large_strong_defects_are_found_more_often_and_better_than_small_faint_ones(parts):
    files = sorted((parts / "held_out").iterdir())
    trials = Trials(areas=(0.001, 0.02), opacities=(0.1, 1.0), kinds=("perlin",))
    artifact, failures = load(parts / "model.safetensors"), []
    result = self_check(artifact, files, trials, failures)
    assert not failures
    assert result.images == 6
    assert [(row.area, row.opacity) for row in result.rows] == [(0.001, 0.1), (0.001, 1.0), (0.02, 0.1), (0.02, 1.0)]
    faint, strong = result.rows[0], result.rows[3]
    assert strong.planted == 6
    assert strong.ng >= 0.8
    assert strong.ng > faint.ng
    assert strong.pixel_auroc > 0.9
    assert strong.hits > strong.chance
    assert all(row.ng <= row.not_ok for row in result.rows)
    assert self_check(artifact, files, trials, []) == result


def test_files_that_cannot_be_used_are_told(parts, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    artifact, failures = load(parts / "model.safetensors"), []
    trials = Trials(areas=(0.01,), opacities=(1.0,))
    good = next((parts / "held_out").iterdir())
    result = self_check(artifact, [tmp_path / "broken.png", good], trials, failures)
    assert (result.images, len(failures)) == (1, 1)
    assert all(row.chance is None for row in result.rows)  # one image has no image before it
    with pytest.raises(DatasetError, match="none of the 1 files can be used"):
        self_check(artifact, [tmp_path / "broken.png"], trials, [])


def test_the_command_says_that_the_defects_are_synthetic(parts):
    model, normals = str(parts / "model.safetensors"), str(parts / "held_out")
    words = CliRunner().invoke(app, ["selfcheck", model, normals, "--limit", "2"])
    assert words.exit_code == 0, words.output
    assert LABEL in words.output
    assert "2 normal images as they are" in words.output
    machine = CliRunner().invoke(app, ["selfcheck", model, normals, "--limit", "2", "--json"])
    figures = json.loads(machine.stdout)
    assert figures["what"] == LABEL
    assert len(figures["rows"]) == 18
    assert {row["kind"] for row in figures["rows"]} == {"cut_paste", "perlin"}


def test_trials_of_nothing_are_refused():
    with pytest.raises(SettingError, match="areas of Trials must be one or more values"):
        Trials(areas=())
