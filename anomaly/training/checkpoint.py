"""State of a run and its files: one safetensors checkpoint to go on from, one CSV log to look at."""

import csv
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from anomaly.errors import ArtifactError
from anomaly.training.precision import Precision
from anomaly.training.settings import TrainingSettings

CHECKPOINT, LOG = "checkpoint.safetensors", "training.csv"
_HARMLESS = {"evaluate_every", "checkpoint_seconds"}


@dataclass
class Best:
    """The averaged network with the lowest validation loss so far.

    Attributes:
        loss: Its validation loss.
        waited: Evaluations since then.
        weights: Its state.
    """

    loss: float = float("inf")
    waited: int = 0
    weights: dict[str, Tensor] = field(default_factory=dict)

    def offer(self, loss: float, network: nn.Module) -> None:
        """Keeps a copy of the network if its loss is lower than any before."""
        self.waited += 1
        if loss < self.loss:
            self.loss, self.waited = loss, 0
            self.weights = {name: value.detach().clone() for name, value in network.state_dict().items()}


@dataclass
class Run:
    """State of a run.

    Attributes:
        model: The network in training.
        average: The moving average of its weights.
        optimiser: Its optimiser.
        scaler: Scaler of the losses in fp16.
        settings: How it is trained.
        precision: What it computes in.
        folder: Where its files go; None for no files.
        step: Steps done.
        seconds: Time spent.
        losses: Losses of the steps since the last row of the log.
        best: The best averaged network, where a validation loss is given.
    """

    model: nn.Module
    average: nn.Module
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    settings: TrainingSettings
    precision: Precision
    folder: Path | None
    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)
    best: Best = field(default_factory=Best)

    @property
    def ended(self) -> bool:
        """Whether all steps are done, or patience is at an end."""
        return self.step >= self.settings.steps or 0 < self.settings.patience <= self.best.waited

    def save(self) -> None:
        """Writes the checkpoint; the old one stays until the new one is complete."""
        from safetensors.torch import save_file

        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= {f"best.{k}": v for k, v in self.best.weights.items()}
        for index, state in self.optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{k}": v for k, v in state.items()}
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "losses": self.losses,
            "settings": self._identity(),
            "best": [self.best.loss, self.best.waited],
            "scaler": self.scaler.state_dict(),
        }
        partial = self.folder / (CHECKPOINT + ".part")
        copies = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
        save_file(copies, partial, {"training": json.dumps(state)})
        partial.replace(self.folder / CHECKPOINT)

    def resume(self) -> None:
        """Goes on from the checkpoint in the folder, where there is one.

        Raises:
            ArtifactError: If the checkpoint is damaged, or belongs to other settings or to another network.
        """
        if self.folder is None or not (self.folder / CHECKPOINT).exists():
            return
        path = self.folder / CHECKPOINT
        state, parts = _read(path)
        if state["settings"] != self._identity():
            msg = f"{path} belongs to settings {state['settings']}; got {self._identity()}; name another folder"
            raise ArtifactError(msg)
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
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        loss, waited = state["best"]
        self.best = Best(loss, waited, parts["best"])
        self.step, self.seconds, self.losses = state["step"], state["seconds"], state["losses"]

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
        given = {name: value for name, value in asdict(self.settings).items() if name not in _HARMLESS}
        return given | {"amp": self.precision}


def averaged_weights(folder: Path) -> dict[str, Tensor]:
    """Returns the averaged weights of the run in a folder, by name.

    Raises:
        ArtifactError: If the folder holds no checkpoint, or a damaged one.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        msg = f"{folder} must hold the {CHECKPOINT} of a training; found none"
        raise ArtifactError(msg)
    return _read(path)[1]["average"]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, dict[str, Tensor]]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            state = json.loads((file.metadata() or {})["training"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, KeyError, ValueError) as error:
        msg = f"{path} is damaged or no checkpoint of a training ({error}); remove it to begin anew"
        raise ArtifactError(msg) from error
    parts: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "best": {}, "optimiser": {}}
    for name, value in tensors.items():
        part, key = name.split(".", 1)
        parts[part][key] = value
    return state, parts
