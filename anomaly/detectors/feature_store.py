"""Features of the training images on disk: a frozen backbone is run once, whatever the number of training steps."""

from collections.abc import Iterable, Sequence
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anomaly.errors import InputError


class StoredBatch(NamedTuple):
    """Features of some images.

    Attributes:
        features: (N, D, h, w) float32.
        inside: (N, h, w) bool, which patches lie on the image and not on padding.
    """

    features: Float[Tensor, "n d h w"]
    inside: Bool[Tensor, "n h w"]


class FeatureStore:
    """Features of all training images in one unnamed temporary file; memory holds what is being read.

    Disk: 2 bytes (float16) a value, e.g. 0.6 MB an image for 288 channels on 32 x 32 patches. The file vanishes with
    the store, also when the program is killed.

    Attributes:
        mean: (D,) float32, mean of each channel over the patches inside the images.
        deviation: (D,) float32, standard deviation of each channel; 1 where a channel never varies.
    """

    def __init__(self, batches: Iterable[StoredBatch]) -> None:
        """Writes every batch down and sums up its channels.

        Args:
            batches: features on one grid, read once, in order.

        Raises:
            InputError: there is no image at all.
        """
        inside: list[Tensor] = []
        sums: Tensor | None = None
        with TemporaryFile(prefix="anomaly-") as file:  # the mapping below keeps it alive
            for batch in batches:
                file.write(batch.features.cpu().numpy().astype(np.float16).tobytes())
                inside.append(batch.inside.cpu())
                patches = batch.features.permute(0, 2, 3, 1)[batch.inside].double()
                part = torch.stack([patches.sum(dim=0), patches.square().sum(dim=0)])
                sums = part if sums is None else sums + part
            if sums is None:
                raise InputError("no image to fit on; at least one is needed")
            file.flush()
            self._inside = torch.cat(inside)
            count, rows, columns = self._inside.shape
            self._features = np.memmap(file, np.float16, "r", shape=(count, sums.shape[1], rows, columns))
        mean, square = sums / self._inside.sum()
        deviation = (square - mean.square()).clamp(min=0.0).sqrt()
        self.mean = mean.float()
        self.deviation = torch.where(deviation > 0, deviation, 1.0).float()

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._inside)

    def read(self, indices: Sequence[int]) -> StoredBatch:
        """Returns the features of some of the images, in float32."""
        chosen = list(indices)
        return StoredBatch(torch.from_numpy(self._features[chosen].astype(np.float32)), self._inside[chosen])

    def spread(self, count: int) -> Sequence[int]:
        """Returns the indices of at most `count` images, evenly spaced over all."""
        indices: list[int] = np.linspace(0, len(self) - 1, min(count, len(self))).round().astype(int).tolist()
        return indices
