"""A unit (single image or volume) -> layout, score, map on the grid of the source."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from anomaly.detector import Scorer
from anomaly.scoring import BATCH
from medical.contract import Contract
from medical.familiarity import layout_of
from medical.model import Aggregation
from medical.objects import Image, Volume
from medical.preparing import Voxel, frame_of, on_source, resampled, slices_of, value_range

LAYOUT_SLICES = 8
"""Slices, evenly spaced, whose mean layout is that of a volume."""


@dataclass(frozen=True)
class Prepared:
    """A unit as the model takes it.

    Attributes:
        source: the unit.
        frames: (N, 1, h, w) float32: the image, or the slices; or the (1, D, H, W) resampled volume, a MetaTensor.
        layout: (d,) its coarse layout.
    """

    source: Image | Volume
    frames: Float[Tensor, "n _ h w"]
    layout: Float32[np.ndarray, " d"]

    @property
    def resampled(self) -> bool:
        """Whether `frames` is one volume on the model's grid, and not images or slices on their own."""
        return hasattr(self.frames, "affine")


@dataclass(frozen=True)
class UnitScore:
    """What the model says of a unit.

    Attributes:
        score: raw score of the image or volume.
        highest: highest map value where the pixels are no padding.
        typical: median of those map values.
        map: (H, W) or (D, H, W) float32 on the grid of the source; padding holds the lowest value.
    """

    score: float
    highest: float
    typical: float
    map: Float32[np.ndarray, "*d h w"]


def prepare(found: Image | Volume, contract: Contract, voxel: Voxel | None) -> Prepared:
    """Makes of a unit what the model takes.

    Raises:
        RefusedError: the values cannot be brought into the model's range.
    """
    if isinstance(found, Image):
        frames = frame_of(found, contract)[None]
    elif voxel is None:
        frames = slices_of(found, contract)
    else:
        frames = resampled(found, contract, voxel)
    plain = frames if voxel is None else frames.as_tensor()[0][:, None]  # type: ignore[attr-defined]  # a MetaTensor
    return Prepared(found, frames, _layout(plain, contract))


def fit_batches(prepared: Prepared) -> Iterator[Tensor]:
    """Yields the unit in batches for `Detector.fit`."""
    if prepared.resampled:
        yield prepared.frames.as_tensor()[None]  # type: ignore[attr-defined]  # a MetaTensor
    else:
        yield from torch.split(prepared.frames, BATCH)


def score_unit(scorer: Scorer, prepared: Prepared, aggregation: Aggregation) -> UnitScore:
    """Scores a prepared unit."""
    source = prepared.source
    with torch.inference_mode():
        if isinstance(source, Volume) and prepared.resampled:
            scores = scorer([prepared.frames.as_tensor()])  # type: ignore[attr-defined]  # a MetaTensor
            score, anomaly_map = float(scores.score[0]), on_source(scores.map[0], prepared.frames, source)
        else:
            score, maps = _slice_by_slice(scorer, prepared.frames, aggregation)
            anomaly_map = maps[0] if isinstance(source, Image) else maps
    valid = source.valid
    inside = anomaly_map[valid]
    lowest = inside.min()
    return UnitScore(score, float(inside.max()), float(np.median(inside)), np.where(valid, anomaly_map, lowest))


def _slice_by_slice(
    scorer: Scorer, frames: Float[Tensor, "n 1 h w"], aggregation: Aggregation
) -> tuple[float, Float32[np.ndarray, "n h w"]]:
    """Fills one array of the size of the source: the maps on the canvas are never all held."""
    height, width = frames.shape[-2:]
    scores, maps = [], np.empty((len(frames), height, width), dtype=np.float32)
    begin = 0
    for batch in torch.split(frames, BATCH):
        found = scorer(batch)
        scores += found.score.tolist()
        for index, one in enumerate(found.map):
            maps[begin + index] = scorer.input.on_image(one, height, width).numpy()
        begin += len(batch)
    highest = sorted(scores, reverse=True)[: aggregation.top]
    return float(np.mean(highest)), maps


def _layout(frames: Float[Tensor, "n 1 h w"], contract: Contract) -> Float32[np.ndarray, " d"]:
    low, high = value_range(contract)
    chosen = np.unique(np.linspace(0, len(frames) - 1, LAYOUT_SLICES).round().astype(int))
    layouts = [layout_of(((frames[index] - low) / (high - low)).clamp(0, 1)) for index in chosen]  # rounding
    return np.asarray(np.mean(layouts, axis=0), dtype=np.float32)
