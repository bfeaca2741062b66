"""The training images on disk, for detectors that look at them many times while a fit sees each batch once."""

from collections.abc import Iterable, Sequence
from tempfile import TemporaryFile

import numpy as np
import torch

from anomaly.errors import InputError
from anomaly.input_spec import Canvas, Images, InputSpec


class CanvasStore:
    """Canvases of all training images in one unnamed temporary file; memory holds what is being read.

    Disk: 2 bytes a value where frames are uint8 (float16 keeps 8 bits exactly enough), else 4. The file vanishes with
    the store, also when the program is killed.
    """

    def __init__(self, spec: InputSpec, images: Iterable[Images]) -> None:
        """Puts every batch on the canvas and writes it down.

        Args:
            spec: the frames and their canvas.
            images: batches, each (N, C, h, w) or a sequence of (C, h, w); read once, in order.

        Raises:
            InputError: a batch does not fit `spec`, or there is no image at all.
        """
        dtype = np.float16 if spec.dtype == "uint8" else np.float32
        self.sizes: list[tuple[int, int]] = []
        with TemporaryFile(prefix="anomaly-") as file:  # the mapping below keeps it alive
            for batch in images:
                with torch.no_grad():
                    canvas = spec.canvas(batch)
                file.write(canvas.pixels.cpu().numpy().astype(dtype).tobytes())
                self.sizes.extend(canvas.sizes)
            if not self.sizes:
                raise InputError("no image to fit on; at least one is needed")
            file.flush()
            self._pixels = np.memmap(file, dtype, "r", shape=(len(self.sizes), spec.channels, *spec.size))

    def __len__(self) -> int:
        """Returns the number of images."""
        return len(self.sizes)

    def read(self, indices: Sequence[int]) -> Canvas:
        """Returns some of the images, pixels in float32."""
        pixels = torch.from_numpy(self._pixels[list(indices)].astype(np.float32))
        return Canvas(pixels, tuple(self.sizes[i] for i in indices))
