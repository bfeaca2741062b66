"""KLARF 1.8 -> `KlarfFile`: tolerant, and it says what it tolerated."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from inspection.wafer.defects import InspectedWafer
from inspection.wafer.errors import KlarfError
from inspection.wafer.geometry import DieIndex, Side, WaferGeometry
from inspection.wafer.klarf.defect_rows import Row, Unit, read_rows
from inspection.wafer.klarf.model import Extra, ExtraColumns, Field, KlarfFile, Record, Table, parsed_time, um
from inspection.wafer.klarf.tokens import KlarfWarning, Token
from inspection.wafer.klarf.tree_syntax import parse_tree
from inspection.wafer.klarf.tree_writer import image_cell

NM = Unit(nanometres=True)
_WRITTEN_ANEW = frozenset({"SampleType", "AreaPerTest", "TestSummaryList"})  # they follow from the rest


def read_tree(text: str) -> KlarfFile:
    """Reads the text of a KLARF 1.8 file.

    Raises:
        KlarfError: not such a file, or die pitch, lot or the place of defects is missing.
    """
    warnings: list[KlarfWarning] = []
    root = parse_tree(text, warnings)
    if root.name != "FileRecord" or root.id != "1.8":
        raise KlarfError(f'the file must be a FileRecord "1.8"; got {root.name} {root.id!r}')
    return _Reader(warnings).file(root)


class _Reader:
    """State of a pass over the tree."""

    def __init__(self, warnings: list[KlarfWarning]) -> None:
        self.warnings = warnings
        self.extras: list[Extra] = []
        self.values: dict[str, Any] = {}  # settings of `InspectedWafer`, and of `WaferGeometry` below
        self.grid: dict[str, Any] = {}

    def file(self, root: Record) -> KlarfFile:
        """Reads the whole file."""
        lots = [part for part in root.content if isinstance(part, Record) and part.name == "LotRecord"]
        if len(lots) != 1:
            raise KlarfError(f"a file must hold one LotRecord; got {len(lots)}")
        time = ""
        for part in root.content:
            if part is lots[0]:
                continue
            if isinstance(part, Field) and part.name == "FileTimestamp" and (read := self.time(part)):
                time = read
            else:
                self.extras.append(Extra.of(None, "file", part))
        wafers, columns = self.lot(lots[0])
        return KlarfFile(
            version="1.8",
            wafers=wafers,
            time=time,
            extras=tuple(self.extras),
            columns=columns if any(part.names for part in columns) else (),
            warnings=tuple(self.warnings),
        )

    def lot(self, lot: Record) -> tuple[tuple[InspectedWafer, ...], tuple[ExtraColumns, ...]]:
        """Reads a lot: first what holds for all its wafers, then these."""
        self.values["lot"] = lot.id
        records = [part for part in lot.content if isinstance(part, Record) and part.name == "WaferRecord"]
        for part in lot.content:
            if not any(part is record for record in records) and not self.understood(part):
                self.extras.append(Extra.of(None, "lot", part))
        if not records:
            raise KlarfError("the lot holds no WaferRecord")
        read = [self.wafer(index, record) for index, record in enumerate(records)]
        return tuple(wafer for wafer, _ in read), tuple(columns for _, columns in read)

    def wafer(self, index: int, record: Record) -> tuple[InspectedWafer, ExtraColumns]:
        """Reads a wafer; its own fields go before those of the lot."""
        outer = dict(self.values), dict(self.grid)
        self.values["wafer"] = record.id
        lists: list[Table] = []
        tests: list[Record] = []
        for part in record.content:
            if isinstance(part, Table) and part.name == "DefectList":
                lists.append(part)
            elif isinstance(part, Record) and part.name == "TestRecord":
                tests.append(part)
            elif isinstance(part, Record) and part.name == "SummaryRecord":
                rest = tuple(child for child in part.content if child.name not in _WRITTEN_ANEW)
                if rest:
                    self.extras.append(Extra.of(index, "wafer", part._replace(content=rest)))
            elif not self.understood(part):
                self.extras.append(Extra.of(index, "wafer", part))
        if "pitch_um" not in self.grid:
            raise KlarfError("the file has no DiePitch that can be understood")
        geometry = WaferGeometry(**self.grid, edge_exclusion_mm=0.0)
        test, plan = self.tests(index, tests)
        defects, columns = self.defects(lists, geometry, test)
        settings = {name: _clean(value) for name, value in self.values.items()}
        self.values, self.grid = outer
        wafer = InspectedWafer(geometry=geometry, inspected=plan, defects=(), test=test, **settings)
        return replace(wafer, defects=defects), columns

    def tests(self, index: int, records: Sequence[Record]) -> tuple[int, tuple[DieIndex, ...]]:
        """Reads the tests of a wafer; the dies of all of them count as inspected."""
        number, plan = 1, dict[DieIndex, None]()
        for position, record in enumerate(records):
            if position == 0 and record.id.isdigit():
                number = int(record.id)
            for part in record.content:
                if isinstance(part, Table) and part.name == "SampleTestPlanList" and self.plan(part, plan):
                    continue
                if part.name not in _WRITTEN_ANEW:
                    self.extras.append(Extra.of(index, "test", part))
        if len(records) > 1:
            names = ", ".join(record.id for record in records)
            self.warn(f"tests {names} of a wafer are read as one; TEST tells their defects apart")
        return number, tuple(plan)

    def plan(self, table: Table, plan: dict[DieIndex, None]) -> bool:
        """Adds the dies of a test plan."""
        try:
            x, y = table.columns.index("XINDEX"), table.columns.index("YINDEX")
            plan.update({DieIndex(int(row[x][0].text), int(row[y][0].text)): None for row in table.rows})
        except ValueError as error:
            self.warn(f"SampleTestPlanList cannot be understood ({error}); it is kept as it stands")
            return False
        return True

    def defects(
        self, lists: Sequence[Table], geometry: WaferGeometry, test: int
    ) -> tuple[tuple[Any, ...], ExtraColumns]:
        """Reads the defect lists of a wafer, which must have the same columns."""
        names = tuple(name.upper() for name in lists[0].columns) if lists else ()
        rows = []
        for table in lists:
            if tuple(name.upper() for name in table.columns) != names:
                raise KlarfError("the defect lists of a wafer have different columns")
            for cells in table.rows:
                row = dict(zip(names, cells, strict=True))
                rows.append(Row(row, _first_image(row), cells[0][0].line))
        types = lists[0].types if lists else ()
        return read_rows(rows, names, types, geometry, test, NM, image_cell, self.warnings)

    def understood(self, part: Field | Table | Record) -> bool:
        """Takes in a part that means something; False for all others."""
        handler = _FIELDS.get(part.name) if isinstance(part, Field) else None
        if isinstance(part, Table) and part.name == "ClassLookupList":
            handler = _Reader.classes
        if handler is None:
            return part.name in _WRITTEN_ANEW
        try:
            return bool(handler(self, part))
        except (ValueError, IndexError, OverflowError) as error:
            self.warn(f"{part.name} cannot be understood ({error}); it is kept as it stands")
            return False

    def classes(self, table: Any) -> bool:
        """ClassLookupList; codes that are not empty are kept as an extra."""
        number, name = table.columns.index("CLASSNUMBER"), table.columns.index("CLASSNAME")
        found = {int(row[number][0].text): row[name][0].text for row in table.rows}
        self.values["classes"] = MappingProxyType(found)
        return True

    def time(self, field: Field) -> str:
        """Date and time; "" if they cannot be understood."""
        try:
            return parsed_time(field.values[0].text, field.values[1].text)
        except (ValueError, IndexError):
            text = " ".join(token.text for token in field.values)
            self.warn(f"{field.name} {text!r} cannot be understood; it is kept as it stands")
            return ""

    def result_time(self, field: Any) -> bool:
        """ResultTimestamp."""
        time = self.time(field)
        if time:
            self.values["time"] = time
        return bool(time)

    def origin(self, field: Any) -> bool:
        """SampleCenterLocation: the wafer's centre from the corner of die (0, 0)."""
        self.grid["origin_um"] = tuple(0.0 - value for value in _pair_um(field.values))
        return True

    def die_origin(self, field: Any) -> bool:
        """DieOrigin: its meaning is not known for other values than 0."""
        if _pair_um(field.values) == (0.0, 0.0):
            return True
        self.warn("DieOrigin is not 0 0; its sign is not known, so it is not applied, only kept")
        return False

    def size(self, field: Any) -> bool:
        """SampleSize: diameter in nanometres, 0."""
        diameter, second = (float(token.text) for token in field.values)
        if second not in (0.0, diameter):
            raise ValueError("only round samples are known")
        self.grid["diameter_mm"] = diameter / 1e6
        return True

    def mark(self, field: Any) -> bool:
        """SampleOrientationMarkType."""
        kind = field.values[0].text.upper()
        if kind not in ("NOTCH", "FLAT"):
            raise ValueError(f"NOTCH or FLAT is known, not {kind}")
        self.grid["flat"] = kind == "FLAT"
        return True

    def recipe(self, field: Any) -> bool:
        """RecipeID: name, date, time; a date is kept as an extra."""
        self.values["recipe"] = field.values[0].text
        return not any(token.text for token in field.values[1:])

    def warn(self, message: str) -> None:
        """Reports what no line is to blame for."""
        self.warnings.append(KlarfWarning(0, message))

    def store(self, **values: Any) -> bool:
        """Stores settings of the wafer."""
        self.values |= values
        return True

    def store_grid(self, **values: Any) -> bool:
        """Stores settings of the die grid."""
        self.grid |= values
        return True


