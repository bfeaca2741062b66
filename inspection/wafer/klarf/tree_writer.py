"""`KlarfFile` -> KLARF 1.8."""

from collections.abc import Iterable
from pathlib import PurePath

from inspection.wafer.defects import InspectedWafer, WaferDefect
from inspection.wafer.errors import KlarfError
from inspection.wafer.klarf.defect_rows import COLUMNS, Unit, cells_of, table_of
from inspection.wafer.klarf.model import (
    ExtraColumns,
    Field,
    KlarfFile,
    Record,
    Statement,
    Table,
    nm,
    nm2,
    summary,
    written_time,
)
from inspection.wafer.klarf.tokens import KlarfWarning, Token, tokens
from inspection.wafer.klarf.tree_syntax import written_tree

NM = Unit(nanometres=True)
Part = Field | Table | Record


def image_cell(defect: WaferDefect) -> str:
    """Returns the cell of the images of a defect: N, or its one picture."""
    if not defect.image:
        return "N"
    kind = PurePath(defect.image).suffix.lstrip(".").upper() or "NONE"
    return f'Images 1 {{ "{defect.image}" "{kind}" 1 "Patch" }}'


def write_tree(file: KlarfFile) -> str:
    """Returns the text of a KLARF 1.8 file.

    Raises:
        KlarfError: KLARF 1.8 cannot say something that the file holds.
    """
    if old := next((extra.content.keyword for extra in file.extras if isinstance(extra.content, Statement)), None):
        raise KlarfError(f"KLARF 1.8 has no place for the statement {old}, which is of KLARF 1.1 or 1.2")
    wafers = [_wafer(file, index, wafer) for index, wafer in enumerate(file.wafers)]
    first = file.wafers[0]
    lot = Record("LotRecord", first.lot, (*wafers, *_lot(first), *_extras(file, None, "lot")))
    fields: list[Part] = [lot]
    if file.time:
        fields.append(_strings("FileTimestamp", *written_time(file.time, long_year=True)))
    content = Record("FileRecord", "1.8", (*fields, *_extras(file, None, "file")))
    return written_tree(content) + "EndOfFile;\n"


def _extras(file: KlarfFile, wafer: int | None, level: str) -> list[Part]:
    return [
        extra.content
        for extra in file.extras
        if extra.wafer == wafer and extra.level == level and not isinstance(extra.content, Statement)
    ]


def _lot(wafer: InspectedWafer) -> list[Part]:
    geometry = wafer.geometry
    parts: list[Part] = [
        _strings("DeviceID", wafer.device),
        _numbers("DiePitch", (nm(side) for side in geometry.pitch_um)),
        _strings("InspectionStationID", *wafer.station),
        _numbers("OrientationMarkLocation", [geometry.notch.degrees]),
        _strings("RecipeID", wafer.recipe, "", ""),
        _strings("SampleOrientationMarkType", "FLAT" if geometry.flat else "NOTCH"),
        _numbers("SampleSize", [round(geometry.diameter_mm * 1e6), 0]),
        _strings("SampleType", "WAFER"),
        _strings("StepID", wafer.step),
    ]
    rows = [[str(number), f'"{name}"', '""'] for number, name in wafer.classes.items()]
    types, columns = ["int32", "string", "string"], ["CLASSNUMBER", "CLASSNAME", "CLASSCODE"]
    return [*parts, _table("ClassLookupList", types, columns, rows)]


def _wafer(file: KlarfFile, index: int, wafer: InspectedWafer) -> Record:
    x, y = wafer.geometry.origin_um
    parts: list[Part] = [
        _numbers("DieOrigin", [0, 0]),
        _numbers("SampleCenterLocation", [nm(-x), nm(-y)]),
        _numbers("SlotNumber", [wafer.slot]),
    ]
    if wafer.time:
        parts.append(_strings("ResultTimestamp", *written_time(wafer.time, long_year=True)))
    parts.append(_defects(wafer, file.columns_of(index)))
    plan = [[str(die.column), str(die.row)] for die in wafer.inspected]
    area = _numbers("AreaPerTest", [nm2(wafer.inspected_area_um2)])
    table = _table("SampleTestPlanList", ["int32"] * 2, ["XINDEX", "YINDEX"], plan)
    parts.append(Record("TestRecord", str(wafer.test), (area, table, *_extras(file, index, "test"))))
    test, found, density, dies, defective = summary(wafer)
    names = ["TESTNO", "NDEFECT", "DEFDENSITY", "NDIE", "NDEFDIE"]
    row = [[str(test), str(found), repr(density), str(dies), str(defective)]]
    totals = _table("TestSummaryList", ["int32", "int32", "float", "int32", "int32"], names, row)
    parts.append(Record("SummaryRecord", "", (totals,)))
    return Record("WaferRecord", wafer.wafer, (*parts, *_extras(file, index, "wafer")))


def _defects(wafer: InspectedWafer, columns: ExtraColumns) -> Table:
    cells = {defect.id: cells_of(defect, wafer.test, NM, image_cell(defect)) for defect in wafer.defects}
    names, rows = table_of(columns, cells, NM)
    own = dict(zip(columns.names, columns.types, strict=True)) if columns.types else {}
    types = [own.get(name) or COLUMNS.get(name, "ImageList" if name == NM.images else "string") for name in names]
    return _table("DefectList", types, names, [rows[defect.id] for defect in wafer.defects])


def _strings(name: str, *values: str) -> Field:
    return Field(name, tuple(Token(value, 0, quoted=True) for value in values))


def _numbers(name: str, values: Iterable[int]) -> Field:
    return Field(name, tuple(Token(str(value), 0) for value in values))


def _table(name: str, types: list[str], columns: list[str], rows: list[list[str]]) -> Table:
    cells = tuple(tuple(_cell(cell) for cell in row) for row in rows)
    return Table(name, tuple(types), tuple(columns), cells)


def _cell(text: str) -> tuple[Token, ...]:
    warnings: list[KlarfWarning] = []
    return tuple(tokens(text, warnings, braces=True)) or (Token("", 0, quoted=True),)
