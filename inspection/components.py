"""Connected regions of a mask."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Component(NamedTuple):
    """A connected region.

    Attributes:
        top: first row.
        left: first column.
        inside: (h, w) mask of its pixels within its bounding box.
        area: number of its pixels.
    """

    top: int
    left: int
    inside: NDArray[np.bool_]
    area: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(top, left, bottom, right); bottom and right are exclusive."""
        height, width = self.inside.shape
        return self.top, self.left, self.top + height, self.left + width

    @property
    def window(self) -> tuple[slice, slice]:
        """Its bounding box as an index of the image."""
        top, left, bottom, right = self.box
        return slice(top, bottom), slice(left, right)


def components(mask: NDArray[np.bool_], least: int = 1) -> Iterator[Component]:
    """Yields the regions connected by edges or corners, from top to bottom.

    Memory: 4 bytes for each pixel of the box around everything that is set.

    Args:
        mask: (H, W).
        least: regions of fewer pixels are left out.
    """
    import cv2

    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return
    first, begin = int(rows[0]), int(columns[0])
    part = mask[first : rows[-1] + 1, begin : columns[-1] + 1]
    count, labels, stats, _ = cv2.connectedComponentsWithStats(part.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[label])
        if area >= least:
            inside = labels[top : top + height, left : left + width] == label
            yield Component(first + top, begin + left, inside, area)


def centroid(weights: NDArray[np.floating], top: int, left: int) -> tuple[float, float]:
    """Returns row and column of the centre of weights whose first pixel lies at (top, left); its middle is 0.5."""
    total = float(weights.sum())
    row = float((weights.sum(axis=1) * (np.arange(weights.shape[0]) + 0.5)).sum()) / total
    column = float((weights.sum(axis=0) * (np.arange(weights.shape[1]) + 0.5)).sum()) / total
    return top + row, left + column
