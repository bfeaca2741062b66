"""Fitting and scoring files: what is held out, what is reported, what does not depend on order or batches."""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly.artifact import MapCalibration
from anomaly.calibration import Decision
from anomaly.detectors.memory_bank import MemoryBankDetector
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.errors import CalibrationError, DatasetError
from anomaly.fitting import Plan, fit_files
from anomaly.input_spec import InputSpec
from anomaly.scoring import judge, score_files
from tests.tones import COUNT, SPEC, ToneDetector, ToneScorer, fitted, tone_files, tone_of, write_tone


@pytest.fixture
def files(tmp_path):
    return tone_files(tmp_path)


def test_files_held_out_never_reach_the_fit(files):
    artifact, shown, failures = fitted(files)
    assert len(shown) == len(set(shown)) == artifact.training.images == 18
    assert artifact.training.held_out == 6
    assert failures == []
    mean = np.mean(shown)
    held = {tone_of(path) for path in files} - set(shown)
    assert artifact.calibration.scores == pytest.approx(sorted(abs(tone - mean) for tone in held), abs=1e-3)


def test_each_file_is_shown_once_and_in_random_order(files):
    _, shown, _ = fitted(files)
    assert max(Counter(shown).values()) == 1
    assert shown != sorted(shown)


@pytest.mark.parametrize("fraction", [0.1, 0.5])
def test_share_held_out_is_that_of_the_plan(files, fraction):
    artifact, shown, _ = fitted(files, Plan(fraction=fraction))
    assert artifact.training.held_out == round(fraction * COUNT)
    assert len(shown) == COUNT - round(fraction * COUNT)


def test_groups_are_never_split(files):
    groups = {path.name: f"lot{index % 6}" for index, path in enumerate(files)}
    for seed in range(5):
        artifact, shown, _ = fitted(files, Plan(groups=groups, unit="lot"), seed=seed)
        fit_groups = {groups[f"{tone - 100:03d}.png"] for tone in shown}
        held_groups = {groups[p.name] for p in files if tone_of(p) not in shown}
        assert not fit_groups & held_groups
        assert len(fit_groups | held_groups) == 6
        assert len(artifact.calibration.scores) == len(held_groups) == 2, "a group counts once"
        assert artifact.calibration.unit == "lot"


def test_files_without_a_group_are_an_error(files):
    groups = {path.name: "a" for path in files[:-1]}
    with pytest.raises(DatasetError, match=r"1 of 24 files have no group; the first is '023\.png'"):
        fitted(files, Plan(groups=groups))


def test_files_that_cannot_be_used_are_reported_from_both_parts(files):
    _, shown, _ = fitted(files)
    fit_part = [p for p in files if tone_of(p) in shown]
    held_part = [p for p in files if tone_of(p) not in shown]
    fit_part[3].write_bytes(b"")
    fit_part[5].write_bytes(fit_part[5].read_bytes()[:60])
    held_part[1].write_bytes(b"no image")
    artifact, shown, failures = fitted(files)
    assert {f.path for f in failures} == {fit_part[3], fit_part[5], held_part[1]}
    assert len(failures) == 3
    assert (artifact.training.images, artifact.training.held_out) == (16, 5)
    assert len(artifact.calibration.scores) == 5
    assert len(shown) == 16


def test_groups_of_unreadable_files_do_not_shift_those_of_the_others(files):
    groups = {path.name: f"lot{index % 6}" for index, path in enumerate(files)}
    artifact, shown, _ = fitted(files, Plan(groups=groups))
    held = [p for p in files if tone_of(p) not in shown]
    lots = sorted({groups[p.name] for p in held})
    first = [p for p in held if groups[p.name] == lots[0]]
    first[0].write_bytes(b"")
    again, shown_again, failures = fitted(files, Plan(groups=groups))
    assert [f.path for f in failures] == [first[0]]
    mean = np.mean(shown_again)
    wanted = [max(abs(tone_of(p) - mean) for p in held if groups[p.name] == lot and p != first[0]) for lot in lots]
    assert again.calibration.scores == pytest.approx(sorted(wanted), abs=1e-3)
    assert len(artifact.calibration.scores) == len(lots)


