"""Synthetic defects on real normals, with exact masks: for checks and trainings without labelled defects.

They are foreign texture in the place of normal texture. That is what they can stand for: a model that misses them will
miss real defects of that size and contrast, one that finds them need not find real ones.

Sources: Li et al., CutPaste (arXiv 2104.04015): a piece of the image in another place; Zavrtanik et al., DRAEM (arXiv
2108.07610): foreign texture in a region of Perlin noise. Perlin, Improving Noise, 2002.
"""

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import InputError, SettingError

Frame = NDArray[np.generic]
Kind = Literal["cut_paste", "perlin"]
Field = NDArray[np.float64]


class Planted(NamedTuple):
    """A frame with a defect.

    Attributes:
        frame: (C, H, W), dtype of the normal frame.
        mask: (H, W) bool, exactly the pixels that differ from the normal frame in any channel.
    """

    frame: Frame
    mask: NDArray[np.bool_]


def plant(frame: Frame, kind: Kind, area: float, opacity: float, rng: np.random.Generator) -> Planted:
    """Plants one defect in a normal frame.

    Args:
        frame: (C, H, W), uint8, uint16 or float32, sides of 8 or more; values stay within those of the frame.
        kind: "cut_paste": a rectangle of the frame in another place; "perlin": a region of Perlin noise filled with
            foreign texture that has the frame's range of values.
        area: share of the frame that the defect covers, about (pixels that happen to be equal are not in the mask).
        opacity: weight of the foreign texture, in (0, 1]; 1 replaces the normal one.
        rng: where and how.

    Raises:
        SettingError: an unknown kind, or an area or opacity that is not allowed.
        InputError: a frame of another shape or dtype.
    """
    if kind not in KINDS:
        raise SettingError.of("plant", "kind", f"one of {', '.join(KINDS)}", kind)
    if not 0 < area <= 0.25:
        raise SettingError.of("plant", "area", "above 0 and at most 0.25", area)
    if not 0 < opacity <= 1:
        raise SettingError.of("plant", "opacity", "above 0 and at most 1", opacity)
    if frame.ndim != 3 or min(frame.shape[1:]) < 8 or frame.dtype not in (np.uint8, np.uint16, np.float32):
        got = f"{frame.dtype} {frame.shape}"
        raise InputError(f"a frame must be (C, H, W), uint8, uint16 or float32, with sides of 8 or more; got {got}")
    values = frame.astype(np.float64)
    region, texture = KINDS[kind](values, area, rng)
    blended = np.where(region, (1 - opacity) * values + opacity * texture, values)
    changed = (np.rint(blended) if frame.dtype.kind == "u" else blended).astype(frame.dtype)
    return Planted(changed, (changed != frame).any(axis=0))


def perlin_noise(height: int, width: int, cells: int, rng: np.random.Generator) -> Field:
    """Returns (height, width) smooth noise around 0, of `cells` gradient cells along the longer side."""
    step = max(height, width) / cells
    rows, columns = np.arange(height) / step, np.arange(width) / step
    angles = rng.uniform(0, 2 * np.pi, (math.ceil(height / step) + 1, math.ceil(width / step) + 1))
    r, c = rows.astype(int)[:, None], columns.astype(int)[None]
    y, x = rows[:, None] - r, columns[None] - c

    def corner(down: int, right: int) -> Field:
        angle = angles[r + down, c + right]
        return np.asarray(np.sin(angle) * (y - down) + np.cos(angle) * (x - right))

    def fade(t: Field) -> Field:
        return np.asarray(t**3 * (t * (6 * t - 15) + 10))

    top = corner(0, 0) + fade(x) * (corner(0, 1) - corner(0, 0))
    bottom = corner(1, 0) + fade(x) * (corner(1, 1) - corner(1, 0))
    return np.asarray(top + fade(y) * (bottom - top))


def _cut_paste(values: Field, area: float, rng: np.random.Generator) -> tuple[NDArray[np.bool_], Field]:
    height, width = values.shape[1:]
    aspect = math.exp(rng.uniform(-math.log(3), math.log(3)))
    pixels = area * height * width
    h = min(height - 1, max(1, round(math.sqrt(pixels * aspect))))
    w = min(width - 1, max(1, round(pixels / h)))
    top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
    down, right = rng.integers(1, height), rng.integers(1, width)  # never from the same place
    region = np.zeros((height, width), bool)
    region[top : top + h, left : left + w] = True
    source_top, source_left = (top + down) % (height - h + 1), (left + right) % (width - w + 1)
    texture = values.copy()
    texture[:, top : top + h, left : left + w] = values[:, source_top : source_top + h, source_left : source_left + w]
    return region, texture


def _perlin(values: Field, area: float, rng: np.random.Generator) -> tuple[NDArray[np.bool_], Field]:
    channels, height, width = values.shape
    pixels = max(1, round(area * height * width))
    radius = math.sqrt(pixels / math.pi)
    centre = rng.uniform(0.1, 0.9, 2) * (height, width)
    far = np.hypot(np.arange(height)[:, None] - centre[0], np.arange(width)[None] - centre[1]) / radius
    cells = max(2, round(max(height, width) / (1.5 * radius)))
    shape = far - 1.5 * perlin_noise(height, width, cells, rng)  # a blob with the outline of the noise
    region = shape <= np.partition(shape.ravel(), pixels - 1)[pixels - 1]
    low, high = (np.percentile(values, q, axis=(1, 2), keepdims=True) for q in (1, 99))
    grain = rng.choice([8, 16, 32, 64])
    noise = np.stack([perlin_noise(height, width, int(grain), rng) for _ in range(channels)])
    offset = rng.uniform(-0.3, 0.3)
    return region, low + (high - low) * np.clip(0.5 + offset + noise, 0, 1)


KINDS: dict[str, Callable[[Field, float, np.random.Generator], tuple[NDArray[np.bool_], Field]]] = {
    "cut_paste": _cut_paste,
    "perlin": _perlin,
}
"""Name of a kind -> what gives region and foreign texture."""
