"""Scores of held-out normals -> thresholds with a guaranteed false-alarm rate, p-values, OK / REVIEW / NG.

The only assumption: the held-out normals and the normals to come are independent draws from one source, and the fit
has seen none of the former. Nothing is assumed about how scores are distributed; with ties every bound here only gets
safer, because an alarm is a score strictly above the threshold.

Two promises that must not be mixed up, for the threshold at the k-th smallest of n scores:

- guaranteed: "this threshold raises at most that share of false alarms", true with the stated confidence over the draw
  of the held-out normals. The rate of false alarms is at most Beta(n + 1 - k, k) distributed.
- marginal: the rate on average over all such draws, at most (n + 1 - k) / (n + 1). A single draw may well be worse.

Sources: Wilks, Determination of sample sizes for setting tolerance limits, 1941; Vovk, Conditional validity of
inductive conformal predictors, 2012.
"""

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from decimal import ROUND_CEILING, Context
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from anomaly.errors import ArtifactError, CalibrationError, DatasetError, InputError, SettingError

Values = Sequence[Any] | npt.NDArray[Any]


class Decision(StrEnum):
    """What to do with an image or unit, from harmless to harmful."""

    OK = "OK"
    REVIEW = "REVIEW"
    NG = "NG"


def supported_rate(n: int, confidence: float = 0.95, rank: int | None = None) -> float:
    """The smallest false-alarm rate that a threshold at one of the held-out scores can promise.

    Args:
        n: number of independent held-out normals.
        confidence: probability that the promise holds, in (0, 1).
        rank: the threshold is the `rank`-th smallest score, 1..n; None = the largest.

    Returns:
        Rate in (0, 1): the `confidence` quantile of Beta(n + 1 - rank, rank); 1 - (1 - confidence)^(1/n) at rank n.

    Raises:
        SettingError: an argument is out of its range.

    Source: Wilks 1941; Vovk 2012.
    """
    from scipy.special import betaincinv

    _require_share("supported_rate", "confidence", confidence)
    if n < 1:
        raise SettingError.of("supported_rate", "n", "1 or more", n)
    rank = n if rank is None else rank
    if not 1 <= rank <= n:
        raise SettingError.of("supported_rate", "rank", f"in 1..{n}", rank)
    return float(betaincinv(n + 1 - rank, rank, confidence))


def normals_needed(rate: float, confidence: float = 0.95) -> int:
    """How many independent held-out normals a guaranteed false-alarm rate needs: 299 for 1 % with 95 % confidence.

    Args:
        rate: false-alarm rate in (0, 1).
        confidence: probability that the promise holds, in (0, 1).

    Returns:
        The smallest n with (1 - rate)^n <= 1 - confidence.

    Raises:
        SettingError: an argument is out of its range.

    Source: Wilks 1941.
    """
    _require_share("normals_needed", "rate", rate)
    _require_share("normals_needed", "confidence", confidence)
    return math.ceil(math.log1p(-confidence) / math.log1p(-rate))


@dataclass(frozen=True)
class Threshold:
    """A threshold at one of the held-out scores, with what it promises. An alarm is a score strictly above `value`.

    Attributes:
        value: the threshold, in the unit of the scores.
        wanted: false-alarm rate that was asked for, in (0, 1).
        guaranteed: false-alarm rate that holds with `confidence`; above `wanted` if there are too few normals.
        marginal: false-alarm rate on average over all draws of the held-out normals.
        n: number of independent held-out normals.
        rank: `value` is the `rank`-th smallest of their scores, 1..n.
        confidence: probability that `guaranteed` holds, in (0, 1).
    """

    value: float
    wanted: float
    guaranteed: float
    marginal: float
    n: int
    rank: int
    confidence: float

    def __post_init__(self) -> None:
        """Refuses what no threshold can be."""
        _require_share("Threshold", "wanted rate", self.wanted)
        _require_share("Threshold", "confidence", self.confidence)
        if not 1 <= self.rank <= self.n:
            raise SettingError.of("Threshold", "rank", f"in 1..{self.n}", self.rank)

    @property
    def holds(self) -> bool:
        """Whether the normals support the wanted rate."""
        return self.n >= normals_needed(self.wanted, self.confidence)

    def in_words(self) -> str:
        """One sentence for people: the promise, or what it would need and what is supported instead."""
        wanted = f"{_percent(self.wanted)} false alarms with {_percent(self.confidence)} confidence"
        if self.holds:
            return f"at most {wanted}, guaranteed by {self.n} independent normals"
        needed, supported = normals_needed(self.wanted, self.confidence), _percent_up(self.guaranteed)
        return f"<= {wanted} needs {needed} independent normals; you have {self.n}, which supports {supported}"


