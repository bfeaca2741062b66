"""What a KLARF file says, whatever its version, and the units that files store.

KLARF has no public specification. What is understood here was learned from public files and parsers on GitHub
(btrapp/jklarfreader, Impro02/klarf-reader, hadriman/klarfio); nothing was copied from them.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from inspection.wafer.defects import InspectedWafer, WaferDefect
from inspection.wafer.errors import KlarfError
from inspection.wafer.klarf.tokens import KlarfWarning, Token

Version = Literal["1.1", "1.2", "1.8"]
VERSIONS: tuple[Version, ...] = ("1.1", "1.2", "1.8")
_NM_PER_UM = 1000
_MAX_INT32 = 2**31 - 1


class Statement(NamedTuple):
    """A statement of KLARF 1.1 or 1.2, `Keyword values;`.

    Attributes:
        keyword: its first word.
        rows: its values, line by line.
        line: line of the keyword in the file.
    """

    keyword: str
    rows: tuple[tuple[Token, ...], ...]
    line: int = 0

    @property
    def values(self) -> tuple[Token, ...]:
        """All values in order."""
        return tuple(token for row in self.rows for token in row)


class Field(NamedTuple):
    """A field of KLARF 1.8, `Field name n {values}`."""

    name: str
    values: tuple[Token, ...]


class Table(NamedTuple):
    """A list of KLARF 1.8: names and types of its columns, and rows of cells; a cell of images holds many tokens."""

    name: str
    types: tuple[str, ...]
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[Token, ...], ...], ...]


class Record(NamedTuple):
    """A record of KLARF 1.8 with what stands in it, in order."""

    name: str
    id: str
    content: tuple["Field | Table | Record", ...]


class Extra(NamedTuple):
    """A part of a file that means nothing here; kept, and written again by the same family of versions.

    Attributes:
        wafer: index in `KlarfFile.wafers` of the wafer that it belongs to; None for the lot or file.
        level: "file", "lot", "wafer" or "test" (1.8); "lot" or "wafer" (1.1 and 1.2).
        content: the part as it stood.
    """

    wafer: int | None
    level: str
    content: Statement | Field | Table | Record

    @classmethod
    def of(cls, wafer: int | None, level: str, content: Statement | Field | Table | Record) -> "Extra":
        """Returns an extra that no longer knows its lines, so that equal parts of different files are equal."""
        return cls(wafer, level, _without_lines(content))


def _without_lines(part: Any) -> Any:
    if isinstance(part, Token):
        return part._replace(line=0, first=False)
    if isinstance(part, Statement):
        return Statement(part.keyword, _without_lines(part.rows))
    if isinstance(part, Field | Table | Record):
        return type(part)(*(_without_lines(value) for value in part))
    return tuple(_without_lines(value) for value in part) if isinstance(part, tuple) else part


class ExtraColumns(NamedTuple):
    """Columns of a defect list that mean nothing here.

    Attributes:
        names: names of the columns, in order.
        types: their types in KLARF 1.8; empty for 1.1 and 1.2.
        values: defect id -> one written cell per column.
    """

    names: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    values: Mapping[int, tuple[str, ...]] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class KlarfFile:
    """A KLARF file.

    Attributes:
        version: "1.1", "1.2" or "1.8".
        wafers: the wafers of one lot, in the order of the file.
        time: date and time of the file, ISO 8601 without zone, "" if unknown.
        extras: parts that mean nothing here.
        columns: for each wafer the columns of its defect list that mean nothing here; may be empty.
        warnings: what should not be so in the file that was read.
    """

    version: Version
    wafers: tuple[InspectedWafer, ...]
    time: str = ""
    extras: tuple[Extra, ...] = ()
    columns: tuple[ExtraColumns, ...] = ()
    warnings: tuple[KlarfWarning, ...] = field(default=(), compare=False)

    def columns_of(self, wafer: int) -> ExtraColumns:
        """Returns the columns of a wafer's defect list that mean nothing here."""
        return self.columns[wafer] if wafer < len(self.columns) else ExtraColumns()


def nm(um: float) -> int:
    """Returns whole nanometres, the resolution of every version.

    Raises:
        KlarfError: the length does not fit KLARF's int32.
    """
    rounded = round(um * _NM_PER_UM)
    if abs(rounded) > _MAX_INT32:
        raise KlarfError(f"a length of {um:g} um does not fit KLARF: at most {_MAX_INT32 / _NM_PER_UM:.0f} um")
    return rounded


