"""Defects on a wafer, and the inspected wafer that holds them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from anomaly.errors import SettingError
from inspection.wafer.geometry import DieIndex, WaferGeometry
from inspection.wafer.stage import FrameView


class Blob(NamedTuple):
    """A connected region of a frame, in pixels: what any finder of defects in an image can give.

    Attributes:
        row: centroid, rows from the top edge of the frame (the middle of the first pixel is 0.5).
        column: centroid, columns from the left edge.
        box: (top, left, bottom, right) edges of the bounding box; bottom and right are exclusive.
        area: number of pixels.
        peak: highest anomaly score in it.
        mean: mean anomaly score in it.
        p_value: share of normal images whose map anywhere scores as high, in (0, 1]; None where nothing calibrated it.
    """

    row: float
    column: float
    box: tuple[float, float, float, float]
    area: float
    peak: float
    mean: float
    p_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class WaferDefect:
    """One defect on a wafer.

    Attributes:
        id: number of the defect, unique on its wafer.
        die: column and row of the die that holds it.
        die_x_um: position from the left edge of the die, micrometres.
        die_y_um: position from the lower edge of the die, micrometres.
        x_um: position in wafer coordinates (see `geometry`), micrometres.
        y_um: position in wafer coordinates, micrometres.
        size_x_um: width of the bounding box, micrometres.
        size_y_um: height of the bounding box, micrometres.
        area_um2: area, square micrometres.
        peak: highest anomaly score.
        mean: mean anomaly score.
        p_value: share of normal images whose map anywhere scores as high, in (0, 1], or None. Of a defect merged from
            several frames it is the smallest one, uncorrected.
        class_number: number of the class, a key of `InspectedWafer.classes`; 0 is unclassified.
        frame: name of the frame in which it is seen most completely; "" if unknown.
        image: file of its picture, as the reader of a report finds it; "" if there is none.
    """

    id: int
    die: DieIndex
    die_x_um: float
    die_y_um: float
    x_um: float
    y_um: float
    size_x_um: float
    size_y_um: float
    area_um2: float
    peak: float = 0.0
    mean: float = 0.0
    p_value: float | None = None
    class_number: int = 0
    frame: str = ""
    image: str = ""

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        values = (self.die_x_um, self.die_y_um, self.x_um, self.y_um, self.peak, self.mean)
        if not all(math.isfinite(value) for value in values):
            raise SettingError.of("WaferDefect", "positions and severities", "finite", values)
        sizes = (self.size_x_um, self.size_y_um, self.area_um2)
        if not all(0 <= value < math.inf for value in sizes):
            raise SettingError.of("WaferDefect", "sizes", "finite, 0 or more", sizes)
        if self.p_value is not None and not 0 < self.p_value <= 1:
            raise SettingError.of("WaferDefect", "p_value", "above 0 and at most 1, or None", self.p_value)

    @classmethod
    def at(cls, geometry: WaferGeometry, x_um: float, y_um: float, **values: object) -> "WaferDefect":
        """Builds a defect from its wafer coordinates; die and position in it follow from the grid."""
        die, (die_x, die_y) = geometry.in_die(x_um, y_um)
        return cls(die=die, die_x_um=die_x, die_y_um=die_y, x_um=x_um, y_um=y_um, **values)  # type: ignore[arg-type]

    @classmethod
    def from_blob(
        cls, geometry: WaferGeometry, view: FrameView, blob: Blob, *, id: int, image: str = ""
    ) -> "WaferDefect":
        """Places a blob of a frame on the wafer."""
        left, bottom, right, top = view.box_um(*blob.box)
        px, py = view.alignment.pixel_um
        x, y = view.to_wafer(blob.row, blob.column)
        return cls.at(
            geometry,
            x,
            y,
            id=id,
            size_x_um=right - left,
            size_y_um=top - bottom,
            area_um2=blob.area * px * py,
            peak=blob.peak,
            mean=blob.mean,
            p_value=blob.p_value,
            frame=view.frame,
            image=image,
        )


@dataclass(frozen=True, kw_only=True)
class InspectedWafer:
    """A wafer, what was inspected of it and what was found.

    Attributes:
        geometry: the die grid.
        inspected: dies that were inspected, no die twice; a defect may lie beside them (e.g. in a partial die).
        defects: what was found; ids are unique.
        lot, wafer, device, step, recipe: names, "" where unknown; no line breaks, no double quotes.
        station: maker, model and name of the inspection station.
        slot: slot of the cassette, 0 if unknown.
        time: date and time of the result, ISO 8601 without zone ("2026-11-22T17:05:00"), "" if unknown.
        classes: class number -> name.
        test: number of the inspection test.
    """

    geometry: WaferGeometry
    inspected: tuple[DieIndex, ...]
    defects: tuple[WaferDefect, ...] = ()
    lot: str = ""
    wafer: str = ""
    slot: int = 0
    device: str = ""
    step: str = ""
    recipe: str = ""
    station: tuple[str, str, str] = ("", "", "")
    time: str = ""
    classes: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({0: "Unclassified"}))
    test: int = 1

    def __post_init__(self) -> None:
        """Refuses what no wafer can be."""
        if len(set(self.inspected)) != len(self.inspected):
            raise SettingError.of("InspectedWafer", "inspected", "without repeats", "a die twice")
        ids = [defect.id for defect in self.defects]
        if len(set(ids)) != len(ids):
            raise SettingError.of("InspectedWafer", "defects", "of unique ids", sorted(ids)[:20])
        for text in (self.lot, self.wafer, self.device, self.step, self.recipe, *self.station, *self.classes.values()):
            if not text.isprintable() or '"' in text:
                raise SettingError.of("InspectedWafer", "names", "printable, without double quotes", text)

    @property
    def defective_dies(self) -> frozenset[DieIndex]:
        """Inspected dies that hold at least one defect."""
        return frozenset(defect.die for defect in self.defects) & frozenset(self.inspected)

    @property
    def yield_fraction(self) -> float:
        """Share of the inspected dies without any defect; NaN if none was inspected."""
        if not self.inspected:
            return math.nan
        return 1 - len(self.defective_dies) / len(self.inspected)

    @property
    def inspected_area_um2(self) -> float:
        """Area of the inspected dies, square micrometres."""
        return len(self.inspected) * self.geometry.pitch_um[0] * self.geometry.pitch_um[1]

    def numbered(self) -> "InspectedWafer":
        """Returns the wafer with its defects numbered 1, 2, ... in order of die row, die column, then position."""
        order = sorted(self.defects, key=lambda d: (d.die.row, d.die.column, d.die_y_um, d.die_x_um, d.id))
        return replace(self, defects=tuple(replace(defect, id=n) for n, defect in enumerate(order, start=1)))
