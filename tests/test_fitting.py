import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from anomaly import metrics
from anomaly.artifact import MapCalibration
from anomaly.calibration import Decision, calibrate
from anomaly.detector import Detector, Scorer, Scores
from anomaly.detectors.memory_bank import MemoryBankDetector
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.errors import CalibrationError, DatasetError, InputError
from anomaly.evaluation import Evaluation, evaluate_samples, shortcut_values
from anomaly.fitting import Plan, fit_files
from anomaly.images import Sample
from anomaly.input_spec import Canvas, Images, InputSpec
from anomaly.scoring import Scored, judge, score_files

SPEC = InputSpec(channels=1, size=(32, 32))
COUNT = 24


@dataclass(frozen=True, kw_only=True)
class ToneDetector(Detector):
    """Learns the mean tone and remembers which tones it was shown; a file is a tone, so it remembers the files."""

    name: ClassVar[str] = "tone"
    shown: list[int] = field(default_factory=list, compare=False)

    def fit(self, images: Iterable[Images]) -> "ToneScorer":
        for batch in images:
            self.shown.extend(int(image[0, 0, 0]) for image in batch)
        if not self.shown:
            raise InputError("no image")
        return ToneScorer(self, torch.tensor(float(np.mean(self.shown))))

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> "ToneScorer":
        raise NotImplementedError


class ToneScorer(Scorer):
    """Score: distance of the mean tone from the mean of the training; map: distance of each pixel."""

    def __init__(self, detector: ToneDetector, tone: Tensor) -> None:
        super().__init__(detector)
        self.register_buffer("tone", tone)

    def score_canvas(self, canvas: Canvas) -> Scores:
        distance = (255 * canvas.pixels[:, 0] - self.tone).abs()
        return Scores(distance.mean(dim=(1, 2)), distance)


