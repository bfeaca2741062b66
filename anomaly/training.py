"""The one training loop of everything here that is trained by gradients.

The batch of a step and every random number in it depend on ``(seed, step)`` alone, and the learning rate on the step.
So a checkpoint holds weights and optimiser state only, and a resumed run equals an uninterrupted one bit for bit (on
one machine, with one number of threads).

Under ``torchrun`` every process takes its own part of a step's batch and gradients are averaged; see :func:`joined`.
"""

from __future__ import annotations

import copy
import csv
import json
import math
import os
import time
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from anomaly.errors import ArtifactError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

CHECKPOINT, LOG = "checkpoint.safetensors", "training.csv"


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        steps: Optimiser steps in all, at least 1.
        learning_rate: Peak of the one-cycle schedule.
        weight_decay: Decoupled weight decay of matrices and kernels; biases and norms have none.
        warmup: Share of the steps that rise to the peak; the rest falls to zero as a cosine.
        clip: Largest norm of the gradient.
        ema: Decay of the moving average of the weights, in [0, 1).
        seed: Seed of the run.
        evaluate_every: Steps between evaluations; the last step is always evaluated.
        checkpoint_seconds: Seconds between checkpoints.
    """

    steps: int
    learning_rate: float = 3e-3
    weight_decay: float = 0.01
    warmup: float = 0.1
    clip: float = 1.0
    ema: float = 0.999
    seed: int = 0
    evaluate_every: int = 500
    checkpoint_seconds: float = 180.0

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        for name, allowed, good in (
            ("steps", "at least 1", self.steps >= 1),
            ("learning_rate", "above 0", self.learning_rate > 0),
            ("warmup", "in [0, 1)", 0 <= self.warmup < 1),
            ("ema", "in [0, 1)", 0 <= self.ema < 1),
            ("evaluate_every", "at least 1", self.evaluate_every >= 1),
        ):
            if not good:
                raise SettingError.of("TrainingSettings", name, allowed, getattr(self, name))

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step (one-cycle: linear rise, cosine fall)."""
        rise = self.warmup * self.steps
        if step < rise:
            return self.learning_rate * (step + 1) / (rise + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, self.steps - rise)))


