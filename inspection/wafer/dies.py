"""Dies as images: cut out of frames or a stitched wafer, and registered to a fraction of a pixel.

Every die of a wafer shows the same pattern, so what one die has and its neighbours have not is a defect ("die to die").
Against a golden die, a defect that all dies have, of the mask, is found too.

Registration: phase correlation (Kuglin and Hines, The Phase Correlation Image Alignment Method, 1975) as OpenCV does
it, with a Hann window, then a few least-squares steps on the gradients for the fraction of a pixel (Lucas and Kanade,
An Iterative Image Registration Technique, 1981).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import InputError, SettingError
from inspection.wafer.geometry import DieIndex, WaferGeometry
from inspection.wafer.stage import FrameView

Pixels = NDArray[Any]

_STEPS = 4
_ILL = 1e4


class DieImage(NamedTuple):
    """One die as an image.

    Attributes:
        die: column and row on the wafer.
        pixels: (h, w) float32 raw values, the die from its upper left corner, registered.
        shift_px: rows and columns by which it had to be moved, beyond what stage and grid say.
        response: height of the correlation peak, 0 to about 1; near 0 where there is nothing to hold on to.
    """

    die: DieIndex
    pixels: NDArray[np.float32]
    shift_px: tuple[float, float] = (0.0, 0.0)
    response: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Registration:
    """How dies are brought onto each other.

    Attributes:
        max_shift_px: a die that would have to be moved farther, rows or columns, is not registered but reported.
        min_response: a die whose correlation peak is lower is left where stage and grid put it.
    """

    max_shift_px: float = 3.0
    min_response: float = 0.05

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 0 < self.max_shift_px <= 50:
            raise SettingError.of("Registration", "max_shift_px", "above 0, at most 50", self.max_shift_px)
        if not 0 <= self.min_response <= 1:
            raise SettingError.of("Registration", "min_response", "0 to 1", self.min_response)


def stitch(frames: Iterable[tuple[FrameView, Pixels]]) -> tuple[FrameView, NDArray[np.float32]]:
    """Puts grey frames of one wafer together, at whole pixels of the stage; later frames lie on top.

    Memory: 4 bytes for each pixel of the wafer. Frames must be of one alignment.

    Args:
        frames: views and (H, W) images.

    Returns:
        The view of the whole, and its (H, W) float32 image; NaN where no frame looked.

    Raises:
        InputError: no frame, or frames of different alignments.
    """
    held = [(view, np.asarray(image)) for view, image in frames]
    if not held or len({view.alignment for view, _ in held}) != 1:
        raise InputError("stitching needs frames of one alignment; got " + ("several" if held else "none"))
    px, py = held[0][0].alignment.pixel_um
    lefts = [round(view.stage_um[0] / px - view.width / 2) for view, _ in held]
    tops = [round(-view.stage_um[1] / py - view.height / 2) for view, _ in held]
    left, top = min(lefts), min(tops)
    width = max(x + view.width for x, (view, _) in zip(lefts, held, strict=True)) - left
    height = max(y + view.height for y, (view, _) in zip(tops, held, strict=True)) - top
    whole = np.full((height, width), np.nan, np.float32)
    for x, y, (view, image) in zip(lefts, tops, held, strict=True):
        whole[y - top : y - top + view.height, x - left : x - left + view.width] = image
    centre = ((left + width / 2) * px, -(top + height / 2) * py)
    return FrameView(frame="wafer", stage_um=centre, height=height, width=width, alignment=held[0][0].alignment), whole


def cut_dies(
    view: FrameView, image: Pixels, geometry: WaferGeometry, dies: Sequence[DieIndex] | None = None
) -> list[DieImage]:
    """Cuts the dies that lie wholly in an image, resampled so that every die covers the same pixels.

    Args:
        view: what the image shows.
        image: (H, W) grey raw values; NaN where nothing was seen.
        geometry: the die grid.
        dies: the dies to look for; None for all whole dies of the wafer.

    Returns:
        The dies that the image shows whole, each (h, w) of the pitch in whole pixels.
    """
    import cv2

    px, py = view.alignment.pixel_um
    height, width = round(geometry.pitch_um[1] / py), round(geometry.pitch_um[0] / px)
    source = np.asarray(image, np.float32)
    cut = []
    for die in geometry.dies() if dies is None else dies:
        left, bottom = geometry.corner_um(die)
        corner = view.to_frame(left, bottom + geometry.pitch_um[1])
        right, down = view.shift_px(geometry.pitch_um[0] / width, 0), view.shift_px(0, -geometry.pitch_um[1] / height)
        # OpenCV's pixel 0 has its middle at 0, ours at 0.5
        matrix = np.array(
            [
                [right[1], down[1], corner[1] + 0.5 * (right[1] + down[1]) - 0.5],
                [right[0], down[0], corner[0] + 0.5 * (right[0] + down[0]) - 0.5],
            ]
        )
        ends = matrix @ np.array([[0, width - 1, 0, width - 1], [0, 0, height - 1, height - 1], [1, 1, 1, 1]])
        if ends.min() < -0.5 or ends[0].max() > view.width - 0.5 or ends[1].max() > view.height - 0.5:
            continue
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        pixels = cv2.warpAffine(source, matrix, (width, height), flags=flags, borderMode=cv2.BORDER_REPLICATE)
        if not np.isnan(pixels).any():
            cut.append(DieImage(die, pixels))
    return cut


def median_die(dies: Sequence[DieImage]) -> NDArray[np.float32]:
    """Returns the (h, w) median of dies: a golden die, made of dies that are known or supposed to be good.

    Raises:
        InputError: no die.
    """
    if not dies:
        raise InputError("a golden die needs at least one die; got none")
    return np.median(np.stack([die.pixels for die in dies]), axis=0).astype(np.float32)


def register(dies: Sequence[DieImage], golden: NDArray[np.float32], how: Registration | None = None) -> list[DieImage]:
    """Moves dies onto a reference die, to a fraction of a pixel.

    A die that would have to move farther than `max_shift_px` is returned unmoved with the shift that was found: compare
    `shift_px` with the limit to reject it.

    Args:
        dies: dies as `cut_dies` gives them.
        golden: (h, w) reference, e.g. `median_die` of the same dies.
        how: limits.

    Raises:
        InputError: a die has another size than the reference.
    """
    import cv2

    how = how or Registration()
    window = cv2.createHanningWindow(golden.shape[::-1], cv2.CV_32F)
    reference = golden - golden.mean()
    moved = []
    for die in dies:
        if die.pixels.shape != golden.shape:
            raise InputError(f"die {tuple(die.die)} is {die.pixels.shape}, the reference {golden.shape}")
        (dx, dy), response = cv2.phaseCorrelate(reference, die.pixels - die.pixels.mean(), window)
        if response < how.min_response:
            moved.append(die._replace(response=response))
        elif max(abs(dx), abs(dy)) > how.max_shift_px:
            moved.append(die._replace(shift_px=(-dy, -dx), response=response))
        else:
            dy, dx = _refined(die.pixels, golden, window, dy, dx)
            moved.append(DieImage(die.die, _moved(die.pixels, dy, dx), (-dy, -dx), response))
    return moved


def _refined(
    pixels: NDArray[np.float32], golden: NDArray[np.float32], window: NDArray[np.float32], dy: float, dx: float
) -> tuple[float, float]:
    """Improves a shift by least squares on the gradients of the reference."""
    gradients = np.stack([part.ravel() for part in np.gradient(golden)])
    weights = window.ravel()
    normal = (gradients * weights) @ gradients.T
    if np.linalg.cond(normal) > _ILL:  # stripes or nothing: one direction cannot be told
        return dy, dx
    for _ in range(_STEPS):
        rest = (_moved(pixels, dy, dx) - golden).ravel()
        step = np.linalg.solve(normal, (gradients * weights) @ (rest - np.average(rest, weights=weights)))
        if np.abs(step).max() > 1:
            break
        dy, dx = dy - float(step[0]), dx - float(step[1])
    return dy, dx


def _moved(pixels: NDArray[np.float32], dy: float, dx: float) -> NDArray[np.float32]:
    """Returns pixels[y + dy, x + dx]."""
    import cv2

    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = np.array([[1, 0, dx], [0, 1, dy]], np.float64)
    moved: NDArray[np.float32] = cv2.warpAffine(
        pixels, matrix, pixels.shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return moved


def neighbours(dies: Sequence[DieImage], count: int) -> list[list[int]]:
    """Returns for each die the indices of the `count` nearest others on the grid, nearest first (ties: lower index)."""
    places = np.array([die.die for die in dies], float).reshape(-1, 2)
    nearest = []
    for index, place in enumerate(places):
        distance = np.hypot(*(places - place).T)
        distance[index] = np.inf
        nearest.append(np.argsort(distance, kind="stable")[: min(count, len(dies) - 1)].tolist())
    return nearest
