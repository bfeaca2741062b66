"""Instances and series -> images and volumes; decoded in the worker process, frame by frame."""

from collections.abc import Iterator
from types import TracebackType
from typing import Any

import numpy as np

from medical.objects import Image, Instance, Series, Unit, Volume
from medical.reading.limits import Limits
from medical.reading.process import Worker, as_frame
from medical.reading.series import diagnose, planes_of
from medical.refusals import Reason, RefusedError


class PixelReader:
    """Decodes pixels in a process of its own; a context manager. Threads may share it.

    A volume arrives slice by slice, so the worker holds one slice whatever the size of the series, and the caller the
    volume alone.

    Attributes:
        worker: the process.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        """Starts nothing yet."""
        self.worker = Worker(limits or Limits())

    def __enter__(self) -> "PixelReader":
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the worker process."""
        self.worker.close()

    def image(self, instance: Instance, frame: int = 1) -> Image:
        """Decodes one frame.

        Args:
            instance: from an inventory.
            frame: 1-based.

        Raises:
            RefusedError: its pixels cannot be used.
        """
        answer, raw = self._frame(instance, frame, constant=False, send=True)
        values, valid = as_frame(answer, raw)
        return Image(instance, frame, values, valid, answer["unit"], answer["decoder"])

    def check(self, instance: Instance, in_volume: bool = False) -> str:
        """Decodes all frames, keeps none, and returns the decoder.

        Args:
            instance: from an inventory.
            in_volume: it is a slice of a regular volume, where a slice may be of one value; so may a frame among many.

        Raises:
            RefusedError: the pixels of a frame cannot be used.
        """
        decoder = ""
        for frame in range(1, instance.frames + 1):
            answer, _ = self._frame(instance, frame, constant=in_volume or instance.frames > 1, send=False)
            decoder = answer["decoder"]
        return decoder

    def volume(self, series: Series) -> Volume:
        """Decodes a regular series, or an enhanced multi-frame object.

        Args:
            series: from an inventory.

        Raises:
            RefusedError: the series is no volume, or pixels of a slice cannot be used.
        """
        slices, affine = self._slices(series)
        first = series.instances[0]
        shape = (len(slices), first.rows, first.columns)
        if (voxels := int(np.prod(shape))) > self.worker.limits.volume_voxels:
            raise RefusedError(
                Reason.TOO_LARGE, f"the volume has {voxels} voxels; allowed are {self.worker.limits.volume_voxels}"
            )
        values, valid = np.empty(shape, dtype=np.float32), np.ones(shape, dtype=bool)
        kinds: set[tuple[Unit, str]] = set()
        for index, (instance, frame) in enumerate(slices):
            answer, raw = self._frame(instance, frame, constant=True, send=True)
            if tuple(answer["shape"]) != shape[1:]:
                raise RefusedError(Reason.PHOTOMETRIC, "slices in colour make no volume")
            values[index], valid[index] = as_frame(answer, raw)
            kinds.add((answer["unit"], answer["decoder"]))
        if len({unit for unit, _ in kinds}) > 1:
            raise RefusedError(Reason.PIXELS, "some slices are in Hounsfield units, others are not")
        _fill_padding(values, valid)
        (unit, _), decoder = next(iter(kinds)), ", ".join(sorted({name for _, name in kinds}))
        instances = tuple(dict.fromkeys(instance for instance, _ in slices))
        return Volume(instances, values, valid, affine, unit, decoder)

    def _slices(self, series: Series) -> tuple[list[tuple[Instance, int]], np.ndarray]:
        """Slices in order, and where they lie."""
        if series.irregular is not None:
            raise RefusedError(series.irregular.reason, series.irregular.detail)
        only, planes = series.instances[0], None
        if len(series.instances) == 1 and only.frames > 1:
            answer, _ = self.worker.ask("header", only.path)
            planes = None if answer["planes"] is None else planes_of(only, answer["planes"])
        found = diagnose(series.instances, planes)
        if found.irregular is not None:
            raise RefusedError(found.irregular.reason, found.irregular.detail)
        if found.affine is None:
            reason = Reason.TOO_FEW_SLICES if only.orientation is not None else Reason.NO_GEOMETRY
            raise RefusedError(reason, f"{len(series.instances)} object(s) that state no stack of two slices or more")
        if planes is not None:
            return [(only, index + 1) for index in found.order], found.affine
        return [(series.instances[index], 1) for index in found.order], found.affine

    def _frame(self, instance: Instance, frame: int, *, constant: bool, send: bool) -> tuple[dict[str, Any], Any]:
        return self.worker.ask("frame", instance.path, uid=instance.uid, frame=frame, constant=constant, send=send)


def _fill_padding(values: np.ndarray, valid: np.ndarray) -> None:
    """Padding gets the lowest valid value of the volume; slice by slice, to hold no copy."""
    inside = list(_extremes(values, valid))
    if not inside:
        raise RefusedError(Reason.PIXELS, "all voxels are padding")
    low, high = min(low for low, _ in inside), max(high for _, high in inside)
    if low == high:
        raise RefusedError(Reason.PIXELS, "all voxels have the same value")
    for slice_, mask in zip(values, valid, strict=True):
        slice_[~mask] = low


def _extremes(values: np.ndarray, valid: np.ndarray) -> Iterator[tuple[float, float]]:
    for slice_, mask in zip(values, valid, strict=True):
        inside = slice_ if mask.all() else slice_[mask]
        if inside.size:
            yield float(inside.min()), float(inside.max())
