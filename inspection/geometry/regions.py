"""Which pixels are judged: polygons to inspect, polygons to ignore, a mask."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import InputError

Mask = NDArray[np.bool_]
Polygon = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Regions:
    """Where an image is judged.

    Attributes:
        inspect: polygons of (x, y) in pixels from the left and top edge; without any, everywhere.
        ignore: polygons inside which nothing is judged, even within `inspect`.
        mask: (H, W) True where it is judged; None for everywhere.
    """

    inspect: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    mask: Mask | None = None

    @property
    def everywhere(self) -> bool:
        """Whether every pixel is judged, whatever the size of the image."""
        return not self.inspect and not self.ignore and self.mask is None

    def judged(self, height: int, width: int) -> Mask:
        """Returns the (H, W) mask of the pixels to judge. A pixel lies in a polygon if its middle does.

        Raises:
            InputError: the mask has another size, or no pixel is left.
        """
        judged = np.full((height, width), not self.inspect)
        for polygon in self.inspect:
            judged |= inside(polygon, height, width)
        for polygon in self.ignore:
            judged &= ~inside(polygon, height, width)
        if self.mask is not None:
            if self.mask.shape != judged.shape:
                raise InputError(
                    f"the mask of the regions has {self.mask.shape[0]} x {self.mask.shape[1]} px, the image {height} x "
                    f"{width}: both must have one size"
                )
            judged &= self.mask
        if not judged.any():
            raise InputError(f"the regions leave no pixel of an image of {height} x {width} px to judge")
        return judged


def inside(polygon: Polygon, height: int, width: int) -> Mask:
    """Returns the (H, W) mask of the pixels whose middle lies in a polygon (even-odd rule).

    Args:
        polygon: (x, y) in pixels from the left and top edge; it may reach beyond the image.
        height: rows of the image.
        width: columns of the image.
    """
    flips = np.zeros((height, width + 1), bool)
    rows = np.arange(height) + 0.5
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        crossed = np.flatnonzero((rows >= min(y1, y2)) & (rows < max(y1, y2)))
        if crossed.size:
            x = x1 + (rows[crossed] - y1) * ((x2 - x1) / (y2 - y1))
            columns = np.clip(np.ceil(x - 0.5), 0, width).astype(int)  # the first pixel whose middle lies beyond
            flips[crossed, columns] ^= True
    within: Mask = np.logical_xor.accumulate(flips, axis=1)[:, :width]
    return within
