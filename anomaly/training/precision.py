"""Automatic mixed precision: which type a run computes in, and the scaling of losses that fp16 needs."""

from typing import Literal

import torch

from anomaly.training.settings import TrainingSettings

Precision = Literal["off", "bf16", "fp16"]
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def resolve(settings: TrainingSettings, device: torch.device) -> Precision:
    """Returns the precision that a run on this device has; see `TrainingSettings.amp`."""
    if settings.amp != "auto":
        return settings.amp
    if device.type != "cuda":
        return "off"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Returns the context in which losses are computed."""
    return torch.autocast(device.type, _DTYPES.get(precision), enabled=precision != "off", cache_enabled=True)


def loss_scaler(precision: Precision, device: torch.device) -> torch.amp.GradScaler:
    """Returns the scaler of the losses; it does nothing unless the precision is fp16."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
