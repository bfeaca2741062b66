"""KLARF: what is written is read back; what real files do wrong is read and reported."""

from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inspection.wafer import klarf
from inspection.wafer.defects import InspectedWafer, WaferDefect
from inspection.wafer.errors import KlarfError
from inspection.wafer.geometry import DieIndex, Side, WaferGeometry
from inspection.wafer.klarf import as_stored, dumps, klarf_file, loads

CALM = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

NAMES = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x24F, exclude_characters='"\x7f', exclude_categories=("C", "Z")),
    max_size=12,
)
LENGTHS = st.floats(0, 30_000, allow_subnormal=False)


@st.composite
def geometries(draw) -> WaferGeometry:
    return WaferGeometry(
        pitch_um=(draw(st.floats(400, 50_000)), draw(st.floats(400, 50_000))),
        origin_um=(draw(st.floats(-160_000, 160_000)), draw(st.floats(-160_000, 160_000))),
        diameter_mm=draw(st.sampled_from([100.0, 150.0, 200.0, 300.0, 76.2])),
        edge_exclusion_mm=draw(st.floats(0, 10)),
        notch=draw(st.sampled_from(Side)),
        flat=draw(st.booleans()),
    )


@st.composite
def defects(draw, geometry: WaferGeometry, number: int, images: bool, classes: list[int]) -> WaferDefect:
    position = st.floats(-150_000, 150_000)
    return WaferDefect.at(
        geometry,
        draw(position),
        draw(position),
        id=number,
        size_x_um=draw(LENGTHS),
        size_y_um=draw(LENGTHS),
        area_um2=draw(st.floats(0, 1e8)),
        peak=draw(st.floats(-1e6, 1e6)),
        mean=draw(st.floats(-1e6, 1e6)),
        p_value=draw(st.none() | st.floats(1e-9, 1)),
        class_number=draw(st.sampled_from(classes)),
        image=draw(st.sampled_from(["", "a.png", "b c.tif", "folder/d.jpg"])) if images else "",
        frame=draw(st.sampled_from(["", "f1"])),
    )


@st.composite
def wafers(draw, version: str) -> InspectedWafer:
    geometry = draw(geometries())
    dies = st.builds(DieIndex, st.integers(-99, 99), st.integers(-99, 99))
    classes = {number: draw(NAMES) for number in draw(st.lists(st.integers(0, 99), unique=True, max_size=4))}
    ids = draw(st.lists(st.integers(0, 10**6), unique=True, max_size=6))
    found = [draw(defects(geometry, number, version != "1.1", [0, *classes])) for number in ids]
    return InspectedWafer(
        geometry=geometry,
        inspected=tuple(draw(st.lists(dies, unique=True, max_size=9))),
        defects=tuple(found),
        lot=draw(NAMES),
        wafer=draw(NAMES),
        slot=draw(st.integers(0, 25)),
        device=draw(NAMES) if version != "1.1" else "",
        step=draw(NAMES),
        recipe=draw(NAMES),
        station=(draw(NAMES), draw(NAMES), draw(NAMES)),
        time=draw(st.sampled_from(["", "2026-11-22T17:05:09", "1999-12-31T23:59:59"])),
        classes=classes,
        test=draw(st.integers(1, 9)),
    )


FLAT = """\
FileVersion 1 2;
FileTimestamp 11-20-26 08:15:00;
InspectionStationID "maker" "model" "tool 7";
SampleType WAFER;
ResultTimestamp 11-20-2026 08:10:00;
LotID "LOT 42";
SampleSize 1 200;
DeviceID "chip";
SetupID "recipe" 11-01-26 07:00:00;
StepID "etch";
SampleOrientationMarkType NOTCH;
OrientationMarkLocation LEFT;
DiePitch 1.0000000000e+004 2.0000000000e+004;
DieOrigin 0.0000000000e+000 0.0000000000e+000;
WaferID "W3";
Slot 3;
SampleCenterLocation 5.0000000000e+003 1.0000000000e+004;
ClassLookup 2
 0 "Unclassified"
 7 "Particle";
InspectionTest 1;
SampleTestPlan 3
 0 0
 1 0
 0 -1;
AreaPerTest 6.0000000000e+008;
DefectRecordSpec 9 YINDEX XINDEX YREL XREL DEFECTID CLASSNUMBER YSIZE XSIZE MYCOLUMN ;
DefectList
 0 1 250.5 100.25 11 7 3 4 hello
 -1 0 19000.0 2.0 12 0 1.5 2 "two words" ;
SummarySpec 5 TESTNO NDEFECT DEFDENSITY NDIE NDEFDIE;
SummaryList
 1 2 0.333 3 2;
LotStatus 1 0 1;
EndOfFile;
"""

