"""The part of a wafer where defects can be found, as the null hypothesis sees it: a uniform draw from it is random."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import SettingError
from inspection.wafer.defects import InspectedWafer

Points = NDArray[np.float64]
"""(n, 2) x and y as a share of the usable radius: 0 is the centre, 1 the edge."""


@dataclass(frozen=True, eq=False)
class Region:
    """Rectangles (dies), or the whole usable disc.

    Attributes:
        corners: (m, 2) lower left corners of the rectangles in shares of the usable radius; None for the disc.
        side: width and height of a rectangle.
    """

    corners: Points | None = None
    side: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def of(cls, wafer: InspectedWafer) -> "Region":
        """Returns the inspected dies of a wafer.

        Raises:
            SettingError: no die was inspected.
        """
        if not wafer.inspected:
            raise SettingError.of("Region", "wafer", "one with inspected dies", "none")
        geometry = wafer.geometry
        radius = geometry.usable_radius_um
        corners = np.array([geometry.corner_um(die) for die in wafer.inspected]) / radius
        return cls(corners, (geometry.pitch_um[0] / radius, geometry.pitch_um[1] / radius))

    def __eq__(self, other: object) -> bool:
        """Whether two regions are the same rectangles."""
        return isinstance(other, Region) and self._content() == other._content()

    def __hash__(self) -> int:
        """Regions of one product are equal, so that what was simulated for one serves the next."""
        return hash(self._content())

    def _content(self) -> tuple[object, ...]:
        return None if self.corners is None else self.corners.tobytes(), self.side

    def sample(self, rng: np.random.Generator, count: int) -> Points:
        """Draws points uniformly."""
        if self.corners is None:
            radius, angle = np.sqrt(rng.random(count)), rng.uniform(0, 2 * np.pi, count)
            return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)
        chosen = self.corners[rng.integers(0, len(self.corners), count)]
        drawn: Points = chosen + rng.random((count, 2)) * self.side
        return drawn


def points_of(wafer: InspectedWafer) -> Points:
    """Returns where the defects lie, those beside the inspected dies left out."""
    inspected = set(wafer.inspected)
    radius = wafer.geometry.usable_radius_um
    found = [(d.x_um / radius, d.y_um / radius) for d in wafer.defects if d.die in inspected]
    return np.array(found, float).reshape(-1, 2)
