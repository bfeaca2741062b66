"""Metrics against hand-computed answers, scikit-learn and a literal AUPRO that shares nothing with the code."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from anomaly import metrics
from anomaly.errors import InputError, SettingError

SCORES = [0.1, 0.4, 0.35, 0.8]
LABELS = [0, 0, 1, 1]
quick = settings(max_examples=30, deadline=None, derandomize=True)


@st.composite
def labelled(draw, levels=12):
    """Whole-number scores with many ties, both classes present."""
    labels = draw(st.lists(st.booleans(), min_size=2, max_size=40).filter(lambda x: 0 < sum(x) < len(x)))
    scores = draw(st.lists(st.integers(-levels, levels), min_size=len(labels), max_size=len(labels)))
    return np.array(scores, dtype=np.float64), np.array(labels)


@st.composite
def mapped(draw):
    """Two maps of different size with tied scores and random masks."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels, density = draw(st.sampled_from([2, 5, 1000])), draw(st.sampled_from([0.1, 0.3, 0.6]))
    sizes = [(draw(st.integers(2, 9)), draw(st.integers(2, 9))) for _ in range(2)]
    maps = [rng.integers(0, levels, size).astype(np.float32) for size in sizes]
    masks = [rng.random(size) < density for size in sizes]
    masks[0].flat[:2] = [True, False]
    return maps, masks


def literal_aupro(maps, masks, limit):
    """Every threshold in turn, every region in turn, a trapezium at a time."""
    regions = []
    for index, mask in enumerate(masks):
        labels, count = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [(index, labels == label) for label in range(1, count + 1)]
    normal = sum(int((~mask).sum()) for mask in masks)
    rates, overlaps = [0.0], [0.0]
    for threshold in sorted({float(v) for values in maps for v in values.flat}, reverse=True):
        hot = [values >= threshold for values in maps]
        rates.append(sum(int((h & ~mask).sum()) for h, mask in zip(hot, masks, strict=True)) / normal)
        overlaps.append(math.fsum(hot[i][region].mean() for i, region in regions) / len(regions))
    area = 0.0
    for x0, x1, y0, y1 in zip(rates, rates[1:], overlaps, overlaps[1:], strict=False):
        if x0 < limit and x1 > x0:
            stop = min(x1, limit)
            area += (stop - x0) * (y0 + y0 + (y1 - y0) * (stop - x0) / (x1 - x0)) / 2
    return area / limit


def test_hand_computed_image_metrics():
    assert metrics.auroc(SCORES, LABELS) == 0.75
    assert metrics.average_precision(SCORES, LABELS) == pytest.approx((1 + 2 / 3) / 2)
    assert metrics.f1_max(SCORES, LABELS) == (0.8, 0.35)
    assert metrics.fpr_at_recall(SCORES, LABELS) == 0.5
    assert metrics.fpr_at_recall(SCORES, LABELS, recall=0.5) == 0.0


def test_scores_that_are_all_equal_know_nothing():
    assert metrics.auroc([3.0] * 5, [0, 0, 0, 0, 1]) == 0.5
    assert metrics.average_precision([3.0] * 5, [0, 0, 0, 0, 1]) == 0.2
    assert metrics.fpr_at_recall([3.0] * 5, [0, 0, 0, 0, 1]) == 1.0
    assert metrics.aupro([np.ones((2, 5))], [np.eye(2, 5)], 0.4) == pytest.approx(0.2)  # the diagonal up to 0.4


def test_recall_of_a_share_that_is_no_binary_fraction():
    labels = [1] * 20 + [0]
    assert metrics.fpr_at_recall([*range(20, 0, -1), 1.5], labels, recall=0.95) == 0.0


@quick
@given(labelled())
def test_image_metrics_agree_with_scikit_learn(case):
    scores, labels = case
    precision, recall, _ = precision_recall_curve(labels, scores)
    false_rate, true_rate, _ = roc_curve(labels, scores, drop_intermediate=False)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-300)
    assert metrics.image_metrics(scores, labels) == pytest.approx(
        {
            "image_auroc": roc_auc_score(labels, scores),
            "image_ap": average_precision_score(labels, scores),
            "image_f1_max": f1.max(),
            "image_fpr_at_recall_1": false_rate[true_rate == 1].min(),
        }
    )


@quick
@given(labelled())
def test_the_f1_threshold_reaches_the_f1(case):
    scores, labels = case
    f1, threshold = metrics.f1_max(scores, labels)
    alarm = scores >= threshold
    assert f1 == pytest.approx(2 * (alarm & labels).sum() / (alarm.sum() + labels.sum()))


