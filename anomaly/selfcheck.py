"""What a calibrated model finds of synthetic defects in held-out normals: a check that needs no labelled defect.

Every figure here is about synthetic defects (see `anomaly.images.defect_augmentation`). It tells which sizes and
contrasts the model is blind to; it is no promise about real defects.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from anomaly.artifact import Artifact
from anomaly.calibration import Decision
from anomaly.errors import DatasetError, ImageFileError, SettingError
from anomaly.evaluation import reduced
from anomaly.images import ImageLoader
from anomaly.images.defect_augmentation import KINDS, Kind, plant
from anomaly.metrics import auroc
from anomaly.progress import Progress, silent
from anomaly.scoring import BATCH, judge

LABEL = "SYNTHETIC defects planted in normal images; no promise about real ones"


@dataclass(frozen=True, kw_only=True)
class Trials:
    """Which defects are planted in each image: every combination.

    Attributes:
        kinds: names in `defect_augmentation.KINDS`.
        areas: shares of the image that a defect covers.
        opacities: weights of the foreign texture.
        seed: seed of places and textures.
    """

    kinds: tuple[Kind, ...] = ("cut_paste", "perlin")
    areas: tuple[float, ...] = (0.001, 0.005, 0.02)
    opacities: tuple[float, ...] = (0.25, 0.5, 1.0)
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuses an empty list and unknown kinds."""
        for name in ("kinds", "areas", "opacities"):
            if not getattr(self, name):
                raise SettingError.of("Trials", name, "one or more values", getattr(self, name))
        for kind in self.kinds:
            if kind not in KINDS:
                raise SettingError.of("Trials", "kinds", f"of {', '.join(KINDS)}", kind)


@dataclass(frozen=True)
class Row:
    """What was found of one kind of defect, one size and one contrast; None where there is nothing to count.

    Attributes:
        kind: kind of defect.
        area: share of the image that it covers.
        opacity: weight of the foreign texture.
        planted: images with such a defect. A defect that changed no pixel of the canvas is not counted.
        ng: share of them that are NG.
        not_ok: share of them that are NG or REVIEW.
        pixel_auroc: AUROC of the map inside against outside of the mask, averaged over the images.
        hits: share of them whose highest map pixel lies in the mask.
        chance: the same with the mask of the image before: what a map hits that knows nothing of the defect.
    """

    kind: str
    area: float
    opacity: float
    planted: int
    ng: float | None
    not_ok: float | None
    pixel_auroc: float | None
    hits: float | None
    chance: float | None


@dataclass(frozen=True)
class SelfCheck:
    """The outcome.

    Attributes:
        images: normal images used.
        false_ng: share of them that are NG as they are, without a defect.
        false_not_ok: share of them that are NG or REVIEW as they are.
        rows: one per combination.
    """

    images: int
    false_ng: float
    false_not_ok: float
    rows: tuple[Row, ...]

    def summary(self) -> dict[str, Any]:
        """Returns every figure, JSON-able."""
        return {"what": LABEL, **asdict(self)}

    def in_words(self) -> list[str]:
        """Returns the same as lines for people."""
        head = f"{'kind':10} {'area':>6} {'opacity':>8} {'planted':>8} {'NG':>5} {'not OK':>7}"
        lines = [
            LABEL,
            f"{self.images} normal images as they are: {self.false_ng:.0%} NG, {self.false_not_ok:.0%} not OK",
            "",
            f"{head} {'pixel AUROC':>12} {'peak in mask':>13} {'by chance':>10}",
        ]
        for row in self.rows:
            found = f"{row.planted:8} {_percent(row.ng):>5} {_percent(row.not_ok):>7}"
            where = "-" if row.pixel_auroc is None else f"{row.pixel_auroc:.3f}"
            where = f"{where:>12} {_percent(row.hits):>13} {_percent(row.chance):>10}"
            lines.append(f"{row.kind:10} {row.area:6.1%} {row.opacity:8.2f} {found} {where}")
        return lines


