"""Rows of a KLARF defect list <-> defects, for every version.

Severities and p-values stand in columns of our own (PEAKSEVERITY, MEANSEVERITY, PVALUE; a p-value of 0 means that there
is none); a defect list names its columns itself, so readers pass over what they do not know.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from inspection.wafer.defects import WaferDefect
from inspection.wafer.errors import KlarfError
from inspection.wafer.geometry import DieIndex, WaferGeometry
from inspection.wafer.klarf.model import ExtraColumns, diagonal_um, nm, nm2, um, um2
from inspection.wafer.klarf.tokens import KlarfWarning, Token

COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "DEFECTID": "int32", "XREL": "int32", "YREL": "int32", "XINDEX": "int32", "YINDEX": "int32",
        "XSIZE": "int32", "YSIZE": "int32", "DEFECTAREA": "float", "DSIZE": "int32", "CLASSNUMBER": "int32",
        "TEST": "int32", "PEAKSEVERITY": "float", "MEANSEVERITY": "float", "PVALUE": "float",
        "IMAGECOUNT": "int32",
    }
)  # fmt: skip
"""Columns that are understood besides that of the images, as they are written, with their types in KLARF 1.8."""

_NEEDED = ("XREL", "YREL", "XINDEX", "YINDEX")
_DERIVED = (
    "DSIZE",
    "TEST",
    "IMAGECOUNT",
    "IMAGELIST",
    "IMAGEINFO",
)  # kept as extra columns where they say something else


@dataclass(frozen=True)
class Unit:
    """How a family of versions writes lengths and areas: micrometres with decimals, or whole nanometres."""

    nanometres: bool

    def length(self, value: float) -> float:
        """Returns micrometres, as `as_stored` rounds them, of a stored length."""
        return um(round(value) if self.nanometres else nm(value)) + 0.0

    def area(self, value: float) -> float:
        """Returns square micrometres of a stored area."""
        return um2(round(value) if self.nanometres else nm2(value))

    @property
    def images(self) -> str:
        """Column of the images: a list of numbers in 1.1 and 1.2, of files in 1.8."""
        return "IMAGEINFO" if self.nanometres else "IMAGELIST"

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are understood, in the order in which they are written."""
        return (*COLUMNS, self.images)

    def written_length(self, value: float) -> str:
        """Returns a length in micrometres as it is written."""
        return str(nm(value)) if self.nanometres else f"{um(nm(value)):.3f}"

    def written_area(self, value: float) -> str:
        """Returns an area in square micrometres as it is written."""
        return str(nm2(value)) if self.nanometres else f"{um2(nm2(value)):.6f}"


class Row(NamedTuple):
    """One row of a defect list.

    Attributes:
        cells: column -> its tokens; one token, but any number for a list of images.
        image: file of the images of this row, "" if none is known.
        line: line in the file.
    """

    cells: Mapping[str, tuple[Token, ...]]
    image: str
    line: int


def cells_of(defect: WaferDefect, test: int, unit: Unit, images: str) -> dict[str, str]:
    """Returns what is written for a defect: column -> cell.

    Args:
        defect: the defect.
        test: number of its inspection test.
        unit: how lengths and areas are written.
        images: the cell of the list of images.
    """
    return {
        "DEFECTID": str(defect.id),
        "XREL": unit.written_length(defect.die_x_um),
        "YREL": unit.written_length(defect.die_y_um),
        "XINDEX": str(defect.die.column),
        "YINDEX": str(defect.die.row),
        "XSIZE": unit.written_length(defect.size_x_um),
        "YSIZE": unit.written_length(defect.size_y_um),
        "DEFECTAREA": unit.written_area(defect.area_um2),
        "DSIZE": unit.written_length(diagonal_um(defect)),
        "CLASSNUMBER": str(defect.class_number),
        "TEST": str(test),
        "PEAKSEVERITY": repr(float(defect.peak)),
        "MEANSEVERITY": repr(float(defect.mean)),
        "PVALUE": repr(float(defect.p_value or 0.0)),
        "IMAGECOUNT": "1" if defect.image else "0",
        unit.images: images,
    }


def table_of(
    columns: ExtraColumns, cells: Mapping[int, dict[str, str]], unit: Unit
) -> tuple[list[str], dict[int, list[str]]]:
    """Returns names of columns and, for each defect, its cells, with the columns that mean nothing here.

    Args:
        columns: those columns; one that is named like a column of ours replaces it.
        cells: defect id -> column -> cell, as `cells_of` gives them.
        unit: how lengths and areas are written.

    Raises:
        KlarfError: a defect has no cells in a column, or not as many as there are columns.
    """
    names = [*unit.columns, *(name for name in columns.names if name not in unit.columns)]
    rows = {}
    for number, own in cells.items():
        values = columns.values.get(number, ())
        if len(values) != len(columns.names):
            raise KlarfError(f"defect {number} has {len(values)} of {len(columns.names)} extra columns")
        merged = own | dict(zip(columns.names, values, strict=True))
        rows[number] = [merged[name] for name in names]
    return names, rows