TREE = """\
Record FileRecord "1.8" {
  Record LotRecord "LOT 42" {
    Record WaferRecord "W3" {
      Field DieOrigin 2 {0, 0}
      Field SampleCenterLocation 2 {5000000, 10000000}
      Field SlotNumber 1 {3}
      List DefectList {
        Columns 9 { int32 YINDEX, int32 XINDEX, int32 YREL, int32 XREL, int32 DEFECTID, int32 YSIZE, int32 XSIZE,
          float CONTRAST, ImageList IMAGEINFO }
        Data 2 {
          0 1 250500 100250 11
            3000 4000 NA Images 2 { "a/b.jpg" "JPG" 1 "Patch", "c.jpg" "JPG" 1 "Patch" } ;
          -1 0 19000000 2000 12 1500 2000 0.5 N;
        }
      }
      Record TestRecord "1" {
        Field AreaPerTest 1 {600000000000000}
        List SampleTestPlanList { Columns 2 { int32 XINDEX, int32 YINDEX } Data 1 { 0 0; } }
      }
    }
    Field DiePitch 2 {10000000, 20000000}
    Field OrientationMarkLocation 1 {90}
    Field SampleSize 2 {200000000, 0}
    Field RecipeID 3 {"recipe", "11-01-2026", "07:00:00"}
    Field Mystery 1 {"kept"}
  }
  Field FileTimestamp 2 {"2026-11-20", "08:15:00"}
}
EndOfFile;
"""


def wafer(**settings) -> InspectedWafer:
    geometry = WaferGeometry(pitch_um=(10_000, 20_000), origin_um=(-5_000, -10_000))
    defect = WaferDefect.at(geometry, 1.0, 2.0, id=1, size_x_um=3.0, size_y_um=4.0, area_um2=12.0)
    return InspectedWafer(**{"geometry": geometry, "inspected": (DieIndex(0, 0),), "defects": (defect,)} | settings)


@pytest.mark.parametrize("version", klarf.VERSIONS)
@CALM
@given(data=st.data())
def test_what_is_written_is_read_back(version, data):
    original = data.draw(wafers(version))
    file = klarf_file(original, version, time="2026-11-22T17:05:00")
    text = dumps(file)
    back = loads(text)
    assert back.wafers == (as_stored(original),)
    assert back.time == file.time
    assert back.warnings == ()
    assert dumps(back) == text


@pytest.mark.parametrize("version", klarf.VERSIONS)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_line_ends_do_not_matter(version, ending):
    text = dumps(klarf_file(wafer(), version))
    assert loads(text.replace("\n", ending)).wafers == (as_stored(wafer()),)


@pytest.mark.parametrize("version", ["1.2", "1.8"])
def test_file_on_disk(version, tmp_path):
    file = klarf_file(wafer(wafer="Wäfer"), version)
    klarf.write(tmp_path / "w.001", file)
    assert b"\r\n" in (tmp_path / "w.001").read_bytes()
    assert klarf.read(tmp_path / "w.001").wafers == (as_stored(file.wafers[0]),)
    assert [path.name for path in tmp_path.iterdir()] == ["w.001"]
    (tmp_path / "latin.001").write_bytes(dumps(file).encode("latin-1"))
    assert klarf.read(tmp_path / "latin.001").wafers[0].wafer == "Wäfer"


def test_several_wafers_of_a_lot():
    wafers_of_lot = [wafer(wafer=f"W{n}", slot=n, lot="L") for n in (1, 2)]
    for version in klarf.VERSIONS:
        assert loads(dumps(klarf_file(wafers_of_lot, version))).wafers == tuple(as_stored(w) for w in wafers_of_lot)
    with pytest.raises(KlarfError, match="wafers of a file share lot"):
        dumps(klarf_file([wafers_of_lot[0], replace(wafers_of_lot[1], lot="M")], "1.8"))


def test_flat_file_is_understood():
    file = loads(FLAT)
    assert file.warnings == ()
    assert (file.version, file.time) == ("1.2", "2026-11-20T08:15:00")
    (read,) = file.wafers
    grid = read.geometry
    assert (grid.pitch_um, grid.origin_um) == ((10_000.0, 20_000.0), (-5_000.0, -10_000.0))
    assert (grid.diameter_mm, grid.notch, grid.flat) == (200.0, Side.LEFT, False)
    assert (read.lot, read.wafer, read.slot, read.device, read.step) == ("LOT 42", "W3", 3, "chip", "etch")
    assert (read.recipe, read.station, read.time) == ("recipe", ("maker", "model", "tool 7"), "2026-11-20T08:10:00")
    assert dict(read.classes) == {0: "Unclassified", 7: "Particle"}
    assert read.inspected == ((0, 0), (1, 0), (0, -1))
    first, second = read.defects
    assert (first.id, first.die, first.class_number) == (11, (1, 0), 7)
    assert (first.die_x_um, first.die_y_um, first.size_x_um, first.size_y_um) == (100.25, 250.5, 4.0, 3.0)
    # The rule of the format: index * pitch + position in the die - SampleCenterLocation.
    assert (first.x_um, first.y_um) == (1 * 10_000 + 100.25 - 5_000, 0 * 20_000 + 250.5 - 10_000)
    assert (second.x_um, second.y_um) == (2.0 - 5_000, -20_000 + 19_000 - 10_000)
    assert first.area_um2 == 12.0
    assert file.columns[0].names == ("MYCOLUMN",)
    assert file.columns[0].values == {11: ("hello",), 12: ('"two words"',)}
    assert [extra.content.keyword for extra in file.extras] == ["SetupID", "LotStatus"]


