"""EWMA chart of the scores: small lasting changes that no single part shows.

Anomaly scores are skewed, and a single bad part may score a hundred times as high as a good one. The chart therefore
averages normal scores: each score is replaced by the normal quantile of its place among the scores of the reference
(Hackl and Ledolter, A control chart based on ranks, Journal of Quality Technology 1991). Any rising transformation of
the scores gives the same chart, and one defect moves it no more than any other part at the end of the range.

Weights and limits: Roberts 1959; Lucas and Saccucci, Exponentially weighted moving average control schemes,
Technometrics 1990: weight 0.1 with limits at 2.814 gives one false alarm in 500 parts of a process that has not changed
(0.05 with 2.615, 0.2 with 2.962 give the same). That holds for parts that are independent of each other; the chart
says when the reference is not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import InputError, SettingError
from inspection.assurance.rules import Alarm, Rule


@dataclass(frozen=True, kw_only=True)
class EwmaSettings:
    """Settings of the chart.

    Attributes:
        weight: lambda, weight of the newest part, in (0, 1]; smaller weights find smaller changes, later.
        limit: L, control limit in standard deviations of the average, above 0.
    """

    weight: float = 0.1
    limit: float = 2.814

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 0 < self.weight <= 1:
            raise SettingError.of("EwmaSettings", "weight", "above 0 and at most 1", self.weight)
        if not 0 < self.limit < math.inf:
            raise SettingError.of("EwmaSettings", "limit", "above 0 and finite", self.limit)


@dataclass(frozen=True)
class EwmaChart:
    """The chart.

    Attributes:
        settings: weight and limit.
        reference: number of parts at the beginning that the limits rest on.
        values: (n,) float64, the average after each part, 0 in the reference on average.
        limits: (n,) float64, control limit above 0 at each part; the lower one is its negative.
        autocorrelation: of neighbouring parts in the reference, in [-1, 1].
        alarms: the parts at which the average leaves the limits.
    """

    settings: EwmaSettings
    reference: int
    values: NDArray[np.float64]
    limits: NDArray[np.float64]
    autocorrelation: float
    alarms: tuple[Alarm, ...]

    def warnings(self) -> list[str]:
        """What makes the limits less sure than they look."""
        found = []
        if self.reference < 100:
            found.append(
                f"the limits rest on {self.reference} parts; with fewer than 100 false alarms are more frequent"
            )
        if self.autocorrelation > 2 / math.sqrt(self.reference):
            found.append(
                f"parts of the reference resemble their predecessor (autocorrelation {self.autocorrelation:.2f}): "
                "false alarms are more frequent than stated"
            )
        early = [alarm for alarm in self.alarms if alarm.point < self.reference]
        if early:
            found.append(f"{len(early)} alarm(s) within the reference: find their cause before you trust the limits")
        return found


def ewma_chart(scores: Sequence[float], reference: int, settings: EwmaSettings | None = None) -> EwmaChart:
    """Makes the chart.

    Args:
        scores: (n,) finite anomaly scores in the order of time.
        reference: number of parts at the beginning that the limits rest on, 10 or more.
        settings: weight and limit; None for the defaults.

    Raises:
        InputError: a score is not finite.
        SettingError: there are not so many parts.
    """
    chosen = settings or EwmaSettings()
    values = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{int((~np.isfinite(values)).sum())} of {values.size} scores are not finite")
    if not 10 <= reference <= values.size:
        raise SettingError.of("ewma_chart", "reference", f"in 10..{values.size}, the number of parts", reference)
    normal = _normal_scores(values, np.sort(values[:reference]))
    average, line = 0.0, []
    for value in normal:
        average += chosen.weight * (value - average)
        line.append(average)
    order = np.arange(1, values.size + 1)
    spread = chosen.weight / (2 - chosen.weight) * (1 - (1 - chosen.weight) ** (2 * order))
    averages, limits = np.array(line), chosen.limit * np.sqrt(spread)
    out = np.abs(averages) > limits
    begins = np.flatnonzero(out & ~np.append(False, out[:-1]))
    return EwmaChart(
        settings=chosen,
        reference=reference,
        values=averages,
        limits=limits,
        autocorrelation=_autocorrelation(normal[:reference]),
        alarms=tuple(Alarm(int(k), Rule.EWMA, bool(averages[k] > 0)) for k in begins),
    )


def _normal_scores(values: NDArray[np.float64], ordered: NDArray[np.float64]) -> NDArray[np.float64]:
    """Normal quantile of the place among the reference; ties get the middle of theirs."""
    from scipy.special import ndtri

    place = (np.searchsorted(ordered, values, "left") + np.searchsorted(ordered, values, "right")) / 2
    n = len(ordered)
    # a part of the reference with k below it gets (k + 1/2) / n; a new one between two of them the same scale
    return np.asarray(ndtri(np.clip(place, 0.5, n - 0.5) / n))


def _autocorrelation(values: NDArray[np.float64]) -> float:
    centred = values - values.mean()
    square = float(centred @ centred)
    return float(centred[1:] @ centred[:-1]) / square if square > 0 else 0.0