def um(nanometres: float) -> float:
    """Returns micrometres."""
    return nanometres / _NM_PER_UM


def nm2(um2: float) -> int:
    """Returns whole square nanometres."""
    return round(um2 * _NM_PER_UM**2)


def um2(square_nanometres: float) -> float:
    """Returns square micrometres."""
    return square_nanometres / _NM_PER_UM**2


def as_stored(wafer: InspectedWafer) -> InspectedWafer:
    """Returns a wafer as every version stores it, so that `read(write(wafer))` gives exactly this.

    Lengths in whole nanometres and areas in whole square nanometres; no edge exclusion and no names of frames, which
    KLARF does not know.
    """
    geometry = wafer.geometry
    width, height = (um(nm(side)) for side in geometry.pitch_um)
    if width == 0 or height == 0:
        raise KlarfError(f"a die pitch of {geometry.pitch_um} um is below the resolution of KLARF, 1 nm")
    x, y = (um(nm(value)) for value in geometry.origin_um)
    diameter = round(geometry.diameter_mm * 1e6) / 1e6
    stored = replace(
        geometry, pitch_um=(width, height), origin_um=(x + 0.0, y + 0.0), edge_exclusion_mm=0.0, diameter_mm=diameter
    )
    defects = []
    for d in wafer.defects:
        die_x, die_y = um(nm(d.die_x_um)) + 0.0, um(nm(d.die_y_um)) + 0.0  # + 0.0: no negative zero
        on_x, on_y = stored.on_wafer(d.die, die_x, die_y)
        defects.append(
            replace(
                d,
                die_x_um=die_x,
                die_y_um=die_y,
                x_um=on_x,
                y_um=on_y,
                size_x_um=um(nm(d.size_x_um)),
                size_y_um=um(nm(d.size_y_um)),
                area_um2=um2(nm2(d.area_um2)),
                frame="",
            )
        )
    return replace(wafer, geometry=stored, defects=tuple(defects))


def parsed_time(date: str, clock: str) -> str:
    """Returns ISO 8601 of a KLARF date and time.

    Raises:
        ValueError: neither MM-DD-YY, MM-DD-YYYY nor YYYY-MM-DD.
    """
    year_first = len(date.split("-", maxsplit=1)[0]) == 4
    long_year = len(date.rsplit("-", maxsplit=1)[-1]) == 4
    layout = "%Y-%m-%d" if year_first else "%m-%d-%Y" if long_year else "%m-%d-%y"
    return datetime.strptime(f"{date} {clock}", f"{layout} %H:%M:%S").isoformat()


def written_time(iso: str, *, long_year: bool) -> tuple[str, str]:
    """Returns KLARF's date and time.

    Raises:
        KlarfError: not ISO 8601 in whole seconds without a zone, or a year that two digits cannot say.
    """
    try:
        moment = datetime.fromisoformat(iso)
    except ValueError:
        raise KlarfError(f"a time must be ISO 8601 like 2026-11-22T17:05:00; got {iso!r}") from None
    if moment.tzinfo is not None or moment.microsecond:
        raise KlarfError(f"KLARF stores whole seconds without a time zone; got {iso!r}")
    if not long_year and not 1969 <= moment.year <= 2068:
        raise KlarfError(f"KLARF 1.1 and 1.2 store two digits of the year, 1969 to 2068; got {iso!r}")
    return f"{moment:%m-%d}-{moment.year:04d}" if long_year else f"{moment:%m-%d-%y}", f"{moment:%H:%M:%S}"


def summary(wafer: InspectedWafer) -> tuple[int, int, float, int, int]:
    """Returns TESTNO, NDEFECT, DEFDENSITY (defects per cm2), NDIE and NDEFDIE."""
    area_cm2 = wafer.inspected_area_um2 / 1e8
    density = len(wafer.defects) / area_cm2 if area_cm2 else 0.0
    dies = len({defect.die for defect in wafer.defects})
    return wafer.test, len(wafer.defects), density, len(wafer.inspected), dies


def diagonal_um(defect: WaferDefect) -> float:
    """Returns DSIZE, the diagonal of the box, micrometres."""
    return math.hypot(defect.size_x_um, defect.size_y_um)
