"""An evaluation: metrics, kinds, promises and shortcuts of what was scored."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from anomaly import metrics
from anomaly.calibration import Decision, calibrate
from anomaly.evaluation import Evaluation, evaluate_samples, shortcut_values
from anomaly.images import Sample
from anomaly.scoring import Scored
from tests.tones import fitted, tone_files, write_tone


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


def test_evaluating_samples_hands_everything_to_the_writer_and_collects_failures(tmp_path):
    artifact, shown, _ = fitted(tone_files(tmp_path))
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
