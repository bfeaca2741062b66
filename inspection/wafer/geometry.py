"""The die grid of a wafer, in micrometres about the wafer's centre.

Wafer coordinates: origin at the centre of the wafer, x to the right, y up, micrometres, seen from above the front side
with the notch (or flat) where `notch` says. Die (column, row) is the rectangle between two street lines in each
direction; die (0, 0) has its lower left corner at `origin_um`, columns grow to the right and rows upwards. Positions in
a die are measured from its lower left corner. These are the conventions of KLARF (XINDEX, YINDEX, XREL, YREL).
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from anomaly.errors import SettingError

UM_PER_MM = 1000.0


class Side(StrEnum):
    """Where the notch or flat points, as seen on the map. `degrees` counts clockwise from DOWN, as KLARF 1.8 does."""

    DOWN = "DOWN"
    LEFT = "LEFT"
    UP = "UP"
    RIGHT = "RIGHT"

    @property
    def degrees(self) -> int:
        """Angle in degrees, clockwise from DOWN: 0, 90, 180 or 270."""
        return 90 * list(Side).index(self)

    @classmethod
    def at(cls, degrees: float) -> "Side":
        """Returns the side at an angle in degrees, clockwise from DOWN.

        Raises:
            SettingError: the angle is no multiple of 90.
        """
        quarter = degrees / 90
        if quarter != round(quarter):
            raise SettingError.of("notch", "angle", "a multiple of 90 degrees", degrees)
        return list(cls)[round(quarter) % 4]

    @property
    def direction(self) -> tuple[float, float]:
        """Unit vector (x, y) from the centre of the wafer to the notch."""
        return {Side.DOWN: (0.0, -1.0), Side.LEFT: (-1.0, 0.0), Side.UP: (0.0, 1.0), Side.RIGHT: (1.0, 0.0)}[self]


class DieIndex(NamedTuple):
    """Column and row of a die; (0, 0) is the die whose lower left corner is the grid's origin."""

    column: int
    row: int


class Coverage(StrEnum):
    """How much of a die lies on the usable area, the disc within the edge exclusion."""

    WHOLE = "whole"
    PARTIAL = "partial"
    OUTSIDE = "outside"