def write_tone(path, tone, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, tone, dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def files(tmp_path):
    """A file for each tone from 100 on."""
    return [write_tone(tmp_path / f"{n:03d}.png", 100 + n) for n in range(COUNT)]


def tone_of(path):
    return 100 + int(path.stem)


def fitted(paths, plan=None, **settings):
    detector, failures = ToneDetector(input=SPEC, **settings), []
    return fit_files(detector, paths, plan or Plan(), failures), detector.shown, failures


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


# The evaluation


def scored(tmp_path, name, tone, score, spot=None):
    """A scored image of one tone whose map is `score` at a spot and low elsewhere."""
    path = write_tone(tmp_path / name, tone)
    anomaly_map = torch.linspace(0, 0.1, 32 * 32).reshape(32, 32)
    if spot:
        anomaly_map[spot] = score
    return Scored(path, torch.full((1, 32, 32), tone, dtype=torch.uint8), score, anomaly_map)


SPOT = (slice(4, 12), slice(6, 20))


@pytest.fixture
def evaluation(tmp_path):
    """Six good parts, three scratches with masks, two stains without; scores by hand."""
    found = Evaluation(calibrate([float(k) for k in range(1, 41)]))
    mask = np.zeros((32, 32), dtype=np.uint8)
    mask[SPOT] = 255
    (tmp_path / "masks").mkdir()
    Image.fromarray(mask).save(tmp_path / "masks" / "m.png")
    for n, score in enumerate([3.0, 5.0, 8.0, 38.5, 39.5, 45.0]):
        found.add(scored(tmp_path, f"g{n}.png", 100 + n, score), Sample(tmp_path / f"g{n}.png", 0, "good", None))
    for n, score in enumerate([50.0, 60.0, 39.0]):
        item = scored(tmp_path, f"s{n}.png", 60 + n, score, SPOT)
        returned = found.add(item, Sample(item.path, 1, "scratch", tmp_path / "masks" / "m.png"))
        assert np.array_equal(returned, mask > 0)
    for n, score in enumerate([4.0, 70.0]):
        item = scored(tmp_path, f"t{n}.png", 100 + n, score)
        assert found.add(item, Sample(item.path, 1, "stain", None)) is None
    return found


def test_metrics_are_those_of_the_collected_scores(evaluation):
    scores, labels = np.array(evaluation.scores), np.array(evaluation.labels)
    assert evaluation.scores == [3.0, 5.0, 8.0, 38.5, 39.5, 45.0, 50.0, 60.0, 39.0, 4.0, 70.0]
    assert evaluation.labels == [0] * 6 + [1] * 5
    found = evaluation.metrics()
    assert len(evaluation.maps) == 9, "images of a kind without masks say nothing about pixels"
    pixels = metrics.pixel_metrics(evaluation.maps, evaluation.masks)
    assert found == metrics.image_metrics(scores, labels) | pixels
    by_hand = np.mean([[a > n for n in scores[:6]] for a in scores[6:]])
    assert metrics.auroc(scores, labels) == pytest.approx(by_hand)
    assert by_hand in [pytest.approx(value) for value in found.values()]
    assert metrics.pixel_auroc(evaluation.maps, evaluation.masks) == 1.0


def test_each_kind_has_its_decisions_and_its_own_auroc(evaluation):
    kinds = {kind: (count, decisions, against) for kind, count, decisions, against in evaluation.by_kind()}
    assert set(kinds) == {"good", "scratch", "stain"}
    # Of 40 normals NG is above the highest, 40; REVIEW is above the 40th or lower.
    review = evaluation.calibration.review.value
    assert evaluation.calibration.ng.value == 40.0
    between = sum(review < score <= 40 for score in (38.5, 39.5))
    assert kinds["good"][0] == 6
    assert kinds["good"][1] == {Decision.OK: 5 - between, Decision.REVIEW: between, Decision.NG: 1}
    assert kinds["good"][2] is None
    assert kinds["scratch"][0] == 3
    assert kinds["scratch"][1][Decision.NG] == 2
    assert kinds["scratch"][2] == pytest.approx((6 + 6 + 4) / 18)
    assert kinds["stain"][2] == pytest.approx((1 + 6) / 12)


def test_shortcuts_are_found_whichever_side_is_higher(evaluation):
    found = evaluation.shortcut_aurocs()
    # Good tones 100..105; defective 60, 61, 62, 100, 101: darker is defective in 27 of 30 pairs, ties count half.
    pairs = [(g > d) + 0.5 * (g == d) for g in range(100, 106) for d in (60, 61, 62, 100, 101)]
    assert found["mean grey"] == pytest.approx(np.mean(pairs))
    assert found["mean grey"] > 0.5
    assert found["image width"] == 0.5
    assert found["mean gradient"] == 0.5
    assert set(found) == {"mean grey", "mean gradient", "file size", "image width"}


def test_shortcut_values_by_hand(tmp_path):
    path = write_tone(tmp_path / "a.png", 7, size=(2, 3))
    image = torch.tensor([[[0, 10, 30], [5, 5, 5]]], dtype=torch.uint8)
    values = shortcut_values(Scored(path, image, 0.0, torch.zeros(2, 3)))
    assert values["mean grey"] == pytest.approx(55 / 6)
    assert values["mean gradient"] == pytest.approx(30 / 4)
    assert values["file size"] == path.stat().st_size
    assert values["image width"] == 3.0


def test_summary_is_json_and_says_the_same_as_the_words(evaluation):
    summary = json.loads(json.dumps(evaluation.summary()))
    assert (summary["images"], summary["defective"]) == (11, 5)
    assert summary["metrics"] == evaluation.metrics()
    low, high = summary["image_auroc_95"]
    assert low <= metrics.auroc(np.array(evaluation.scores), np.array(evaluation.labels)) <= high
    scratch = next(kind for kind in summary["kinds"] if kind["kind"] == "scratch")
    assert (scratch["images"], scratch["NG"]) == (3, 2)
    words = "\n".join(evaluation.in_words())
    assert "11 test images, 5 of them defective" in words
    for name, value in evaluation.metrics().items():
        assert f"{name:24} {value:.4f}" in words
    for name, value in evaluation.shortcut_aurocs().items():
        assert f"{name:24} {value:.4f}" in words
    assert evaluation.calibration.in_words() in words


def test_images_of_one_class_have_no_metrics(tmp_path):
    evaluation = Evaluation(calibrate([1.0, 2.0, 3.0]))
    evaluation.add(scored(tmp_path, "g.png", 100, 1.5), Sample(tmp_path / "g.png", 0, "good", None))
    assert "metrics" not in evaluation.summary()
    assert evaluation.summary()["kinds"][0]["kind"] == "good"
    assert "1 test images, 0 of them defective" in evaluation.in_words()[0]


def good_parts(tmp_path, scores):
    evaluation = Evaluation(calibrate([float(k) for k in range(1, 401)]))
    for n, score in enumerate(scores):
        item = scored(tmp_path, f"g{n}.png", 100, float(score))
        evaluation.add(item, Sample(item.path, 0, "good", None))
    return "\n".join(evaluation.in_words())


def test_a_promise_that_is_not_kept_is_said(tmp_path):
    words = good_parts(tmp_path, np.linspace(100, 500, 60))  # shifted: a quarter lies above all normals held out
    assert "NOT KEPT: 15 of 60 good test parts are NG" in words
    assert "Hold out by --group" in words


def test_a_promise_that_is_kept_or_broken_by_chance_is_not_called_broken(tmp_path):
    assert "NOT KEPT" not in good_parts(tmp_path, np.linspace(1, 399, 60))
    one_of_sixty = [*np.linspace(1, 390, 59), 500.0]
    assert "NOT KEPT" not in good_parts(tmp_path, one_of_sixty)


class Written:
    """Takes the place of the ResultWriter."""

    def __init__(self):
        self.added, self.failures, self.metrics = [], [], {}

    def add(self, *row):
        self.added.append(row)

    def failed(self, path, reason):
        self.failures.append((path, reason))


def test_evaluating_samples_hands_everything_to_the_writer_and_collects_failures(files, tmp_path):
    artifact, shown, _ = fitted(files)
    good = [Sample(write_tone(tmp_path / "test" / f"g{n}.png", 110 + n), 0, "good", None) for n in range(4)]
    mask = write_tone(tmp_path / "mask.png", 255)
    wrong_mask = write_tone(tmp_path / "wrong.png", 255, size=(16, 16))
    bad = [Sample(write_tone(tmp_path / "test" / f"b{n}.png", 200), 1, "hole", mask) for n in range(3)]
    bad[1] = bad[1]._replace(mask=wrong_mask)
    bad[2].path.write_bytes(b"")
    writer, failures, told = Written(), [], []
    evaluation = evaluate_samples(artifact, [*good, *bad], writer, failures, lambda *_: told.append)
    assert [Path(row[0]).name for row in writer.added] == ["g0.png", "g1.png", "g2.png", "g3.png", "b0.png"]
    assert {failure.path for failure in failures} == {wrong_mask, bad[2].path}
    assert {path for path, _ in writer.failures} == {wrong_mask, bad[2].path}
    assert evaluation.labels == [0, 0, 0, 0, 1]
    assert writer.metrics == evaluation.metrics()
    _, image, anomaly_map, score, p_value, decision, label, kind, truth = writer.added[-1]
    assert (label, kind, decision) == (1, "hole", Decision.NG)
    assert score == pytest.approx(200 - np.mean(shown), abs=1e-3)
    assert p_value == pytest.approx(1 / 7)
    assert image.shape == (32, 32, 1)
    assert anomaly_map.shape == (32, 32)
    assert truth.all()
