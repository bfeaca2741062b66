"""Bin maps, SEMI E142 and SEMI G85."""

from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import SettingError
from inspection.wafer.bins import NULL_BIN, Bin, BinMap, bin_map
from inspection.wafer.defects import InspectedWafer, WaferDefect
from inspection.wafer.errors import MapFileError
from inspection.wafer.geometry import DieIndex, Side, WaferGeometry, centred
from inspection.wafer.map_files import e142, g85, read_e142, read_g85, write_map

FORMATS = {"E142": (e142, read_e142), "G85": (g85, read_g85)}
NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=("C", "Z")), max_size=10)


@st.composite
def maps(draw) -> BinMap:
    codes = draw(st.dictionaries(st.integers(0, 254), st.builds(Bin, st.none() | st.booleans(), NAMES), max_size=4))
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    cells = draw(
        st.lists(st.sampled_from([*codes, NULL_BIN]), min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])
    )
    return BinMap(
        bins=np.array(cells, np.uint8).reshape(shape),
        codes=codes,
        lot=draw(NAMES),
        wafer=draw(NAMES),
        product=draw(NAMES),
        notch=draw(st.sampled_from(Side)),
        first=draw(st.builds(DieIndex, st.integers(-50, 50), st.integers(-50, 50))),
        die_mm=draw(st.none() | st.tuples(st.floats(0.01, 100), st.floats(0.01, 100))),
    )


@pytest.mark.parametrize(("write", "read"), FORMATS.values(), ids=FORMATS)
@settings(max_examples=50, deadline=None)
@given(original=maps())
def test_what_is_written_is_read_back(write, read, original):
    assert read(write(original)) == original


@pytest.fixture
def wafer():
    """Nine dies of 20 mm on a 100 mm wafer, of which one was not inspected and one has failed."""
    pitch = (20_000, 20_000)
    geometry = WaferGeometry(pitch_um=pitch, origin_um=centred(pitch), diameter_mm=100, notch=Side.LEFT)
    dies = geometry.dies()
    defect = WaferDefect.at(geometry, 20_000, 20_000, id=1, size_x_um=1.0, size_y_um=1.0, area_um2=1.0)
    inspected = tuple(die for die in dies if die != (-1, -1))
    return InspectedWafer(
        geometry=geometry, inspected=inspected, defects=(defect,), lot="L", wafer="W&1", device="chip"
    )


def test_map_of_a_wafer_by_hand(wafer):
    made = bin_map(wafer)
    assert made.bins.tolist() == [[1, 1, 2], [1, 1, 1], [3, 1, 1]]  # the failed die is upper right
    assert (made.first, made.die_mm) == ((-1, -1), (20, 20))
    assert made.counts == {1: 7, 2: 1, 3: 1}
    larger = bin_map(wafer, partial_dies=True)
    assert larger.bins.shape == (5, 5)
    assert larger.bins[0, 0] == 3  # its nearest corner is 42.4 mm from the centre, within 47 mm
    assert larger.bins[1:4, 1:4].tolist() == made.bins.tolist()


def test_e142_as_another_reader_sees_it(wafer):
    root = ET.fromstring(e142(bin_map(wafer)))
    ns = {"e": "urn:semi-org:xsd.E142-1.V1005.SubstrateMap"}
    one = root.find("e:SubstrateMaps/e:SubstrateMap", ns)
    assert one.attrib["SubstrateId"] == "W&1"
    assert (one.attrib["OriginLocation"], one.attrib["AxisDirection"]) == ("UpperLeft", "DownRight")
    assert one.attrib["Orientation"] == "90"
    assert [row.text for row in one.iterfind(".//e:BinCode", ns)] == ["001 001 002", "001 001 001", "003 001 001"]
    quality = {b.attrib["BinCode"]: b.attrib["BinQuality"] for b in one.iterfind(".//e:BinDefinition", ns)}
    assert quality == {"001": "Pass", "002": "Fail", "003": "Null"}
    place = one.find(".//e:ReferenceDevice/e:Coordinates", ns).attrib
    assert place == {"X": "1", "Y": "1"}  # die (0, 0) is the middle one


def test_g85_as_another_reader_sees_it(wafer):
    root = ET.fromstring(g85(bin_map(wafer)))
    device = root.find("Device")
    assert (root.attrib["WaferId"], root.attrib["FormatRevision"]) == ("W&1", "G85-1101")
    assert (device.attrib["Rows"], device.attrib["Columns"], device.attrib["LotId"]) == ("3", "3", "L")
    assert [row.text for row in device.iterfind("Data/Row")] == ["001 001 002", "001 001 001", "003 001 001"]


DAMAGE = {
    "row too short": ("001 001 002", "001 002", "every row must have 3 bin codes"),
    "undefined bin": ("001 001 002", "001 001 009", "BinCount of bin 2|must be defined"),
    "no number": ("001 001 002", "001 001 xx", "decimal numbers"),
    "count": ('BinCount="7"', 'BinCount="8"', "BinCount of bin 1 must be 7"),
    "quality": ('BinQuality="Pass"', 'BinQuality="Fine"', "BinQuality must be one of Pass, Fail, Null"),
    "orientation": ('Orientation="90"', 'Orientation="45"', "must be 0, 90, 180 or 270"),
    "bin type": ("Decimal", "Ascii", "BinType must be Decimal"),
    "entities": ("<?xml", '<!DOCTYPE x [<!ENTITY a "b">]><?xml', "must not declare a document type"),
    "no XML": ("</", "<", "not XML"),
}


@pytest.mark.parametrize(("write", "read"), FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize(("old", "new", "message"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found(write, read, wafer, old, new, message):
    text = write(bin_map(wafer))
    assert old in text
    with pytest.raises(MapFileError, match=message):
        read(text.replace(old, new, 1) if old != "Decimal" else text.replace(old, new))


def test_names_that_xml_cannot_hold_are_not_written(wafer):
    bad = BinMap(bins=np.ones((1, 1), np.uint8), codes={1: Bin(True)}, wafer="a\x01b")
    for write, _ in FORMATS.values():
        with pytest.raises(MapFileError):
            write(bad)


def test_file_on_disk(wafer, tmp_path):
    write_map(tmp_path / "map.xml", e142(bin_map(wafer)))
    assert read_e142((tmp_path / "map.xml").read_text(encoding="utf-8")) == bin_map(wafer)
    with pytest.raises(MapFileError, match="cannot be written"):
        write_map(tmp_path / "none" / "map.xml", "")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bins": np.ones(3, np.uint8)}, "bins"),
        ({"bins": np.ones((1, 1), np.int64)}, "uint8"),
        ({"codes": {}}, "named codes"),
        ({"codes": {1: Bin(True), 255: Bin(None)}}, "0 to 254"),
    ],
)
def test_maps_that_cannot_be_are_refused(settings, message):
    with pytest.raises(SettingError, match=message):
        BinMap(**{"bins": np.ones((1, 1), np.uint8), "codes": {1: Bin(True)}} | settings)
