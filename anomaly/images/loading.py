"""From files to batches for a scorer: decoding runs ahead in threads, files that cannot be used are collected."""

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from anomaly.errors import ImageFileError, SettingError
from anomaly.images.files import read_image
from anomaly.images.header import Pixels
from anomaly.input_spec import InputSpec

_BATCHES_AHEAD = 2


class Batch(NamedTuple):
    """Frames that were read, and the files they came from.

    Attributes:
        paths: the N files, in order.
        images: (N, C, h, w) if all frames have one size, else N tensors (C, h, w); dtype and raw values of the
            `InputSpec`.
    """

    paths: list[Path]
    images: Tensor | list[Tensor]


class ImageLoader:
    """Reads files into batches that fit an `InputSpec`, decoding ahead of the consumer.

    Batches come in the order of `paths`. At most `batch_size * 2` frames wait besides the batch being put together,
    so memory does not grow with the number of files. A file that cannot be used never stops the run: it is left out
    and its error is kept in `failures`. A consumer that stops early ends the threads.

    Attributes:
        failures: errors of the latest pass, in the order of `paths`; complete when the pass has ended.
    """

    def __init__(
        self, paths: Sequence[Path], input: InputSpec, batch_size: int = 16, workers: int | None = None
    ) -> None:
        """Keeps the settings; nothing is read before the loader is iterated.

        Args:
            paths: files to read.
            input: what the frames must be; see `frame_for`.
            batch_size: frames per batch, 1 or more; the last batch may hold fewer.
            workers: decoding threads, 1 or more; by default one per CPU core, 8 at most.

        Raises:
            SettingError: `batch_size` or `workers` is below 1.
        """
        self.failures: list[ImageFileError] = []
        self._paths = list(paths)
        self._input = input
        self._batch_size = batch_size
        self._workers = min(8, os.cpu_count() or 1) if workers is None else workers
        if batch_size < 1:
            raise SettingError.of("ImageLoader", "batch_size", "1 or more", batch_size)
        if self._workers < 1:
            raise SettingError.of("ImageLoader", "workers", "1 or more", workers)

    def __len__(self) -> int:
        """Returns the number of paths (not of batches)."""
        return len(self._paths)

    def __iter__(self) -> Iterator[Batch]:
        """Yields the batches of one pass; forgets the failures of the pass before."""
        self.failures.clear()
        paths: list[Path] = []
        frames: list[Pixels] = []
        for path, frame in self._frames():
            if isinstance(frame, ImageFileError):
                self.failures.append(frame)
                continue
            paths.append(path)
            frames.append(frame)
            if len(frames) == self._batch_size:
                yield Batch(paths, _together(frames))
                paths, frames = [], []
        if frames:
            yield Batch(paths, _together(frames))

    def _frames(self) -> Iterator[tuple[Path, Pixels | ImageFileError]]:
        ahead = _BATCHES_AHEAD * self._batch_size
        remaining = iter(self._paths)
        pool = ThreadPoolExecutor(self._workers, thread_name_prefix="anomaly-images")
        try:
            waiting = deque((path, pool.submit(self._frame, path)) for path in islice(remaining, ahead))
            while waiting:
                path, frame = waiting.popleft()
                result = frame.result()
                waiting.extend((path, pool.submit(self._frame, path)) for path in islice(remaining, 1))
                yield path, result
        finally:
            pool.shutdown(cancel_futures=True)

    def _frame(self, path: Path) -> Pixels | ImageFileError:
        try:
            return frame_for(self._input, path, read_image(path))
        except ImageFileError as error:
            return error


def frame_for(input: InputSpec, path: Path, pixels: Pixels) -> Pixels:
    """Fits what a file holds to what the model takes, where that is exact.

    Grey becomes three equal channels, three equal channels become grey; nothing else is converted.

    Args:
        input: channels, dtype and value range that are wanted.
        path: the file, for the message.
        pixels: (H, W, C) as `read_image` gives it.

    Returns:
        (C, H, W), dtype of `input`, C-contiguous.

    Raises:
        ImageFileError: another dtype or number of channels, NaN, or a value outside the value range.
    """
    if pixels.dtype != input.dtype:
        raise ImageFileError(path, f"is {pixels.dtype}, the model takes {input.dtype}; {_AS_TRAINED}")
    have, want = pixels.shape[-1], input.channels
    if (have, want) == (1, 3):
        pixels = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    elif (have, want) == (3, 1) and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., :1]
    elif have != want:
        coloured = " that differ" if (have, want) == (3, 1) else ""
        raise ImageFileError(path, f"has {have} channel(s){coloured}, the model takes {want}; {_AS_TRAINED}")
    _check_values(input, path, pixels)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


_AS_TRAINED = "give files like those of the training, or fit a model on files like this one"


def _check_values(input: InputSpec, path: Path, pixels: Pixels) -> None:
    low, high = input.value_range
    if pixels.dtype.kind == "u" and (low, high) == (0.0, float(np.iinfo(pixels.dtype).max)):
        return
    lowest, highest = float(pixels.min()), float(pixels.max())
    if not (low <= lowest and highest <= high):  # also true for NaN
        raise ImageFileError(
            path,
            f"has values {lowest:g} to {highest:g}, the model takes {low:g} to {high:g} ({input.unit}); "
            "scale the file, or fit a model with the value range that the files really have",
        )


def _together(frames: list[Pixels]) -> Tensor | list[Tensor]:
    if len({frame.shape for frame in frames}) == 1:
        return torch.from_numpy(np.stack(frames))
    return [torch.from_numpy(frame) for frame in frames]