@dataclass(frozen=True, kw_only=True)
class WaferGeometry:
    """Size of a wafer and its die grid.

    Attributes:
        pitch_um: width and height of a die with its street, micrometres.
        origin_um: lower left corner of die (0, 0) in wafer coordinates, micrometres.
        diameter_mm: diameter of the wafer, millimetres.
        edge_exclusion_mm: width of the ring at the edge that does not count, millimetres.
        notch: where the notch or flat points.
        flat: whether the wafer has a flat instead of a notch.
    """

    pitch_um: tuple[float, float]
    origin_um: tuple[float, float] = (0.0, 0.0)
    diameter_mm: float = 300.0
    edge_exclusion_mm: float = 3.0
    notch: Side = Side.DOWN
    flat: bool = False

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if len(self.pitch_um) != 2 or not all(0 < side < math.inf for side in self.pitch_um):
            raise SettingError.of("WaferGeometry", "pitch_um", "(width, height), above 0 each", self.pitch_um)
        if len(self.origin_um) != 2 or not all(math.isfinite(value) for value in self.origin_um):
            raise SettingError.of("WaferGeometry", "origin_um", "(x, y), finite", self.origin_um)
        if not 0 < self.diameter_mm < math.inf:
            raise SettingError.of("WaferGeometry", "diameter_mm", "above 0", self.diameter_mm)
        if not 0 <= self.edge_exclusion_mm < self.diameter_mm / 2:
            raise SettingError.of("WaferGeometry", "edge_exclusion_mm", "0 to below the radius", self.edge_exclusion_mm)
        if max(self.diameter_um / side for side in self.pitch_um) > 5000:
            raise SettingError.of("WaferGeometry", "pitch_um", "at least 1/5000 of the diameter", self.pitch_um)

    @property
    def diameter_um(self) -> float:
        """Diameter in micrometres."""
        return self.diameter_mm * UM_PER_MM

    @property
    def radius_um(self) -> float:
        """Radius in micrometres."""
        return self.diameter_um / 2

    @property
    def usable_radius_um(self) -> float:
        """Radius without the edge exclusion, in micrometres."""
        return self.radius_um - self.edge_exclusion_mm * UM_PER_MM

    def die_at(self, x_um: float, y_um: float) -> DieIndex:
        """Returns the die that holds a point in wafer coordinates, whether or not it lies on the wafer."""
        column, row = self.die_indices(x_um, y_um)
        return DieIndex(int(column), int(row))

    def die_indices(self, x_um: ArrayLike, y_um: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns columns and rows of the dies that hold points in wafer coordinates."""
        x, y = np.asarray(x_um, float), np.asarray(y_um, float)
        column = np.floor((x - self.origin_um[0]) / self.pitch_um[0]).astype(np.int64)
        row = np.floor((y - self.origin_um[1]) / self.pitch_um[1]).astype(np.int64)
        return column, row

    def corner_um(self, die: tuple[int, int]) -> tuple[float, float]:
        """Returns the lower left corner of a die in wafer coordinates, micrometres."""
        return (
            self.origin_um[0] + die[0] * self.pitch_um[0],
            self.origin_um[1] + die[1] * self.pitch_um[1],
        )

    def in_die(self, x_um: float, y_um: float) -> tuple[DieIndex, tuple[float, float]]:
        """Returns the die of a point in wafer coordinates and the position in it, micrometres from its corner."""
        die = self.die_at(x_um, y_um)
        corner = self.corner_um(die)
        return die, (x_um - corner[0], y_um - corner[1])

    def on_wafer(self, die: tuple[int, int], x_um: float, y_um: float) -> tuple[float, float]:
        """Returns wafer coordinates of a position in a die, micrometres: the inverse of `in_die`."""
        corner = self.corner_um(die)
        return corner[0] + x_um, corner[1] + y_um

    def coverage(self, die: tuple[int, int]) -> Coverage:
        """Returns whether a die lies wholly, partly or not at all within the usable radius."""
        left, bottom = self.corner_um(die)
        right, top = left + self.pitch_um[0], bottom + self.pitch_um[1]
        farthest = math.hypot(max(abs(left), abs(right)), max(abs(bottom), abs(top)))
        if farthest <= self.usable_radius_um:
            return Coverage.WHOLE
        nearest = math.hypot(max(left, -right, 0.0), max(bottom, -top, 0.0))
        return Coverage.PARTIAL if nearest < self.usable_radius_um else Coverage.OUTSIDE

    def dies(self, coverage: Coverage = Coverage.WHOLE) -> tuple[DieIndex, ...]:
        """Returns the dies of one kind, row by row from the bottom, each from the left."""
        return tuple(die for die in self._candidates() if self.coverage(die) is coverage)

    def _candidates(self) -> Iterator[DieIndex]:
        radius = self.usable_radius_um
        (left, bottom), (right, top) = self.die_at(-radius, -radius), self.die_at(radius, radius)
        for row in range(bottom, top + 1):
            for column in range(left, right + 1):
                yield DieIndex(column, row)


def centred(pitch_um: tuple[float, float], *, die_in_centre: bool = True) -> tuple[float, float]:
    """Returns the `origin_um` that puts the middle of die (0, 0), or else its corner, on the centre of the wafer."""
    return (-pitch_um[0] / 2, -pitch_um[1] / 2) if die_in_centre else (0.0, 0.0)


def turned(x_um: ArrayLike, y_um: ArrayLike, notch: Side, to: Side) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns points of a wafer whose notch points to `notch` as they lie once it is turned so that it points to `to`.

    Args:
        x_um: wafer coordinates, micrometres.
        y_um: wafer coordinates, micrometres.
        notch: where the notch points in the given coordinates.
        to: where it is to point.
    """
    x, y = np.asarray(x_um, float), np.asarray(y_um, float)
    for _ in range((to.degrees - notch.degrees) // 90 % 4):
        x, y = y, -x  # a quarter turn clockwise
    return x, y
