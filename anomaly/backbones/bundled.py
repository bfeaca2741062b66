"""The backbone inside the package: a plain 3x3 residual network, distilled by :mod:`anomaly.backbones.distill`.

Dense 3x3 convolutions only: on CPUs without special kernels they beat depthwise ones in wall time, and every runtime
has its fastest code for them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from anomaly.errors import BackboneError

if TYPE_CHECKING:
    from collections.abc import Mapping

WEIGHTS = Path(__file__).with_name("bundled.safetensors")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAYERS = ("stages.2", "stages.3")
"""Modules that the two maps come from."""


@dataclass(frozen=True)
class BundledSettings:
    """Architecture of the network.

    Attributes:
        widths: Channels at strides 2, 4, 8 and 16.
        blocks: Residual blocks after the convolution that reaches each stride.
    """

    widths: tuple[int, int, int, int] = (32, 48, 96, 192)
    blocks: tuple[int, int, int, int] = (0, 0, 2, 2)


class ConvNorm(nn.Module):
    """3x3 convolution with batch norm, or with a bias once folded."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, folded: bool) -> None:
        """Builds the layer; with `folded` it has a bias in place of batch norm."""
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=folded)
        self.norm = nn.Identity() if folded else nn.BatchNorm2d(outputs)
        if not folded:
            nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        y: Tensor = self.norm(self.conv(x))
        return y


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut, rectified after the sum.

    Rectifiers are modules of their own, as in `Stage`, so that guided backpropagation finds them.
    """

    def __init__(self, width: int, *, folded: bool) -> None:
        """Builds a block that starts as the identity."""
        super().__init__()
        self.first = ConvNorm(width, width, 1, folded=folded)
        self.second = ConvNorm(width, width, 1, folded=folded)
        self.inner, self.outer = nn.ReLU(), nn.ReLU()
        if isinstance(self.second.norm, nn.BatchNorm2d):
            nn.init.zeros_(self.second.norm.weight)  # starts as the identity

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, width, H, W) to the same shape."""
        y: Tensor = self.outer(x + self.second(self.inner(self.first(x))))
        return y


class Stage(nn.Module):
    """Halves the resolution, then refines with residual blocks."""

    def __init__(self, inputs: int, outputs: int, blocks: int, *, folded: bool) -> None:
        """Builds a stage with `blocks` residual blocks."""
        super().__init__()
        self.reduce = ConvNorm(inputs, outputs, 2, folded=folded)
        self.rectify = nn.ReLU()
        self.blocks = nn.Sequential(*[ResidualBlock(outputs, folded=folded) for _ in range(blocks)])

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, inputs, H, W) to (N, outputs, H / 2, W / 2)."""
        y: Tensor = self.blocks(self.rectify(self.reduce(x)))
        return y


class BundledNet(nn.Module):
    """Feature maps at strides 8 and 16.

    Attributes:
        settings: The architecture.
        folded: Whether batch norm is folded into the convolutions; only then can the network be stored.
        channels: Channels of the two maps.
        strides: Strides of the two maps.
        mean: What the caller subtracts from each channel of an image in [0, 1].
        std: What the caller divides by after that.
    """

    strides = (8, 16)
    mean, std = MEAN, STD

    def __init__(self, settings: BundledSettings | None = None, *, folded: bool = False) -> None:
        """Builds the network with random weights."""
        super().__init__()
        self.settings = settings or BundledSettings()
        self.folded = folded
        inputs = (3, *self.settings.widths[:-1])
        self.stages = nn.ModuleList(
            Stage(i, o, n, folded=folded)
            for i, o, n in zip(inputs, self.settings.widths, self.settings.blocks, strict=True)
        )
        self.channels = self.settings.widths[2:]

    def forward(self, x: Tensor) -> list[Tensor]:
        """Computes the two feature maps.

        Args:
            x: Normalised RGB images, (N, 3, H, W) float32: (value in [0, 1] - `mean`) / `std`.

        Returns:
            Maps (N, channels[0], H / 8, W / 8) and (N, channels[1], H / 16, W / 16), sides rounded up, float32, not
            negative.
        """
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps[2:]

    def fold(self) -> BundledNet:
        """Returns an equal network without batch norm, in evaluation mode; this one stays as it is."""
        result = BundledNet(self.settings, folded=True).eval().requires_grad_(requires_grad=False)
        own = dict(self.named_modules())
        for name, module in result.named_modules():
            source = own[name]
            if isinstance(module, ConvNorm) and isinstance(source, ConvNorm):
                norm = source.norm
                if not isinstance(norm, nn.BatchNorm2d):
                    msg = "the network is folded already; fold a network that has batch norm"
                    raise BackboneError(msg)
                assert norm.running_mean is not None
                assert norm.running_var is not None
                gain = norm.weight / (norm.running_var + norm.eps).sqrt()
                weight = source.conv.weight * gain[:, None, None, None]
                bias = norm.bias - norm.running_mean * gain
                module.conv.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
        return result


def save_bundled(model: BundledNet, path: Path, provenance: Mapping[str, str]) -> None:
    """Stores a folded network as float16 safetensors.

    Args:
        model: A folded network.
        path: The file to write; it appears only when it is complete.
        provenance: Where the weights come from, JSON string values, stored in the header.

    Raises:
        BackboneError: If the network still has batch norm.
    """
    from safetensors.torch import save_file

    if not model.folded:
        msg = "only a folded network can be stored; call fold() first"
        raise BackboneError(msg)
    tensors = {name: value.half().contiguous() for name, value in model.state_dict().items()}
    metadata = {"architecture": json.dumps(asdict(model.settings)), "mean": json.dumps(MEAN), "std": json.dumps(STD)}
    partial = path.with_suffix(".part")
    save_file(tensors, partial, {**metadata, **provenance})
    partial.replace(path)


def folded_network() -> BundledNet:
    """Returns the network that the package carries with random weights, to load stored ones into."""
    return BundledNet(folded=True)


def load_bundled(path: Path | str | None = None) -> BundledNet:
    """Loads the network that the package carries, or one that ``anomaly distill`` made.

    Args:
        path: A safetensors file; without it the file inside the package.

    Returns:
        The folded network, float32, in evaluation mode, without gradients.

    Raises:
        BackboneError: If the file is missing, is no safetensors file, or is not of this architecture.
    """
    from safetensors import SafetensorError, safe_open

    path = WEIGHTS if path is None else Path(path)
    if not path.is_file():
        msg = f"weights of the bundled backbone must be a file; {path} does not exist; make one with `anomaly distill`"
        raise BackboneError(msg)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
        stored = json.loads(metadata["architecture"])
        settings = BundledSettings(tuple(stored["widths"]), tuple(stored["blocks"]))
        model = BundledNet(settings, folded=True)
        model.load_state_dict(tensors, strict=True)
    except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        msg = f"{path} must hold the weights of a bundled backbone; got: {error}; make one with `anomaly distill`"
        raise BackboneError(msg) from error
    return model.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)
