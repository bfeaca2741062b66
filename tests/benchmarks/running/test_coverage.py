"""Kept promises, counted by hand."""

import numpy as np
import pytest
from scipy.stats import beta

from anomaly.calibration import calibrate
from benchmarks.running.coverage import BROKEN, COLUMNS, KEPT, OPEN, coverage, exact_interval, verdict


def test_alarms_are_counted_against_the_promise():
    held_out = [float(score) for score in range(1, 60)]  # 59 normals support 5 % at their highest score
    found = coverage(held_out, [58.5, 59.0, 59.5, 70.0, *([0.0] * 6)])
    assert tuple(found) == COLUMNS
    assert found["held_out_units"] == 59
    assert (found["ng_flagged"], found["ng_normals"]) == (2, 10)  # 59.0 equals the threshold: no alarm
    assert found["ng_promised"] == pytest.approx(1 - 0.05 ** (1 / 59))
    threshold = calibrate(held_out).review.value
    assert found["review_flagged"] == sum(score > threshold for score in (58.5, 59.0, 59.5, 70.0))
    assert found["review_wanted"] == 0.10


def test_the_exact_interval_is_that_of_clopper_and_pearson():
    low, high = exact_interval(3, 20)
    assert (low, high) == (pytest.approx(beta.ppf(0.025, 3, 18)), pytest.approx(beta.ppf(0.975, 4, 17)))
    assert exact_interval(0, 10)[0] == 0
    assert exact_interval(10, 10)[1] == 1


def test_what_cannot_be_decided_is_not_called_kept():
    assert verdict(0.10, 0.00, 0.09) == KEPT
    assert verdict(0.10, 0.11, 0.30) == BROKEN
    assert verdict(0.10, 0.05, 0.20) == OPEN


def test_a_patient_counts_once_with_the_highest_image():
    held_out, patients = [1.0, 5.0, 2.0, 3.0], ["a", "a", "b", "c"]
    found = coverage(held_out, [9.0, 0.0, 9.0, 0.0], patients, ["x", "x", "x", "y"])
    assert found["held_out_units"] == 3
    assert (found["ng_flagged"], found["ng_normals"]) == (1, 2)


def test_normals_of_the_same_source_keep_the_promise_as_often_as_promised():
    random = np.random.default_rng(0)
    kept = []
    for _ in range(200):
        scores = random.normal(size=359)
        found = coverage(scores[:59].tolist(), scores[59:].tolist())
        kept.append(found["review_verdict"] != BROKEN)
    assert np.mean(kept) > 0.95
