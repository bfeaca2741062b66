"""How well do raw anomaly scores tell anomalous from normal? Pure functions of images or pixels.

Every metric here is a rank metric: it changes neither under a strictly increasing map of the scores nor under a
permutation. Scores are therefore taken as they are, unbounded and in their own dtype: no sigmoid, no clamp, no bins, no
cast, and equal scores count as one threshold. All of them follow from one sort, `_Ranks`.

Scores are finite real numbers, higher = more anomalous. Labels and mask pixels are 0/1 or bool, 1 = anomalous. A score
that equals a threshold counts as above it. Whatever is undefined (one class only, NaN, infinity) raises an InputError.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomaly.errors import InputError, SettingError

Array = npt.NDArray[Any]
Values = Sequence[Any] | Array
Pixels = Sequence[Array] | Array


def auroc(scores: Values, labels: Values) -> float:
    """Area under the ROC curve: the share of (anomalous, normal) pairs in the right order, a tie counting one half.

    Args:
        scores: (N,) anomaly scores.
        labels: (N,) 1 = anomalous.

    Returns:
        0..1; exact (pairs are counted in integers).

    Raises:
        InputError: a score is not finite, a label is not 0/1, shapes differ, or one class is missing.

    Source: Hanley and McNeil, The meaning and use of the area under a ROC curve, Radiology 1982.
    """
    return _auroc(_image_ranks(scores, labels))


def average_precision(scores: Values, labels: Values) -> float:
    """Average precision: the mean over the anomalous of the precision at their score, without interpolation.

    Args:
        scores: (N,) anomaly scores.
        labels: (N,) 1 = anomalous.

    Returns:
        0..1; a scorer that knows nothing reaches the share of the anomalous.

    Raises:
        InputError: as `auroc`.

    Source: Davis and Goadrich, The relationship between precision-recall and ROC curves, ICML 2006.
    """
    return _average_precision(_image_ranks(scores, labels))


def f1_max(scores: Values, labels: Values) -> tuple[float, float]:
    """The best F1 over all thresholds, an optimistic figure: its threshold has seen the labels.

    Args:
        scores: (N,) anomaly scores.
        labels: (N,) 1 = anomalous.

    Returns:
        F1 in 0..1, and the lowest threshold that reaches it (anomalous: score >= threshold).

    Raises:
        InputError: as `auroc`.

    Source: van Rijsbergen, Information Retrieval, 1979.
    """
    return _f1_max(_image_ranks(scores, labels))


def fpr_at_recall(scores: Values, labels: Values, recall: float = 1.0) -> float:
    """False-positive rate at the highest threshold that still finds the wanted share of the anomalous.

    Args:
        scores: (N,) anomaly scores.
        labels: (N,) 1 = anomalous.
        recall: wanted share of the anomalous, in (0, 1]; 1 = no defect escapes.

    Returns:
        0..1, lower is better.

    Raises:
        InputError: as `auroc`.
        SettingError: `recall` is out of its range.
    """
    if not 0 < recall <= 1:
        raise SettingError.of("fpr_at_recall", "recall", "in (0, 1]", recall)
    return _fpr_at_recall(_image_ranks(scores, labels), recall)


def pixel_auroc(maps: Pixels, masks: Pixels) -> float:
    """`auroc` over the pixels of all maps together.

    Args:
        maps: (H, W) anomaly maps, sizes may differ; or (N, H, W).
        masks: (H, W) masks of the same sizes, 1 = anomalous.

    Returns:
        0..1.

    Raises:
        InputError: as `auroc`; the message names the index of the map.
    """
    return _auroc(_pixel_ranks(_pairs(maps, masks)))


def pixel_average_precision(maps: Pixels, masks: Pixels) -> float:
    """`average_precision` over the pixels of all maps together.

    Args:
        maps: (H, W) anomaly maps, sizes may differ; or (N, H, W).
        masks: (H, W) masks of the same sizes, 1 = anomalous.

    Returns:
        0..1.

    Raises:
        InputError: as `auroc`; the message names the index of the map.
    """
    return _average_precision(_pixel_ranks(_pairs(maps, masks)))


def aupro(maps: Pixels, masks: Pixels, fpr_limit: float = 0.3) -> float:
    """Area under the per-region-overlap curve up to a false-positive rate, divided by that rate.

    Overlap: the share of a defect region (8-connected) above the threshold, averaged over all regions, so that a small
    defect weighs as much as a large one. The rate is over all normal pixels. Figures at two limits do not compare.

    Args:
        maps: (H, W) anomaly maps, sizes may differ; or (N, H, W).
        masks: (H, W) masks of the same sizes, 1 = anomalous.
        fpr_limit: false-positive rate at which the integral ends, in (0, 1].

    Returns:
        0..1; all distinct thresholds, linear between them and up to the limit.

    Raises:
        InputError: as `auroc`; the message names the index of the map.
        SettingError: `fpr_limit` is out of its range.

    Source: Bergmann et al., The MVTec Anomaly Detection Dataset, IJCV 2021.
    """
    return aupro_at(maps, masks, (fpr_limit,))[0]


def aupro_at(maps: Pixels, masks: Pixels, fpr_limits: Sequence[float] = (0.3, 0.05)) -> tuple[float, ...]:
    """`aupro` at several limits for the price of one sort.

    Args:
        maps: (H, W) anomaly maps, sizes may differ; or (N, H, W).
        masks: (H, W) masks of the same sizes, 1 = anomalous.
        fpr_limits: false-positive rates, each in (0, 1].

    Returns:
        One value in 0..1 for each limit.

    Raises:
        InputError: as `auroc`; the message names the index of the map.
        SettingError: a limit is out of its range.
    """
    for limit in fpr_limits:
        if not 0 < limit <= 1:
            raise SettingError.of("aupro", "fpr_limit", "in (0, 1]", limit)
    pairs = _pairs(maps, masks)
    ranks, shares = _pixel_ranks(pairs), _region_shares(pairs)
    return tuple(_aupro(ranks, shares, limit) for limit in fpr_limits)


def image_metrics(scores: Values, labels: Values) -> dict[str, float]:
    """All image-level metrics.

    Args:
        scores: (N,) anomaly scores.
        labels: (N,) 1 = anomalous.

    Returns:
        `image_auroc`, `image_ap`, `image_f1_max`, `image_fpr_at_recall_1` (false-positive rate at 100 % recall); 0..1.

    Raises:
        InputError: as `auroc`.
    """
    ranks = _image_ranks(scores, labels)
    return {
        "image_auroc": _auroc(ranks),
        "image_ap": _average_precision(ranks),
        "image_f1_max": _f1_max(ranks)[0],
        "image_fpr_at_recall_1": _fpr_at_recall(ranks, 1.0),
    }


def pixel_metrics(maps: Pixels, masks: Pixels) -> dict[str, float]:
    """All pixel-level metrics from one sort; holds about two copies of the maps while it gathers their pixels.

    Args:
        maps: (H, W) anomaly maps, sizes may differ; or (N, H, W).
        masks: (H, W) masks of the same sizes, 1 = anomalous.

    Returns:
        `pixel_auroc`, `pixel_ap`, `aupro_0.3`, `aupro_0.05` (`aupro` at these limits); 0..1.

    Raises:
        InputError: as `auroc`; the message names the index of the map.
    """
    pairs = _pairs(maps, masks)
    ranks, shares = _pixel_ranks(pairs), _region_shares(pairs)
    return {
        "pixel_auroc": _auroc(ranks),
        "pixel_ap": _average_precision(ranks),
        "aupro_0.3": _aupro(ranks, shares, 0.3),
        "aupro_0.05": _aupro(ranks, shares, 0.05),
    }


def bootstrap_interval(
    metric: Callable[[Array, Array], float], scores: Values, labels: Values, seed: int, rounds: int = 1000
) -> tuple[float, float]:
    """95 % percentile interval of an image-level metric, drawn with replacement within each class.

    It tells how far the figure would move with other test images, not with another fit.

    Args:
        metric: `auroc`, `average_precision`, or any function of scores and labels.
        scores: (N,) anomaly scores, independent of each other.
        labels: (N,) 1 = anomalous.
        seed: seed of the draws.
        rounds: number of draws.

    Returns:
        Lower and upper end, in the unit of the metric.

    Raises:
        InputError: as `auroc`.
        SettingError: `rounds` is below 1.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.
    """
    if rounds < 1:
        raise SettingError.of("bootstrap_interval", "rounds", "1 or more", rounds)
    values, anomalous = _checked(np.asarray(scores), np.asarray(labels), "scores")
    _require_both(anomalous)
    classes = [np.flatnonzero(~anomalous), np.flatnonzero(anomalous)]
    random = np.random.default_rng(seed)
    draws = (np.concatenate([random.choice(members, members.size) for members in classes]) for _ in range(rounds))
    low, high = np.quantile([metric(values[draw], anomalous[draw]) for draw in draws], (0.025, 0.975))
    return float(low), float(high)


class _Ranks(NamedTuple):
    """Where the anomalous scores stand among the normal ones: all that a rank metric needs.

    A curve moves up only at an anomalous score, so thresholds at which only normals lie need no point of their own.

    Attributes:
        value: (K,) distinct anomalous scores, ascending.
        group: (anomalous,) index into `value` of each anomalous score.
        hits: (K,) anomalous scores at or above `value`.
        above: (K,) normal scores above `value`.
        reached: (K,) normal scores at or above `value`: the false positives of that threshold.
        normals: number of normal scores.
    """

    value: Array
    group: npt.NDArray[np.intp]
    hits: npt.NDArray[np.int64]
    above: npt.NDArray[np.int64]
    reached: npt.NDArray[np.int64]
    normals: int


def _rank(normal: Array, anomalous: Array) -> _Ranks:
    """Ranks the anomalous scores; sorts `normal` in place."""
    normal.sort()
    value, group, count = np.unique(anomalous, return_inverse=True, return_counts=True)
    return _Ranks(
        value=value,
        group=group,
        hits=anomalous.size - np.cumsum(count) + count,
        above=normal.size - np.searchsorted(normal, value, "right"),
        reached=normal.size - np.searchsorted(normal, value, "left"),
        normals=normal.size,
    )


def _image_ranks(scores: Values, labels: Values) -> _Ranks:
    values, anomalous = _checked(np.asarray(scores), np.asarray(labels), "scores")
    _require_both(anomalous)
    return _rank(values[~anomalous], values[anomalous])


def _pixel_ranks(pairs: Sequence[tuple[Array, Array]]) -> _Ranks:
    normal = np.concatenate([values[~mask] for values, mask in pairs])
    anomalous = np.concatenate([values[mask] for values, mask in pairs])
    return _rank(normal, anomalous)


def _auroc(ranks: _Ranks) -> float:
    found = int(ranks.hits[0])
    lost = int((np.bincount(ranks.group) * (ranks.above + ranks.reached)).sum())  # in half pairs
    return 1 - lost / (2 * found * ranks.normals)


def _average_precision(ranks: _Ranks) -> float:
    precision = ranks.hits / (ranks.hits + ranks.reached)
    return float(np.bincount(ranks.group) @ precision / ranks.hits[0])


def _f1_max(ranks: _Ranks) -> tuple[float, float]:
    f1 = 2 * ranks.hits / (ranks.hits + ranks.reached + ranks.hits[0])
    best = int(f1.argmax())
    return float(f1[best]), float(ranks.value[best])


def _fpr_at_recall(ranks: _Ranks, recall: float) -> float:
    enough = np.flatnonzero(ranks.hits / ranks.hits[0] >= recall)
    return float(ranks.reached[enough[-1]] / ranks.normals)


def _aupro(ranks: _Ranks, shares: npt.NDArray[np.float64], fpr_limit: float) -> float:
    """Sums what each distinct score adds: a ramp (as wide as the normals that tie with it), then a plateau."""
    limit = fpr_limit * ranks.normals
    start, end = np.minimum(ranks.above, limit), np.minimum(ranks.reached, limit)
    width = ranks.reached - ranks.above
    risen = np.divide(end - start, width, out=np.ones(len(width)), where=width > 0)
    area = risen * (limit - (start + end) / 2)
    weight = np.bincount(ranks.group, weights=shares)
    return float(weight @ area / (weight.sum() * limit))


def _region_shares(pairs: Iterable[tuple[Array, Array]]) -> npt.NDArray[np.float64]:
    """1 / area of its region for every anomalous pixel, in the order of `_pixel_ranks`."""
    import cv2

    shares = []
    for _, mask in pairs:
        if mask.any():
            _, regions = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
            region = regions[mask]
            shares.append(1 / np.bincount(region)[region])
    return np.concatenate(shares)


def _pairs(maps: Pixels, masks: Pixels) -> list[tuple[Array, Array]]:
    """Checked (map, bool mask) pairs; the maps are not copied."""
    if len(maps) != len(masks) or not len(maps):
        raise InputError(f"metrics need one mask per map and at least one; got {len(maps)} maps, {len(masks)} masks")
    arrays = [(np.asarray(values), np.asarray(mask)) for values, mask in zip(maps, masks, strict=True)]
    pairs = [_checked(values, mask, f"map {index}", axes=2) for index, (values, mask) in enumerate(arrays)]
    _require_both(*(mask for _, mask in pairs))
    return pairs


def _checked(scores: Array, labels: Array, what: str, axes: int = 1) -> tuple[Array, Array]:
    """Scores as they are and labels as bool."""
    if scores.ndim != axes or scores.shape != labels.shape:
        raise InputError(f"{what}: scores and labels must have one {axes}-D shape; got {scores.shape}, {labels.shape}")
    if scores.dtype.kind not in "fiu" or not np.isfinite(scores).all():
        raise InputError(f"{what}: scores must be finite real numbers; a metric of NaN or infinity is undefined")
    if labels.dtype.kind not in "biuf" or not ((labels == 0) | (labels == 1)).all():
        raise InputError(f"{what}: labels must be 0/1 or bool; binarise a 0..255 mask with mask > 127")
    return scores, labels.astype(bool, copy=False)


def _require_both(*labels: Array) -> None:
    found, total = sum(int(np.count_nonzero(part)) for part in labels), sum(part.size for part in labels)
    if not 0 < found < total:
        raise InputError(f"metrics need anomalous and normal examples; got {found} anomalous of {total}")