@quick
@given(labelled(), st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=25, max_size=25, unique=True))
def test_strictly_monotone_maps_change_nothing(case, levels):
    scores, labels = case
    table = np.sort(np.array(levels, dtype=np.float32))
    assert metrics.image_metrics(table[scores.astype(int) + 12], labels) == metrics.image_metrics(scores, labels)


@quick
@given(mapped(), st.sampled_from([np.exp, np.cbrt, lambda x: 1e6 + x * 2.0**-20]))
def test_strictly_monotone_maps_change_no_pixel_metric(case, increasing):
    maps, masks = case
    moved = [increasing(values.astype(np.float64) / 16) for values in maps]
    assert metrics.pixel_metrics(moved, masks) == metrics.pixel_metrics(maps, masks)


@quick
@given(labelled(), st.randoms(use_true_random=False))
def test_order_changes_nothing(case, random):
    scores, labels = case
    order = random.sample(range(len(scores)), len(scores))
    assert metrics.image_metrics(scores[order], labels[order]) == metrics.image_metrics(scores, labels)


@quick
@given(mapped())
def test_order_of_the_maps_changes_nothing(case):
    maps, masks = case
    assert metrics.pixel_metrics(maps[::-1], masks[::-1]) == pytest.approx(
        metrics.pixel_metrics(maps, masks), rel=1e-12
    )


@pytest.mark.parametrize(("dtype", "step"), [(np.float64, 1e-9), (np.float32, 0.0625)])
def test_tiny_differences_at_a_million_are_kept(dtype, step):
    rng = np.random.default_rng(0)
    steps, labels = rng.integers(0, 40, 500), rng.random(500) < 0.2
    scores = np.array(1e6 + steps * step, dtype=dtype)
    assert np.unique(scores).size == np.unique(steps).size
    assert metrics.image_metrics(scores, labels) == metrics.image_metrics(steps.astype(np.float64), labels)
    assert metrics.auroc(scores, labels) == pytest.approx(roc_auc_score(labels, steps))


def test_neighbouring_floats_are_told_apart_and_equal_ones_are_not():
    low = np.float32(0.1)
    high = np.nextafter(low, np.float32(1))
    assert metrics.auroc(np.array([low, high]), [0, 1]) == 1.0
    assert metrics.auroc(np.array([low, low]), [0, 1]) == 0.5


def test_hand_computed_aupro():
    """Two regions of 1 and 4 pixels, 10 normal pixels; found: the small one, one false pixel, the large one."""
    mask = np.zeros((3, 5), dtype=bool)
    mask[0, 0] = mask[1, 3] = mask[2, 3] = mask[1, 4] = mask[2, 4] = True
    values = np.zeros((3, 5), dtype=np.float32)
    values[0, 0], values[0, 2], values[1:, 3:] = 9, 8, 7
    # overlap 1/2 up to a rate of 1/10, then 1
    assert metrics.aupro([values], [mask], 0.1) == pytest.approx(0.5)
    assert metrics.aupro([values], [mask], 0.3) == pytest.approx((0.05 + 0.2) / 0.3)
    assert metrics.aupro([values], [mask], 0.05) == pytest.approx(0.5)


def test_the_limit_may_cut_a_tie():
    """One defect pixel ties with one of four normal ones: up to a rate of 0.1 the overlap rises from 0 to 0.4."""
    assert metrics.aupro([np.array([[9, 9, 1, 1, 1]])], [np.array([[1, 0, 0, 0, 0]])], 0.1) == pytest.approx(0.2)


def test_regions_that_touch_at_a_corner_are_one():
    mask = np.zeros((4, 4), dtype=bool)
    mask[0, 0] = mask[1, 1] = mask[3, 3] = True
    values = np.zeros((4, 4))
    values[3, 3] = 1
    assert metrics.aupro([values], [mask], 1.0) == pytest.approx(0.5 + 0.5 / 2)


@quick
@given(mapped(), st.sampled_from([0.05, 0.3, 0.51, 1.0]))
def test_aupro_agrees_with_the_literal_one(case, limit):
    maps, masks = case
    assert metrics.aupro(maps, masks, limit) == pytest.approx(literal_aupro(maps, masks, limit), abs=1e-12)


