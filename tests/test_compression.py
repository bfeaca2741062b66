import json
import sys
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open

from anomaly import catalog
from anomaly.artifact import load, save
from anomaly.cli import main
from anomaly.compression import Compression, compress_files, of_the_fit, with_rounded_weights
from anomaly.errors import SettingError
from anomaly.fitting import Plan, fit_files, split
from anomaly.images import find_dataset
from anomaly.images.synthetic import write_dataset
from anomaly.input_spec import InputSpec
from anomaly.scoring import score_files
from anomaly.storage import Storage
from anomaly.testing import sample_images

SIZE = (64, 96)
SPEC = InputSpec(size=SIZE)
SETTINGS = {"subspace": {}, "gaussian": {"local_components": 16}, "memory_bank": {"bank_size": 256, "components": 32}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "cast"
    write_dataset(root, "cast", 24, 4, 4, SIZE, seed=0)
    return root


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    root = tmp_path_factory.mktemp("others") / "cast"
    write_dataset(root, "cast", 12, 1, 1, SIZE, seed=5)
    return find_dataset(root).train


@pytest.fixture(scope="module")
def fitted(data):
    """One model of each family."""
    return {name: fitted_on(find_dataset(data).train, name) for name in SETTINGS}


def fitted_on(paths, name, plan=None):
    detector = catalog.build(catalog.detector_class(name), {"input": SPEC} | SETTINGS[name])
    return fit_files(detector, paths, plan or Plan(), [])


def scored(scorer, count=3):
    with torch.inference_mode():
        return scorer(sample_images(SPEC, count, seed=4)).score


def test_a_bank_keeps_some_of_its_patches_in_fewer_components(fitted, data):
    old = fitted["memory_bank"]
    new = compress_files(old, Compression(bank=64, components=8), find_dataset(data).train, [])
    assert new.scorer.bank.shape == (64, 8)
    assert new.scorer.detector == replace(old.scorer.detector, bank_size=64, components=8)
    rows = {tuple(row.tolist()) for row in old.scorer.bank[:, -8:]}
    assert {tuple(row.tolist()) for row in new.scorer.bank} <= rows
    assert torch.equal(new.scorer.basis, old.scorer.basis[:, -8:])
    assert old.scorer.bank.shape == (256, 32)


def test_a_gaussian_keeps_the_sums_of_fewer_directions(fitted, data):
    old = fitted["gaussian"].scorer.sums.summary()
    new = compress_files(fitted["gaussian"], Compression(components=4), find_dataset(data).train, []).scorer
    assert new.detector.local_components == 4
    kept = new.sums.summary()
    assert torch.equal(kept.projection, old.projection[:, :4])
    assert torch.equal(kept.local, old.local[..., :4, :4])
    assert torch.equal(kept.center, old.center)


@pytest.mark.parametrize("name", ["gaussian", "memory_bank"])
def test_levels_measured_again_on_the_images_of_the_fit_are_those_of_the_fit(name, fitted, data):
    new = compress_files(fitted[name], Compression(weights="float16"), find_dataset(data).train, [])
    wanted = fitted[name].scorer.level
    assert (new.scorer.level - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_levels_fit_the_smaller_bank(fitted, data):
    old = fitted["memory_bank"]
    new = compress_files(old, Compression(bank=16), find_dataset(data).train, [])
    assert new.scorer.level[0].mean() > 1.2 * old.scorer.level[0].mean()


@pytest.mark.parametrize("name", SETTINGS)
def test_the_images_of_the_fit_are_split_as_the_fit_split_them(name, fitted, data):
    paths, old = find_dataset(data).train, fitted[name]
    assert of_the_fit(old, paths)
    new = compress_files(old, Compression(weights="int8"), paths[::-1], [])
    held = [paths[i] for i in split(paths, Plan(), 0)[1]]
    scores = sorted(s.score for s in score_files(new.scorer, held, []))
    assert new.calibration.scores == pytest.approx(scores, abs=1e-3)
    assert len(held) == old.training.held_out == new.training.held_out
    assert (new.training.images, new.training.fingerprint) == (old.training.images, old.training.fingerprint)
    assert new.calibration.ng.wanted == old.calibration.ng.wanted


def test_other_normals_are_split_in_halves(fitted, others):
    assert not of_the_fit(fitted["memory_bank"], others)
    new = compress_files(fitted["memory_bank"], Compression(bank=64), others, [])
    assert len(new.calibration.scores) == 6


def contents(path):
    with safe_open(path, "pt") as file:
        return file.metadata()["manifest"], {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize(("kind", "share"), [("float16", 0.5), ("int8", 0.2514)])
@pytest.mark.parametrize("name", SETTINGS)
def test_shortened_weights_load_to_the_very_scores_and_save_again_alike(name, kind, share, fitted, data, tmp_path):
    old = fitted[name]
    new = compress_files(old, Compression(weights=kind), find_dataset(data).train, [])
    save(tmp_path / "new.safetensors", new)
    loaded = load(tmp_path / "new.safetensors")
    assert torch.equal(scored(loaded.scorer), scored(new.scorer))
    assert loaded.storage == new.storage
    assert all(p.dtype == torch.float32 for p in loaded.scorer.parameters())
    assert loaded.provenance()["weights stored as"].startswith(kind)
    save(tmp_path / "again.safetensors", loaded)
    first, again = contents(tmp_path / "new.safetensors"), contents(tmp_path / "again.safetensors")
    assert first[0] == again[0]  # the manifest, with the hash of all tensors
    bytes_now = sum(tensor.nbytes for key, tensor in first[1].items() if key.startswith("backbone"))
    assert bytes_now == pytest.approx(share * sum(p.nbytes for p in old.scorer.backbone.parameters()), rel=1e-3)


def test_a_compressed_model_keeps_its_storage_when_it_is_made_smaller_again(fitted, data):
    paths = find_dataset(data).train
    once = compress_files(fitted["memory_bank"], Compression(weights="float16"), paths, [])
    twice = compress_files(once, Compression(bank=32), paths, [])
    assert twice.storage == once.storage


def test_rounding_leaves_the_old_scorer_alone_and_moves_scores_little(fitted):
    scorer = fitted["subspace"].scorer
    before = scored(scorer)
    halves, bytes_ = (scored(with_rounded_weights(scorer, kind)) for kind in ("float16", "int8"))
    assert torch.equal(scored(scorer), before)
    assert torch.equal(halves, before)  # the package carries its backbone in float16: nothing is lost
    assert 0 < (bytes_ - before).abs().max() < 0.2 * before.abs().max()


def test_a_model_that_was_shortened_refits_without_loss(fitted, data, tmp_path):
    new = compress_files(fitted["subspace"], Compression(weights="float16"), find_dataset(data).train, [])
    again = new.scorer.refitted([sample_images(SPEC, 2, seed=8)])
    save(tmp_path / "again.safetensors", replace(new, scorer=again, storage=Storage.of(again, "float16")))
    assert torch.equal(scored(load(tmp_path / "again.safetensors").scorer), scored(again))


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("subspace", {"bank": 8}, "neither a bank nor components"),
        ("gaussian", {"bank": 8}, "no bank"),
        ("gaussian", {"components": 17}, "at most 16"),
        ("memory_bank", {"bank": 257}, "at most 256"),
        ("memory_bank", {"components": 33}, "at most 32"),
    ],
)
def test_what_a_model_does_not_have_cannot_be_made_fewer(name, settings, words, fitted, data):
    with pytest.raises(SettingError, match=words):
        compress_files(fitted[name], Compression(**settings), find_dataset(data).train, [])


@pytest.mark.parametrize("settings", [{}, {"bank": 0}, {"components": 0}])
def test_settings_are_checked(settings):
    with pytest.raises(SettingError):
        Compression(**settings)


def test_rates_that_count_groups_need_the_groups(data):
    paths = find_dataset(data).train
    groups = {path.name: f"lot {i // 4}" for i, path in enumerate(paths)}
    old = fitted_on(paths, "subspace", Plan(groups=groups, unit="lot"))
    with pytest.raises(SettingError, match="count lot"):
        compress_files(old, Compression(weights="float16"), paths, [])
    new = compress_files(old, Compression(weights="float16"), paths, [], groups=groups, unit="lot")
    assert new.calibration.unit == "lot"
    assert new.training.held_out == old.training.held_out


def test_the_command_says_what_it_costs(fitted, data, tmp_path, monkeypatch, capsys):
    save(tmp_path / "old.safetensors", fitted["memory_bank"])
    arguments = ["compress", tmp_path / "old.safetensors", "-o", tmp_path / "new.safetensors"]

    def called(*more):
        monkeypatch.setattr(sys, "argv", ["anomaly", *map(str, [*arguments, *more])])
        with pytest.raises(SystemExit) as caught:
            main()
        return caught.value.code or 0, *capsys.readouterr()

    status, out, _ = called("--bank", 64, "--weights", "fp16", "--dataset", data, "--json")
    found = json.loads(out)
    assert (status, found["images_of_the_fit"], found["failed"]) == (0, True, {})
    before, after = found["before_after"]["file, MB"]
    assert after < 0.6 * before
    assert set(found["before_after"]) == {"file, MB", "image_auroc", "pixel_auroc"}
    status, out, _ = called("--weights", "int8", "--normals", data / "test" / "good")
    assert status == 0
    assert "cannot be checked" in out
    assert "image_auroc" not in out
    assert called("--weights", "fp16")[0] == 2
    assert "give --normals or --dataset" in called("--weights", "fp16")[2]
    assert "fp16, int8" in called("--weights", "int4", "--dataset", data)[2]
    assert "nothing to compress" in called("--dataset", data)[2]
