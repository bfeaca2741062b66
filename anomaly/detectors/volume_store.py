"""Training volumes on disk, read patch by patch: a fit sees each volume once, training draws patches many times."""

from collections.abc import Iterable
from tempfile import TemporaryFile

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anomaly.errors import InputError
from anomaly.volume_spec import Volumes, VolumeSpec


class VolumeStore:
    """Windowed volumes of any sizes in one unnamed temporary file, 4 bytes a value; memory holds what is being read."""

    def __init__(self, spec: VolumeSpec, volumes: Iterable[Volumes]) -> None:
        """Windows every volume and writes it down.

        Args:
            spec: the volumes.
            volumes: batches, each (N, C, D, H, W) or a sequence of (C, D, H, W); read once, in order.

        Raises:
            InputError: a batch does not fit `spec`, or there is no volume at all.
        """
        self._places: list[tuple[int, tuple[int, ...]]] = []
        end = 0
        with TemporaryFile(prefix="anomaly-") as file:  # the mapping below keeps it alive
            for batch in volumes:
                with torch.no_grad():
                    windowed = spec.windowed(batch)
                for volume in windowed:
                    file.write(volume.cpu().contiguous().numpy().tobytes())
                    self._places.append((end, tuple(volume.shape)))
                    end += volume.numel()
            if not self._places:
                raise InputError("no volume to fit on; at least one is needed")
            file.flush()
            self._values = np.memmap(file, np.float32, "r", shape=(end,))

    def __len__(self) -> int:
        """Returns the number of volumes."""
        return len(self._places)

    def read(self, index: int) -> Float[Tensor, "c d h w"]:
        """Returns a whole volume."""
        return torch.from_numpy(np.array(self._volume(index)))

    def patches(self, indices: list[int], size: tuple[int, int, int]) -> Float[Tensor, "n c d h w"]:
        """Returns a patch of each of some volumes at a place drawn from torch's global generator.

        Args:
            indices: the volumes.
            size: depth, height and width of a patch; a volume that is smaller is continued by its last values.
        """
        return torch.stack([self._patch(self._volume(index), size) for index in indices])

    def _volume(self, index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        start, shape = self._places[index]
        return self._values[start : start + int(np.prod(shape))].reshape(shape)

    @staticmethod
    def _patch(volume: np.ndarray[tuple[int, ...], np.dtype[np.float32]], size: tuple[int, int, int]) -> Tensor:
        starts = [
            int(torch.randint(max(0, full - side) + 1, ())) for full, side in zip(volume.shape[1:], size, strict=True)
        ]
        cut = volume[:, *(slice(start, start + side) for start, side in zip(starts, size, strict=True))]
        missing = [(0, 0), *((0, side - have) for side, have in zip(size, cut.shape[1:], strict=True))]
        return torch.from_numpy(np.pad(cut, missing, mode="edge"))
