"""Frames of a wafer -> an inspected wafer: compare, score, threshold, blobs, places, overlaps."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.calibration import Calibration, calibrate
from anomaly.errors import InputError
from inspection.wafer.blobs import find_blobs, locate
from inspection.wafer.defects import InspectedWafer, WaferDefect
from inspection.wafer.frame_difference import FrameDifference, on_wafer
from inspection.wafer.geometry import DieIndex, WaferGeometry
from inspection.wafer.merging import merge_frames
from inspection.wafer.stage import FrameView

if TYPE_CHECKING:
    import torch

    from anomaly.detector import Detector, Scorer

BATCH = 4

Frames = Iterable[tuple[FrameView, NDArray[Any]]]
"""Views and (H, W) grey frames of one wafer."""


class Timing(NamedTuple):
    """Where the time of a wafer went, seconds.

    Attributes:
        comparing: frames to differences.
        scoring: differences to maps on the frames.
        locating: maps to blobs to places.
        merging: defects of frames to defects of the wafer.
        frames: number of frames.
    """

    comparing: float
    scoring: float
    locating: float
    merging: float
    frames: int

    @property
    def total(self) -> float:
        """All of it, seconds."""
        return self.comparing + self.scoring + self.locating + self.merging


@dataclass(frozen=True)
class WaferInspector:
    """A fitted scorer of frames, what is usual in its maps, and the product.

    Attributes:
        scorer: scores differences of frames, see `FrameDifference`.
        calibration: of the highest map value of good frames; its `ng` is the threshold of blobs.
        geometry: the die grid.
        difference: how frames are compared with themselves.
        batch_size: frames scored together; never changes a score.
    """

    scorer: "Scorer"
    calibration: Calibration
    geometry: WaferGeometry
    difference: FrameDifference = field(default_factory=FrameDifference)
    batch_size: int = BATCH

    @classmethod
    def learn(
        cls,
        detector: "Detector",
        geometry: WaferGeometry,
        good: Iterable[Frames],
        held_out: Iterable[Frames],
        *,
        difference: FrameDifference | None = None,
        ng_rate: float = 0.05,
    ) -> "WaferInspector":
        """Fits a detector on good wafers and calibrates it on others.

        The rate is that of frames; as frames of a wafer are not independent, it holds as far as wafers are alike.

        Args:
            detector: any detector; its input is replaced by that of `difference`, with the same canvas.
            geometry: the die grid.
            good: for each good wafer its frames; read once.
            held_out: the same of other good wafers.
            difference: how frames are compared with themselves.
            ng_rate: wanted share of good frames with any blob.

        Raises:
            InputError: no frame to fit on.
            CalibrationError: no frame held out.
        """
        how = difference or FrameDifference()
        settled = replace(detector, input=how.input(detector.input.size))
        compared = (batch for frames in good for batch in _compared(frames, how, geometry, BATCH))
        scorer = settled.fit(batch.pixels for batch in compared).eval()
        highest = []
        for frames in held_out:
            for batch in _compared(frames, how, geometry, BATCH, _device(scorer)):
                for anomaly_map, judged in zip(_maps(scorer, batch.pixels), batch.judged, strict=True):
                    inside = anomaly_map[judged]
                    highest += [float(inside.max())] if inside.size else []
        return cls(scorer, calibrate(highest, review_rate=max(0.10, ng_rate), ng_rate=ng_rate), geometry, how)

    def inspect(self, frames: Frames, **names: Any) -> tuple[InspectedWafer, Timing]:
        """Inspects one wafer.

        Dies that a frame shows but that could not be compared, for want of dies in sight, do not count as inspected;
        nor do dies that no frame shows.

        Args:
            frames: views and frames of the wafer.
            names: further attributes of `InspectedWafer`: lot, wafer, slot, ...

        Returns:
            The wafer with its defects numbered from 1, and where the time went.

        Raises:
            InputError: no frame at all.
        """
        clock = _Clock()
        found: list[WaferDefect] = []
        views: dict[str, FrameView] = {}
        coverage = _Coverage(self.geometry)
        threshold, device = self.calibration.ng.value, _device(self.scorer)
        for batch in _compared(frames, self.difference, self.geometry, self.batch_size, device):
            clock.lap("comparing")
            maps = _maps(self.scorer, batch.pixels)
            clock.lap("scoring")
            for view, anomaly_map, change, judged in zip(
                batch.views, maps, batch.pixels[:, 0].cpu().numpy(), batch.judged, strict=True
            ):
                views[view.frame] = view
                coverage.add(view, judged)
                for blob in find_blobs(anomaly_map, threshold, judged, self._p_value):
                    placed = locate(change, blob)
                    found.append(WaferDefect.from_blob(self.geometry, view, placed, id=len(found) + 1))
            clock.lap("locating")
        if not views:
            raise InputError("a wafer needs at least one frame; got none")
        tolerance = 2 * max(max(view.alignment.pixel_um) for view in views.values())
        defects = merge_frames(self.geometry, found, views, tolerance)
        clock.lap("merging")
        wafer = InspectedWafer(geometry=self.geometry, inspected=coverage.dies(), defects=defects, **names)
        return wafer, Timing(**clock.laps, frames=len(views))

    def _p_value(self, peak: float) -> float:
        return float(np.asarray(self.calibration.p_value(peak)).reshape(-1)[0])


class _Batch(NamedTuple):
    """Frames compared with themselves.

    Attributes:
        views: what the N frames show.
        pixels: (N, 1, H, W) float32 differences.
        judged: N masks (H, W): compared, and within the usable radius.
    """

    views: list[FrameView]
    pixels: "torch.Tensor"
    judged: list[NDArray[np.bool_]]


def _compared(
    frames: Frames, how: FrameDifference, geometry: WaferGeometry, size: int, device: str = "cpu"
) -> Iterator[_Batch]:
    import torch

    source = iter(frames)
    while part := list(islice(source, size)):
        views = [view for view, _ in part]
        raw = [torch.from_numpy(np.ascontiguousarray(frame)).to(device) for _, frame in part]
        compared = [how(view, frame, geometry) for view, frame in zip(views, raw, strict=True)]
        radius = geometry.usable_radius_um
        judged = [one.judged.cpu().numpy() & on_wafer(view, radius) for view, one in zip(views, compared, strict=True)]
        yield _Batch(views, torch.stack([one.pixels for one in compared])[:, None], judged)


def _maps(scorer: "Scorer", pixels: "torch.Tensor") -> list[NDArray[np.float32]]:
    """Returns the maps on the pixels of the frames."""
    import torch

    height, width = pixels.shape[-2:]
    with torch.inference_mode():
        return [scorer.input.on_image(one, height, width).cpu().numpy() for one in scorer(pixels).map]


def _device(scorer: "Scorer") -> str:
    return str(next((buffer.device for buffer in scorer.buffers()), "cpu"))


class _Coverage:
    """Which dies were judged: all four corners and the middle of a die, whichever frame saw them."""

    def __init__(self, geometry: WaferGeometry) -> None:
        self.whole = geometry.dies()
        corners = np.array([geometry.corner_um(die) for die in self.whole]).reshape(-1, 1, 2)
        spots = np.array([(0.02, 0.02), (0.98, 0.02), (0.02, 0.98), (0.98, 0.98), (0.5, 0.5)])
        self.points = corners + spots * geometry.pitch_um
        self.seen = np.zeros(self.points.shape[:2], bool)

    def add(self, view: FrameView, judged: NDArray[np.bool_]) -> None:
        """Adds what a frame judged."""
        (r0, c0), (rx, cx), (ry, cy) = view.to_frame(0, 0), view.to_frame(1, 0), view.to_frame(0, 1)
        x, y = self.points[..., 0], self.points[..., 1]
        row = np.floor(r0 + (rx - r0) * x + (ry - r0) * y).astype(int)
        column = np.floor(c0 + (cx - c0) * x + (cy - c0) * y).astype(int)
        inside = (row >= 0) & (row < view.height) & (column >= 0) & (column < view.width)
        self.seen |= inside & judged[np.where(inside, row, 0), np.where(inside, column, 0)]

    def dies(self) -> tuple[DieIndex, ...]:
        """Returns the judged dies."""
        complete: NDArray[np.bool_] = np.all(self.seen, axis=1)
        return tuple(die for die, seen in zip(self.whole, complete.tolist(), strict=True) if seen)


class _Clock:
    """Adds up laps by name."""

    def __init__(self) -> None:
        self.laps = {"comparing": 0.0, "scoring": 0.0, "locating": 0.0, "merging": 0.0}
        self.since = time.perf_counter()

    def lap(self, name: str) -> None:
        """Books the time since the last lap."""
        now = time.perf_counter()
        self.laps[name] += now - self.since
        self.since = now
