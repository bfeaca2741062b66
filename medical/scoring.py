"""A unit (single image or volume) -> layout, score, map on the grid of the source."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor

from anomaly.detector import Scorer
from anomaly.scoring import BATCH
from medical.contract import Contract
from medical.familiarity import layout_of
from medical.model import Aggregation
from medical.objects import Image, Volume
from medical.preparing import Voxel, frame_of, on_source, resampled, slices_of, value_range

if TYPE_CHECKING:
    from monai.data import MetaTensor

LAYOUT_SLICES = 8
"""Slices, evenly spaced, whose mean layout is that of a volume."""
_SAMPLED = 1_000_000


@dataclass(frozen=True)
class UnitScore:
    """What the model says of a unit.

    Attributes:
        score: raw score of the image or volume.
        highest: highest map value where the pixels are no padding.
        typical: median of those map values, of large volumes of a million evenly spaced ones.
        map: (H, W) or (D, H, W) float32 on the grid of the source; padding holds the lowest value.
    """

    score: float
    highest: float
    typical: float
    map: Float32[np.ndarray, "*d h w"]


@dataclass(frozen=True)
class Frames:
    """A single image, or the slices of a volume, as the model takes them one by one.

    Attributes:
        source: the unit.
        values: (N, 1, h, w) float32, not windowed yet; memory is shared with the source where possible.
        window: lowest and highest value that the model sees.
    """

    source: Image | Volume
    values: Float[Tensor, "n 1 h w"]
    window: tuple[float, float]

    def batches(self) -> Iterator[Float[Tensor, "b 1 h w"]]:
        """Yields windowed frames; only a batch of them is ever held."""
        for batch in torch.split(self.values, BATCH):
            yield batch.clamp(*self.window)

    def layout(self) -> Float32[np.ndarray, " d"]:
        """Returns the coarse layout."""
        return _mean_layout(self.values, self.window)

    def score(self, scorer: Scorer, aggregation: Aggregation) -> UnitScore:
        """Scores frame by frame and fills one array of maps: those on the canvas are never all held."""
        count, _, height, width = self.values.shape
        scores: list[float] = []
        maps = np.empty((count, height, width), dtype=np.float32)
        with torch.inference_mode():
            for batch in self.batches():
                found = scorer(batch)
                for one in found.map:
                    maps[len(scores)] = scorer.input.on_image(one, height, width).numpy()
                    scores.append(0.0)
                scores[-len(batch) :] = found.score.tolist()
        highest = sorted(scores, reverse=True)[: aggregation.top]
        whole = maps[0] if isinstance(self.source, Image) else maps
        return _unit_score(float(np.mean(highest)), whole, self.source.valid)


@dataclass(frozen=True)
class Resampled:
    """A whole volume on the model's grid.

    Attributes:
        source: the volume.
        placed: (1, D, H, W) float32 with its affine.
        window: lowest and highest value that the model sees.
    """

    source: Volume
    placed: "MetaTensor"
    window: tuple[float, float]

    def batches(self) -> Iterator[Float[Tensor, "1 1 d h w"]]:
        """Yields the volume."""
        yield self.placed.as_tensor()[None]

    def layout(self) -> Float32[np.ndarray, " d"]:
        """Returns the coarse layout."""
        return _mean_layout(self.placed.as_tensor()[0][:, None], self.window)

    def score(self, scorer: Scorer, aggregation: Aggregation) -> UnitScore:
        """Scores the volume; there are no slices to aggregate."""
        with torch.inference_mode():
            found = scorer([self.placed.as_tensor()])
        anomaly_map = on_source(found.map[0], self.placed, self.source)
        return _unit_score(float(found.score[0]), anomaly_map, self.source.valid)


Prepared = Frames | Resampled
"""A unit as the model takes it."""


def prepare(found: Image | Volume, contract: Contract, voxel: Voxel | None) -> Prepared:
    """Makes of a unit what the model takes.

    Raises:
        RefusedError: the values cannot be brought into the model's range.
    """
    window = value_range(contract)
    if isinstance(found, Volume) and voxel is not None:
        return Resampled(found, resampled(found, contract, voxel), window)
    values = frame_of(found, contract)[None] if isinstance(found, Image) else slices_of(found, contract)
    return Frames(found, values, window)


def _mean_layout(frames: Float[Tensor, "n 1 h w"], window: tuple[float, float]) -> Float32[np.ndarray, " d"]:
    low, high = window
    chosen = np.unique(np.linspace(0, len(frames) - 1, LAYOUT_SLICES).round().astype(int))
    layouts = [layout_of(((frames[index] - low) / (high - low)).clamp(0, 1)) for index in chosen]
    return np.asarray(np.mean(layouts, axis=0), dtype=np.float32)


def _unit_score(
    score: float, anomaly_map: Float32[np.ndarray, "*d h w"], valid: Bool[np.ndarray, "*d h w"]
) -> UnitScore:
    """Overwrites the map where there is padding; a volume is too large for copies."""
    padded = not valid.all()
    inside = anomaly_map[valid] if padded else anomaly_map.reshape(-1)
    highest, lowest = float(inside.max()), float(inside.min())
    typical = float(np.median(inside[:: max(1, inside.size // _SAMPLED)]))
    if padded:
        anomaly_map[~valid] = lowest
    return UnitScore(score, highest, typical, anomaly_map)
