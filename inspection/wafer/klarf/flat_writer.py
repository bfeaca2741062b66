"""`KlarfFile` -> KLARF 1.1 and 1.2: strict, and every file is read back before it is handed out."""

from collections.abc import Iterable, Iterator

from inspection.wafer.defects import InspectedWafer, WaferDefect
from inspection.wafer.errors import KlarfError
from inspection.wafer.klarf.defect_rows import Unit, cells_of, table_of
from inspection.wafer.klarf.flat_syntax import written
from inspection.wafer.klarf.model import (
    ExtraColumns,
    KlarfFile,
    Statement,
    nm,
    nm2,
    summary,
    um,
    um2,
    written_time,
)

UM = Unit(nanometres=False)


def image_list(defect: WaferDefect) -> str:
    """Returns the list of images of a defect: none, or the first image of its file, of type 0."""
    return "1 1 0" if defect.image else "0"


def write_flat(file: KlarfFile) -> str:
    """Returns the text of a KLARF 1.1 or 1.2 file.

    Raises:
        KlarfError: the version cannot say something that the file holds.
    """
    first = file.wafers[0]
    _check(file)
    parts = [written("FileVersion", [file.version.split(".")])]
    if file.time:
        parts.append(written("FileTimestamp", [written_time(file.time, long_year=False)]))
    parts += _lot(file, first)
    for index, wafer in enumerate(file.wafers):
        parts += _wafer(file, index, wafer)
    return "".join(parts) + "EndOfFile;\n"


def _check(file: KlarfFile) -> None:
    for extra in file.extras:
        if not isinstance(extra.content, Statement):
            raise KlarfError(f"KLARF {file.version} has no place for {extra.content.name}, which is of KLARF 1.8")
    if file.version == "1.1":
        if any(wafer.device for wafer in file.wafers):
            raise KlarfError("KLARF 1.1 has no DeviceID: write 1.2, or clear `device`")
        if any(defect.image for wafer in file.wafers for defect in wafer.defects):
            raise KlarfError("KLARF 1.1 has no images: write 1.2, or clear `image` of the defects")
    if len({wafer.time for wafer in file.wafers}) > 1:
        raise KlarfError(f"KLARF {file.version} stores one ResultTimestamp a file: write 1.8, or a file per wafer")


def _lot(file: KlarfFile, wafer: InspectedWafer) -> Iterator[str]:
    extras = [extra.content for extra in file.extras if extra.wafer is None and isinstance(extra.content, Statement)]
    setup = next((statement.rows[0] for statement in extras if statement.keyword == "SetupID"), ())
    yield written("InspectionStationID", [_quoted(*wafer.station)])
    yield written("SampleType", [["WAFER"]])
    if wafer.time:
        yield written("ResultTimestamp", [written_time(wafer.time, long_year=False)])
    yield written("LotID", [_quoted(wafer.lot)])
    yield written("SampleSize", [["1", f"{wafer.geometry.diameter_mm:.6f}".rstrip("0").rstrip(".")]])
    if file.version == "1.2":
        yield written("DeviceID", [_quoted(wafer.device)])
    yield written("SetupID", [[*_quoted(wafer.recipe), *(token.written() for token in setup)]])
    yield written("StepID", [_quoted(wafer.step)])
    yield written("SampleOrientationMarkType", [["FLAT" if wafer.geometry.flat else "NOTCH"]])
    yield written("OrientationMarkLocation", [[str(wafer.geometry.notch)]])
    yield written("DiePitch", [_lengths(wafer.geometry.pitch_um)])
    yield written("DieOrigin", [_lengths((0.0, 0.0))])
    rows = [[str(number), *_quoted(name)] for number, name in wafer.classes.items()]
    yield written("ClassLookup", [[str(len(rows))], *rows])
    for statement in extras:
        if statement.keyword != "SetupID":
            yield _kept(statement)


def _wafer(file: KlarfFile, index: int, wafer: InspectedWafer) -> Iterator[str]:
    yield written("WaferID", [_quoted(wafer.wafer)])
    yield written("Slot", [[str(wafer.slot)]])
    x, y = wafer.geometry.origin_um
    yield written("SampleCenterLocation", [_lengths((-x, -y))])
    yield written("InspectionTest", [[str(wafer.test)]])
    plan = [[str(die.column), str(die.row)] for die in wafer.inspected]
    yield written("SampleTestPlan", [[str(len(plan))], *plan])
    yield written("AreaPerTest", [[f"{um2(nm2(wafer.inspected_area_um2)):.10e}"]])
    for extra in file.extras:
        if extra.wafer == index and isinstance(extra.content, Statement):
            yield _kept(extra.content)
    yield from _defects(file, wafer, file.columns_of(index))
    yield written("SummarySpec", [["5", "TESTNO", "NDEFECT", "DEFDENSITY", "NDIE", "NDEFDIE"]])
    test, found, density, dies, defective = summary(wafer)
    yield written("SummaryList", [[], [str(test), str(found), f"{density:.10e}", str(dies), str(defective)]])


def _defects(file: KlarfFile, wafer: InspectedWafer, columns: ExtraColumns) -> Iterator[str]:
    cells = {defect.id: cells_of(defect, wafer.test, UM, image_list(defect)) for defect in wafer.defects}
    names, rows = table_of(columns, cells, UM)
    unsaid = {"IMAGECOUNT", "IMAGELIST"} - set(columns.names) if file.version == "1.1" else set()
    keep = [i for i, name in enumerate(names) if name not in unsaid]
    yield written("DefectRecordSpec", [[str(len(keep)), *(names[i] for i in keep)]])
    block: list[list[str]] = [[]]
    image = ""
    for defect in wafer.defects:
        if defect.image not in ("", image):
            if len(block) > 1:
                yield written("DefectList", block)
            block, image = [[]], defect.image
            yield written("TiffFileName", [_quoted(image)])
        block.append([rows[defect.id][i] for i in keep])
    yield written("DefectList", block)


def _kept(statement: Statement) -> str:
    return written(statement.keyword, [[token.written() for token in row] for row in statement.rows])


def _quoted(*names: str) -> list[str]:
    return [f'"{name}"' for name in names]


def _lengths(values: Iterable[float]) -> list[str]:
    return [f"{um(nm(value)):.10e}" for value in values]
