"""SEMI E142 and SEMI G85 maps as XML: writers, and readers that check what the schemas ask for.

The standards are not public. Layout and names follow public files and programs: namespace
urn:semi-org:xsd.E142-1.V1005.SubstrateMap with MapData > Layouts, Substrates, SubstrateMaps; Map > Device > Bin, Data >
Row with FormatRevision G85-1101. Both are written with decimal bins, whose codes are separated by spaces, from the
upper left corner. Orientation is the angle of the notch in degrees, clockwise from below (0 is DOWN).
"""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
from numpy.typing import NDArray

from inspection.wafer.bins import NULL_BIN, Bin, BinMap
from inspection.wafer.errors import MapFileError
from inspection.wafer.geometry import DieIndex, Side

E142 = "urn:semi-org:xsd.E142-1.V1005.SubstrateMap"
G85_REVISION = "G85-1101"
_QUALITY = {True: "Pass", False: "Fail", None: "Null"}
_UPPER_LEFT = "2"  # G85: 0 centre, 1 upper right, 2 upper left, 3 lower left, 4 lower right


def e142(bin_map: BinMap) -> str:
    """Returns a SEMI E142 map; it is read back and compared before it is handed out.

    Raises:
        MapFileError: a name cannot be written in XML.
    """
    rows, columns = bin_map.bins.shape
    root = ET.Element("MapData", xmlns=E142)
    layouts = ET.SubElement(root, "Layouts")
    wafer = ET.SubElement(layouts, "Layout", LayoutId="Wafer", DefaultUnits="mm", TopLevel="true")
    ET.SubElement(wafer, "Dimension", X="1", Y="1")
    ET.SubElement(ET.SubElement(wafer, "ChildLayouts"), "ChildLayout", LayoutId="Dies")
    dies = ET.SubElement(layouts, "Layout", LayoutId="Dies", DefaultUnits="mm")
    ET.SubElement(dies, "Dimension", X=str(columns), Y=str(rows))
    if bin_map.die_mm is not None:
        ET.SubElement(dies, "DeviceSize", X=repr(bin_map.die_mm[0]), Y=repr(bin_map.die_mm[1]))
    if bin_map.product:
        ET.SubElement(dies, "ProductId").text = bin_map.product
    substrate = ET.SubElement(
        ET.SubElement(root, "Substrates"), "Substrate", SubstrateType="Wafer", SubstrateId=bin_map.wafer
    )
    ET.SubElement(substrate, "LotId").text = bin_map.lot
    one = ET.SubElement(
        ET.SubElement(root, "SubstrateMaps"),
        "SubstrateMap",
        SubstrateType="Wafer",
        SubstrateId=bin_map.wafer,
        LayoutSpecifier="Wafer/Dies",
        SubstrateSide="TopSide",
        Orientation=str(bin_map.notch.degrees),
        OriginLocation="UpperLeft",
        AxisDirection="DownRight",
    )
    overlay = ET.SubElement(one, "Overlay", MapName="Inspection", MapVersion="1")
    # The die (0, 0) of the inspection in the coordinates of this map: columns right and rows down from the upper left.
    place = ET.SubElement(ET.SubElement(overlay, "ReferenceDevices"), "ReferenceDevice", Name="OriginLocation")
    ET.SubElement(place, "Coordinates", X=str(-bin_map.first.column), Y=str(rows - 1 + bin_map.first.row))
    codes = ET.SubElement(overlay, "BinCodeMap", BinType="Decimal", NullBin=f"{NULL_BIN:03d}")
    definitions = ET.SubElement(codes, "BinDefinitions")
    for code, meaning in bin_map.codes.items():
        ET.SubElement(
            definitions,
            "BinDefinition",
            BinCode=f"{code:03d}",
            BinCount=str(bin_map.counts[code]),
            BinQuality=_QUALITY[meaning.passed],
            BinDescription=meaning.name,
        )
    for row in bin_map.bins:
        ET.SubElement(codes, "BinCode").text = _row(row)
    return _checked(root, bin_map, read_e142)


