"""KLARF 1.1 and 1.2 -> `KlarfFile`: tolerant, and it says what it tolerated."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from inspection.wafer.defects import InspectedWafer
from inspection.wafer.errors import KlarfError
from inspection.wafer.geometry import DieIndex, Side, WaferGeometry
from inspection.wafer.klarf.defect_rows import Row, Unit, read_rows
from inspection.wafer.klarf.flat_syntax import counted, statements
from inspection.wafer.klarf.flat_writer import image_list
from inspection.wafer.klarf.model import (
    Extra,
    ExtraColumns,
    KlarfFile,
    Statement,
    Version,
    nm,
    parsed_time,
    um,
)
from inspection.wafer.klarf.tokens import KlarfWarning, Token

UM = Unit(nanometres=False)


def read_flat(text: str) -> KlarfFile:
    """Reads the text of a KLARF 1.1 or 1.2 file.

    Raises:
        KlarfError: not such a file, or die pitch, wafer or the place of defects is missing.
    """
    warnings: list[KlarfWarning] = []
    found = statements(text, warnings)
    if not found or found[0].keyword != "FileVersion":
        raise KlarfError(f"a KLARF file begins with FileVersion; got {found[0].keyword if found else 'nothing'!r}")
    version = ".".join(token.text for token in found[0].values)
    if version not in ("1.1", "1.2"):
        raise KlarfError(f"FileVersion must be 1 1 or 1 2; got {version}")
    reader = _Reader(version, warnings)
    for statement in found[1:]:
        reader.take(statement)
    return reader.file()


class _Reader:
    """State of a pass over the statements."""

    def __init__(self, version: str, warnings: list[KlarfWarning]) -> None:
        self.version: Version = "1.1" if version == "1.1" else "1.2"
        self.warnings = warnings
        self.time = ""
        self.lot: dict[str, Any] = {}  # settings of `InspectedWafer`, and of `WaferGeometry` below
        self.grid: dict[str, Any] = {}
        self.wafer: dict[str, Any] = {}
        self.names: list[str] = []
        self.rows: list[Row] = []
        self.plan: dict[DieIndex, None] = {}
        self.tests: list[int] = []
        self.image = ""
        self.wafers: list[InspectedWafer] = []
        self.columns: list[ExtraColumns] = []
        self.extras: list[Extra] = []
        self.plan_is_new = True

    def take(self, statement: Statement) -> None:
        """Takes one statement in; what means nothing is kept as an extra."""
        handler = _HANDLERS.get(statement.keyword.casefold())
        if handler is None:
            self.keep(statement)
            return
        try:
            handler(self, statement)
        except (ValueError, IndexError, OverflowError) as error:
            self.warn(statement, f"{statement.keyword} cannot be understood ({error}); it is kept as it stands")
            self.keep(statement)

    def keep(self, statement: Statement) -> None:
        """Keeps a statement that means nothing."""
        wafer = len(self.wafers) if "wafer" in self.wafer else None
        self.extras.append(Extra.of(wafer, "lot" if wafer is None else "wafer", statement))

    def warn(self, statement: Statement, message: str) -> None:
        """Reports a statement."""
        self.warnings.append(KlarfWarning(statement.line, message))

    def name(self, statement: Statement) -> str:
        """The name that a statement gives; words after a quoted one are reported."""
        values = statement.values
        if len(values) > 1 and values[0].quoted:
            rest = " ".join(token.written() for token in values[1:])
            self.warn(statement, f"{statement.keyword} has more than a name ({rest}); is a semicolon missing?")
        return " ".join(token.text for token in values)

    def begin_wafer(self, statement: Statement) -> None:
        """WaferID: the wafer before is complete."""
        if "wafer" in self.wafer:
            self.end_wafer()
        self.wafer = {"wafer": self.name(statement)}

    def station(self, statement: Statement) -> None:
        """InspectionStationID "maker" "model" "name"."""
        names = [token.text for token in statement.values]
        if len(names) != 3:
            raise ValueError(f"three names are needed, there are {len(names)}")
        self.lot["station"] = tuple(names)

    def set_up(self, statement: Statement) -> None:
        """SetupID "name" date time; date and time of the recipe are kept as an extra."""
        self.lot["recipe"] = statement.values[0].text
        if len(statement.values) > 1:
            date = Statement("SetupID", (statement.values[1:],))
            self.extras.insert(0, Extra.of(None, "lot", date))  # it is written before all others

    def file_time(self, statement: Statement) -> None:
        """FileTimestamp date time."""
        self.time = parsed_time(statement.values[0].text, statement.values[1].text)

    def result_time(self, statement: Statement) -> None:
        """ResultTimestamp date time."""
        self.lot["time"] = parsed_time(statement.values[0].text, statement.values[1].text)

    def sample_size(self, statement: Statement) -> None:
        """SampleSize 1 diameter, millimetres."""
        if statement.values[0].text != "1":
            raise ValueError("only round samples, kind 1, are known")
        self.grid["diameter_mm"] = float(statement.values[1].text)

    def mark(self, statement: Statement) -> None:
        """SampleOrientationMarkType NOTCH or FLAT."""
        kind = statement.values[0].text.upper()
        if kind not in ("NOTCH", "FLAT"):
            raise ValueError(f"NOTCH or FLAT is known, not {kind}")
        self.grid["flat"] = kind == "FLAT"

    def mark_location(self, statement: Statement) -> None:
        """OrientationMarkLocation DOWN, LEFT, UP or RIGHT."""
        self.grid["notch"] = Side(statement.values[0].text.upper())

    def pitch(self, statement: Statement) -> None:
        """DiePitch x y, micrometres."""
        self.grid["pitch_um"] = _pair(statement.values)

    def die_origin(self, statement: Statement) -> None:
        """DieOrigin x y: its meaning is not known for other values than 0."""
        if _pair(statement.values) != (0.0, 0.0):
            self.warn(statement, "DieOrigin is not 0 0; its sign is not known, so it is not applied, only kept")
            self.keep(statement)

    def centre(self, statement: Statement) -> None:
        """SampleCenterLocation x y: the wafer's centre from the corner of die (0, 0), micrometres."""
        x, y = _pair(statement.values)
        where = self.wafer if "wafer" in self.wafer else self.grid
        where["origin_um"] = (0.0 - x, 0.0 - y)

    def slot(self, statement: Statement) -> None:
        """Slot n."""
        self.wafer["slot"] = int(statement.values[0].text)

    def classes(self, statement: Statement) -> None:
        """ClassLookup n, then rows of number and name."""
        rows = counted(statement, 2, self.warnings)
        self.lot["classes"] = MappingProxyType({int(number.text): name.text for number, name in rows})

    def inspection_test(self, statement: Statement) -> None:
        """InspectionTest n."""
        self.tests.append(int(statement.values[0].text))
        if len(self.tests) > 1:
            self.warn(statement, f"tests {self.tests} of a wafer are read as one; TEST tells their defects apart")

    def test_plan(self, statement: Statement) -> None:
        """SampleTestPlan n, then rows of column and row."""
        if self.plan_is_new:
            self.plan = {}
            self.plan_is_new = False
        for column, row in counted(statement, 2, self.warnings):
            die = DieIndex(int(column.text), int(row.text))
            if die in self.plan and len(self.tests) < 2:
                self.warn(statement, f"SampleTestPlan names die {tuple(die)} twice")
            self.plan[die] = None

    def record_spec(self, statement: Statement) -> None:
        """DefectRecordSpec n names."""
        values = list(statement.values)
        if values and values[0].text.isdigit():
            count = int(values.pop(0).text)
            if count != len(values):
                self.warn(statement, f"DefectRecordSpec announces {count} columns and names {len(values)}")
        self.names = [token.text.upper() for token in values]

    def tiff(self, statement: Statement) -> None:
        """TiffFileName: file of the images of the rows that follow."""
        self.image = " ".join(token.text for token in statement.values)

    def defects(self, statement: Statement) -> None:
        """DefectList, then rows; may come several times, also empty."""
        if statement.rows and not self.names:
            raise KlarfError(f"line {statement.line}: DefectList comes before DefectRecordSpec")
        for cells in _split_rows(statement, self.names, self.warnings):
            count = cells.get("IMAGECOUNT", cells.get("IMAGELIST", ()))
            image = self.image if count and count[0].text != "0" else ""
            line = next((token.line for value in cells.values() for token in value), statement.line)
            self.rows.append(Row(cells, image, line))

    def end_wafer(self) -> None:
        """Makes the wafer of what was read since the last."""
        grid: dict[str, Any] = dict(self.grid)
        if "origin_um" in self.wafer:
            grid["origin_um"] = self.wafer.pop("origin_um")
        if "pitch_um" not in grid:
            raise KlarfError("the file has no DiePitch that can be understood")
        for name in {"pitch_um", "origin_um"} & set(grid):
            grid[name] = tuple(um(nm(value)) + 0.0 for value in grid[name])
        geometry = WaferGeometry(**grid, edge_exclusion_mm=0.0)
        test = self.tests[0] if self.tests else 1
        defects, columns = read_rows(self.rows, self.names, (), geometry, test, UM, image_list, self.warnings)
        settings = {name: _clean(value) for name, value in (self.lot | self.wafer).items()}
        wafer = InspectedWafer(geometry=geometry, inspected=tuple(self.plan), defects=defects, test=test, **settings)
        self.wafers.append(wafer)
        self.columns.append(columns)
        self.rows, self.tests, self.wafer, self.image, self.plan_is_new = [], [], {}, "", True

    def file(self) -> KlarfFile:
        """Returns everything once the statements are read."""
        if "wafer" not in self.wafer and (self.rows or not self.wafers):
            self.warnings.append(KlarfWarning(0, "the file has no WaferID"))
            self.wafer["wafer"] = ""
        if "wafer" in self.wafer:
            self.end_wafer()
        lot = {name: self.lot[name] for name in ("classes",) if name in self.lot}
        wafers = tuple(replace(wafer, **lot) for wafer in self.wafers)  # a late ClassLookup holds for all
        return KlarfFile(
            version=self.version,
            wafers=wafers,
            time=self.time,
            extras=tuple(self.extras),
            columns=tuple(self.columns) if any(columns.names for columns in self.columns) else (),
            warnings=tuple(self.warnings),
        )