def self_check(
    artifact: Artifact,
    paths: Sequence[Path],
    trials: Trials,
    failures: list[ImageFileError],
    progress: Progress = silent,
) -> SelfCheck:
    """Plants synthetic defects in normal images and counts what the model's own thresholds find.

    Args:
        artifact: a model for images.
        paths: normal images that the model was neither fitted nor calibrated on.
        trials: what is planted.
        failures: receives the errors of files that could not be used.
        progress: is told what is being done.

    Raises:
        DatasetError: no file can be used.
    """
    combinations = list(product(trials.kinds, trials.areas, trials.opacities))
    counts = [_Count() for _ in combinations]
    plain: list[Decision] = []
    advance = progress("planting and scoring", len(paths))
    loader = ImageLoader(paths, artifact.scorer.input, batch_size=1)
    for index, batch in enumerate(loader):
        frame = torch.as_tensor(batch.images[0]).numpy()
        rng = np.random.default_rng([trials.seed, index])
        planted = [plant(frame, kind, area, opacity, rng) for kind, area, opacity in combinations]
        scored = _scored(artifact, [frame, *(p.frame for p in planted)])
        plain.append(next(scored)[0])
        for count, defect, (decision, anomaly_map) in zip(counts, planted, scored, strict=True):
            height, width = anomaly_map.shape
            count.add(decision, anomaly_map, reduced(defect.mask, (height, width)))
        advance(1)
    failures.extend(loader.failures)
    if not plain:
        raise DatasetError(f"none of the {len(paths)} files can be used: {'; '.join(map(str, loader.failures[:3]))}")
    rows = tuple(count.row(*combination) for combination, count in zip(combinations, counts, strict=True))
    ng, ok = plain.count(Decision.NG), plain.count(Decision.OK)
    return SelfCheck(len(plain), ng / len(plain), 1 - ok / len(plain), rows)


def _scored(artifact: Artifact, frames: list[NDArray[Any]]) -> Iterator[tuple[Decision, NDArray[np.float32]]]:
    spec = artifact.scorer.input
    height, width = spec.covered(frames[0].shape[1], frames[0].shape[2])
    for start in range(0, len(frames), BATCH):
        batch: Tensor = torch.from_numpy(np.stack(frames[start : start + BATCH]))
        with torch.inference_mode():
            scores = artifact.scorer(batch)
        for score, anomaly_map in zip(scores.score.tolist(), scores.map, strict=True):
            yield judge(artifact, score).decision, anomaly_map[:height, :width].numpy()


class _Count:
    """Counts of one combination."""

    def __init__(self) -> None:
        self.decisions: list[Decision] = []
        self.aurocs: list[float] = []
        self.hits: list[bool] = []
        self.chance: list[bool] = []
        self.before: NDArray[np.bool_] | None = None

    def add(self, decision: Decision, anomaly_map: NDArray[np.float32], mask: NDArray[np.bool_]) -> None:
        if not mask.any():
            return
        self.decisions.append(decision)
        self.aurocs.append(auroc(anomaly_map.ravel(), mask.ravel()))
        peak = np.unravel_index(int(anomaly_map.argmax()), anomaly_map.shape)
        self.hits.append(bool(mask[peak]))
        if self.before is not None and self.before.shape == mask.shape:
            self.chance.append(bool(self.before[peak]))
        self.before = mask

    def row(self, kind: str, area: float, opacity: float) -> Row:
        return Row(
            kind,
            area,
            opacity,
            planted=len(self.decisions),
            ng=_mean([decision == Decision.NG for decision in self.decisions]),
            not_ok=_mean([decision != Decision.OK for decision in self.decisions]),
            pixel_auroc=_mean(self.aurocs),
            hits=_mean(self.hits),
            chance=_mean(self.chance),
        )


def _mean(values: Sequence[float] | Sequence[bool]) -> float | None:
    return float(np.mean(values)) if values else None


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"