def test_no_usable_file_to_learn_from_is_a_dataset_error(files):
    for path in files:
        path.write_bytes(b"")
    for detector in (ToneDetector(input=SPEC), SubspaceDetector(input=SPEC), MemoryBankDetector(input=SPEC)):
        with pytest.raises(
            DatasetError, match=r"none of the 18 files to learn from can be used: .*is empty \(0 bytes\)"
        ):
            fit_files(detector, files, Plan(), [])


def test_no_usable_file_held_out_is_a_calibration_error(files):
    _, shown, _ = fitted(files)
    for path in files:
        if tone_of(path) not in shown:
            path.write_bytes(b"")
    with pytest.raises(CalibrationError, match=r"none of the 6 files held out can be used: .*is empty"):
        fitted(files)


def test_a_single_file_cannot_be_split(files):
    with pytest.raises(CalibrationError, match="two files or groups at least; got 1"):
        fitted(files[:1])


def test_fingerprint_is_that_of_the_files_whatever_their_order_and_names(files, tmp_path):
    known = fitted(files)[0].training.fingerprint
    assert fitted(files[::-1])[0].training.fingerprint == known
    moved = [write_tone(tmp_path / "elsewhere" / path.name, tone_of(path)) for path in files]
    assert fitted(moved)[0].training.fingerprint == known
    write_tone(files[0], 99)
    assert fitted(files)[0].training.fingerprint != known
    assert len(known) == 64


def test_map_calibration_is_that_of_the_maps_held_out(files):
    artifact, shown, _ = fitted(files)
    distances = sorted(abs(tone_of(p) - np.mean(shown)) for p in files if tone_of(p) not in shown)
    assert artifact.map_calibration.typical == pytest.approx(np.median(distances), abs=1e-3)
    assert artifact.map_calibration.threshold.value == pytest.approx(distances[-1], abs=1e-3)
    assert isinstance(artifact.map_calibration, MapCalibration)


@pytest.mark.parametrize(
    "detector",
    [
        SubspaceDetector(input=InputSpec(size=(64, 64))),
        MemoryBankDetector(input=InputSpec(size=(64, 64)), bank_size=64),
    ],
    ids=["subspace", "memory_bank"],
)
def test_two_fits_give_identical_models(detector, tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for n in range(12):
        paths.append(tmp_path / f"{n}.png")
        Image.fromarray(rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)).save(paths[-1])
    first, second = (fit_files(detector, paths, Plan(), []) for _ in range(2))
    assert first.calibration == second.calibration
    assert first.map_calibration == second.map_calibration
    for (name, a), b in zip(first.scorer.state_dict().items(), second.scorer.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_progress_is_told_every_step(files):
    told = []

    def progress(what, steps):
        told.append([what, steps, 0])

        def advance(done):
            told[-1][2] += done

        return advance

    fit_files(ToneDetector(input=SPEC), files, Plan(), [], progress)
    assert told == [["learning what is normal", 18, 18], ["scoring the normals held out", 6, 6]]


def test_scoring_keeps_the_order_and_batches_change_nothing(files):
    scorer = fitted(files)[0].scorer
    one, many = (list(score_files(scorer, files[::-1], [], size)) for size in (1, 7))
    assert [s.path for s in one] == [s.path for s in many] == files[::-1]
    assert [s.score for s in one] == [s.score for s in many]


def test_maps_leave_out_padding_and_go_back_to_the_size_of_the_image(tmp_path):
    wide = write_tone(tmp_path / "wide.png", 120, size=(20, 80))
    scorer = ToneScorer(ToneDetector(input=SPEC), torch.tensor(100.0))
    (scored,) = score_files(scorer, [wide], [])
    assert scored.map.shape == (8, 32)
    assert scored.map_on_image().shape == (20, 80)
    assert scored.pixels().shape == (20, 80, 1)
    assert scored.map_on_image() == pytest.approx(20.0, abs=1e-4)


def test_judge_gives_p_value_and_decision(files):
    artifact, _, _ = fitted(files)
    highest = artifact.calibration.scores[-1]
    assert judge(artifact, highest + 1).decision is Decision.NG
    assert judge(artifact, highest + 1).p_value == pytest.approx(1 / 7)
    assert judge(artifact, -1.0).decision is Decision.OK
    assert judge(artifact, -1.0).p_value == 1.0