def _split_rows(
    statement: Statement, names: Sequence[str], warnings: list[KlarfWarning]
) -> list[dict[str, tuple[Token, ...]]]:
    """Cuts the values of a defect list into rows; a list of images has as many values as it says itself."""
    rows, rest = _cut(statement.values, names)
    if not rest:
        return rows
    rows = []  # one bad row shifts all that follow: go line by line instead
    for line in statement.rows:
        cut, left = _cut(line, names)
        rows += cut
        if left:
            text = " ".join(token.written() for token in line)
            message = f"a row of the defect list does not fit its {len(names)} columns; it is not read: {text}"
            warnings.append(KlarfWarning(line[0].line, message))
    return rows


def _cut(values: Sequence[Token], names: Sequence[str]) -> tuple[list[dict[str, tuple[Token, ...]]], Sequence[Token]]:
    """Returns whole rows and what is left over; nothing is a row unless everything fits."""
    rows, at = [], 0
    while at < len(values):
        row, start = {}, at
        for name in names:
            width = 1
            if name == "IMAGELIST" and at < len(values) and values[at].text.isdigit():
                width += 2 * int(values[at].text)
            row[name] = tuple(values[at : at + width])
            at += width
        if at > len(values) or not row:
            return [], values[start:]
        rows.append(row)
    return rows, ()


