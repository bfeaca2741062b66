"""Large frames in tiles: cut with overlap, map each tile, keep of each map what lies well inside its tile.

A convolution sees zeros beyond the border of a tile, so the values near it are not those of the whole frame. Where two
tiles overlap the cut runs through the middle of the overlap; at the border of the frame a tile counts up to its edge.
An operator that looks at most overlap / 2 pixels far therefore gives exactly the map of the untiled frame.

Position matters to the detectors (docs/adr/0001): a model for tiles must have learned from tiles, cut anywhere in the
parts, never from whole parts.

Memory: the frame, its map (4 bytes a pixel) and one batch of tiles.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice, pairwise, product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import InputError, SettingError


class Tile(NamedTuple):
    """A tile of a frame, and the part of it that counts.

    Attributes:
        top: first row in the frame.
        left: first column in the frame.
        core: (top, left, bottom, right) in the frame, bottom and right exclusive: the cores of all tiles cover every
            pixel exactly once.
    """

    top: int
    left: int
    core: tuple[int, int, int, int]


@dataclass(frozen=True)
class Tiling:
    """How frames are cut.

    Attributes:
        size: side of a tile in pixels.
        overlap: pixels that neighbouring tiles share at least, 0 to size / 2.
    """

    size: int
    overlap: int

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if self.size < 1:
            raise SettingError.of("Tiling", "size", "1 or more", self.size)
        if not 0 <= 2 * self.overlap <= self.size:
            raise SettingError.of("Tiling", "overlap", f"0 to half of the size, {self.size // 2}", self.overlap)

    def starts(self, side: int) -> list[int]:
        """Returns where tiles begin along a side: regularly, the last one flush with the end.

        Raises:
            InputError: the side is shorter than a tile.
        """
        if side < self.size:
            raise InputError(f"a frame of {side} px cannot be cut into tiles of {self.size} px")
        step = self.size - self.overlap
        return [*range(0, side - self.size, step), side - self.size]

    def tiles(self, height: int, width: int) -> Iterator[Tile]:
        """Yields the tiles of a frame, row by row."""
        rows, columns = (list(zip(self.starts(side), self._cores(side), strict=True)) for side in (height, width))
        for (top, (first, last)), (left, (begin, end)) in product(rows, columns):
            yield Tile(top, left, (first, begin, last, end))

    def cut(self, frame: NDArray[Any], tile: Tile) -> NDArray[Any]:
        """Returns the pixels of a tile of an (H, W, ...) frame; a view."""
        return frame[tile.top : tile.top + self.size, tile.left : tile.left + self.size]

    def mapped(
        self,
        frame: NDArray[Any],
        run: Callable[[NDArray[Any]], NDArray[np.float32]],
        batch: int,
        wanted: Callable[[Tile], bool] = lambda tile: True,
    ) -> NDArray[np.float32]:
        """Maps a frame tile by tile.

        Args:
            frame: (H, W, C) raw frame.
            run: (N, size, size, C) tiles -> (N, size, size) maps.
            batch: tiles that are run together.
            wanted: whether a tile is needed; the map is -inf where none was.

        Returns:
            (H, W) map.

        Raises:
            InputError: the frame is smaller than a tile.
        """
        height, width = frame.shape[:2]
        stitched = np.full((height, width), -np.inf, np.float32)
        remaining = filter(wanted, self.tiles(height, width))
        while tiles := list(islice(remaining, batch)):
            maps = run(np.stack([self.cut(frame, tile) for tile in tiles]))
            for tile, values in zip(tiles, maps, strict=True):
                top, left, bottom, right = tile.core
                stitched[top:bottom, left:right] = values[
                    top - tile.top : bottom - tile.top, left - tile.left : right - tile.left
                ]
        return stitched

    def _cores(self, side: int) -> list[tuple[int, int]]:
        between = [(first + self.size + second) // 2 for first, second in pairwise(self.starts(side))]
        return list(pairwise([0, *between, side]))
