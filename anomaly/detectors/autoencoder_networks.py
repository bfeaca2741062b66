"""Networks that reconstruct what they were trained on, in two or three dimensions, all from MONAI.

Sources: Kingma and Welling, Auto-Encoding Variational Bayes (arXiv 1312.6114); Kascenas, Pugeault, O'Neil, Denoising
Autoencoders for Unsupervised Anomaly Detection in Brain MRI, MIDL 2022 (skip connections are harmless when the input is
corrupted by noise of the size of an anomaly).
"""

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.input_spec import MIN_SIDE

Kind = Literal["plain", "variational", "denoising"]
KINDS: tuple[Kind, ...] = ("plain", "variational", "denoising")
# Patches of volumes hold air here and tissue there: no running statistics fit both.
_NORMS: dict[int, Any] = {2: "BATCH", 3: ("GROUP", {"num_groups": 1})}
_INTERPOLATION = {2: "bilinear", 3: "trilinear"}


class Architecture(NamedTuple):
    """What a network is built from.

    Attributes:
        kind: "plain": a narrow grid of codes; "variational": one code vector with a normal prior; "denoising": a U-Net,
            which has no bottleneck.
        size: sides of the input in pixels, two or three, multiples of 2 ** len(widths).
        channels: channels of an image.
        widths: channels after each halving of the resolution.
        code: values in the bottleneck of an image (plain and variational).
    """

    kind: Kind
    size: tuple[int, ...]
    channels: int
    widths: tuple[int, ...]
    code: int


class Reconstructor(nn.Module):
    """A MONAI network behind one call."""

    network: Any
    """MONAI states no types."""

    def __init__(self, architecture: Architecture) -> None:
        """Builds the network with random weights from torch's global generator."""
        super().__init__()
        self.architecture = architecture
        self.network = _network(architecture)

    def forward(self, images: Float[Tensor, "n c *size"]) -> tuple[Float[Tensor, "n c *size"], Float[Tensor, " n"]]:
        """Reconstructs images.

        In evaluation mode the variational network decodes the mean of the code instead of a draw.

        Returns:
            The reconstruction, and the divergence of each image's code from its prior in nats (0 without a prior).
        """
        if self.architecture.kind != "variational":
            return self.network(images), images.new_zeros(images.shape[0])
        mean, log_variance = self.network.encode_forward(images)
        code = mean + torch.randn_like(mean) * (0.5 * log_variance).exp() if self.training else mean
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)
        return self.network.decode_forward(code, use_sigmoid=False), divergence


def _network(architecture: Architecture) -> nn.Module:
    from monai.networks.nets import AutoEncoder, UNet, VarAutoEncoder

    kind, size, channels, widths, code = architecture
    dims, halvings = len(size), (2,) * len(widths)
    norm = _NORMS[dims]
    if kind == "variational":
        network: nn.Module = VarAutoEncoder(dims, (channels, *size), channels, code, widths, halvings, norm=norm)
    elif kind == "plain":
        cells = math.prod(side // 2 ** len(widths) for side in size)
        narrow = [math.ceil(code / cells)]
        network = AutoEncoder(
            dims, channels, channels, widths, halvings, inter_channels=narrow, num_inter_units=0, norm=norm
        )
    else:
        network = UNet(dims, channels, channels, (widths[0], *widths, widths[-1]), (1, *halvings), norm=norm)
    return network


def working_size(size: Sequence[int], resolution: int, halvings: int) -> tuple[int, ...]:
    """Returns the sides that a network works on: multiples of 2 ** halvings, 32 or more, the shape of the canvas.

    Args:
        size: sides of the canvas.
        resolution: side of a square (or cube) with as many pixels as there may be, about.
        halvings: how often the network halves the resolution.
    """
    scale = min(1.0, resolution / math.prod(size) ** (1 / len(size)))
    step = 2**halvings
    least = math.ceil(MIN_SIDE / step) * step
    return tuple(max(least, round(side * scale / step) * step) for side in size)


def coarse_noise(images: Float[Tensor, "n c *size"], strength: float, cell: int) -> Float[Tensor, "n c *size"]:
    """Returns images with added coarse Gaussian noise, of torch's global generator.

    Independent values on a grid of cells are interpolated, so that a blob has the size of an anomaly, and shifted so
    that the grid has no fixed place. Each image has its own strength, so that clean images, as they are scored, are no
    stranger to the network.

    Args:
        images: images in [0, 1].
        strength: largest standard deviation of the values on the grid, the smallest is 0; 0 for none.
        cell: side of a cell in pixels.
    """
    if strength == 0:
        return images
    size = list(images.shape[2:])
    grid = [math.ceil(side / cell) + 1 for side in size]
    noise = torch.randn(images.shape[0], images.shape[1], *grid).to(images)
    noise = F.interpolate(noise, size=[g * cell for g in grid], mode=_INTERPOLATION[len(size)], align_corners=False)
    for axis, side in enumerate(size, start=2):
        noise = noise.narrow(axis, int(torch.randint(cell, ())), side)
    own = strength * torch.rand(images.shape[0], *[1] * (images.ndim - 1)).to(images)
    return images + own * noise
