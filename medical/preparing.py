"""From decoded pixels to what a scorer takes, and from its map back to the grid of the source.

Single images go in as they are. Of volumes the model sees a window: the one of its contract in Hounsfield units; or in
MR, whose values have no unit, the 0.5 to 99.5 percentiles of the volume itself; MONAI's ScaleIntensityRangePercentiles
would count padding, too. Slices are scored on their own grid; a whole volume is resampled by MONAI to the orientation
and the voxel size that the model was trained on.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from medical.contract import Contract
from medical.objects import Image, Volume
from medical.refusals import Reason, RefusedError

if TYPE_CHECKING:
    from monai.data import MetaTensor

Voxel = tuple[float, float, float]
"""Size of a voxel in mm along inferior-superior, anterior-posterior and right-left."""

LOWEST, HIGHEST = 0.5, 99.5
_AXES, _LABELS = "SPL", (("L", "R"), ("P", "A"), ("I", "S"))


def value_range(contract: Contract) -> tuple[float, float]:
    """Returns the lowest and the highest value that the scorer is given."""
    return contract.window or (0.0, 1.0)


def frame_of(image: Image, contract: Contract) -> Float[Tensor, "1 h w"]:
    """Returns a single image as the scorer takes it."""
    return torch.from_numpy(_windowed(image.values, contract))[None]


def slices_of(volume: Volume, contract: Contract) -> Float[Tensor, "d 1 h w"]:
    """Returns the slices of a volume in the model's unit, not windowed yet: in Hounsfield units no copy is made."""
    return torch.from_numpy(_scaled(volume, contract))[:, None]


def resampled(volume: Volume, contract: Contract, voxel: Voxel) -> "MetaTensor":
    """Returns a volume with axes as an axial CT is displayed, and with one voxel size.

    Returns:
        (1, D, H, W) float32 with its affine; D runs to superior, H to posterior, W to left.

    Raises:
        RefusedError: the volume has fewer than two of the model's voxels in some direction.
    """
    from monai.transforms import Orientation, Spacing

    from medical.reading import to_metatensor

    tensor = to_metatensor(replace(volume, values=_windowed(_scaled(volume, contract), contract)))
    placed = Spacing(pixdim=voxel, dtype=torch.float32)(Orientation(axcodes=_AXES, labels=_LABELS)(tensor))
    if min(placed.shape[1:]) < 2:
        found = " x ".join(f"{length:.3g}" for length in volume.spacing)
        raise RefusedError(Reason.SPACING, f"a volume with voxels of {found} mm has too few of them for the model")
    return placed


def on_source(
    anomaly_map: Float[Tensor, "d h w"], placed: "MetaTensor", volume: Volume
) -> Float32[np.ndarray, "sd sh sw"]:
    """Takes the map of a resampled volume back to the grid of the source, trilinearly.

    Args:
        anomaly_map: map of `placed`.
        placed: what `resampled` returned for the volume.
        volume: the source.
    """
    from monai.data import MetaTensor
    from monai.transforms import SpatialResample

    from medical.reading import to_metatensor

    source = to_metatensor(volume)
    there = MetaTensor(anomaly_map[None], affine=placed.affine)
    resample = SpatialResample(mode="bilinear", padding_mode="border", dtype=torch.float32)
    back = resample(there, dst_affine=source.affine, spatial_size=source.shape[1:])
    found: Float32[np.ndarray, "sd sh sw"] = np.ascontiguousarray(back.as_tensor()[0].numpy(), dtype=np.float32)
    return found


def _scaled(volume: Volume, contract: Contract) -> Float32[np.ndarray, "d h w"]:
    """Values in the contract's unit; where it has no window, between the percentiles of the volume's own values."""
    if contract.window is not None:
        return volume.values
    low, high = np.percentile(volume.values[volume.valid], (LOWEST, HIGHEST))
    if not low < high:
        raise RefusedError(Reason.PIXELS, f"{HIGHEST - LOWEST:g} % of the voxels have one value")
    scaled: Float32[np.ndarray, "d h w"] = np.where(volume.valid, (volume.values - low) / (high - low), 0.0)
    return np.asarray(np.clip(scaled, 0.0, 1.0), dtype=np.float32)


def _windowed(values: Float32[np.ndarray, "..."], contract: Contract) -> Float32[np.ndarray, "..."]:
    low, high = value_range(contract)
    return np.asarray(np.clip(values, low, high), dtype=np.float32)
