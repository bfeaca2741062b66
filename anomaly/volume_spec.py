"""Volumes: the smallest extension of the contract from images (N, C, H, W) to CT and MR volumes (N, C, D, H, W).

A volume detector is a `Detector` whose `input` is a `VolumeSpec` and whose `Scores.map` is (N, D, H, W). Volumes are
not put on a canvas: every network here slides over them at the voxel size that they have, so volumes of a fit and of
scoring must have one voxel size in mm, which the caller sees to.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from anomaly.errors import InputError, SettingError

DTYPES = {"uint8": torch.uint8, "int16": torch.int16, "uint16": torch.uint16, "float32": torch.float32}

Volumes = Tensor | Sequence[Tensor]
"""(N, C, D, H, W), or a sequence of (C, D, H, W) of different sizes."""


@dataclass(frozen=True, kw_only=True)
class VolumeSpec:
    """The raw volumes that a scorer accepts.

    Attributes:
        channels: channels of a voxel: 1 for CT, one per sequence for MR.
        dtype: "uint8", "int16", "uint16" or "float32". float32 volumes are accepted by every scorer.
        value_range: raw values mapped to 0 and 1. This is a window as radiology knows it: values beyond it are clipped,
            e.g. (0, 80) HU for a brain.
        unit: what a raw value means, e.g. "HU"; for people, not for arithmetic.
    """

    channels: int = 1
    dtype: Literal["uint8", "int16", "uint16", "float32"] = "int16"
    value_range: tuple[float, float] = (0.0, 80.0)
    unit: str = "HU"

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 1 <= self.channels <= 512:
            raise SettingError.of("VolumeSpec", "channels", "1 to 512", self.channels)
        if self.dtype not in DTYPES:
            raise SettingError.of("VolumeSpec", "dtype", f"one of {', '.join(DTYPES)}", self.dtype)
        if len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]:
            raise SettingError.of("VolumeSpec", "value_range", "(low, high) with low < high", self.value_range)

    def rows(self) -> dict[str, str]:
        """Returns lines for people."""
        low, high = self.value_range
        return {"input": f"volumes, {self.channels} x {self.dtype}, window {low:g} to {high:g} ({self.unit})"}

    def windowed(self, volumes: Volumes) -> list[Float[Tensor, "c d h w"]]:
        """Returns each volume by itself, float32 in [0, 1].

        Raises:
            InputError: wrong number of channels or dimensions, dtype, no volume, or a value that is not finite.
        """
        axes = 5 if isinstance(volumes, Tensor) else 4
        if len(volumes) == 0:
            raise InputError("no volume in the batch; at least one is needed")
        for volume in [volumes] if isinstance(volumes, Tensor) else volumes:
            self._check(volume, axes)
        low, high = self.value_range
        return [((volume.to(torch.float32) - low) / (high - low)).clamp(0, 1) for volume in volumes]

    def _check(self, volumes: Tensor, axes: int) -> None:
        shape = tuple(volumes.shape)
        if volumes.ndim != axes or 0 in shape:
            wanted = "(N, C, D, H, W)" if axes == 5 else "(C, D, H, W)"
            raise InputError(f"volumes must be {wanted} with no empty axis; got shape {shape}")
        if shape[axes - 4] != self.channels:
            raise InputError(f"volumes must have {self.channels} channel(s) in axis {axes - 4}; got shape {shape}")
        if volumes.dtype not in (DTYPES[self.dtype], torch.float32):
            raise InputError(f"volumes must be {self.dtype} or float32; got {volumes.dtype}")
        if volumes.dtype == torch.float32 and not bool(torch.isfinite(volumes).all()):
            raise InputError("volumes must hold finite values only; got NaN or infinity. Fill such voxels before")
