"""Normal variation that a training may add: small moves and changes of light, each image its own.

Random numbers come from torch's global generator, which `anomaly.training.train` seeds for every step. (MONAI's random
transforms draw from NumPy and take one image at a time; here one resampling serves a whole batch.)
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from anomaly.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """How far a normal image may be varied and still be normal. 0 switches a variation off.

    Attributes:
        shift: largest shift along each axis, as a share of the side.
        rotation: largest rotation in degrees.
        zoom: largest change of scale; 0.02 is 0.98 to 1.02.
        brightness: largest value added to an image in [0, 1].
        contrast: largest change of the distance of each pixel from the mean of its channel; 0.1 is 0.9 to 1.1.
        mirror: flip half of the images left to right; only where mirrored parts are normal too.
        upside_down: flip half of the images top to bottom; only where such parts are normal too.
    """

    shift: float = 0.02
    rotation: float = 2.0
    zoom: float = 0.02
    brightness: float = 0.03
    contrast: float = 0.1
    mirror: bool = False
    upside_down: bool = False

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        highest = {"shift": 0.5, "rotation": 180.0, "zoom": 0.5, "brightness": 0.5, "contrast": 0.9}
        for name, most in highest.items():
            if not 0 <= getattr(self, name) <= most:
                raise SettingError.of("Augmentation", name, f"0 to {most:g}", getattr(self, name))

    @property
    def moves(self) -> bool:
        """Whether any variation moves pixels."""
        return any((self.shift, self.rotation, self.zoom, self.mirror, self.upside_down))


def augment(images: Float[Tensor, "n c h w"], settings: Augmentation) -> Float[Tensor, "n c h w"]:
    """Varies each image of a batch by itself; the same draw for the same state of torch's global generator.

    Args:
        images: (N, C, H, W) float32 in [0, 1].
        settings: how far.

    Returns:
        (N, C, H, W) float32 in [0, 1]; what comes in from beyond the border is the image mirrored there.
    """
    draw = 2 * torch.rand(len(images), 8).to(images) - 1  # always eight numbers an image: no setting shifts another's
    if settings.moves:
        grid = F.affine_grid(_affine(draw, settings, images.shape[-2] / images.shape[-1]), list(images.shape), False)
        images = F.grid_sample(images, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    if settings.brightness or settings.contrast:
        mean = images.mean(dim=(2, 3), keepdim=True)
        gain = 1 + settings.contrast * draw[:, 6].view(-1, 1, 1, 1)
        images = ((images - mean) * gain + mean + settings.brightness * draw[:, 7].view(-1, 1, 1, 1)).clamp(0, 1)
    return images


def _affine(draw: Float[Tensor, "n 8"], settings: Augmentation, aspect: float) -> Float[Tensor, "n 2 3"]:
    """Returns the maps from target to source in the coordinates of `affine_grid`, -1 to 1 along each axis."""
    angle = draw[:, 2] * math.radians(settings.rotation)
    scale = 1 + settings.zoom * draw[:, 3]
    across = torch.where(draw[:, 4] > 0, 1.0, -1.0) if settings.mirror else torch.ones_like(angle)
    down = torch.where(draw[:, 5] > 0, 1.0, -1.0) if settings.upside_down else torch.ones_like(angle)
    cos, sin = scale * angle.cos(), scale * angle.sin()
    x = torch.stack([across * cos, -across * sin * aspect, 2 * settings.shift * draw[:, 0]], dim=1)
    y = torch.stack([down * sin / aspect, down * cos, 2 * settings.shift * draw[:, 1]], dim=1)
    return torch.stack([x, y], dim=1)