def test_tree_file_is_understood():
    file = loads(TREE)
    assert file.warnings == ()
    (read,) = file.wafers
    assert (read.lot, read.wafer, read.slot, read.recipe) == ("LOT 42", "W3", 3, "recipe")
    assert (read.geometry.notch, read.geometry.diameter_mm) == (Side.LEFT, 200.0)
    first, second = read.defects
    assert (first.x_um, first.y_um) == (10_000 + 100.25 - 5_000, 250.5 - 10_000)
    assert (first.size_x_um, first.size_y_um, first.area_um2) == (4.0, 3.0, 12.0)
    assert (first.image, second.image) == ("a/b.jpg", "")
    assert file.columns[0].values[11][0] == "NA"
    assert {getattr(extra.content, "name", "") for extra in file.extras} == {"RecipeID", "Mystery"}
    assert read.defects == tuple(
        replace(defect, image=image, class_number=0)
        for defect, image in zip(loads(FLAT).wafers[0].defects, ("a/b.jpg", ""), strict=True)
    )


@pytest.mark.parametrize("text", [FLAT, TREE], ids=["1.2", "1.8"])
def test_what_means_nothing_is_written_again(text):
    file = loads(text)
    again = loads(dumps(file))
    assert (again.wafers, again.extras, again.columns) == (file.wafers, file.extras, file.columns)
    other = replace(file, version="1.8" if file.version == "1.2" else "1.2")
    with pytest.raises(KlarfError, match="which is of KLARF"):
        dumps(other)
    assert loads(dumps(replace(other, extras=(), columns=()))).wafers == file.wafers


TOLERATED = {
    "missing semicolon": ("Slot 3;", "Slot 3", r"Slot has no semicolon before SampleCenterLocation"),
    "wrong count of columns": ("Spec 9 ", "Spec 8 ", "announces 8 columns and names 9"),
    "wrong count of rows": ("SampleTestPlan 3", "SampleTestPlan 5", "SampleTestPlan announces 5 rows and has 3"),
    "unknown mark": ("NOTCH", "DIMPLE", "NOTCH or FLAT is known, not DIMPLE"),
    "time that is none": ("11-20-26 08:15:00", "99-99-99 08:15:00", "FileTimestamp cannot be understood"),
    "open string": ('"W3"', '"W3', "is not closed on its line"),
    "end is missing": ("EndOfFile;\n", "", "does not end with EndOfFile"),
    "text after the end": ("EndOfFile;\n", "EndOfFile;\nmore", "text after EndOfFile"),
    "origin that is not 0": ("DieOrigin 0.0", "DieOrigin 7.0", "sign is not known"),
    "bad number": ("100.25 11", "abc 11", "XREL of defect 11 is 'abc'; it is read as 0"),
    "id twice": ("2.0 12", "2.0 11", "defect id 11 was given twice"),
    "swallowed word": ('WaferID "W3";\nSlot', 'WaferID "W3"\n Slod', "has more than a name"),
}


@pytest.mark.parametrize(("old", "new", "message"), TOLERATED.values(), ids=TOLERATED)
def test_faults_are_tolerated_and_reported(old, new, message):
    assert FLAT.count(old) == 1
    file = loads(FLAT.replace(old, new))
    assert any(message in warning.message for warning in file.warnings), file.warnings
    assert len(file.wafers[0].defects) == 2


def test_a_bad_row_costs_only_itself_and_is_reported():
    file = loads(FLAT.replace("100.25 11 7 3 4 hello", "100.25 11 7 3 4 hello 99"))
    assert [defect.id for defect in file.wafers[0].defects] == [12]
    assert any("it is not read: 0 1 250.5" in warning.message for warning in file.warnings)


