"""Pictures for people: a raw frame made visible, the anomaly map over it, and both with legend and decision.

Pure functions. Colours follow the inferno map of OpenCV (perceptually uniform, readable with every colour vision); a
decision is always shown as a word too.
"""

from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8
from PIL import Image, ImageDraw, ImageFont

from anomaly.errors import SettingError
from anomaly.report.words import BADGES, number, shorten

Picture = UInt8[np.ndarray, "h w 3"]
AnomalyMap = Float32[np.ndarray, "h w"]
Shown = UInt8[np.ndarray, "_ _ 3"]
Mask = Bool[np.ndarray, "h w"]

STRETCH_PERCENTILES = 0.5, 99.5
STRONGEST = 0.75
"""Opacity of the colour at the top of the scale; the part stays visible under it."""
FAINTEST = 0.25
"""Where in the colour map the scale begins: below, inferno is black and would only darken the part."""
KNOWN_DEFECT = 56, 189, 248
"""RGB of the outline around a known defect."""

PANEL_SIDES = 512, 1024
"""Longer side of each picture in a panel, in pixels: at least (tiny images are enlarged) and at most."""
NARROWEST = 540
"""Least width of a panel's content in pixels, so that header and legend can be read above narrow images."""
MARGIN, GAP = 16, 12
HEADER, CAPTION, LEGEND, BAR = 70, 22, 70, 14
INK, FAINT, PAPER = "#1c1917", "#57534e", "#ffffff"


