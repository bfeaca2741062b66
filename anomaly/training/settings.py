"""How to train: the settings of a run, and the learning rate of a step."""

import math
from dataclasses import dataclass
from typing import Literal

from anomaly.errors import SettingError

PRECISIONS = ("auto", "off", "bf16", "fp16")


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
        patience: Evaluations in a row without a lower validation loss after which the run ends early; 0 for never.
        amp: Automatic mixed precision: "bf16", "fp16" (with scaled losses), "off", or "auto": on a CUDA device bf16
            where it has units for it, else fp16; on a CPU off, because bf16 is slower there without AMX or AVX512-BF16.
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
    patience: int = 0
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"

    def __post_init__(self) -> None:
        """Refuses values that cannot be meant."""
        for name, allowed, good in (
            ("steps", "at least 1", self.steps >= 1),
            ("learning_rate", "above 0", self.learning_rate > 0),
            ("warmup", "in [0, 1)", 0 <= self.warmup < 1),
            ("ema", "in [0, 1)", 0 <= self.ema < 1),
            ("evaluate_every", "at least 1", self.evaluate_every >= 1),
            ("patience", "at least 0", self.patience >= 0),
            ("amp", f"one of {', '.join(PRECISIONS)}", self.amp in PRECISIONS),
        ):
            if not good:
                raise SettingError.of("TrainingSettings", name, allowed, getattr(self, name))

    def rate(self, step: int) -> float:
        """Returns the learning rate of a step (one-cycle: linear rise, cosine fall)."""
        rise = self.warmup * self.steps
        if step < rise:
            return self.learning_rate * (step + 1) / (rise + 1)
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1.0, self.steps - rise)))
