"""The die of the synthetic wafer: one product, drawn once from a constant layout, repeated on the grid."""

from functools import lru_cache
from typing import NamedTuple, SupportsFloat

import cv2
import numpy as np
from numpy.typing import NDArray

DIE = (72, 60)
"""Height and width in pixels of a die with its street."""

_FINE = 4  # the die is drawn this much finer than it is looked at
_STREET = 5
_PRODUCT = 20240607  # seed of the product: all wafers carry the same die
_SILICON = 0.30


class Block(NamedTuple):
    """A rectangular structure inside the die; position and size in pixels, `shift` (dy, dx) moves what is drawn."""

    kind: str
    top: float
    left: float
    height: float
    width: float
    tone: float
    shift: tuple[float, float] = (0.0, 0.0)


_BLOCKS = (
    Block("array", 12, 12, 22, 21, 0.62),
    Block("array", 12, 36, 22, 12, 0.55),
    Block("logic", 38, 12, 22, 16, 0.48),
    Block("plain", 38, 31, 9, 17, 0.70),
    Block("logic", 50, 31, 10, 8, 0.44),
    Block("plain", 50, 42, 10, 6, 0.36),
)


class DieFault(NamedTuple):
    """What is wrong in one die.

    Attributes:
        at: row and column of a pixel in that die.
        blocks: the structures that the die has instead of the right ones.
    """

    at: tuple[int, int]
    blocks: tuple[Block, ...]


def die_fault(
    kind: str, at: tuple[int, int], u: NDArray[np.float32], v: NDArray[np.float32], rng: np.random.Generator
) -> DieFault:
    """Draws a fault of the die at a pixel.

    Args:
        kind: "missing" (the block next to the pixel, seldom all of them) or "misplaced" (that block, by some pixels).
        at: row and column of the pixel.
        u: (H, W) column on the wafer of each pixel.
        v: (H, W) row on the wafer of each pixel.
        rng: draws what is left open.
    """
    if kind == "missing" and rng.random() < 0.15:
        return DieFault(at, ())
    chosen = min(_BLOCKS, key=lambda block: _distance(block, float(v[at]) % DIE[0], float(u[at]) % DIE[1]))
    others = tuple(block for block in _BLOCKS if block != chosen)
    if kind == "missing":
        return DieFault(at, others)
    far, angle = rng.uniform(1.5, 4.5), rng.uniform(0, 2 * np.pi)
    return DieFault(at, (*others, chosen._replace(shift=(far * np.sin(angle), far * np.cos(angle)))))


def _distance(block: Block, y: float, x: float) -> float:
    dy = max(block.top - y, y - block.top - block.height, 0.0)
    dx = max(block.left - x, x - block.left - block.width, 0.0)
    return dy * dy + dx * dx


def wafer_albedo(
    u: NDArray[np.float32], v: NDArray[np.float32], tones: NDArray[np.float32], fault: DieFault | None
) -> NDArray[np.float32]:
    """Draws the dies that lie at the given coordinates.

    Args:
        u: (H, W) column on the wafer of each pixel, 0 or more.
        v: (H, W) row on the wafer of each pixel, 0 or more.
        tones: (64, 64) brightness that single dies add.
        fault: what is wrong in one die, if anything.

    Returns:
        (H, W) float32 brightness.
    """
    row, column = (v * np.float32(1 / DIE[0])).astype(np.int32), (u * np.float32(1 / DIE[1])).astype(np.int32)
    albedo = _look_up(_die(_BLOCKS), u, v)
    if fault is not None:
        here = (row == row[fault.at]) & (column == column[fault.at])
        albedo = np.where(here, _look_up(_die(fault.blocks), u, v), albedo)
    toned: NDArray[np.float32] = albedo + tones[row % 64, column % 64]
    return toned


def _look_up(die: NDArray[np.float32], u: NDArray[np.float32], v: NDArray[np.float32]) -> NDArray[np.float32]:
    x, y = (u % DIE[1]) * _FINE, (v % DIE[0]) * _FINE
    drawn: NDArray[np.float32] = cv2.remap(die, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return drawn


@lru_cache(maxsize=16)
def _die(blocks: tuple[Block, ...]) -> NDArray[np.float32]:
    """Returns the die at `_FINE` times its size, blurred as a lens would."""
    height, width = DIE[0] * _FINE, DIE[1] * _FINE
    die = np.full((height, width), 0.20, np.float32)
    inner = slice(_STREET * _FINE, -_STREET * _FINE // 4), slice(_STREET * _FINE, -_STREET * _FINE // 4)
    die[inner] = _SILICON
    cv2.rectangle(die, (_px(7), _px(7)), (_px(DIE[1] - 3.5), _px(DIE[0] - 3.5)), 0.52, thickness=3)
    _pads(die)
    for block in blocks:
        _draw(die, block)
    seen: NDArray[np.float32] = cv2.GaussianBlur(die, (0, 0), 0.55 * _FINE, borderType=cv2.BORDER_REFLECT)
    return seen


def _pads(die: NDArray[np.float32]) -> None:
    for left in np.arange(11, DIE[1] - 8, 4.5):
        for top in (8.5, DIE[0] - 7.5):
            die[_px(top) : _px(top + 2.4), _px(left) : _px(left + 2.6)] = 0.84


def _draw(die: NDArray[np.float32], block: Block) -> None:
    rng = np.random.default_rng([_PRODUCT, int(block.top), int(block.left)])
    height, width = _px(block.height), _px(block.width)
    y, x = np.mgrid[:height, :width].astype(np.float32) / _FINE
    if block.kind == "array":
        inside = block.tone + 0.13 * np.cos(2 * np.pi * x / 3.6) * np.cos(2 * np.pi * y / 3.2)
    elif block.kind == "logic":
        cells = rng.uniform(-0.16, 0.16, (height // 6 + 1, width // 14 + 1)).astype(np.float32)
        inside = block.tone + cv2.resize(cells, (width, height), interpolation=cv2.INTER_NEAREST)
    else:
        inside = np.full((height, width), block.tone, np.float32)
    top, left = _px(block.top + block.shift[0]), _px(block.left + block.shift[1])
    die[top : top + height, left : left + width] = inside
    cv2.rectangle(die, (left, top), (left + width - 1, top + height - 1), 0.22, thickness=2)


def _px(length: SupportsFloat) -> int:
    return round(float(length) * _FINE)
