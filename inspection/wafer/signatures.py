"""Spatial signatures: do defects lie at random, or as a ring, along the edge, as a scratch, as a cluster?

The question is asked four times, once for each structure (`scans`), and each answer is a Monte-Carlo p-value: how often
does a wafer of equally many uniform points have a statistic as large? Of four answers the smallest would be called too
often, so they are corrected (Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979). Under randomness
the chance to name any signature at all is at most `level`.

If something is found, the structure that stands out most is named, its defects are set aside, and the rest is asked
again with the same level, up to `most` times. The correction covers each round; a second signature of one wafer is
named on the condition that the first was one.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import SettingError
from inspection.wafer.defects import InspectedWafer
from inspection.wafer.region import Points, Region, points_of
from inspection.wafer.scans import (
    Found,
    Reference,
    clark_evans,
    reference,
    scan_cluster,
    scan_edge,
    scan_line,
    scan_ring,
)

Kind = Literal["edge", "ring", "scratch", "cluster"]
SCANS: dict[Kind, Callable[[Points, Reference], Found]] = {
    "scratch": scan_line,
    "edge": scan_edge,
    "ring": scan_ring,
    "cluster": scan_cluster,
}
"""Structure -> its scan; of two that stand out alike the first is named, as the narrower shape explains more."""

_FEWEST = 5
_UNIFORM = 20_000


class Signature(NamedTuple):
    """A structure of defects.

    Attributes:
        kind: what it is.
        p_value: chance of something at least as conspicuous among random defects, corrected for asking four times.
        defects: ids of the defects that are part of it.
        shape: where it is, in shares of the usable radius; see `scans`.
    """

    kind: Kind
    p_value: float
    defects: tuple[int, ...]
    shape: tuple[float, ...]


class SpatialReport(NamedTuple):
    """What was found.

    Attributes:
        signatures: structures, the most conspicuous first; none means that the defects lie as random ones do.
        p_value: the smallest corrected p-value of the first round; 1 where there were too few defects to ask.
        random: ids of the defects that belong to no structure.
        nearest_neighbour: Clark-Evans ratio of all defects, below 1 clustered; NaN for fewer than two.
        simulations: number of simulated wafers of each round.
        seed: their seed.
    """

    signatures: tuple[Signature, ...]
    p_value: float
    random: tuple[int, ...]
    nearest_neighbour: float
    simulations: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class SignatureTest:
    """How signatures are looked for.

    Attributes:
        level: chance to name any signature on a wafer with random defects.
        simulations: random wafers to compare with; p-values are no smaller than 4 / (simulations + 1).
        most: signatures that are looked for on one wafer.
        seed: seed of the random wafers.
    """

    level: float = 0.05
    simulations: int = 399
    most: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 0 < self.level < 1:
            raise SettingError.of("SignatureTest", "level", "above 0 and below 1", self.level)
        if self.simulations + 1 < len(SCANS) / self.level:
            fewest = int(np.ceil(len(SCANS) / self.level)) - 1
            raise SettingError.of("SignatureTest", "simulations", f"at least {fewest} for this level", self.simulations)
        if self.most < 1:
            raise SettingError.of("SignatureTest", "most", "1 or more", self.most)

    def wafer(self, wafer: InspectedWafer) -> SpatialReport:
        """Looks for signatures among the defects in inspected dies."""
        inspected = set(wafer.inspected)
        ids = [defect.id for defect in wafer.defects if defect.die in inspected]
        return self.points(points_of(wafer), Region.of(wafer), ids)

    def points(self, points: Points, region: Region | None = None, ids: list[int] | None = None) -> SpatialReport:
        """Looks for signatures among points.

        Args:
            points: (n, 2) in shares of the usable radius.
            region: where points can lie; None for the disc.
            ids: names of the points; None for 0, 1, ...
        """
        region = region or Region()
        names = np.arange(len(points)) if ids is None else np.array(ids, int)
        uniform = _uniform(region, self.seed)
        area = float(np.pi * uniform.radii[-1] ** 2)
        ratio = clark_evans(points, area) if len(points) > 1 else float("nan")
        left = np.arange(len(points))
        found: list[Signature] = []
        first = 1.0
        while len(found) < self.most and len(left) >= _FEWEST:
            windows = {kind: scan(points[left], uniform) for kind, scan in SCANS.items()}
            chance = _simulated(region, len(left), self.simulations, self.seed)
            p_values = _corrected({kind: _p_value(windows[kind].statistic, chance[kind]) for kind in SCANS})
            if not found:
                first = min(p_values.values())
            kinds = [kind for kind in SCANS if p_values[kind] <= self.level]
            if not kinds:
                break
            kind = max(kinds, key=lambda k: windows[k].statistic / float(np.quantile(chance[k], 0.95)))
            window = windows[kind]
            members = tuple(int(name) for name in names[left[window.members]])
            found.append(Signature(kind, p_values[kind], members, window.shape))
            left = left[~window.members]
        rest = tuple(int(name) for name in names[left])
        return SpatialReport(tuple(found), first, rest, ratio, self.simulations, self.seed)


@lru_cache(maxsize=32)
def _uniform(region: Region, seed: int) -> Reference:
    return reference(region.sample(np.random.default_rng([seed, 0]), _UNIFORM))


@lru_cache(maxsize=32)
def _simulated(region: Region, count: int, simulations: int, seed: int) -> dict[Kind, NDArray[np.float64]]:
    """Statistics of random wafers with so many points."""
    rng, uniform = np.random.default_rng([seed, count]), _uniform(region, seed)
    chance: dict[Kind, list[float]] = {kind: [] for kind in SCANS}
    for _ in range(simulations):
        drawn = region.sample(rng, count)
        for kind, scan in SCANS.items():
            chance[kind].append(scan(drawn, uniform).statistic)
    return {kind: np.array(values) for kind, values in chance.items()}


def _p_value(statistic: float, chance: NDArray[np.float64]) -> float:
    """Monte-Carlo p-value: the wafer itself counts as one of the draws, so it is valid and never 0."""
    return float((1 + (chance >= statistic).sum()) / (1 + len(chance)))


def _corrected(p_values: dict[Kind, float]) -> dict[Kind, float]:
    """Holm's correction."""
    corrected, highest = {}, 0.0
    for rank, kind in enumerate(sorted(p_values, key=lambda k: p_values[k])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[kind]))
        corrected[kind] = highest
    return corrected
