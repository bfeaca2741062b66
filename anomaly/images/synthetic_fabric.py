"""The plain weave of the synthetic fabric: four crossings of round yarns, drawn once and repeated over the cloth."""

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

PITCH = 10.0
"""Distance in pixels from one yarn to the next."""

_FINE = 40  # pixels per yarn in the drawn tile
_RADIUS = 0.47  # of a yarn, in yarn pitches
_LIFT = 0.34  # by which yarns rise and dive at the crossings


class Fault(NamedTuple):
    """What is wrong with one weft yarn; positions and lengths in yarn pitches.

    Attributes:
        kind: "missing" or "misplaced".
        u: where along the weft the fault is centred.
        row: the weft yarn.
        reach: how far the fault goes to either side.
        shift: by how much a misplaced yarn is pushed aside.
    """

    kind: str
    u: float
    row: int
    reach: float
    shift: float


def weave(
    u: NDArray[np.float32], v: NDArray[np.float32], tones: NDArray[np.float32], fault: Fault | None
) -> NDArray[np.float32]:
    """Draws the cloth at the given coordinates.

    Args:
        u: (H, W) position across the warp yarns, in pitches, 0 or more.
        v: (H, W) position across the weft yarns, in pitches, 0 or more.
        tones: (2, 64) brightness that single warp and weft yarns add.
        fault: what is wrong, if anything.

    Returns:
        (H, W) float32 brightness.
    """
    if fault is not None and fault.kind == "misplaced":
        near = np.abs(u - fault.u) < fault.reach
        along = np.cos(np.pi / 2 * (u - fault.u) / fault.reach) ** 2
        v = v + near * along * np.float32(fault.shift) * np.exp(-(((v - fault.row - 0.5) / 1.1) ** 2))
    shade, weft = _look_up(_tile(weft_missing=False), u, v)
    tone = tones[0][u.astype(np.int32) % 64]
    tone += weft * (tones[1][v.astype(np.int32) % 64] - tone)
    if fault is not None and fault.kind == "missing":
        gone = (np.abs(u - fault.u) < fault.reach) & (np.abs(v - fault.row - 0.5) < 0.5)
        bare, _ = _look_up(_tile(weft_missing=True), u, v)
        shade = np.where(gone, bare, shade)
    cloth: NDArray[np.float32] = shade + tone
    return cloth


def _look_up(
    tile: NDArray[np.float32], u: NDArray[np.float32], v: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    drawn = cv2.remap(tile, u % 2 * _FINE, v % 2 * _FINE, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return drawn[..., 0], drawn[..., 1]


@lru_cache(maxsize=2)
def _tile(weft_missing: bool) -> NDArray[np.float32]:
    """Returns (80, 80, 2) float32: brightness of 2 x 2 yarns, and 1 where the weft is on top."""
    axis = (np.arange(2 * _FINE) / _FINE).astype(np.float32)
    u, v = axis[None, :], axis[:, None]
    side_u, side_v = np.where(u < 1, 1, -1), np.where(v < 1, 1, -1)
    lift = 0.0 if weft_missing else _LIFT
    warp = _round(u) + lift * side_u * np.sin(np.pi * v)
    weft = np.full_like(warp, -9) if weft_missing else _round(v) - _LIFT * side_v * np.sin(np.pi * u)
    height = np.clip(np.maximum(warp, weft), -0.35, None)
    on_top = (weft > warp).astype(np.float32)
    twist = np.where(weft > warp, np.sin(2 * np.pi * (3 * u + 2 * v)), np.sin(2 * np.pi * (2 * u - 3 * v)))
    wrapped = np.pad(height, 1, mode="wrap")
    slope = (wrapped[2:, 1:-1] - wrapped[:-2, 1:-1] + 0.6 * (wrapped[1:-1, 2:] - wrapped[1:-1, :-2])) * _FINE / 2
    shade = 0.24 + 0.34 * height + 0.035 * np.tanh(slope) + 0.035 * twist * (height > 0.1)
    blurred = cv2.GaussianBlur(np.pad(shade, 8, mode="wrap"), (0, 0), 2.2)[8:-8, 8:-8]
    return np.stack([blurred, on_top], axis=2).astype(np.float32)


def _round(position: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns the height of round yarns side by side, deep down between them."""
    off = (position % 1 - 0.5) / _RADIUS
    height: NDArray[np.float32] = np.where(np.abs(off) < 1, np.sqrt(np.clip(1 - off**2, 0, 1)), -0.6)
    return height
