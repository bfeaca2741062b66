"""Connected regions of a mask."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_BLOCK = 32


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
    """Yields the regions connected by edges or corners.

    Blocks of pixels are grouped first, so that large masks with a few regions need little memory: pixels that touch lie
    in one block or in blocks that touch.

    Args:
        mask: (H, W).
        least: regions of fewer pixels are left out.
    """
    import cv2

    rows, columns = (np.arange(0, side, _BLOCK) for side in mask.shape)
    blocks = np.logical_or.reduceat(np.logical_or.reduceat(mask, rows, axis=0), columns, axis=1)
    groups, group_of, boxes, _ = cv2.connectedComponentsWithStats(blocks.astype(np.uint8), connectivity=8)
    for group in range(1, groups):
        left, top, width, height, _ = (int(value) for value in boxes[group])
        first, begin = top * _BLOCK, left * _BLOCK
        part = mask[first : (top + height) * _BLOCK, begin : (left + width) * _BLOCK]
        own = group_of[top : top + height, left : left + width] == group
        own = own.repeat(_BLOCK, axis=0).repeat(_BLOCK, axis=1)[: part.shape[0], : part.shape[1]]
        for region in _labelled(part & own):
            if region.area >= least:
                yield region._replace(top=first + region.top, left=begin + region.left)


def _labelled(mask: NDArray[np.bool_]) -> Iterator[Component]:
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    for label in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[label])
        yield Component(top, left, labels[top : top + height, left : left + width] == label, area)


def centroid(weights: NDArray[np.floating], top: int, left: int) -> tuple[float, float]:
    """Returns row and column of the centre of weights whose first pixel lies at (top, left); its middle is 0.5."""
    total = float(weights.sum())
    row = float((weights.sum(axis=1) * (np.arange(weights.shape[0]) + 0.5)).sum()) / total
    column = float((weights.sum(axis=0) * (np.arange(weights.shape[1]) + 0.5)).sum()) / total
    return top + row, left + column