def display(image: Shaped[np.ndarray, "h w c"], value_range: tuple[float, float]) -> Picture:
    """Makes a raw frame visible.

    Args:
        image: (H, W, C) uint8, uint16 or float32 in raw values. One channel is shown grey, three as RGB, any other
            number as their mean.
        value_range: lowest and highest raw value; what 8-bit values are scaled by. uint16 and float32 values are
            stretched linearly between the image's own 0.5 and 99.5 percentiles instead (a 12-bit image would be black
            otherwise), unless the image is flat.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    values = image.astype(np.float32)
    if image.shape[2] not in (1, 3):
        values = values.mean(axis=2, keepdims=True)
    low, high = value_range
    if image.dtype != np.uint8:
        bottom, top = (float(v) for v in np.percentile(values, STRETCH_PERCENTILES))
        low, high = (bottom, top) if bottom < top else (low, high)
    shown = np.clip((values - low) * (255.0 / (high - low)), 0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(shown, (*shown.shape[:2], 3)))


def overlay(picture: Picture, anomaly_map: AnomalyMap, scale: tuple[float, float], contour: float) -> Picture:
    """Lays an anomaly map over a picture: colour and opacity grow with the value, a line runs around what exceeds.

    Args:
        picture: (H, W, 3) uint8 RGB, e.g. from `display`.
        anomaly_map: (H, W) float32, any finite values.
        scale: map values where colour begins (invisible) and where it is strongest.
        contour: the pixel threshold. Pixels at the rim of the regions with `anomaly_map` > `contour` are white, those
            next to them outside are black, so that the line is visible on every picture.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        SettingError: `scale` has no extent.
    """
    low, high = scale
    if not low < high:
        raise SettingError.of("overlay", "scale", "(low, high) with low < high", scale)
    strength = np.clip((anomaly_map - low) / (high - low), 0, 1).astype(np.float32)
    opacity = (STRONGEST * strength)[..., None]
    colour = _colours()[np.round(strength * 255).astype(np.uint8)]
    blended = (picture * (1 - opacity) + colour * opacity).round().astype(np.uint8)
    return _outlined(blended, anomaly_map > contour, (255, 255, 255))


def pair(
    picture: Picture,
    anomaly_map: AnomalyMap,
    scale: tuple[float, float],
    contour: float,
    *,
    sides: tuple[int, int],
    pointed: bool,
    mask: Mask | None = None,
) -> tuple[Shown, Shown]:
    """Returns original and overlay at the size at which they are to be shown; lines are drawn at that size.

    Shrinking keeps the largest value of the map in reach of each pixel, so that no exceedance is lost.

    Args:
        picture: (H, W, 3) uint8 RGB, e.g. from `display`.
        anomaly_map: (H, W) float32, any finite values.
        scale: see `overlay`.
        contour: see `overlay`.
        sides: least and greatest length of the longer side in pixels.
        pointed: whether a cross points at the largest value of the map, so that small defects are found in small
            pictures, and parts that are not OK have a place to look at even if no pixel exceeds the threshold.
        mask: (H, W) bool, the known defect; a blue line runs closely around it in the original.

    Returns:
        Two pictures (H', W', 3) uint8 RGB.

    Raises:
        SettingError: `scale` has no extent.
    """
    height, width = picture.shape[:2]
    longer = max(height, width)
    factor = min(max(longer, sides[0]), sides[1]) / longer
    size = max(1, round(height * factor)), max(1, round(width * factor))
    shown = cv2.resize(picture, size[::-1], interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC)
    overlaid = overlay(shown, _resized(anomaly_map, size), scale, contour)
    if pointed:
        row, column = np.unravel_index(anomaly_map.argmax(), anomaly_map.shape)
        _point_at(overlaid, (int((row + 0.5) * size[0] / height), int((column + 0.5) * size[1] / width)))
    if mask is not None:
        around = cv2.dilate(_resized(mask.astype(np.float32), size), np.ones((11, 11), np.uint8))
        shown = _outlined(shown, around > 0.5, KNOWN_DEFECT)
    return shown, overlaid


def panel(
    picture: Picture,
    anomaly_map: AnomalyMap,
    scale: tuple[float, float],
    contour: float,
    *,
    title: str,
    decision: str,
    facts: str,
    mask: Mask | None = None,
) -> Shown:
    """Draws the picture that is saved for a part: header, original beside overlay, colour legend with the threshold.

    Wide images stand one above the other; both have a longer side of 512 to 1024 pixels.

    Args:
        picture: (H, W, 3) uint8 RGB, e.g. from `display`.
        anomaly_map: (H, W) float32, any finite values.
        scale: see `overlay`.
        contour: see `overlay`.
        title: first line of the header, e.g. the file name; its middle is left out where it is too long.
        decision: "OK", "REVIEW" or "NG".
        facts: second line of the header, e.g. score and p-value.
        mask: (H, W) bool, the known defect; a blue line runs closely around it in the original.

    Returns:
        (H', W', 3) uint8 RGB.

    Raises:
        SettingError: `scale` has no extent.
    """
    pointed = decision != "OK"
    pictures = pair(picture, anomaly_map, scale, contour, sides=PANEL_SIDES, pointed=pointed, mask=mask)
    known = mask is not None and mask.any()
    captions = (
        "original, known defect in blue" if known else "original",
        "unlike normal" + ("; cross: the strongest" if pointed else ""),
    )
    height, width = pictures[0].shape[:2]
    stacked = width > 1.4 * height
    cell = max(width, NARROWEST if stacked else (NARROWEST - GAP) // 2)
    across, down = (0, CAPTION + height + GAP) if stacked else (cell + GAP, 0)
    below = MARGIN + HEADER + CAPTION + height + down + GAP
    canvas = Image.new("RGB", (2 * MARGIN + cell + across, below + LEGEND), PAPER)
    draw = ImageDraw.Draw(canvas)
    _header(draw, cell + across, title, decision, facts)
    for index, (caption, shown) in enumerate(zip(captions, pictures, strict=True)):
        corner = MARGIN + index * across, MARGIN + HEADER + index * down
        draw.text(corner, caption, FAINT, _font(14))
        canvas.paste(Image.fromarray(shown), (corner[0], corner[1] + CAPTION))
    _legend(canvas, draw, (MARGIN, below), cell + across, scale, contour)
    return np.asarray(canvas)


def gradient(steps: int) -> list[str]:
    """Returns `steps` colours "#rrggbb" along the colour map, faintest first, for legends."""
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in _colours()[np.linspace(0, 255, steps).astype(int)]]


@lru_cache(maxsize=1)
def _colours() -> UInt8[np.ndarray, "256 3"]:
    steps = np.linspace(255 * FAINTEST, 255, 256).round().astype(np.uint8)
    bgr = cv2.applyColorMap(steps[:, None], cv2.COLORMAP_INFERNO)
    return np.ascontiguousarray(bgr[:, 0, ::-1])


def _outlined(picture: Picture, region: Mask, colour: tuple[int, int, int]) -> Picture:
    """Colours the rim of a region, inside it, and the pixels next to it black; a thicker line on larger pictures."""
    inside, kernel = region.astype(np.uint8), np.ones((3, 3), np.uint8)
    thickness = 1 + max(region.shape) // 400
    core = cv2.erode(inside, kernel, iterations=thickness, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    drawn = picture.copy()
    drawn[cv2.dilate(inside, kernel) > inside] = 0
    drawn[inside > core] = colour
    return drawn


def _point_at(picture: Picture, place: tuple[int, int]) -> None:
    """Draws four strokes, white with a black rim, that point at (row, column) and leave it free."""
    row, column = place
    unit = max(picture.shape) // 30
    for colour, thickness in (((0, 0, 0), unit // 8 + 3), ((255, 255, 255), unit // 8)):
        for down, right in ((0, 1), (0, -1), (1, 0), (-1, 0)):
            near = column + right * unit, row + down * unit
            far = column + 2 * right * unit, row + 2 * down * unit
            cv2.line(picture, near, far, colour, thickness)


def _resized(values: AnomalyMap, size: tuple[int, int]) -> Float32[np.ndarray, "_ _"]:
    """Resizes to (height, width); a maximum over what each new pixel covers where that is more than one old pixel."""
    reach = tuple(max(1, -(-old // new)) for old, new in zip(values.shape, size, strict=True))
    if max(reach) > 1:
        values = cv2.dilate(values, np.ones(reach, np.uint8))
    return np.asarray(cv2.resize(values, size[::-1], interpolation=cv2.INTER_LINEAR))


@lru_cache(maxsize=8)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)


def _fitted(text: str, size: int, room: float) -> str:
    """Leaves out the middle of `text` until it is at most `room` pixels wide; "?" for what cannot be drawn."""
    text = shorten("".join(letter if letter.isprintable() else "?" for letter in text), 200)
    length = len(text)
    while length > 3 and _font(size).getlength(shorten(text, length)) > room:
        length -= 1
    return shorten(text, length)


def _header(draw: ImageDraw.ImageDraw, width: int, title: str, decision: str, facts: str) -> None:
    badge = BADGES[decision]
    box = _font(24).getlength(badge.word) + 28
    draw.rounded_rectangle((MARGIN, MARGIN, MARGIN + box, MARGIN + 52), 8, badge.background)
    draw.text((MARGIN + box / 2, MARGIN + 26), badge.word, badge.ink, _font(24), anchor="mm")
    left, room = MARGIN + box + 14, width - box - 14
    draw.text((left, MARGIN + 1), _fitted(title, 20, room), INK, _font(20))
    draw.text((left, MARGIN + 30), _fitted(facts, 16, room), FAINT, _font(16))


def _legend(
    canvas: Image.Image,
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    width: int,
    scale: tuple[float, float],
    contour: float,
) -> None:
    """Draws the scale as `overlay` shows it on mid grey, its ends, and the pixel threshold where the line begins."""
    left, top = corner
    values = np.linspace(*scale, width, dtype=np.float32)
    bar = overlay(np.full((BAR, width, 3), 128, np.uint8), np.tile(values, (BAR, 1)), scale, np.inf)
    canvas.paste(Image.fromarray(bar), (left, top + 22))
    share = (contour - scale[0]) / (scale[1] - scale[0])
    mark = left + round(min(max(share, 0.0), 1.0) * (width - 1))
    draw.line((mark, top + 18, mark, top + 22 + BAR + 4), INK, 3)
    text = f"white line: above {number(contour)}"
    half = _font(14).getlength(text) / 2
    centre = min(max(mark, left + half), left + width - half)
    draw.text((centre, top + 14), text, INK, _font(14), anchor="ms")
    draw.text((left, top + 22 + BAR + 4), f"{number(scale[0])} as normal", FAINT, _font(14))
    draw.text((left + width, top + 22 + BAR + 4), f"{number(scale[1])} or more", FAINT, _font(14), anchor="ra")