def g85(bin_map: BinMap) -> str:
    """Returns a SEMI G85 map; it is read back and compared before it is handed out.

    Raises:
        MapFileError: a name cannot be written in XML.
    """
    rows, columns = bin_map.bins.shape
    root = ET.Element("Map", WaferId=bin_map.wafer, FormatRevision=G85_REVISION)
    device = ET.SubElement(
        root,
        "Device",
        ProductId=bin_map.product,
        LotId=bin_map.lot,
        Rows=str(rows),
        Columns=str(columns),
        Orientation=str(bin_map.notch.degrees),
        OriginLocation=_UPPER_LEFT,
        BinType="Decimal",
        NullBin=f"{NULL_BIN:03d}",
    )
    if bin_map.die_mm is not None:
        device.set("DeviceSizeX", repr(bin_map.die_mm[0]))
        device.set("DeviceSizeY", repr(bin_map.die_mm[1]))
    for code, meaning in bin_map.codes.items():
        quality, count = _QUALITY[meaning.passed], str(bin_map.counts[code])
        name = meaning.name
        ET.SubElement(device, "Bin", BinCode=f"{code:03d}", BinQuality=quality, BinCount=count, BinDescription=name)
    x, y = str(-bin_map.first.column), str(rows - 1 + bin_map.first.row)
    ET.SubElement(device, "ReferenceDevice", ReferenceDeviceX=x, ReferenceDeviceY=y)
    data = ET.SubElement(device, "Data", MapName="Inspection", MapVersion="1")
    for row in bin_map.bins:
        ET.SubElement(data, "Row").text = _row(row)
    return _checked(root, bin_map, read_g85)


def read_e142(text: str) -> BinMap:
    """Reads a SEMI E142 map as `e142` writes it; strict.

    Raises:
        MapFileError: an element or attribute is missing or has a value that is not allowed, a count does not fit.
    """
    ns = f"{{{E142}}}"
    root = _parsed(text)
    _require(root.tag == f"{ns}MapData", f"the root must be MapData of {E142}", root.tag)
    dimension = _find(root, f"{ns}Layouts/{ns}Layout[@LayoutId='Dies']/{ns}Dimension")
    size = root.find(f"{ns}Layouts/{ns}Layout[@LayoutId='Dies']/{ns}DeviceSize")
    substrate = _find(root, f"{ns}Substrates/{ns}Substrate")
    one = _find(root, f"{ns}SubstrateMaps/{ns}SubstrateMap")
    _require(_get(one, "SubstrateId") == _get(substrate, "SubstrateId"), "map and substrate must have one id", "two")
    for name, only in (("OriginLocation", "UpperLeft"), ("AxisDirection", "DownRight"), ("SubstrateType", "Wafer")):
        _require(_get(one, name) == only, f"{name} must be {only}", _get(one, name))
    codes = _find(one, f"{ns}Overlay/{ns}BinCodeMap")
    place = _find(one, f"{ns}Overlay/{ns}ReferenceDevices/{ns}ReferenceDevice/{ns}Coordinates")
    return _map(
        codes,
        [row.text or "" for row in codes.findall(f"{ns}BinCode")],
        codes.findall(f"{ns}BinDefinitions/{ns}BinDefinition"),
        shape=(_whole(dimension, "Y"), _whole(dimension, "X")),
        reference=(_whole(place, "X"), _whole(place, "Y")),
        notch=_side(one),
        names=(
            _find(substrate, f"{ns}LotId").text or "",
            _get(one, "SubstrateId"),
            root.findtext(f"{ns}Layouts/{ns}Layout[@LayoutId='Dies']/{ns}ProductId") or "",
        ),
        die_mm=None if size is None else (_real(size, "X"), _real(size, "Y")),
    )


def read_g85(text: str) -> BinMap:
    """Reads a SEMI G85 map as `g85` writes it; strict.

    Raises:
        MapFileError: an element or attribute is missing or has a value that is not allowed, a count does not fit.
    """
    root = _parsed(text)
    _require(root.tag == "Map", "the root must be Map", root.tag)
    _require(_get(root, "FormatRevision") == G85_REVISION, f"FormatRevision must be {G85_REVISION}", "another")
    device = _find(root, "Device")
    _require(_get(device, "OriginLocation") == _UPPER_LEFT, "OriginLocation must be 2", _get(device, "OriginLocation"))
    place = _find(device, "ReferenceDevice")
    sized = "DeviceSizeX" in device.attrib
    return _map(
        device,
        [row.text or "" for row in _find(device, "Data").findall("Row")],
        device.findall("Bin"),
        shape=(_whole(device, "Rows"), _whole(device, "Columns")),
        reference=(_whole(place, "ReferenceDeviceX"), _whole(place, "ReferenceDeviceY")),
        notch=_side(device),
        names=(_get(device, "LotId"), _get(root, "WaferId"), _get(device, "ProductId")),
        die_mm=(_real(device, "DeviceSizeX"), _real(device, "DeviceSizeY")) if sized else None,
    )


