"""A drawing as a list of shapes, put down as SVG or as PNG. Lengths are in points, y goes down."""

from collections.abc import Sequence
from typing import Literal, NamedTuple
from xml.sax.saxutils import escape, quoteattr

import numpy as np
from numpy.typing import NDArray

_FINE = 2  # PNG shapes are drawn this much larger and reduced: smooth edges


class Polygon(NamedTuple):
    """A closed polygon; `fill` and `line` are colours like "#1f77b4" or None."""

    points: tuple[tuple[float, float], ...]
    fill: str | None = None
    line: str | None = None
    width: float = 1.0


class Circle(NamedTuple):
    """A circle."""

    x: float
    y: float
    radius: float
    fill: str | None = None
    line: str | None = None
    width: float = 1.0


class Line(NamedTuple):
    """An open line."""

    points: tuple[tuple[float, float], ...]
    line: str
    width: float = 1.0
    dashed: bool = False


class Text(NamedTuple):
    """A line of text; (x, y) is the left, middle or right end of its base line."""

    x: float
    y: float
    text: str
    size: float = 12.0
    colour: str = "#222222"
    bold: bool = False
    anchor: Literal["start", "middle", "end"] = "start"


Shape = Polygon | Circle | Line | Text


def rectangle(x: float, y: float, width: float, height: float) -> tuple[tuple[float, float], ...]:
    """Returns the corners of a rectangle."""
    return (x, y), (x + width, y), (x + width, y + height), (x, y + height)


def to_svg(shapes: Sequence[Shape], width: float, height: float, title: str) -> str:
    """Returns the drawing as SVG, for screens and print at any size."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" '
        f'height="{height:g}" role="img" font-family="Helvetica, Arial, sans-serif">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{width:g}" height="{height:g}" fill="#ffffff"/>',
    ]
    return "\n".join([*parts, *(_svg(shape) for shape in shapes), "</svg>"]) + "\n"


def to_png(shapes: Sequence[Shape], width: float, height: float, scale: float = 2.0) -> bytes:
    """Returns the drawing as a PNG of `scale` pixels per point."""
    import io

    from PIL import Image

    fine = scale * _FINE
    canvas = np.full((round(height * fine), round(width * fine), 3), 255, np.uint8)
    for shape in shapes:
        if not isinstance(shape, Text):
            _paint(canvas, shape, fine)
    size = (round(width * scale), round(height * scale))
    image = Image.fromarray(canvas).resize(size, Image.Resampling.BOX)
    _write(image, [shape for shape in shapes if isinstance(shape, Text)], scale)
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def _svg(shape: Shape) -> str:
    if isinstance(shape, Text):
        weight = ' font-weight="bold"' if shape.bold else ""
        return (
            f'<text x="{shape.x:.2f}" y="{shape.y:.2f}" font-size="{shape.size:g}" fill={quoteattr(shape.colour)} '
            f'text-anchor="{shape.anchor}"{weight}>{escape(shape.text)}</text>'
        )
    if isinstance(shape, Line):
        dashes = f' stroke-dasharray="{4 * shape.width:g} {3 * shape.width:g}"' if shape.dashed else ""
        style = f'fill="none" stroke="{shape.line}" stroke-width="{shape.width:g}" stroke-linecap="round"{dashes}'
        return f'<polyline points="{_points(shape.points)}" {style}/>'
    fill = shape.fill or "none"
    line = f' stroke="{shape.line}" stroke-width="{shape.width:g}"' if shape.line else ""
    if isinstance(shape, Circle):
        return f'<circle cx="{shape.x:.2f}" cy="{shape.y:.2f}" r="{shape.radius:.2f}" fill="{fill}"{line}/>'
    return f'<polygon points="{_points(shape.points)}" fill="{fill}"{line}/>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.2f},{y:.2f}" for x, y in points)


def _paint(canvas: NDArray[np.uint8], shape: Polygon | Circle | Line, fine: float) -> None:
    import cv2

    points = _outline(shape)
    fixed = np.round(np.array(points) * fine * 16).astype(np.int32)  # OpenCV's 4 bits of fraction
    thickness = max(1, round(shape.width * fine))
    if not isinstance(shape, Line) and shape.fill:
        cv2.fillPoly(canvas, [fixed], _rgb(shape.fill), cv2.LINE_8, 4)
    if shape.line:
        closed = not isinstance(shape, Line)
        pieces = _dashes(fixed, fine * shape.width) if isinstance(shape, Line) and shape.dashed else [fixed]
        cv2.polylines(canvas, pieces, closed, _rgb(shape.line), thickness, cv2.LINE_8, 4)


def _outline(shape: Polygon | Circle | Line) -> Sequence[tuple[float, float]]:
    if not isinstance(shape, Circle):
        return shape.points
    angles = np.linspace(0, 2 * np.pi, max(24, int(shape.radius * 2)), endpoint=False)
    return [(shape.x + shape.radius * np.cos(a), shape.y + shape.radius * np.sin(a)) for a in angles]


def _dashes(fixed: NDArray[np.int32], width: float) -> list[NDArray[np.int32]]:
    """Cuts an open line into dashes of 4 widths and gaps of 3."""
    steps = np.hypot(*np.diff(fixed, axis=0).T)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    on, period = 4 * width * 16, 7 * width * 16
    pieces = []
    for start in np.arange(0, along[-1], period):
        places = np.linspace(start, min(start + on, along[-1]), 6)
        xy = [np.interp(places, along, fixed[:, axis]) for axis in (0, 1)]
        pieces.append(np.round(np.stack(xy, axis=1)).astype(np.int32))
    return pieces


def _write(image: "object", texts: Sequence[Text], scale: float) -> None:
    from PIL import ImageDraw, ImageFont

    draw = ImageDraw.Draw(image)  # type: ignore[arg-type]
    for text in texts:
        font = ImageFont.load_default(text.size * scale)
        anchor = {"start": "ls", "middle": "ms", "end": "rs"}[text.anchor]
        stroke = 0.022 * text.size * scale if text.bold else 0.0
        at = (text.x * scale, text.y * scale)
        draw.text(at, text.text, font=font, fill=text.colour, anchor=anchor, stroke_width=stroke)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
