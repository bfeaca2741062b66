"""Feature maps of the training images on disk, layer by layer on their own grids: the backbone is run once."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from tempfile import TemporaryFile
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from anomaly.errors import InputError


class LayerMap(NamedTuple):
    """Features of some images at one layer.

    Attributes:
        features: (N, D, h, w) float32.
        inside: (N, h, w) bool, which patches lie on the image and not on padding.
    """

    features: Float[Tensor, "n d h w"]
    inside: Bool[Tensor, "n h w"]


class MapStore:
    """Feature maps of all training images, one unnamed temporary file per layer; memory holds what is being read.

    Disk: 2 bytes (float16) a value, e.g. 0.3 MB an image of 256 px for the bundled backbone. The files vanish with the
    store, also when the program is killed.
    """

    def __init__(self, layers: int, batches: Iterable[Sequence[LayerMap]]) -> None:
        """Writes every batch down.

        Args:
            layers: number of layers.
            batches: one map per layer; read once, in order.

        Raises:
            InputError: there is no image at all.
        """
        inside: list[list[Tensor]] = [[] for _ in range(layers)]
        shapes: list[tuple[int, ...]] = []
        with ExitStack() as stack:  # the mappings below keep the files alive
            files = [stack.enter_context(TemporaryFile(prefix="anomaly-")) for _ in range(layers)]
            for batch in batches:
                for file, seen, layer in zip(files, inside, batch, strict=True):
                    file.write(layer.features.cpu().numpy().astype(np.float16).tobytes())
                    seen.append(layer.inside.cpu())
                shapes = [tuple(layer.features.shape[1:]) for layer in batch]
            if not shapes:
                raise InputError("no image to fit on; at least one is needed")
            self._inside = [torch.cat(seen) for seen in inside]
            self._features = []
            for file, shape in zip(files, shapes, strict=True):
                file.flush()
                self._features.append(np.memmap(file, np.float16, "r", shape=(len(self), *shape)))

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self._inside[0])

    def read(self, layer: int, indices: Sequence[int]) -> LayerMap:
        """Returns some of the images at one layer, in float32."""
        chosen = list(indices)
        features = torch.from_numpy(self._features[layer][chosen].astype(np.float32))
        return LayerMap(features, self._inside[layer][chosen])

    def batches(self, layer: int, size: int) -> Iterable[LayerMap]:
        """Yields all images at one layer, in order, `size` at a time."""
        for start in range(0, len(self), size):
            yield self.read(layer, range(start, min(start + size, len(self))))
