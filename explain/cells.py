"""Cells: the regions that are removed and inserted, ranked and compared; the same for every method.

Maps of single pixels and maps of coarse layers are judged alike, because every map is averaged over cells first, and
because a detector sees the removal of a region as it would see a region, not as noise of single pixels.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from explain.subject import BATCH, Subject

SHORTER, MOST = 12, 600
"""Cells along the shorter side of an image, and at most in all."""


@dataclass(frozen=True)
class Cells:
    """A regular grid over an image.

    Attributes:
        size: height and width of the image in pixels.
        grid: rows and columns of cells.
    """

    size: tuple[int, int]
    grid: tuple[int, int]

    @classmethod
    def over(cls, size: tuple[int, int], shorter: int = SHORTER) -> "Cells":
        """Lays about square cells over an image, `shorter` along its shorter side, fewer if it is very long."""
        side = max(min(size) / shorter, (size[0] * size[1] / MOST) ** 0.5, 1.0)
        return cls(size, (max(1, round(size[0] / side)), max(1, round(size[1] / side))))

    @property
    def count(self) -> int:
        """Number of cells."""
        return self.grid[0] * self.grid[1]

    @cached_property
    def labels(self) -> Int64[np.ndarray, "h w"]:
        """The number of each pixel's cell, row by row from 0."""
        rows = np.arange(self.size[0]) * self.grid[0] // self.size[0]
        columns = np.arange(self.size[1]) * self.grid[1] // self.size[1]
        return np.asarray(rows[:, None] * self.grid[1] + columns[None], dtype=np.int64)

    def sums(self, values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " k"]:
        """Returns the sum over the pixels of each cell."""
        return np.bincount(self.labels.ravel(), values.ravel().astype(np.float64), minlength=self.count)

    def means(self, values: Float[np.ndarray, "h w"]) -> Float[np.ndarray, " k"]:
        """Returns the mean over the pixels of each cell."""
        return np.asarray(self.sums(values) / np.bincount(self.labels.ravel(), minlength=self.count))

    def ranked(self, values: Float[np.ndarray, "h w"]) -> Int64[np.ndarray, " k"]:
        """Returns the cells, that with the highest mean first; ties in the order of the cells."""
        return np.argsort(-self.means(values), kind="stable")

    def spread(self, weights: Float[Tensor, "n k"]) -> Float[Tensor, "n 1 h w"]:
        """Returns the weight of each pixel: that of its cell, softened over a quarter of a cell at the borders.

        Hard borders would be edges that a detector may take for anomalies.
        """
        pixels = weights[:, torch.from_numpy(self.labels)][:, None].float()
        soft = [max(0, int(side / cells) // 8) for side, cells in zip(self.size, self.grid, strict=True)]
        if max(soft) == 0:
            return pixels
        padded = F.pad(pixels, (soft[1], soft[1], soft[0], soft[0]), mode="replicate")
        return F.avg_pool2d(padded, (2 * soft[0] + 1, 2 * soft[1] + 1), stride=1)


class Blend:
    """The score of an image of which some cells are replaced by its twin. Each mixture is scored once, then kept."""

    def __init__(self, subject: Subject, cells: Cells) -> None:
        """Remembers image, twin and cells."""
        self.subject, self.cells = subject, cells
        self._known: dict[bytes, float] = {}

    def __call__(self, kept: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
        """Scores mixtures.

        Args:
            kept: 1 for each cell that keeps the image, 0 for each that has the twin.

        Returns:
            (N,) float32 scores.
        """
        keys = [np.packbits(row.numpy() > 0.5).tobytes() for row in kept]
        new = {key: row for key, row in zip(keys, kept, strict=True) if key not in self._known}
        names, rows = list(new), list(new.values())
        for start in range(0, len(rows), BATCH):
            weight = self.cells.spread(torch.stack(rows[start : start + BATCH]))
            mixed = weight * self.subject.image + (1 - weight) * self.subject.twin.image
            scores = self.subject.scores(mixed).tolist()
            self._known |= zip(names[start : start + BATCH], scores, strict=True)
        return torch.tensor([self._known[key] for key in keys])
