"""The wafer map as a picture: dies by verdict, defects by class, signatures, notch, yield and a legend."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from inspection.wafer.defects import InspectedWafer, WaferDefect
from inspection.wafer.drawing import Circle, Line, Polygon, Shape, Text, rectangle, to_png, to_svg
from inspection.wafer.errors import WaferFileError
from inspection.wafer.geometry import Coverage, DieIndex
from inspection.wafer.signatures import Signature

WIDTH, HEIGHT = 960.0, 700.0
_CENTRE, _RADIUS = (348.0, 376.0), 290.0
_COLUMN, _RIGHT = 690.0, 936.0  # of the legend

_PASSED, _FAILED, _UNTESTED, _PARTIAL = "#d3e8d5", "#f3b7a7", "#e9ebee", "#f6f7f8"
_INK, _QUIET, _EDGE = "#1f2933", "#66727f", "#3c4753"
_CLASSES = ("#b3261e", "#1f4e9c", "#7b3fa0", "#0f7b6c", "#b06000", "#4d4d4d")  # told apart also by shape
_SIGNATURE = "#e0007a"
_MOST_CLASSES = 6


def wafer_svg(wafer: InspectedWafer, signatures: Sequence[Signature] = ()) -> str:
    """Returns the map as SVG.

    Args:
        wafer: the wafer.
        signatures: structures to outline.
    """
    return to_svg(_shapes(wafer, signatures), WIDTH, HEIGHT, _title(wafer))


def wafer_png(wafer: InspectedWafer, signatures: Sequence[Signature] = (), scale: float = 2.0) -> bytes:
    """Returns the map as PNG, 960 x 700 points.

    Args:
        wafer: the wafer.
        signatures: structures to outline.
        scale: pixels per point.
    """
    return to_png(_shapes(wafer, signatures), WIDTH, HEIGHT, scale)


def write_picture(path: Path, wafer: InspectedWafer, signatures: Sequence[Signature] = ()) -> None:
    """Writes the map as .svg or .png, whichever the name says.

    Raises:
        WaferFileError: another suffix, or the file cannot be written.
    """
    if path.suffix not in (".svg", ".png"):
        raise WaferFileError(f"a wafer map must end in .svg or .png; got {path.name!r}")
    content = wafer_png(wafer, signatures) if path.suffix == ".png" else wafer_svg(wafer, signatures).encode()
    try:
        path.write_bytes(content)
    except OSError as error:
        raise WaferFileError(f"{path} cannot be written: {error.strerror or error}") from error


class _Map:
    """From wafer coordinates to the picture."""

    def __init__(self, wafer: InspectedWafer) -> None:
        self.scale = _RADIUS / wafer.geometry.radius_um

    def __call__(self, x_um: float, y_um: float) -> tuple[float, float]:
        return _CENTRE[0] + x_um * self.scale, _CENTRE[1] - y_um * self.scale


def _shapes(wafer: InspectedWafer, signatures: Sequence[Signature]) -> list[Shape]:
    place = _Map(wafer)
    colours = _class_colours(wafer.defects)
    shapes: list[Shape] = [*_head(wafer), Circle(*_CENTRE, _RADIUS, fill="#fbfbfc"), *_dies(wafer, place)]
    usable = wafer.geometry.usable_radius_um * place.scale
    shapes.append(Line(_arc(usable, 0, 2 * math.pi), "#9aa5b1", 0.8, dashed=True))
    shapes += _outline(wafer)
    for signature in signatures:
        shapes += _signature(wafer, place, signature)
    for defect in sorted(wafer.defects, key=lambda d: d.peak):
        shapes += _mark(*place(defect.x_um, defect.y_um), list(colours).index(_class(defect, colours)))
    return [*shapes, *_legend(wafer, colours, signatures)]


def _title(wafer: InspectedWafer) -> str:
    names = [f"Wafer {wafer.wafer}" if wafer.wafer else "Wafer", f"Lot {wafer.lot}" if wafer.lot else ""]
    return " · ".join(name for name in names if name)


def _head(wafer: InspectedWafer) -> list[Shape]:
    slot = f"slot {wafer.slot}" if wafer.slot else ""
    rest = [wafer.device, wafer.step, wafer.recipe, slot, wafer.time.replace("T", " ")]
    return [
        Text(40, 42, _title(wafer), 22, _INK, bold=True),
        Text(40, 62, " · ".join(text for text in rest if text), 12, _QUIET),
    ]


def _outline(wafer: InspectedWafer) -> list[Shape]:
    """The edge with its notch or flat, over the dies that reach beyond it."""
    x, y = wafer.geometry.notch.direction
    towards = math.atan2(-y, x)  # y goes down here
    half = 0.185 if wafer.geometry.flat else 0.022
    ends = _arc(_RADIUS, towards + half, towards + 2 * math.pi - half)
    points = (
        ends if wafer.geometry.flat else (*ends, (_CENTRE[0] + x * (_RADIUS - 11), _CENTRE[1] - y * (_RADIUS - 11)))
    )
    tip = (_CENTRE[0] + x * (_RADIUS + 16), _CENTRE[1] - y * (_RADIUS + 16))
    word = "flat" if wafer.geometry.flat else "notch"
    anchor = "middle" if abs(y) > 0.5 else ("start" if x > 0 else "end")
    drop = 4.0 if abs(y) < 0.5 else (2.0 if y > 0 else 6.0)
    return [
        Polygon(tuple(points), None, _EDGE, 1.6),
        Text(tip[0], tip[1] + drop, word, 11, _QUIET, anchor=anchor),  # type: ignore[arg-type]
    ]


def _dies(wafer: InspectedWafer, place: _Map) -> list[Shape]:
    geometry = wafer.geometry
    width, height = (side * place.scale for side in geometry.pitch_um)
    gap = min(0.9, 0.06 * min(width, height))
    failed, inspected = {defect.die for defect in wafer.defects}, set(wafer.inspected)
    shapes: list[Shape] = []

    def add(die: DieIndex, fill: str) -> None:
        left, bottom = place(*geometry.corner_um(die))
        corners = rectangle(left + gap / 2, bottom - height + gap / 2, width - gap, height - gap)
        shapes.append(Polygon(_within(corners), fill))

    for die in geometry.dies(Coverage.PARTIAL):
        if die not in inspected:
            add(die, _FAILED if die in failed else _PARTIAL)
    for die in dict.fromkeys((*geometry.dies(), *wafer.inspected)):
        add(die, _FAILED if die in failed else _PASSED if die in inspected else _UNTESTED)
    return shapes


def _within(corners: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """Cuts a rectangle off at the edge of the wafer."""
    if all(_inside(x, y) for x, y in corners):
        return corners
    (x0, y0), _, (x1, y1), _ = corners
    steps = 8
    edge = [(x0 + (x1 - x0) * i / steps, y0) for i in range(steps)]
    edge += [(x1, y0 + (y1 - y0) * i / steps) for i in range(steps)]
    edge += [(x1 - (x1 - x0) * i / steps, y1) for i in range(steps)]
    edge += [(x0, y1 - (y1 - y0) * i / steps) for i in range(steps)]
    return tuple(_pulled(x, y) for x, y in edge)


def _inside(x: float, y: float) -> bool:
    return math.hypot(x - _CENTRE[0], y - _CENTRE[1]) <= _RADIUS


def _pulled(x: float, y: float) -> tuple[float, float]:
    dx, dy = x - _CENTRE[0], y - _CENTRE[1]
    shrink = min(1.0, _RADIUS / math.hypot(dx, dy)) if dx or dy else 1.0
    return _CENTRE[0] + dx * shrink, _CENTRE[1] + dy * shrink


def _class(defect: WaferDefect, colours: dict[int, str]) -> int:
    """The class of a defect; beyond the first few, classes share the last mark."""
    return defect.class_number if defect.class_number in colours else list(colours)[-1]


def _class_colours(defects: Sequence[WaferDefect]) -> dict[int, str]:
    """Class number -> colour, the most frequent first."""
    order = [number for number, _ in Counter(defect.class_number for defect in defects).most_common(_MOST_CLASSES)]
    return {number: _CLASSES[i] for i, number in enumerate(order)}


def _mark(x: float, y: float, kind: int) -> list[Shape]:
    """A defect: colour and shape tell the class."""
    r, colour, halo = 3.4, _CLASSES[kind], "#ffffff"
    if kind == 0:
        return [Circle(x, y, r, colour, halo, 0.9)]
    if kind == 1:
        return [Polygon(rectangle(x - r, y - r, 2 * r, 2 * r), colour, halo, 0.9)]
    sides = {2: 3, 3: 4, 4: 5, 5: 6}[kind]
    turn = -math.pi / 2
    corners = tuple(
        (
            x + 1.35 * r * math.cos(turn + 2 * math.pi * i / sides),
            y + 1.35 * r * math.sin(turn + 2 * math.pi * i / sides),
        )
        for i in range(sides)
    )
    return [Polygon(corners, colour, halo, 0.9)]


def _signature(wafer: InspectedWafer, place: _Map, signature: Signature) -> list[Shape]:
    unit = wafer.geometry.usable_radius_um
    usable = unit * place.scale
    if signature.kind in ("ring", "edge"):
        inner, outer = signature.shape
        return [Line(_arc(r * usable, 0, 2 * math.pi), _SIGNATURE, 1.3, dashed=True) for r in (inner, min(outer, 1.0))]
    if signature.kind == "cluster":
        x, y = place(signature.shape[0] * unit, signature.shape[1] * unit)
        return [Line(_arc(signature.shape[2] * usable, 0, 2 * math.pi, (x, y)), _SIGNATURE, 1.3, dashed=True)]
    x0, y0 = place(signature.shape[0] * unit, signature.shape[1] * unit)
    x1, y1 = place(signature.shape[2] * unit, signature.shape[3] * unit)
    length = math.hypot(x1 - x0, y1 - y0) or 1.0
    dx, dy = 9 * (x1 - x0) / length, 9 * (y1 - y0) / length
    box = [
        (x0 - dx - dy, y0 - dy + dx),
        (x1 + dx - dy, y1 + dy + dx),
        (x1 + dx + dy, y1 + dy - dx),
        (x0 - dx + dy, y0 - dy - dx),
    ]
    return [Line((*box, box[0]), _SIGNATURE, 1.3, dashed=True)]


def _arc(
    radius: float, start: float, end: float, centre: tuple[float, float] = _CENTRE
) -> tuple[tuple[float, float], ...]:
    steps = max(24, int(radius * (end - start) / 3))
    angles = [start + (end - start) * i / steps for i in range(steps + 1)]
    return tuple((centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles)


def _legend(wafer: InspectedWafer, colours: dict[int, str], signatures: Sequence[Signature]) -> list[Shape]:
    inspected, failed = len(wafer.inspected), len(wafer.defective_dies)
    fraction = wafer.yield_fraction
    shapes: list[Shape] = [
        Text(_COLUMN, 128, "YIELD", 11, _QUIET, bold=True),
        Text(_COLUMN, 172, "none" if math.isnan(fraction) else f"{100 * fraction:.1f} %", 40, _INK, bold=True),
        Text(_COLUMN, 192, f"{inspected - failed:,} of {inspected:,} inspected dies without a defect", 11.5, _QUIET),
    ]
    whole = set(wafer.geometry.dies())
    rows = [
        (_PASSED, "passed", inspected - failed),
        (_FAILED, "failed", len({d.die for d in wafer.defects} & (whole | set(wafer.inspected)))),
        (_UNTESTED, "not inspected", len(whole - set(wafer.inspected))),
        (_PARTIAL, "partial", len(wafer.geometry.dies(Coverage.PARTIAL))),
    ]
    y = 232.0
    shapes.append(Text(_COLUMN, y, "DIES", 11, _QUIET, bold=True))
    for fill, name, count in rows:
        y += 21
        shapes.append(Polygon(rectangle(_COLUMN, y - 11, 14, 14), fill, "#b9c1c9", 0.8))
        shapes += _row(y, name, count)
    y += 40
    shapes.append(Text(_COLUMN, y, "DEFECTS", 11, _QUIET, bold=True))
    counts = Counter(_class(defect, colours) for defect in wafer.defects)
    for kind, number in enumerate(colours):
        y += 21
        shapes += _mark(_COLUMN + 7, y - 4, kind)
        shapes += _row(y, _shortened(wafer.classes.get(number) or f"class {number}"), counts[number])
    if not colours:
        y += 21
        shapes.append(Text(_COLUMN, y, "none", 12.5, _INK))
    y += 40
    shapes.append(Text(_COLUMN, y, "SIGNATURES", 11, _QUIET, bold=True))
    for signature in signatures:
        y += 21
        shapes.append(Line(((_COLUMN, y - 4), (_COLUMN + 15, y - 4)), _SIGNATURE, 1.3, dashed=True))
        shapes += _row(y, f"{signature.kind}, p = {signature.p_value:.2g}", len(signature.defects))
    if not signatures:
        shapes.append(Text(_COLUMN, y + 21, "none found", 12.5, _INK))
    grid = wafer.geometry
    size = f"{grid.diameter_mm:g} mm, die {grid.pitch_um[0] / 1000:g} x {grid.pitch_um[1] / 1000:g} mm"
    exclusion = f", edge exclusion {grid.edge_exclusion_mm:g} mm" if grid.edge_exclusion_mm else ""
    return [*shapes, Text(_COLUMN, 676, size + exclusion, 11, _QUIET)]


def _row(y: float, name: str, count: int) -> list[Shape]:
    return [Text(_COLUMN + 24, y, name, 12.5, _INK), Text(_RIGHT - 8, y, f"{count:,}", 12.5, _INK, anchor="end")]


def _shortened(name: str) -> str:
    return name if len(name) <= 22 else name[:21] + "…"