@contextmanager
def joined() -> Iterator[tuple[int, int]]:
    """Joins the processes that ``torchrun`` started, if it did, and gives (rank, number of processes)."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield 0, 1
        return
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=timedelta(hours=12))
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        dist.destroy_process_group()


def train(
    model: nn.Module,
    loss_at: Callable[[int], Tensor],
    settings: TrainingSettings,
    *,
    folder: Path | None = None,
    evaluate: Callable[[nn.Module], Mapping[str, float]] | None = None,
    stop_after: int | None = None,
    progress: bool = True,
) -> nn.Module:
    """Trains a network with AdamW and returns the moving average of its weights.

    Args:
        model: The network; trained in place.
        loss_at: Loss of the batch of a step, a scalar tensor; must depend on the step and torch's global generator
            only, which is seeded before each call.
        settings: How to train.
        folder: Where checkpoint and log go. A checkpoint found there is resumed.
        evaluate: Figures for the log, the same names at every call; gets the averaged network in evaluation mode.
        stop_after: Stop (with a checkpoint) after this step instead of the last, to go on later.
        progress: Whether to show a progress bar.

    Returns:
        The averaged network in evaluation mode.

    Raises:
        ArtifactError: If the folder holds a checkpoint of other settings or of another network.
    """
    optimiser = _optimiser(model, settings)
    average = copy.deepcopy(model).eval().requires_grad_(requires_grad=False)
    run = _Run(model, average, optimiser, settings, folder)
    run.resume()
    first = not dist.is_initialized() or dist.get_rank() == 0  # alone evaluates and writes
    last = min(settings.steps, stop_after or settings.steps)
    started, saved = time.monotonic() - run.seconds, time.monotonic()
    losses: list[float] = []
    with torch.random.fork_rng(), _bar(progress and first) as bar:
        task = bar.add_task("training", total=settings.steps, completed=run.step) if bar else None
        while run.step < last:
            losses.append(_update(run, loss_at))
            run.seconds = time.monotonic() - started
            done = run.step == settings.steps
            if first and (done or run.step % settings.evaluate_every == 0):
                figures = evaluate(average) if evaluate else {}
                run.log({"loss": sum(losses) / len(losses), **figures})
                losses.clear()
            if first and (run.step == last or time.monotonic() - saved > settings.checkpoint_seconds):
                run.save()
                saved = time.monotonic()
            if bar and task is not None:
                bar.update(task, completed=run.step)
    return average


def _bar(show: bool) -> Any:
    from rich.progress import Progress

    return Progress() if show else nullcontext()


def _optimiser(model: nn.Module, settings: TrainingSettings) -> torch.optim.AdamW:
    parameters = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=settings.learning_rate)


def _share_gradients(model: nn.Module) -> None:
    if not dist.is_initialized():
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    parts = (flat / dist.get_world_size()).split_with_sizes([g.numel() for g in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))


def _update(run: _Run, loss_at: Callable[[int], Tensor]) -> float:
    settings = run.settings
    torch.manual_seed(settings.seed * 1_000_003 + run.step)
    for group in run.optimiser.param_groups:
        group["lr"] = settings.rate(run.step)
    run.model.train()
    run.optimiser.zero_grad(set_to_none=True)
    loss = loss_at(run.step)
    loss.backward()  # type: ignore[no-untyped-call]
    _share_gradients(run.model)
    nn.utils.clip_grad_norm_(run.model.parameters(), settings.clip)
    run.optimiser.step()
    run.step += 1
    decay = min(settings.ema, run.step / (run.step + 10))  # the first weights are forgotten fast
    with torch.no_grad():
        for kept, new in zip(run.average.state_dict().values(), run.model.state_dict().values(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(new, 1 - decay)
            else:
                kept.copy_(new)
    return float(loss.detach())


@dataclass
class _Run:
    """State of a run and its files."""

    model: nn.Module
    average: nn.Module
    optimiser: torch.optim.AdamW
    settings: TrainingSettings
    folder: Path | None
    step: int = 0
    seconds: float = 0.0

    def save(self) -> None:
        """Writes the checkpoint; the old one stays until the new one is complete."""
        from safetensors.torch import save_file

        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        state = {"step": self.step, "seconds": self.seconds, "settings": self._identity()}
        partial = self.folder / (CHECKPOINT + ".part")
        copies = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
        save_file(copies, partial, {"training": json.dumps(state)})
        partial.replace(self.folder / CHECKPOINT)

    def resume(self) -> None:
        """Goes on from the checkpoint in the folder, where there is one."""
        from safetensors import safe_open

        if self.folder is None or not (self.folder / CHECKPOINT).exists():
            return
        path = self.folder / CHECKPOINT
        with safe_open(path, "pt") as file:
            state = json.loads(file.metadata()["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        if state["settings"] != self._identity():
            msg = f"{path} belongs to settings {state['settings']}; got {self._identity()}; name another folder"
            raise ArtifactError(msg)
        parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimiser": {}}
        for name, value in tensors.items():
            part, key = name.split(".", 1)
            parts[part][key] = value
        try:
            self.model.load_state_dict(parts["model"])
            self.average.load_state_dict(parts["average"])
        except RuntimeError as error:
            msg = f"{path} is a checkpoint of another network: {error}"
            raise ArtifactError(msg) from error
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimiser"].items():
            index, name = key.split(".", 1)
            moments.setdefault(int(index), {})[name] = value
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": moments})
        self.step, self.seconds = state["step"], state["seconds"]

    def log(self, figures: Mapping[str, float]) -> None:
        """Adds a row to the log; rows after this step, of a run that was cut off, are dropped."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / LOG
        rows: list[dict[str, Any]] = []
        if path.exists():
            with path.open(newline="") as source:
                rows = [row for row in csv.DictReader(source) if int(row["step"]) < self.step]
        rate = self.settings.rate(self.step - 1)
        rows.append({"step": self.step, "seconds": f"{self.seconds:.1f}", "learning_rate": f"{rate:.3e}"})
        rows[-1] |= {name: f"{value:.5g}" for name, value in figures.items()}
        partial = path.with_suffix(".part")
        with partial.open("w", newline="") as out:
            writer = csv.DictWriter(out, list(rows[-1]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(path)

    def _identity(self) -> dict[str, Any]:
        harmless = {"evaluate_every", "checkpoint_seconds"}
        return {name: value for name, value in asdict(self.settings).items() if name not in harmless}
