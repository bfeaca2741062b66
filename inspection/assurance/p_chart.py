"""p-chart: the share of parts with a decision over time, groups of any size, limits from a stated reference period.

Shewhart's p-chart takes each count as binomial. With thousands of parts per group that is hardly ever true: light, lots
and cameras vary a little from group to group, and the binomial limits then alarm all day. Whether the reference varies
more than binomially is tested (chi-square test of equal shares, 5 %); if so, the limits are widened by the spread of
the standardised shares between neighbouring groups: Laney, Improved control charts for attributes, Quality Engineering
2002 (p'-chart). The chart says which one it is. Neither is made narrower than the binomial.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError, SettingError
from inspection.assurance.rules import Alarm, alarms

LIMIT = 3.0
"""Standard deviations from the centre to a control limit."""
OVERDISPERSED = 0.05
"""Below this p-value the reference is taken to vary more than binomially."""
FEWEST = 5.0
"""Fewest parts expected to count in a group; below, the limits are known to be rough (normal approximation)."""
_D2 = 1.128
"""Mean range of two standard normal values; Laney's estimate divides by it, rounded as in his paper."""


@dataclass(frozen=True)
class Group:
    """Parts that follow each other and make one point.

    Attributes:
        label: what people read under the point, e.g. its time.
        count: parts that count.
        of: parts, 1 or more.
    """

    label: str
    count: int
    of: int

    def __post_init__(self) -> None:
        """Refuses counts that cannot be."""
        if not 0 <= self.count <= self.of or self.of < 1:
            raise SettingError.of("Group", "count", f"in 0..{self.of} of at least one part", self.count)


@dataclass(frozen=True)
class PChart:
    """The chart.

    Attributes:
        groups: the points, in the order of time.
        reference: number of groups at the beginning that the limits rest on.
        centre: share in the reference.
        shares: (n,) float64, share of each group.
        low: (n,) lower control limits, at least 0.
        high: (n,) upper control limits, at most 1.
        standardised: (n,) deviations from the centre, in the standard deviations of each group.
        dispersion_p: p-value of the test that the reference varies binomially.
        sigma_z: factor by which the limits are wider than binomial ones; 1 for a p-chart, above for Laney's p'.
        alarms: where a run rule was met, the reference included.
    """

    groups: tuple[Group, ...]
    reference: int
    centre: float
    shares: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    standardised: NDArray[np.float64]
    dispersion_p: float
    sigma_z: float
    alarms: tuple[Alarm, ...]

    @property
    def kind(self) -> str:
        """Which chart it is, with the reason."""
        if self.sigma_z > 1:
            why = f"the reference varies more than binomially, p = {self.dispersion_p:.2g}"
            return f"Laney p'-chart, limits {self.sigma_z:.2f} times as wide ({why})"
        if self.dispersion_p < OVERDISPERSED:
            return "p-chart (the reference varies more than binomially, but not between neighbouring groups: it drifts)"
        return "p-chart (nothing says that the reference varies more than binomially)"

    def warnings(self) -> list[str]:
        """What makes the limits less sure than they look."""
        found = []
        smallest = min(group.of for group in self.groups)
        if smallest * self.centre < FEWEST:
            needed = math.ceil(FEWEST / self.centre)
            found.append(f"groups are small: {smallest} parts, {needed} are needed for limits that hold at this share")
        if self.reference < 20:
            found.append(f"the limits rest on {self.reference} groups; 20 or more are usual")
        early = [alarm for alarm in self.alarms if alarm.point < self.reference]
        if early:
            found.append(f"{len(early)} alarm(s) within the reference: find their cause before you trust the limits")
        return found


def p_chart(groups: Sequence[Group], reference: int) -> PChart:
    """Makes the chart.

    Args:
        groups: in the order of time.
        reference: number of groups at the beginning that the limits rest on, 2 or more.

    Raises:
        DatasetError: in the reference no part counts, or all do: there is nothing to draw limits from.
        SettingError: there are not so many groups.
    """
    from scipy.stats import chi2

    if not 2 <= reference <= len(groups):
        raise SettingError.of("p_chart", "reference", f"in 2..{len(groups)}, the number of groups", reference)
    counts, sizes = (np.array([getattr(g, name) for g in groups], dtype=np.float64) for name in ("count", "of"))
    centre = float(counts[:reference].sum() / sizes[:reference].sum())
    if not 0 < centre < 1:
        raise DatasetError(
            f"in the reference {'no part counts' if centre == 0 else 'all parts count'}, so that there is nothing to "
            "draw limits from: take a longer reference"
        )
    shares, binomial = counts / sizes, np.sqrt(centre * (1 - centre) / sizes)
    standard = (shares - centre) / binomial
    dispersion_p = float(chi2.sf((standard[:reference] ** 2).sum(), reference - 1))
    sigma_z = max(1.0, moving_deviation(standard[:reference])) if dispersion_p < OVERDISPERSED else 1.0
    half = LIMIT * sigma_z * binomial
    return PChart(
        groups=tuple(groups),
        reference=reference,
        centre=centre,
        shares=shares,
        low=np.maximum(0, centre - half),
        high=np.minimum(1, centre + half),
        standardised=standard / sigma_z,
        dispersion_p=dispersion_p,
        sigma_z=sigma_z,
        alarms=tuple(alarms(standard / sigma_z)),
    )


def moving_deviation(standardised: NDArray[np.float64]) -> float:
    """Returns the standard deviation of (n,) points, n >= 2, as the ranges between neighbours show it (Laney 2002)."""
    return float(np.abs(np.diff(standardised)).mean()) / _D2