@quick
@given(mapped())
def test_pixel_metrics_agree_with_scikit_learn_and_with_each_other(case):
    maps, masks = case
    scores, labels = np.concatenate([m.ravel() for m in maps]), np.concatenate([m.ravel() for m in masks])
    found = metrics.pixel_metrics(maps, masks)
    assert found["pixel_auroc"] == pytest.approx(roc_auc_score(labels, scores)) == metrics.pixel_auroc(maps, masks)
    assert found["pixel_ap"] == pytest.approx(average_precision_score(labels, scores))
    assert found["pixel_ap"] == metrics.pixel_average_precision(maps, masks)
    assert (found["aupro_0.3"], found["aupro_0.05"]) == metrics.aupro_at(maps, masks, (0.3, 0.05))
    assert found["aupro_0.3"] == metrics.aupro(maps, masks)


def test_one_region_over_the_whole_range_makes_aupro_the_auroc():
    rng = np.random.default_rng(3)
    maps, masks = rng.normal(size=(1, 40, 40)), np.zeros((1, 40, 40), dtype=np.uint8)
    masks[0, 5:20, 5:20] = 1
    assert metrics.aupro(maps, masks, 1.0) == pytest.approx(metrics.pixel_auroc(maps, masks))


def test_arguments_stay_untouched():
    maps, masks = np.random.default_rng(0).normal(size=(2, 8, 8)), np.tri(8)[None].repeat(2, 0)
    before = maps.copy(), masks.copy()
    metrics.pixel_metrics(maps, masks)
    assert np.array_equal(maps, before[0])
    assert np.array_equal(masks, before[1])


@pytest.mark.parametrize(
    ("scores", "labels", "says"),
    [
        ([1.0, 2.0], [0, 0], "0 anomalous of 2"),
        ([1.0, 2.0], [True, True], "2 anomalous of 2"),
        ([], [], "0 anomalous of 0"),
        ([1.0, math.nan], [0, 1], "finite"),
        ([1.0, math.inf], [0, 1], "finite"),
        ([1.0, 2.0], [0, 2], "0/1"),
        ([1.0, 2.0], [0, 1, 1], r"\(2,\), \(3,\)"),
        ([[1.0, 2.0]], [[0, 1]], "1-D"),
    ],
)
def test_undefined_image_metrics_say_why(scores, labels, says):
    with pytest.raises(InputError, match=says):
        metrics.image_metrics(scores, labels)
    with pytest.raises(InputError, match=says):
        metrics.bootstrap_interval(metrics.auroc, scores, labels, seed=0, rounds=1)


@pytest.mark.parametrize(
    ("maps", "masks", "says"),
    [
        ([], [], "0 maps, 0 masks"),
        ([np.ones((2, 2))], [], "1 maps, 0 masks"),
        ([np.ones((2, 2))], [np.zeros((2, 2))], "0 anomalous of 4"),
        ([np.ones((2, 2)), np.full((2, 2), np.nan)], [np.eye(2), np.eye(2)], "map 1.*finite"),
        ([np.ones((2, 2))], [np.eye(2) * 255], "map 0.*mask > 127"),
        ([np.ones((2, 2))], [np.eye(3)], r"map 0.*\(2, 2\), \(3, 3\)"),
    ],
)
def test_undefined_pixel_metrics_say_why(maps, masks, says):
    with pytest.raises(InputError, match=says):
        metrics.pixel_metrics(maps, masks)


@pytest.mark.parametrize("value", [0.0, -0.1, 1.1, math.nan])
def test_settings_out_of_range(value):
    with pytest.raises(SettingError, match="recall"):
        metrics.fpr_at_recall(SCORES, LABELS, value)
    with pytest.raises(SettingError, match="fpr_limit"):
        metrics.aupro([np.ones((2, 2))], [np.eye(2)], value)
    with pytest.raises(SettingError, match="rounds"):
        metrics.bootstrap_interval(metrics.auroc, SCORES, LABELS, seed=0, rounds=0)


def test_bootstrap_interval_is_seeded_and_as_wide_as_theory_says():
    rng = np.random.default_rng(1)
    labels = np.arange(200) >= 100
    scores = rng.normal(size=200) + labels
    low, high = metrics.bootstrap_interval(metrics.auroc, scores, labels, seed=5, rounds=400)
    area = metrics.auroc(scores, labels)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)  # Hanley and McNeil 1982
    error = math.sqrt((area * (1 - area) + 99 * (q1 - area**2 + q2 - area**2)) / 100**2)
    assert low < area < high
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.25)
    assert (low, high) == metrics.bootstrap_interval(metrics.auroc, scores, labels, seed=5, rounds=400)
    assert (low, high) != metrics.bootstrap_interval(metrics.auroc, scores, labels, seed=6, rounds=400)
