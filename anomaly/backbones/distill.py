"""Distillation of a large network into the bundled one.

The student learns the principal components of the teacher's standardised maps. Whitening them fully gives noise the
weight of structure, no whitening lets a handful of components decide; ``whitening`` lies between.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from anomaly.backbones.backbone import fingerprint
from anomaly.backbones.bundled import MEAN, STD, BundledNet, BundledSettings
from anomaly.backbones.distill_data import TargetCache, build_targets, prepare_photographs
from anomaly.errors import ArtifactError
from anomaly.training import TrainingSettings, averaged_weights, batch_indices, joined, train

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Features = Callable[[Tensor], list[Tensor]]

RUN = "run"
"""Folder of checkpoint and log inside that of a distillation."""


@dataclass(frozen=True)
class DistillSettings:
    """What to distil into what.

    Attributes:
        architecture: The student.
        crops: Training crops with cached teacher targets.
        size: Side of a crop in pixels, a multiple of 16.
        components: Principal components kept of the two teacher maps.
        whitening: 0 weighs each component by its variance, 1 weighs all alike.
        batch: Crops per step and process.
        steps: Optimiser steps.
        learning_rate: Peak learning rate.
        ema: Decay of the moving average of the weights.
        seed: Seed of crops, order and initial weights.
        evaluate_every: Steps between evaluations.
    """

    architecture: BundledSettings = field(default_factory=BundledSettings)
    crops: int = 6_000
    size: int = 192
    components: tuple[int, int] = (128, 192)
    whitening: float = 0.5
    batch: int = 8
    steps: int = 5_000
    learning_rate: float = 2e-3
    ema: float = 0.998
    seed: int = 0
    evaluate_every: int = 500


class Student(nn.Module):
    """The trunk with one linear head per teacher map; the heads serve training only."""

    mean: Tensor
    std: Tensor

    def __init__(self, architecture: BundledSettings, components: tuple[int, ...]) -> None:
        """Builds trunk and heads with random weights."""
        super().__init__()
        self.trunk = BundledNet(architecture)
        self.heads = nn.ModuleList(nn.Conv2d(c, k, 1) for c, k in zip(self.trunk.channels, components, strict=True))
        self.register_buffer("mean", torch.tensor(MEAN).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).reshape(1, 3, 1, 1), persistent=False)

    def features(self, x: Tensor) -> list[Tensor]:
        """Returns the maps of the trunk for images (N, 3, H, W) float32 in [0, 1]."""
        maps: list[Tensor] = self.trunk((x - self.mean) / self.std)
        return maps

    def forward(self, x: Tensor) -> list[Tensor]:
        """Predicts the targets.

        Args:
            x: Images, (N, 3, H, W) float32 in [0, 1].

        Returns:
            Predictions (N, H / stride, W / stride, K) float32 for each teacher map.
        """
        return [head(m).permute(0, 2, 3, 1) for head, m in zip(self.heads, self.features(x), strict=True)]


def component_weights(variance: Tensor, whitening: float) -> Tensor:
    """Returns weights of unit-variance components that sum to 1, (K,) float32."""
    weights = variance ** (1 - whitening)
    return weights / weights.sum()


def distillation_loss(predictions: list[Tensor], targets: list[Tensor], weights: list[Tensor]) -> Tensor:
    """Mean over the maps of the weighted squared error; 1 for a student that predicts the mean."""
    parts = [
        ((p - t).square().mean((0, 1, 2)) * w).sum() for p, t, w in zip(predictions, targets, weights, strict=True)
    ]
    return torch.stack(parts).mean()


@torch.inference_mode()
def explained(student: nn.Module, held_out: TargetCache, *, batch: int = 16) -> dict[str, float]:
    """Measures how much of the teacher the student explains on crops it has not seen.

    Args:
        student: Predicts the targets of the cache.
        held_out: Crops of held-out photographs.
        batch: Crops per forward pass.

    Returns:
        For each map ``r2_<i>``, R2 with components weighed by their variance, and ``r2_white_<i>``, all weighed alike.
    """
    errors: list[list[Tensor]] = [[] for _ in held_out.targets]
    spreads: list[Tensor] = []
    for start in range(0, len(held_out.crops), batch):
        index = np.arange(start, min(start + batch, len(held_out.crops)))
        images, targets = held_out.batch(index)
        for error, p, t in zip(errors, student(images), targets, strict=True):
            error.append((p - t).square().sum((0, 1, 2)))
    for target in held_out.targets:
        values = torch.from_numpy(np.asarray(target)).double().flatten(0, 2)
        spreads.append((values - values.mean(0)).square().sum(0).float())
    figures: dict[str, float] = {}
    for i, (error, spread, projection) in enumerate(zip(errors, spreads, held_out.projections, strict=True)):
        lost = torch.stack(error).sum(0)
        figures[f"r2_{i}"] = float(1 - (projection.variance * lost).sum() / (projection.variance * spread).sum())
        figures[f"r2_white_{i}"] = float(1 - (lost / spread).mean())
    return figures


def distill(
    photographs: Path,
    teacher: nn.Module,
    folder: Path,
    settings: DistillSettings,
    *,
    probe: Callable[[Features], Mapping[str, float]] | None = None,
    start: Path | None = None,
) -> BundledNet:
    """Distils a teacher into a :class:`BundledNet`; the same call goes on with an interrupted run.

    Args:
        photographs: Folder of unlabelled photographs.
        teacher: Maps images (N, 3, H, W) float32 in [0, 1] to two maps at strides 8 and 16.
        folder: For the decoded photographs, the targets (about 0.3 MB a crop of 192 px), checkpoint and log.
        settings: What to distil into what.
        probe: Further figures for the log, computed from the trunk at every evaluation.
        start: Folder of an earlier distillation of the same teacher and architecture, with whose averaged weights this
            one begins (a further cycle of the learning rate, as in SGDR, arXiv 1608.03983); None for random ones.

    Returns:
        The averaged network, folded.

    Raises:
        ArtifactError: If `start` holds no weights of such a student.
    """
    with joined() as (rank, processes):
        if rank > 0:
            dist.barrier()  # the first process makes the caches
        store = prepare_photographs(photographs, folder)
        teacher = teacher.to(memory_format=torch.channels_last)
        target_folder = folder / f"targets{settings.size}"
        cached, held_out = build_targets(
            store,
            teacher,
            target_folder,
            count=settings.crops,
            size=settings.size,
            components=settings.components,
            seed=settings.seed,
        )
        if rank == 0 and processes > 1:
            dist.barrier()
        student = _student(settings, start)
        return _train(student, cached, held_out, folder / RUN, settings, probe, processes)


def _student(settings: DistillSettings, start: Path | None) -> Student:
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        student = Student(settings.architecture, settings.components)
    if start is not None:
        try:
            student.load_state_dict(averaged_weights(start / RUN))
        except RuntimeError as error:
            msg = f"{start} holds a student of another architecture or other components: {error}"
            raise ArtifactError(msg) from error
    return student.to(memory_format=torch.channels_last)


def _train(
    student: Student,
    cached: TargetCache,
    held_out: TargetCache,
    folder: Path,
    settings: DistillSettings,
    probe: Callable[[Features], Mapping[str, float]] | None,
    processes: int,
) -> BundledNet:
    weights = [component_weights(p.variance, settings.whitening) for p in cached.projections]

    def loss_at(step: int) -> Tensor:
        images, targets = cached.batch(
            np.array(batch_indices(step, settings.batch * processes, settings.crops, settings.seed))
        )
        return distillation_loss(student(images), targets, weights)

    def evaluate(average: nn.Module) -> dict[str, float]:
        assert isinstance(average, Student)
        return {**explained(average, held_out), **(probe(average.features) if probe else {})}

    training = TrainingSettings(
        steps=settings.steps,
        learning_rate=settings.learning_rate,
        ema=settings.ema,
        seed=settings.seed,
        evaluate_every=settings.evaluate_every,
    )
    average = train(student, loss_at, training, folder=folder, evaluate=evaluate)
    assert isinstance(average, Student)
    return average.trunk.fold()


def provenance(
    settings: DistillSettings, teacher: str, table: Path, *, processes: int = 1, start: Path | None = None
) -> dict[str, str]:
    """Describes a distilled network for the header of its file; values are JSON strings or plain text.

    Args:
        settings: What was distilled into what.
        teacher: Name of the teacher and the SHA-256 of its weights.
        table: ``photographs.csv`` of the run.
        processes: Processes that trained together.
        start: Folder of the distillation that this one began with.

    Returns:
        Header entries. ``manifest_sha256`` is the hash of the sorted hashes of the photographs, one a line;
        ``start`` the fingerprint of the weights that it began with.
    """
    with table.open(newline="") as source:
        hashes = sorted(row["sha256"] for row in csv.DictReader(source))
    manifest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    values = {name: value for name, value in vars(settings).items() if name != "architecture"}
    begun = {"start": fingerprint(averaged_weights(start / RUN))} if start is not None else {}
    return {
        **begun,
        "teacher": teacher,
        "photographs": json.dumps({"count": len(hashes), "manifest_sha256": manifest}),
        "training": json.dumps({**values, "processes": processes}),
        "licence": "Apache-2.0",
        "origin": "distilled by `anomaly distill` of this project",
    }