def read_rows(
    rows: Sequence[Row],
    names: Sequence[str],
    types: Sequence[str],
    geometry: WaferGeometry,
    test: int,
    unit: Unit,
    image_cell: Callable[[WaferDefect], str],
    warnings: list[KlarfWarning],
) -> tuple[tuple[WaferDefect, ...], ExtraColumns]:
    """Reads defects and the columns that mean nothing here.

    Args:
        rows: the rows.
        names: columns of the list.
        types: their types (1.8), or empty.
        geometry: the die grid.
        test: number of the wafer's inspection test.
        unit: how lengths and areas are written.
        image_cell: what the writer puts into the list of images of a defect.
        warnings: receives what was repaired.

    Raises:
        KlarfError: there are rows, but no columns that say where the defects are.
    """
    if rows and (missing := [name for name in _NEEDED if name not in names]):
        raise KlarfError(f"the defect list has no column {', '.join(missing)}; it has {', '.join(names)}")
    defects: list[WaferDefect] = []
    taken: set[int] = set()
    spare = 1 + max((_whole(row, "DEFECTID", 0) for row in rows), default=0)
    renumbered = False
    for number, row in enumerate(rows, start=1):
        wanted = _whole(row, "DEFECTID", number)
        if wanted in taken:
            message = f"defect id {wanted} was given twice; the second one is read as {spare}"
            warnings.append(KlarfWarning(row.line, message))
            wanted, spare, renumbered = spare, spare + 1, True
        taken.add(wanted)
        defects.append(_defect(row, wanted, geometry, unit, warnings))
    kept = [name for name in names if name not in unit.columns]
    kept += [
        name
        for name in _DERIVED
        if name in names and name in unit.columns and _says_more(name, rows, defects, test, unit, image_cell)
    ]
    if renumbered and "DEFECTID" in names:
        kept.append("DEFECTID")
    if not kept:
        return tuple(defects), ExtraColumns()
    values = {
        defect.id: tuple(" ".join(token.written() for token in row.cells.get(name, ())) or "0" for name in kept)
        for defect, row in zip(defects, rows, strict=True)
    }
    if "DEFECTID" in kept:  # kept under a name that cannot be taken for an id
        kept[kept.index("DEFECTID")] = "ORIGINALDEFECTID"
    kind = dict(zip(names, types, strict=True)) if types else {}
    extra_types = tuple(kind.get(name, COLUMNS.get(name, "int32")) for name in kept) if types else ()
    return tuple(defects), ExtraColumns(tuple(kept), extra_types, values)


def _says_more(
    name: str,
    rows: Sequence[Row],
    defects: Sequence[WaferDefect],
    test: int,
    unit: Unit,
    image_cell: Callable[[WaferDefect], str],
) -> bool:
    """Whether a column that is derived from others on writing holds anything else in this file."""
    for row, defect in zip(rows, defects, strict=True):
        found = " ".join(token.written() for token in row.cells.get(name, ()))
        derived = cells_of(defect, test, unit, image_cell(defect))[name]
        if found != derived and (name == unit.images or _number(found) != _number(derived)):
            return True
    return False


def _defect(row: Row, number: int, geometry: WaferGeometry, unit: Unit, warnings: list[KlarfWarning]) -> WaferDefect:
    def read(name: str, low: float = -math.inf) -> float:
        if name not in row.cells:
            return 0.0
        text = " ".join(token.text for token in row.cells[name])
        value = _number(text)
        if not low <= value < math.inf:  # also true for NaN
            warnings.append(KlarfWarning(row.line, f"{name} of defect {number} is {text!r}; it is read as 0"))
            return 0.0
        return value

    die = DieIndex(_whole(row, "XINDEX", 0), _whole(row, "YINDEX", 0))
    die_x, die_y = unit.length(read("XREL")), unit.length(read("YREL"))
    size_x, size_y = unit.length(read("XSIZE", 0.0)), unit.length(read("YSIZE", 0.0))
    area = unit.area(read("DEFECTAREA", 0.0)) if "DEFECTAREA" in row.cells else um2(nm2(size_x * size_y))
    x, y = geometry.on_wafer(die, die_x, die_y)
    p_value = read("PVALUE", 0.0)
    return WaferDefect(
        id=number,
        die=die,
        die_x_um=die_x,
        die_y_um=die_y,
        x_um=x,
        y_um=y,
        size_x_um=size_x,
        size_y_um=size_y,
        area_um2=area,
        peak=read("PEAKSEVERITY"),
        mean=read("MEANSEVERITY"),
        p_value=p_value if 0 < p_value <= 1 else None,
        class_number=_whole(row, "CLASSNUMBER", 0),
        image=row.image,
    )


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _whole(row: Row, name: str, default: int) -> int:
    value = _number(row.cells[name][0].text) if row.cells.get(name) else math.nan
    return int(value) if math.isfinite(value) else default
