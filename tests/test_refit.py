"""From old model and new files to a new model, or to a refusal."""

import json

import cv2
import numpy as np
import pytest
import torch

from anomaly.artifact import load, save
from anomaly.calibration import Decision
from anomaly.detectors.memory_bank import MemoryBankDetector
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.errors import ArtifactError, SettingError
from anomaly.fitting import Plan, fit_files
from anomaly.images import infer_input, list_images, read_image
from anomaly.images.synthetic import write_dataset
from anomaly.refit import plan_like, refit_files
from anomaly.refit_compare import Figure, compare_on_normals, compare_on_samples, plant

SIZE = (64, 96)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_dataset(root / "cast", "cast", 24, 8, 8, SIZE, seed=0)
    write_dataset(root / "later", "cast", 16, 1, 1, SIZE, seed=1)
    dark = root / "dark"
    dark.mkdir()
    for path in list_images([root / "later" / "train" / "good"]):
        cv2.imwrite(str(dark / path.name), (read_image(path) * 0.6).round().astype(np.uint8))
    return root


@pytest.fixture(scope="module")
def old(data):
    paths = list_images([data / "cast" / "train" / "good"])
    return fit_files(SubspaceDetector(input=infer_input(paths)), paths, Plan(fraction=0.5, ng_rate=0.02), [])


@pytest.fixture(scope="module")
def model(old, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "old.safetensors"
    save(path, old)
    return path


@pytest.fixture(scope="module")
def refit(old, data):
    return refit_files(old, list_images([data / "dark"]), plan_like(old, 0.5, None, None), [])


def test_the_new_calibration_rests_on_the_new_normals_held_out_and_on_nothing_else(old, refit):
    new = refit.artifact
    assert len(refit.held_out) == 8
    assert new.calibration.ng.n == new.training.held_out == 8
    assert new.training.images == old.training.images + 8
    assert new.calibration.ng.wanted == old.calibration.ng.wanted == 0.02
    assert new.reference is not None
    assert len(new.reference.rows) == 7  # one is the template of the position
    assert new.training.fingerprint != old.training.fingerprint
    assert "you have 8" in new.calibration.in_words()


def test_the_new_model_accepts_what_the_old_one_did_not(old, refit):
    images = torch.stack([torch.from_numpy(read_image(path)).permute(2, 0, 1) for path in refit.held_out])
    with torch.inference_mode():
        before = old.calibration.decide_all(old.scorer(images).score.numpy())
        after = refit.artifact.calibration.decide_all(refit.artifact.scorer(images).score.numpy())
    assert after.count(Decision.NG) < before.count(Decision.NG)


def test_comparison_on_normals_says_what_is_measured_and_what_is_by_construction(old, refit):
    failures = []
    figures = compare_on_normals(old, refit.artifact, refit.held_out, failures)
    assert not failures
    not_ok, ng, planted = figures
    assert (not_ok.count, ng.count, planted.count) == (8, 8, 16)
    assert ng.old > 0.5
    assert ng.new == refit.artifact.calibration.ng.marginal == pytest.approx(1 / 9)
    assert "by construction" in ng.note
    assert 0 < planted.old < 1
    assert 0 < planted.new <= 1
    assert not any(figure.worse for figure in figures)


def test_comparison_on_labelled_images(old, refit, data):
    from anomaly.images import find_dataset

    samples = find_dataset(data / "cast").test
    same = compare_on_samples(old, old, samples, [])
    assert [(f.old, f.worse) for f in same] == [(f.new, False) for f in same]
    assert [f.count for f in same] == [16, 8, 8, 8]
    figures = compare_on_samples(old, refit.artifact, samples, [])
    assert figures[0].what == "labelled images: AUROC"
    assert 0.5 < figures[0].old <= 1


def test_planted_defects_are_reproducible_local_and_within_the_range():
    for dtype, top in ((torch.uint8, 255), (torch.uint16, 4095), (torch.float32, 1)):
        image = (torch.rand(3, 64, 96) * 0.2 + 0.4) * top
        image = image.to(dtype)
        for index in range(6):
            damaged = plant(image, (0.0, float(top)), index)
            assert damaged.dtype == dtype
            assert torch.equal(damaged, plant(image, (0.0, float(top)), index))
            change = (damaged.float() - image.float()).abs().amax(dim=0) > 0.003 * top
            assert 0 < float(change.float().mean()) < 0.5
            assert 0 <= float(damaged.float().min()) <= float(damaged.float().max()) <= top


def test_other_families_and_unnamed_groups_are_refused(data, old):
    from dataclasses import replace

    paths = list_images([data / "cast" / "train" / "good"])
    bank = fit_files(MemoryBankDetector(input=infer_input(paths), bank_size=16), paths, Plan(), [])
    with pytest.raises(ArtifactError, match="'memory_bank' cannot learn further normals without its old images"):
        refit_files(bank, paths, Plan(), [])
    grouped = replace(old, calibration=replace(old.calibration, unit="patient_id"))
    with pytest.raises(SettingError, match="count patient_id; name the groups"):
        refit_files(grouped, paths, Plan(), [])


def test_command_writes_compares_and_keeps_the_old_model(call, model, data, tmp_path):
    content = model.read_bytes()
    out = tmp_path / "new.safetensors"
    status, words, _ = call("refit", model, data / "dark", "-o", out, "--dataset", data / "cast", "--bound", 0.5)
    assert status == 0
    assert "labelled images: AUROC" in words
    assert "Promised by the new model, of normals like the new ones:" in words
    assert f"Wrote {out}." in words
    assert load(out).training.held_out == 8
    assert model.read_bytes() == content


def test_command_refuses_a_model_that_is_worse_unless_forced(call, model, data, tmp_path, monkeypatch):
    worse = Figure("new normals against copies with planted defects: AUROC", 16, 0.9, 0.7, worse=True)
    monkeypatch.setattr("anomaly.refit_compare.compare_on_normals", lambda *given: [worse])
    out = tmp_path / "new.safetensors"
    status, words, _ = call("refit", model, data / "dark", "-o", out)
    assert status == 3
    assert "NOT written" in words
    assert "WORSE" in words
    assert not out.exists()
    status, words, _ = call("refit", model, data / "dark", "-o", out, "--force", "--json")
    assert status == 0
    assert json.loads(words)["worse"] == [worse.what]
    assert out.exists()


def test_new_normals_of_another_kind_make_a_model_that_is_refused(call, model, data, tmp_path):
    """Thresholds that come from pure noise call the labelled good parts of the old kind NG."""
    folder = tmp_path / "bad"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for path in list_images([data / "later" / "train" / "good"]):
        noise = rng.integers(0, 255, (*SIZE, 1)).astype(np.uint8)
        cv2.imwrite(str(folder / path.name), noise)
    out = tmp_path / "new.safetensors"
    status, words, _ = call("refit", model, folder, "-o", out, "--dataset", data / "cast")
    assert status == 3
    assert "labelled good images: NG" in words.split("is worse by more than 0.02:")[1]
    assert not out.exists()


def test_command_errors(call, model, data, tmp_path):
    for arguments, message in (
        (("-o", tmp_path / "new.pt"), "--output must end in .safetensors"),
        (("-o", tmp_path / "new.safetensors", "--group", "lot"), "--manifest and --group go together"),
        (("-o", tmp_path / "new.safetensors", "--bound", 1), "--bound must be at least 0 and below 1"),
    ):
        status, _, err = call("refit", model, data / "dark", *arguments)
        assert status == 2
        assert message in err
