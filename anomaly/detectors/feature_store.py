"""Features of the training images on one grid, on disk, with mean and deviation of every channel."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from anomaly.detectors.map_store import LayerMap, MapStore


class FeatureStore:
    """A `MapStore` of one layer that has summed up its channels while they were written.

    Attributes:
        mean: (D,) float32, mean of each channel over the patches inside the images.
        deviation: (D,) float32, standard deviation of each channel; 1 where a channel never varies.
    """

    def __init__(self, batches: Iterable[LayerMap]) -> None:
        """Writes every batch down and sums up its channels.

        Args:
            batches: features on one grid, read once, in order.

        Raises:
            InputError: there is no image at all.
        """
        sums: list[Tensor] = []
        count = 0

        def summed() -> Iterator[list[LayerMap]]:
            nonlocal count
            for batch in batches:
                patches = batch.features.permute(0, 2, 3, 1)[batch.inside].double()
                part = torch.stack([patches.sum(dim=0), patches.square().sum(dim=0)])
                sums[:] = [sums[0] + part if sums else part]
                count += len(patches)
                yield [batch]

        self._maps = MapStore(1, summed())
        mean, square = sums[0] / count
        deviation = (square - mean.square()).clamp(min=0.0).sqrt()
        self.mean = mean.float()
        self.deviation = torch.where(deviation > 0, deviation, 1.0).float()

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._maps)

    def read(self, indices: Sequence[int]) -> LayerMap:
        """Returns the features of some of the images, in float32."""
        return self._maps.read(0, indices)

    def spread(self, count: int) -> Sequence[int]:
        """Returns the indices of at most `count` images, evenly spaced over all."""
        indices: list[int] = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int).tolist()
        return indices