def test_spellings_that_real_files_have_raise_no_warning():
    text = FLAT.replace("FileTimestamp", "FileTimeStamp").replace('"W3"', "W3")
    text = text.replace('"two words" ;', '"two words"\n;').replace("DefectList\n", "DefectList;\nDefectList\n")
    file = loads(text)
    assert file.warnings == ()
    assert file.wafers == loads(FLAT).wafers


def test_images_of_several_files_and_rows_over_several_lines():
    text = FLAT[: FLAT.index("DefectRecordSpec")] + (
        "DefectRecordSpec 7 DEFECTID XREL YREL XINDEX YINDEX IMAGECOUNT IMAGELIST;\nDefectList;\n"
        "TiffFileName a.tif;\nDefectList\n 1 1 2 0 0 1 1 1 0\n 2 1 2 0 0 0 0;\n"
        "TiffFileName b.tif;\nDefectList\n 3 1 2 0 0 2 2 5 0\n  6 0\n 4 1 2 0\n 0 0 0;\nEndOfFile;\n"
    )
    file = loads(text)
    assert file.warnings == ()
    assert [(d.id, d.image) for d in file.wafers[0].defects] == [(1, "a.tif"), (2, ""), (3, "b.tif"), (4, "")]
    again = loads(dumps(file))
    assert (again.wafers, again.columns) == (file.wafers, file.columns)
    assert file.columns[0].values[3][file.columns[0].names.index("IMAGELIST")] == "2 5 0 6 0"


TREE_FAULTS = {
    "count of rows": ("Data 2 {", "Data 7 {", "DefectList announces 7 rows and has 2"),
    "count of values": ("Field SlotNumber 1", "Field SlotNumber 4", "SlotNumber announces 4 values and has 1"),
    "no semicolon": ("0.5 N;", "0.5 N", "the last row of DefectList has no semicolon"),
    "end is missing": ("EndOfFile;\n", "", "does not end with EndOfFile"),
}


@pytest.mark.parametrize(("old", "new", "message"), TREE_FAULTS.values(), ids=TREE_FAULTS)
def test_faults_of_a_tree_are_tolerated_and_reported(old, new, message):
    file = loads(TREE.replace(old, new))
    assert any(message in warning.message for warning in file.warnings), file.warnings
    assert file.wafers == loads(TREE).wafers


REFUSED = {
    "not KLARF": ("hello world", "begins with FileVersion"),
    "version": (FLAT.replace("FileVersion 1 2", "FileVersion 3 7"), "must be 1 1 or 1 2; got 3.7"),
    "no pitch": (FLAT.replace("DiePitch", "DieBitch"), "no DiePitch"),
    "no place": (FLAT.replace(" XREL ", " XXXX "), "has no column XREL"),
    "number for keyword": (FLAT.replace("Slot 3;", "Slot 3; 17;"), "a keyword must stand here; got 17"),
    "brace": (TREE[: TREE.index("Record TestRecord")], "a brace is not closed"),
    "tree of version": (TREE.replace('"1.8"', '"9.9"'), "must be a FileRecord"),
    "nested": ('Record FileRecord "1.8" {' + "Record A {" * 99, "nested deeper"),
}


@pytest.mark.parametrize(("text", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_placed_is_refused(text, message):
    with pytest.raises(KlarfError, match=message):
        loads(text)


UNWRITABLE = {
    "device in 1.1": (wafer(device="chip"), "1.1", "1.1 has no DeviceID"),
    "time zone": (wafer(time="2026-11-22T17:05:00+01:00"), "1.2", "without a time zone"),
    "no time": (wafer(time="yesterday"), "1.8", "must be ISO 8601"),
    "old year": (wafer(time="1950-01-01T00:00:00"), "1.2", "two digits"),
    "far away": (replace(wafer(), defects=(replace(wafer().defects[0], die_x_um=1e9),)), "1.8", "does not fit KLARF"),
}


@pytest.mark.parametrize(("unwritable", "version", "message"), UNWRITABLE.values(), ids=UNWRITABLE)
def test_what_a_version_cannot_say_is_not_written(unwritable, version, message):
    with pytest.raises(KlarfError, match=message):
        dumps(klarf_file(unwritable, version))


def test_summary_follows_from_the_defects():
    text = dumps(klarf_file(wafer(inspected=(DieIndex(0, 0), DieIndex(1, 0))), "1.2"))
    assert "AreaPerTest 4.0000000000e+08;" in text
    # 1 defect on 4e8 um2 = 4 cm2
    assert "SummaryList\n 1 1 2.5000000000e-01 2 1;" in text


@CALM
@given(st.data())
def test_damaged_files_never_raise_anything_else(data):
    text = data.draw(st.sampled_from([FLAT, TREE]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    junk = data.draw(st.text(st.sampled_from('"{};, 01aX.\n'), max_size=8))
    with suppress(KlarfError):
        loads(text[:start] + junk + text[end:])
