"""EWMA chart of the scores: small lasting changes that no single part shows.

Anomaly scores are skewed, and a single bad part may score a hundred times as high as a good one. The chart therefore
averages normal scores: each score is replaced by the normal quantile of its place among the scores of the reference
(Hackl and Ledolter, A control chart based on ranks, Journal of Quality Technology 1991). Any rising transformation of
the scores gives the same chart, and one defect moves it no more than any other part at the end of the range.

A point is the mean of a group of parts, in its standard deviations, so that lines of any speed have as few false alarms
as they have points. Groups that vary more than their parts explain (light, lots) would alarm all day; if the reference
shows that (chi-square test, 5 %), the deviation is widened by the moving range between neighbouring groups, as in
Laney's p'-chart (`inspection.assurance.p_chart`).

Weights and limits: Roberts 1959; Lucas and Saccucci, Exponentially weighted moving average control schemes,
Technometrics 1990: weight 0.1 with limits at 2.814 gives one false alarm in 500 points of a process that has not
changed (0.05 with 2.615, 0.2 with 2.962 give the same), if groups are independent; the chart says when they are not.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import InputError, SettingError
from inspection.assurance.p_chart import OVERDISPERSED, moving_deviation
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
        reference: number of groups at the beginning that the limits rest on.
        parts: number of parts in them.
        values: (n,) float64, the average after each group, in deviations of a group; 0 in the reference on average.
        limits: (n,) float64, control limit above 0 at each group; the lower one is its negative.
        sigma_z: factor by which a group varies more than its parts explain; 1 where nothing says that it does.
        autocorrelation: of neighbouring groups in the reference, in [-1, 1].
        alarms: the groups at which the average leaves the limits.
    """

    settings: EwmaSettings
    reference: int
    parts: int
    values: NDArray[np.float64]
    limits: NDArray[np.float64]
    sigma_z: float
    autocorrelation: float
    alarms: tuple[Alarm, ...]

    @property
    def kind(self) -> str:
        """Which chart it is."""
        words = f"EWMA of the scores, weight {self.settings.weight:g}, limits at {self.settings.limit:g} deviations"
        wider = f"{self.sigma_z:.2f} times as wide as parts explain: the groups of the reference differ"
        return f"{words}, {wider}" if self.sigma_z > 1 else words

    def warnings(self) -> list[str]:
        """What makes the limits less sure than they look."""
        found = []
        if self.reference < 20:
            found.append(f"the limits rest on {self.reference} groups; 20 or more are usual")
        if self.parts < 100:
            found.append(f"the limits rest on {self.parts} parts; with fewer than 100 false alarms are more frequent")
        if self.autocorrelation > 2 / math.sqrt(self.reference):
            found.append(
                f"groups of the reference resemble their predecessor (autocorrelation {self.autocorrelation:.2f}): "
                "false alarms are more frequent than stated"
            )
        early = [alarm for alarm in self.alarms if alarm.point < self.reference]
        if early:
            found.append(f"{len(early)} alarm(s) within the reference: find their cause before you trust the limits")
        return found


def ewma_chart(groups: Sequence[Sequence[float]], reference: int, settings: EwmaSettings | None = None) -> EwmaChart:
    """Makes the chart.

    Args:
        groups: finite anomaly scores of each group of parts, in the order of time; one score at least in each.
        reference: number of groups at the beginning that the limits rest on, 2 or more with 10 parts or more.
        settings: weight and limit; None for the defaults.

    Raises:
        InputError: a score is not finite, or a group is empty.
        SettingError: there are not so many groups or parts.
    """
    from scipy.stats import chi2

    chosen = settings or EwmaSettings()
    sizes = np.array([len(group) for group in groups])
    values = np.array([score for group in groups for score in group], dtype=np.float64)
    if not np.isfinite(values).all() or not sizes.all():
        wrong = int((~np.isfinite(values)).sum())
        raise InputError(f"{wrong} of {values.size} scores are not finite, {int((sizes == 0).sum())} groups are empty")
    if not 2 <= reference <= len(groups):
        raise SettingError.of("ewma_chart", "reference", f"in 2..{len(groups)}, the number of groups", reference)
    parts = int(sizes[:reference].sum())
    if parts < 10:
        raise SettingError.of("ewma_chart", "reference", "so long that it holds 10 parts or more", parts)
    normal = _normal_scores(values, np.sort(values[:parts]))
    standard = np.add.reduceat(normal, np.cumsum(sizes) - sizes) / np.sqrt(sizes)
    early = standard[:reference]
    dispersion_p = float(chi2.sf(float((early**2).sum()), reference - 1))
    sigma_z = max(1.0, moving_deviation(early)) if dispersion_p < OVERDISPERSED else 1.0
    standard = standard / sigma_z
    average, line = 0.0, []
    for value in standard:
        average += chosen.weight * (value - average)
        line.append(average)
    order = np.arange(1, len(groups) + 1)
    spread = chosen.weight / (2 - chosen.weight) * (1 - (1 - chosen.weight) ** (2 * order))
    averages, limits = np.array(line), chosen.limit * np.sqrt(spread)
    out = np.abs(averages) > limits
    begins = np.flatnonzero(out & ~np.append(False, out[:-1]))
    return EwmaChart(
        settings=chosen,
        reference=reference,
        parts=parts,
        values=averages,
        limits=limits,
        sigma_z=sigma_z,
        autocorrelation=_autocorrelation(standard[:reference]),
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