def _pair(values: Sequence[Token]) -> tuple[float, float]:
    return float(values[0].text) + 0.0, float(values[1].text) + 0.0


def _clean(value: Any) -> Any:
    """Names without what `InspectedWafer` refuses: a file may hold control characters."""
    if isinstance(value, str):
        return "".join(c for c in value if c.isprintable())
    return tuple(_clean(part) for part in value) if isinstance(value, tuple) else value


_HANDLERS: dict[str, Callable[[_Reader, Statement], None]] = {
    "filetimestamp": _Reader.file_time,
    "inspectionstationid": _Reader.station,
    "resulttimestamp": _Reader.result_time,
    "lotid": lambda reader, statement: reader.lot.update(lot=reader.name(statement)),
    "deviceid": lambda reader, statement: reader.lot.update(device=reader.name(statement)),
    "stepid": lambda reader, statement: reader.lot.update(step=reader.name(statement)),
    "setupid": _Reader.set_up,
    "samplesize": _Reader.sample_size,
    "sampleorientationmarktype": _Reader.mark,
    "orientationmarklocation": _Reader.mark_location,
    "diepitch": _Reader.pitch,
    "dieorigin": _Reader.die_origin,
    "waferid": _Reader.begin_wafer,
    "slot": _Reader.slot,
    "samplecenterlocation": _Reader.centre,
    "classlookup": _Reader.classes,
    "inspectiontest": _Reader.inspection_test,
    "sampletestplan": _Reader.test_plan,
    "areapertest": lambda reader, statement: None,
    "defectrecordspec": _Reader.record_spec,
    "defectlist": _Reader.defects,
    "tifffilename": _Reader.tiff,
    "summaryspec": lambda reader, statement: None,
    "summarylist": lambda reader, statement: None,
    "sampletype": lambda reader, statement: None,
    "endoffile": lambda reader, statement: None,
}
"""Keyword in lower case -> what it does. Area and summary follow from the rest and are written anew."""