_FIELDS: dict[str, Callable[[_Reader, Any], bool]] = {
    "DeviceID": lambda reader, field: reader.store(device=field.values[0].text),
    "StepID": lambda reader, field: reader.store(step=field.values[0].text),
    "SlotNumber": lambda reader, field: reader.store(slot=int(field.values[0].text)),
    "InspectionStationID": lambda reader, field: reader.store(station=_three(field.values)),
    "RecipeID": _Reader.recipe,
    "ResultTimestamp": _Reader.result_time,
    "DiePitch": lambda reader, field: reader.store_grid(pitch_um=_pair_um(field.values)),
    "SampleCenterLocation": _Reader.origin,
    "DieOrigin": _Reader.die_origin,
    "SampleSize": _Reader.size,
    "SampleOrientationMarkType": _Reader.mark,
    "OrientationMarkLocation": lambda reader, field: reader.store_grid(notch=Side.at(float(field.values[0].text))),
}
"""Name of a field -> what it does; False keeps the field as an extra too."""


def _pair_um(values: Sequence[Token]) -> tuple[float, float]:
    x, y = (um(round(float(token.text))) + 0.0 for token in values)
    return x, y


def _three(values: Sequence[Token]) -> tuple[str, str, str]:
    first, second, third = (token.text for token in values)
    return first, second, third


def _first_image(row: dict[str, tuple[Token, ...]]) -> str:
    """The first file of `Images n { "file" "type" 1 "kind", ... }`."""
    return next((token.text for token in row.get(NM.images, ())[3:] if token.quoted), "")


def _clean(value: Any) -> Any:
    """Names without what `InspectedWafer` refuses: a file may hold control characters."""
    if isinstance(value, str):
        return "".join(c for c in value if c.isprintable())
    return tuple(_clean(part) for part in value) if isinstance(value, tuple) else value
