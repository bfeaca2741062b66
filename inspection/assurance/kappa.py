"""Agreement beyond chance: the kappas of Cohen (two appraisers) and of Fleiss (any number of judgements per part).

Sources: Cohen, A coefficient of agreement for nominal scales, 1960; Fleiss, Measuring nominal scale agreement among
many raters, 1971; the large-sample intervals are those of Fleiss, Cohen and Everitt, Large sample standard errors of
kappa and weighted kappa, 1969, and of Gwet, Large-sample variance of Fleiss generalized kappa, 2021.

Two judgements of one part are not two parts. Where a part was judged more than once, what each judgement adds to kappa
is summed over the part first, so that the interval rests on the number of parts.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import InputError, SettingError


@dataclass(frozen=True)
class Kappa:
    """Agreement beyond chance: 1 is perfect, 0 is that of chance.

    Attributes:
        value: at most 1; None if every judgement was the same, so that chance alone would agree too.
        low: lower end of the interval; None where `value` is None, or 1: its large-sample interval has no width there,
            which says nothing.
        high: upper end, at most 1; None where `low` is.
        parts: number of parts that it rests on.
        confidence: of the interval, in (0, 1).
    """

    value: float | None
    low: float | None
    high: float | None
    parts: int
    confidence: float

    def in_words(self) -> str:
        """Returns e.g. "0.863 (95 % interval 0.78 to 0.95, 50 parts)", or why there is none."""
        if self.value is None:
            return "not defined: every judgement was the same"
        if self.low is None or self.high is None:
            return f"{self.value:.3f} (no disagreement in {self.parts} parts: no interval)"
        interval = f"{100 * self.confidence:g} % interval {self.low:.2f} to {self.high:.2f}"
        return f"{self.value:.3f} ({interval}, {self.parts} parts)"


def cohen_kappa(
    first: Sequence[str], second: Sequence[str], parts: Sequence[str] | None = None, confidence: float = 0.95
) -> Kappa:
    """Agreement of two appraisers, or of one with the truth, on paired judgements.

    Args:
        first: (n,) categories that the first gave.
        second: (n,) categories that the second gave to the same.
        parts: (n,) part of each pair; None if every pair is of another part.
        confidence: of the interval, in (0, 1).

    Raises:
        InputError: there is no pair, or the lengths differ.
        SettingError: the confidence is out of its range.
    """
    names = list(range(len(first))) if parts is None else list(parts)
    if not first or len(first) != len(second) or len(first) != len(names):
        raise InputError(
            "cohen_kappa needs pairs of judgements, each with its part; "
            f"got {len(first)}, {len(second)} and {len(names)} of them"
        )
    _, codes = np.unique([*first, *second], return_inverse=True)
    a, b = codes[: len(first)], codes[len(first) :]
    of_a, of_b = (np.bincount(values, minlength=codes.max() + 1) / len(a) for values in (a, b))
    agreed, by_chance = float((a == b).mean()), float(of_a @ of_b)
    if by_chance == 1:
        return Kappa(None, None, None, len(set(names)), confidence)
    value = (agreed - by_chance) / (1 - by_chance)
    # first-order change of kappa as one pair gets more weight
    influence = ((a == b) - agreed - (1 - value) * (of_b[a] + of_a[b] - 2 * by_chance)) / (1 - by_chance)
    _, index = np.unique(np.asarray(names), return_inverse=True)
    return _with_interval(value, np.bincount(index, weights=influence) / len(a), confidence)


def fleiss_kappa(counts: NDArray[np.int64], confidence: float = 0.95) -> Kappa:
    """Agreement of all judgements of a part, over parts that were judged equally often.

    Args:
        counts: (parts, categories) int, how often each part got each category; every row has the same sum, 2 or more.
        confidence: of the interval, in (0, 1).

    Raises:
        InputError: there is no part, or the rows have different sums, or sums below 2.
        SettingError: the confidence is out of its range.
    """
    values = np.asarray(counts)
    sums = np.unique(values.sum(axis=1)) if values.ndim == 2 and values.size else np.empty(0)
    if sums.size != 1 or sums[0] < 2:
        raise InputError(
            "fleiss_kappa needs a (parts, categories) table whose rows all have one sum of at least 2; "
            f"got shape {values.shape} with the sums {sums.tolist()}"
        )
    n, judgements = len(values), int(sums[0])
    shares = values.sum(axis=0) / (n * judgements)
    of_part = (values * (values - 1)).sum(axis=1) / (judgements * (judgements - 1))
    agreed, by_chance = float(of_part.mean()), float(shares @ shares)
    if by_chance == 1:
        return Kappa(None, None, None, n, confidence)
    value = (agreed - by_chance) / (1 - by_chance)
    chance_of_part = values @ shares / judgements
    influence = (of_part - agreed - 2 * (1 - value) * (chance_of_part - by_chance)) / (1 - by_chance)
    return _with_interval(value, influence / n, confidence)


def _with_interval(value: float, of_parts: NDArray[np.float64], confidence: float) -> Kappa:
    """Adds the interval from what each part contributes; the contributions sum to 0."""
    from scipy.special import ndtri

    if not 0 < confidence < 1:
        raise SettingError.of("kappa", "confidence", "in (0, 1)", confidence)
    n = len(of_parts)
    if n < 2 or math.isclose(value, 1):
        return Kappa(value, None, None, n, confidence)
    error = math.sqrt(float((of_parts**2).sum()) * n / (n - 1))
    half = float(ndtri((1 + confidence) / 2)) * error
    return Kappa(value, max(-1.0, value - half), min(1.0, value + half), n, confidence)
