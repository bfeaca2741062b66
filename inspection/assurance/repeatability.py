"""Spread of the score when the same part is seen again, against its distance from the threshold.

Decisions alone hide a weak gauge: parts far from the threshold are decided alike by any. The score says how near each
part is to being decided otherwise.

One-way random effects: score of part i in repetition j = part mean + repeat error. The repeat deviation is the root of
the mean square within parts, its interval that of the chi-square distribution. Tolerance figure: three repeat
deviations over the distance from the mean of the parts on the passing side to the threshold. That is the one-sided
precision-to-tolerance ratio, with the limits 10 % and 30 % of AIAG, Measurement Systems Analysis, 4th edition, 2010;
they are written for measurements with a tolerance, and applied to scores by analogy.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from anomaly.errors import DatasetError, SettingError
from inspection.assurance.gauge import Verdict
from inspection.assurance.judgements import Judgement

RATIO = 0.10, 0.30
"""Tolerance figure: acceptable up to, marginal up to."""
REACH = 3.0
"""Repeat deviations around a score within which the decision is taken to be open."""


@dataclass(frozen=True)
class Repeatability:
    """How much the score of a part moves, and what that means for decisions at one threshold.

    Attributes:
        threshold: above it a part is stopped.
        parts: number of parts.
        deviation: repeat standard deviation, pooled over parts, in the unit of the score.
        low: lower end of its interval (normal errors).
        high: upper end.
        worst: (part, deviation) of the part with the widest spread.
        between: standard deviation between parts, repeat error taken off; 0 if there is none left.
        room: distance from the mean of the parts on the passing side to the threshold; None if none is there.
        flipped: parts whose repetitions lie on both sides of the threshold.
        open: parts, not among `flipped`, whose mean lies within `REACH` deviations of the threshold.
        confidence: of the interval.
    """

    threshold: float
    parts: int
    deviation: float
    low: float
    high: float
    worst: tuple[str, float]
    between: float
    room: float | None
    flipped: tuple[str, ...]
    open: tuple[str, ...]
    confidence: float

    @property
    def ratio(self) -> float | None:
        """Tolerance figure: `REACH` deviations over the room; None without room."""
        return REACH * self.deviation / self.room if self.room else None

    def verdict(self) -> Verdict:
        """By the tolerance figure; not acceptable without room."""
        good, marginal = RATIO
        ratio = math.inf if self.ratio is None else self.ratio
        return Verdict.GOOD if ratio <= good else Verdict.MARGINAL if ratio <= marginal else Verdict.BAD


def repeatability(judgements: Sequence[Judgement], threshold: float, confidence: float = 0.95) -> Repeatability:
    """Works out the spread of scores of repeated images.

    Args:
        judgements: with scores; those of one part, whoever judged, are its repetitions. A part may have any number, and
            one part at least needs two.
        threshold: finite; above it a part is stopped (the REVIEW threshold).
        confidence: of the interval, in (0, 1).

    Raises:
        DatasetError: a judgement has no score, or no part was seen twice.
        SettingError: the threshold is not finite or the confidence is out of its range.
    """
    from scipy.stats import chi2

    if not math.isfinite(threshold):
        raise SettingError.of("repeatability", "threshold", "finite", threshold)
    if not 0 < confidence < 1:
        raise SettingError.of("repeatability", "confidence", "in (0, 1)", confidence)
    scores = _scores(judgements)
    freedom = sum(len(own) - 1 for own in scores.values())
    if freedom == 0:
        raise DatasetError("repeatability needs parts that were seen twice at least; every part has one score only")
    within = sum(float(((own - own.mean()) ** 2).sum()) for own in scores.values())
    means = {part: float(own.mean()) for part, own in scores.items()}
    deviation, tail = math.sqrt(within / freedom), (1 - confidence) / 2
    passing = [mean for mean in means.values() if mean <= threshold]
    flipped = tuple(part for part, own in scores.items() if own.min() <= threshold < own.max())
    near = (part for part, mean in means.items() if abs(mean - threshold) <= REACH * deviation)
    spreads = {part: float(own.std(ddof=1)) for part, own in scores.items() if len(own) > 1}
    worst = max(spreads, key=spreads.__getitem__)
    return Repeatability(
        threshold=threshold,
        parts=len(scores),
        deviation=deviation,
        low=math.sqrt(within / float(chi2.isf(tail, freedom))),
        high=math.sqrt(within / float(chi2.ppf(tail, freedom))),
        worst=(worst, spreads[worst]),
        between=_between(scores, within / freedom),
        room=(threshold - float(np.mean(passing))) or None if passing else None,
        flipped=flipped,
        open=tuple(part for part in near if part not in flipped),
        confidence=confidence,
    )


def _scores(judgements: Sequence[Judgement]) -> Mapping[str, np.ndarray]:
    scores: dict[str, list[float]] = {}
    for judgement in judgements:
        if judgement.score is None:
            place = judgement.part, judgement.appraiser, judgement.trial
            raise DatasetError(f"the judgement {place} has no score; repeatability of scores needs them all")
        scores.setdefault(judgement.part, []).append(judgement.score)
    return {part: np.array(own) for part, own in scores.items()}


def _between(scores: Mapping[str, np.ndarray], within: float) -> float:
    """The part component of an analysis of variance with any numbers of repetitions (Searle, Linear Models, 1971)."""
    if len(scores) < 2:
        return 0.0
    sizes = np.array([len(own) for own in scores.values()])
    means = np.array([own.mean() for own in scores.values()])
    mean = float(np.average(means, weights=sizes))
    square = float((sizes * (means - mean) ** 2).sum()) / (len(sizes) - 1)
    usual = (sizes.sum() - (sizes**2).sum() / sizes.sum()) / (len(sizes) - 1)
    return math.sqrt(max(0.0, (square - within) / usual))