def write_map(path: Path, text: str) -> None:
    """Writes a map; the file appears only when it is complete.

    Raises:
        MapFileError: the file cannot be written.
    """
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        partial.replace(path)
    except OSError as error:
        raise MapFileError(f"{path} cannot be written: {error.strerror or error}") from error


def _map(
    codes: ET.Element,
    rows: list[str],
    definitions: list[ET.Element],
    *,
    shape: tuple[int, int],
    reference: tuple[int, int],
    notch: Side,
    names: tuple[str, str, str],
    die_mm: tuple[float, float] | None,
) -> BinMap:
    _require(_get(codes, "BinType") == "Decimal", "BinType must be Decimal", _get(codes, "BinType"))
    null = _whole(codes, "NullBin")
    _require(null == NULL_BIN, f"NullBin must be {NULL_BIN}", str(null))
    _require(len(rows) == shape[0], f"the map must have {shape[0]} rows", str(len(rows)))
    try:
        grid = [[int(code) for code in row.split()] for row in rows]
    except ValueError as error:
        raise MapFileError(f"bin codes must be decimal numbers: {error}") from None
    wrong = next((len(row) for row in grid if len(row) != shape[1]), None)
    _require(wrong is None, f"every row must have {shape[1]} bin codes", str(wrong))
    _require(all(0 <= code <= NULL_BIN for row in grid for code in row), f"bin codes must be 0 to {NULL_BIN}", "more")
    bins = np.array(grid, np.uint8)
    passed = {name: value for value, name in _QUALITY.items()}
    known = {}
    for definition in definitions:
        code, quality = _whole(definition, "BinCode"), _get(definition, "BinQuality")
        _require(quality in passed, f"BinQuality must be one of {', '.join(passed)}", quality)
        _require(code not in known, "a bin must be defined once", str(code))
        count = int((bins == code).sum())
        _require(_whole(definition, "BinCount") == count, f"BinCount of bin {code} must be {count}", "another")
        known[code] = Bin(passed[quality], definition.get("BinDescription", ""))
    undefined = set(np.unique(bins).tolist()) - set(known) - {NULL_BIN}
    _require(not undefined, "every bin of the map must be defined", str(sorted(undefined)))
    lot, wafer, product = names
    return BinMap(
        bins=bins,
        codes=known,
        lot=lot,
        wafer=wafer,
        product=product,
        notch=notch,
        first=DieIndex(-reference[0], reference[1] - shape[0] + 1),
        die_mm=die_mm,
    )


def _row(row: NDArray[np.uint8]) -> str:
    return " ".join(f"{code:03d}" for code in row.tolist())


def _checked(root: ET.Element, bin_map: BinMap, read: Callable[[str], BinMap]) -> str:
    ET.indent(root)
    text = '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"
    if read(text) != bin_map:
        raise MapFileError(f"the map of wafer {bin_map.wafer!r} would not be read back as it is; its names do not fit")
    return text


def _parsed(text: str) -> ET.Element:
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise MapFileError("a map must not declare a document type or entities")
    try:
        return ET.fromstring(text)  # noqa: S314 - no entities, see above
    except ET.ParseError as error:
        raise MapFileError(f"not XML: {error}") from None


def _require(good: bool, wanted: str, got: str) -> None:
    if not good:
        raise MapFileError(f"{wanted}; got {got}")


def _find(element: ET.Element, path: str) -> ET.Element:
    found = element.find(path)
    if found is None:
        raise MapFileError(f"{element.tag.split('}')[-1]} must hold {path.replace('{' + E142 + '}', '')}; got none")
    return found


def _get(element: ET.Element, name: str) -> str:
    value = element.get(name)
    if value is None:
        raise MapFileError(f"{element.tag.split('}')[-1]} must have the attribute {name}; got none")
    return value


def _whole(element: ET.Element, name: str) -> int:
    text = _get(element, name)
    try:
        return int(text)
    except ValueError:
        raise MapFileError(f"{name} must be a whole number; got {text!r}") from None


def _real(element: ET.Element, name: str) -> float:
    text = _get(element, name)
    try:
        return float(text)
    except ValueError:
        raise MapFileError(f"{name} must be a number; got {text!r}") from None


def _side(element: ET.Element) -> Side:
    degrees = _whole(element, "Orientation")
    _require(degrees in (0, 90, 180, 270), "Orientation must be 0, 90, 180 or 270", str(degrees))
    return Side.at(degrees)