@dataclass(frozen=True)
class Calibration:
    """The held-out scores and the two thresholds made from them. Valid once constructed.

    Scores are kept as Python floats, which hold every float32 and float64 exactly: no rounding moves a score across a
    threshold. A score to be judged that is NaN or infinite comes from a broken image or scorer; it counts as more
    anomalous than everything and is never OK.

    Attributes:
        scores: (n,) anomaly scores of the held-out normals, ascending, one for each independent unit.
        review: above it REVIEW.
        ng: above it NG; never below `review`.
        unit: what one score belongs to and what the rates count: "image", or a group such as "patient_id".
    """

    scores: tuple[float, ...]
    review: Threshold
    ng: Threshold
    unit: str

    def __post_init__(self) -> None:
        """Refuses scores and thresholds that do not belong together."""
        values = _held_out(self.scores)
        if (np.diff(values) < 0).any():
            raise CalibrationError("scores of a calibration must be in ascending order")
        for threshold in (self.review, self.ng):
            if threshold.n != values.size or threshold.value != values[threshold.rank - 1]:
                raise CalibrationError(f"the scores do not give this threshold: {threshold}")
        if self.review.rank > self.ng.rank:
            raise CalibrationError("the REVIEW threshold must not lie above the NG threshold")

    def p_value(self, scores: Values | float | np.floating[Any]) -> npt.NDArray[np.float64]:
        """Conformal p-value: how often a normal scores at least this high. For a normal, Pr[p <= a] <= a, on average.

        Args:
            scores: one score or an array of any shape.

        Returns:
            float64 of the same shape, 1 / (n + 1) .. 1: (1 + held-out scores at or above the score) / (n + 1).

        Source: Vovk, Gammerman and Shafer, Algorithmic Learning in a Random World, 2005.
        """
        n = len(self.scores)
        below = np.searchsorted(np.array(self.scores), _to_judge(scores), "left")
        return np.asarray((1 + n - below) / (n + 1), dtype=np.float64)

    def decide(self, score: float | np.floating[Any]) -> Decision:
        """Decision for one score; a score that equals a threshold is not above it."""
        return self.decide_all(np.array([score]))[0]

    def decide_all(self, scores: Values) -> list[Decision]:
        """Decisions for (N,) scores, in their order."""
        values = _to_judge(scores)
        level = (values > self.review.value).astype(int) + (values > self.ng.value)
        return [tuple(Decision)[index] for index in level]

    def in_words(self) -> str:
        """Several lines for people: what was held out, what each decision promises, and what it cannot promise."""
        grouped = "" if self.unit == "image" else " (the highest score of its images; every rate counts such units)"
        lines = [
            f"Calibrated on {len(self.scores)} normals held out of the fit, one score per {self.unit}{grouped}.",
            f"REVIEW above {self.review.value:.6g}: {self.review.in_words()}.",
            f"NG above {self.ng.value:.6g}: {self.ng.in_words()}.",
        ]
        if self.review.value == self.ng.value:
            lines.append(f"The REVIEW band is empty, nothing will be marked REVIEW: {self._why_no_review()}.")
        return "\n".join(lines)

    def _why_no_review(self) -> str:
        if self.review.wanted == self.ng.wanted:
            return "both rates are the same"
        if self.review.rank == self.ng.rank:
            return f"{len(self.scores)} normals are too few to tell the two rates apart"
        return "the normals at the two thresholds have the same score"

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` gives back an equal calibration, every bit of every score included."""
        return {**asdict(self), "scores": list(self.scores)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Calibration":
        """Reads what `to_dict` wrote.

        Raises:
            ArtifactError: a key is missing or unknown, or a value is not possible.
        """
        try:
            _require_fields(cls, data)
            found = cls(
                scores=tuple(float(score) for score in data["scores"]),
                review=_threshold(data["review"]),
                ng=_threshold(data["ng"]),
                unit=str(data["unit"]),
            )
        except (TypeError, ValueError, CalibrationError) as error:
            raise ArtifactError(f"the stored calibration is damaged: {error}") from error
        if found.to_dict() != data:
            raise ArtifactError("the stored calibration is damaged: a value is not of the type that was stored")
        return found


def calibrate(
    scores: Values,
    groups: Sequence[str] | None = None,
    *,
    unit: str | None = None,
    review_rate: float = 0.10,
    ng_rate: float = 0.01,
    confidence: float = 0.95,
) -> Calibration:
    """Makes both thresholds from the scores of normals that the fit has not seen.

    Each threshold is the lowest held-out score that guarantees its rate. Where there are too few normals it is the
    highest held-out score, and `Threshold.in_words` says what that supports.

    Args:
        scores: (N,) finite anomaly scores of normal images.
        groups: (N,) group of each image where only groups are independent of each other (frames of a part, slices of a
            patient). A group counts once, with its highest score; a false alarm is then a normal group with any alarm.
        unit: name of what is independent; "image", or "group" with `groups`, unless given (such as "patient_id").
        review_rate: wanted false-alarm rate of REVIEW and NG together, in (0, 1).
        ng_rate: wanted false-alarm rate of NG, in (0, 1), not above `review_rate`.
        confidence: probability that each rate holds, in (0, 1).

    Raises:
        CalibrationError: there is no score, or one is not finite.
        InputError: there is not one group for each score.
        SettingError: a rate or the confidence is out of its range.
    """
    if review_rate < ng_rate:
        raise SettingError.of("calibrate", "review_rate", f"at least ng_rate, {ng_rate}", review_rate)
    held_out = _held_out(scores)
    ordered = np.sort(held_out if groups is None else _highest(held_out, groups))
    return Calibration(
        scores=tuple(ordered.tolist()),
        review=_pac_threshold(ordered, review_rate, confidence),
        ng=_pac_threshold(ordered, ng_rate, confidence),
        unit=unit or ("image" if groups is None else "group"),
    )


def conformal_threshold(scores: Values, rate: float) -> float:
    """The split-conformal threshold: its false-alarm rate is at most `rate` on average over draws of the normals.

    Args:
        scores: (n,) finite anomaly scores of independent held-out normals.
        rate: false-alarm rate in (0, 1).

    Returns:
        The ceil((n + 1)(1 - rate))-th smallest score; an alarm is a score strictly above it.

    Raises:
        CalibrationError: n < 1 / rate - 1; the message says how many are needed.
        SettingError: `rate` is out of its range.

    Source: Vovk et al. 2005; Papadopoulos et al., Inductive confidence machines for regression, 2002.
    """
    _require_share("conformal_threshold", "rate", rate)
    ordered, hair = np.sort(_held_out(scores)), 1e-9  # 100 * 0.29 is a hair below 29 in binary, and means 29
    rank = math.ceil((ordered.size + 1) * (1 - rate) - hair)
    if rank > ordered.size:
        raise CalibrationError(
            f"a conformal threshold for {_percent(rate)} false alarms needs {math.ceil(1 / rate - 1 - hair)} "
            f"independent normals; got {ordered.size}: hold out more, or ask for a higher rate"
        )
    return float(ordered[rank - 1])


def hold_out(
    names: Sequence[str], *, seed: int, fraction: float = 0.25, groups: Mapping[str, str] | None = None
) -> tuple[list[int], list[int]]:
    """Splits normals into a part to fit and a part to calibrate with. A file, or a group, is never in both.

    The split depends on the set of names, not on their order.

    Args:
        names: one name per image.
        seed: seed of the draw.
        fraction: share of the files (or groups) to hold out, in (0, 1); at least one goes to each part.
        groups: name -> group, where only groups are independent of each other.

    Returns:
        Indices into `names` to fit with, and those held out; both ascending.

    Raises:
        CalibrationError: there are fewer than two files (or groups).
        DatasetError: `groups` lacks a name.
        SettingError: `fraction` is out of its range.
    """
    _require_share("hold_out", "fraction", fraction)
    missing = [name for name in names if groups is not None and name not in groups]
    if missing:
        raise DatasetError(f"{len(missing)} of {len(names)} files have no group; the first is {missing[0]!r}")
    owners = [name if groups is None else groups[name] for name in names]
    units = sorted(set(owners))
    if len(units) < 2:
        raise CalibrationError(f"holding normals out of the fit needs two files or groups at least; got {len(units)}")
    count = min(max(round(fraction * len(units)), 1), len(units) - 1)
    held = {units[index] for index in np.random.default_rng(seed).permutation(len(units))[:count]}
    return (
        [index for index, owner in enumerate(owners) if owner not in held],
        [index for index, owner in enumerate(owners) if owner in held],
    )


def _pac_threshold(ordered: npt.NDArray[np.float64], wanted: float, confidence: float) -> Threshold:
    n = ordered.size
    # the promised rate falls as the rank rises: the first rank that keeps it, or the last one
    rank = 1 + bisect_left(range(1, n), True, key=lambda rank: supported_rate(n, confidence, rank) <= wanted)
    return Threshold(
        value=float(ordered[rank - 1]),
        wanted=wanted,
        guaranteed=supported_rate(n, confidence, rank),
        marginal=(n + 1 - rank) / (n + 1),
        n=n,
        rank=rank,
        confidence=confidence,
    )


def _highest(scores: npt.NDArray[np.float64], groups: Sequence[str]) -> npt.NDArray[np.float64]:
    if len(groups) != scores.size:
        raise InputError(f"calibrate needs one group for each score; got {scores.size} scores, {len(groups)} groups")
    names, index = np.unique(np.asarray(groups), return_inverse=True)
    highest = np.full(names.size, -np.inf)
    np.maximum.at(highest, index, scores)
    return highest


def _held_out(scores: Values) -> npt.NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not values.size:
        raise CalibrationError(f"a calibration needs at least one held-out normal in one row; got shape {values.shape}")
    broken = np.flatnonzero(~np.isfinite(values))
    if broken.size:
        raise CalibrationError(f"{broken.size} of {values.size} held-out scores are not finite; first at {broken[0]}")
    return values


def _to_judge(scores: Values | float | np.floating[Any]) -> npt.NDArray[np.float64]:
    values = np.asarray(scores, dtype=np.float64)
    return np.where(np.isfinite(values), values, np.inf)


def _threshold(data: Mapping[str, Any]) -> Threshold:
    _require_fields(Threshold, data)
    rates = {key: float(data[key]) for key in ("value", "wanted", "guaranteed", "marginal", "confidence")}
    return Threshold(**rates, n=int(data["n"]), rank=int(data["rank"]))


def _require_fields(owner: type, data: Mapping[str, Any]) -> None:
    valid = {field.name for field in fields(owner)}
    if set(data) != valid:
        missing, unknown = sorted(valid - set(data)), sorted(set(data) - valid)
        raise ArtifactError(f"stored {owner.__name__}: missing keys {missing}, unknown keys {unknown}")


def _require_share(owner: str, name: str, value: float) -> None:
    if not 0 < value < 1:
        raise SettingError.of(owner, name, "in (0, 1)", value)


def _percent(rate: float) -> str:
    return f"{100 * rate:.6g} %"


def _percent_up(rate: float) -> str:
    """Two digits, rounded up: a promise is never made to look better than it is."""
    return f"{float(Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(round(100 * rate, 9))):g} %"
