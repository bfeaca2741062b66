"""What a scorer accepts, and the one way from a raw frame to the model's canvas."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from anomaly.errors import InputError, SettingError

DTYPES = {"uint8": torch.uint8, "uint16": torch.uint16, "float32": torch.float32}
MIN_SIDE, MAX_SIDE = 32, 4096

Images = Tensor | Sequence[Tensor]
"""(N, C, h, w), or a sequence of (C, h, w) of different sizes; checked by `InputSpec.canvas`, with clear errors."""


class Canvas(NamedTuple):
    """Images on the model's canvas, and where they lie on it.

    Attributes:
        pixels: (N, C, H, W) float32 in [0, 1]; beyond an image its last row or column is repeated.
        sizes: height and width in canvas pixels that each image covers, from the top left corner. A graph that is being
            exported has one entry for all images.
    """

    pixels: Float[Tensor, "n c h w"]
    sizes: tuple[tuple[int, int], ...]

    def inside(self, grid: tuple[int, int]) -> Bool[Tensor, "n gh gw"]:
        """Returns which cells of a grid laid over the canvas have their centre inside the image.

        Args:
            grid: rows and columns of the grid, e.g. of a feature map or of the canvas itself.
        """
        height, width = self.pixels.shape[-2:]
        rows = (torch.arange(grid[0], device=self.pixels.device) + 0.5) * (height / grid[0])
        columns = (torch.arange(grid[1], device=self.pixels.device) + 0.5) * (width / grid[1])
        h = torch.tensor([s[0] for s in self.sizes], device=self.pixels.device)
        w = torch.tensor([s[1] for s in self.sizes], device=self.pixels.device)
        return (rows < h[:, None])[:, :, None] & (columns < w[:, None])[:, None, :]

    @property
    def padded(self) -> bool:
        """Whether any image leaves part of the canvas uncovered."""
        return any(size != tuple(self.pixels.shape[-2:]) for size in self.sizes)


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """The raw frames that a scorer accepts and the canvas that it puts them on.

    Attributes:
        channels: channels of a raw frame (1 grey, 3 RGB, or any number of bands).
        dtype: "uint8", "uint16" or "float32". float32 frames are accepted by every scorer, in the same value range.
        value_range: lowest and highest raw value, mapped to 0 and 1. A 12-bit camera has (0, 4095).
            Never guessed from the pixels; a value outside it is an error, not clipped.
        unit: what a raw value means, e.g. "grey value" or "HU"; for people, not for arithmetic.
        size: height and width of the canvas in pixels, 32 to 4096 each.
        resize: "pad" keeps the aspect ratio and pads at the right or bottom with repeated border pixels that never
            score; "stretch" fills the canvas.
    """

    channels: int = 3
    dtype: Literal["uint8", "uint16", "float32"] = "uint8"
    value_range: tuple[float, float] = (0.0, 255.0)
    unit: str = "grey value"
    size: tuple[int, int] = (256, 256)
    resize: Literal["pad", "stretch"] = "pad"

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 1 <= self.channels <= 512:
            raise SettingError.of("InputSpec", "channels", "1 to 512", self.channels)
        if self.dtype not in DTYPES:
            raise SettingError.of("InputSpec", "dtype", f"one of {', '.join(DTYPES)}", self.dtype)
        if len(self.value_range) != 2 or not self.value_range[0] < self.value_range[1]:
            raise SettingError.of("InputSpec", "value_range", "(low, high) with low < high", self.value_range)
        if len(self.size) != 2 or any(not MIN_SIDE <= side <= MAX_SIDE for side in self.size):
            raise SettingError.of("InputSpec", "size", f"(height, width), {MIN_SIDE} to {MAX_SIDE} each", self.size)
        if self.resize not in ("pad", "stretch"):
            raise SettingError.of("InputSpec", "resize", "'pad' or 'stretch'", self.resize)

    def rows(self) -> dict[str, str]:
        """Returns lines for people."""
        low, high = self.value_range
        return {
            "input": f"{self.channels} x {self.dtype}, {low:g} to {high:g} ({self.unit})",
            "canvas": f"{self.size[0]} x {self.size[1]} px (H x W), {self.resize}",
        }

    def covered(self, height: int, width: int) -> tuple[int, int]:
        """Returns height and width in canvas pixels that a raw frame of `height` x `width` covers."""
        if self.resize == "stretch":
            return self.size
        scale = min(self.size[0] / height, self.size[1] / width)
        return (
            min(self.size[0], max(1, round(height * scale))),
            min(self.size[1], max(1, round(width * scale))),
        )

    def canvas(self, images: Images) -> Canvas:
        """Puts raw frames on the canvas: check, scale to [0, 1], resize with antialiasing, pad.

        Args:
            images: (N, C, h, w), or a sequence of (C, h, w) of different sizes; `dtype` or float32, raw values.

        Raises:
            InputError: wrong number of channels or dimensions, dtype, no image, NaN or a value outside `value_range`.
        """
        if isinstance(images, Tensor):
            self._check(images, ndim=4)
            # In an exported graph the batch may be dynamic; one size then stands for all.
            count = 1 if torch.compiler.is_exporting() else images.shape[0]
            sizes = (self.covered(images.shape[-2], images.shape[-1]),) * count
            return Canvas(self._place(images, sizes[0] if sizes else self.size), sizes)
        if len(images) == 0:
            raise InputError("no image in the batch; at least one is needed")
        for image in images:
            self._check(image, ndim=3)
        sizes = tuple(self.covered(image.shape[-2], image.shape[-1]) for image in images)
        placed = [self._place(image[None], size) for image, size in zip(images, sizes, strict=True)]
        return Canvas(torch.cat(placed), sizes)

    def on_image(self, anomaly_map: Float[Tensor, "h w"], height: int, width: int) -> Float[Tensor, "ih iw"]:
        """Takes one canvas map back to the raw frame: crops the padding, resizes bilinearly.

        Args:
            anomaly_map: (H, W) float32 as in `Scores.map`.
            height: height of the raw frame in pixels.
            width: width of the raw frame in pixels.
        """
        h, w = self.covered(height, width)
        cropped = anomaly_map[None, None, :h, :w]
        return F.interpolate(cropped, size=(height, width), mode="bilinear", align_corners=False)[0, 0]

    def _check(self, images: Tensor, ndim: int) -> None:
        shape = tuple(images.shape)
        axes = "(N, C, H, W)" if ndim == 4 else "(C, H, W)"
        if images.ndim != ndim or 0 in shape:
            raise InputError(f"images must be {axes} with no empty axis; got shape {shape}")
        if shape[-3] != self.channels:
            raise InputError(f"images must have {self.channels} channel(s) in axis {ndim - 3}; got shape {shape}")
        if images.dtype not in (DTYPES[self.dtype], torch.float32):
            raise InputError(f"images must be {self.dtype} or float32; got {images.dtype}")
        if images.dtype == torch.uint8 and self.value_range == (0.0, 255.0):
            return
        if torch.compiler.is_exporting() or torch.compiler.is_compiling():
            return
        values = images.to(torch.int32) if images.dtype == torch.uint16 else images
        low, high = (float(v) for v in torch.aminmax(values.detach()))
        if not (self.value_range[0] <= low and high <= self.value_range[1]):  # also true for NaN
            raise InputError(
                f"values must lie in {self.value_range[0]:g} to {self.value_range[1]:g} ({self.unit}); "
                f"got {low:g} to {high:g}. Scale the images, or fit with the value range that they really have"
            )

    def _place(self, images: Tensor, size: tuple[int, int]) -> Tensor:
        x = resize(images.to(torch.float32), size)
        x = (x - self.value_range[0]) / (self.value_range[1] - self.value_range[0])
        bottom, right = self.size[0] - size[0], self.size[1] - size[1]
        if bottom or right:
            x = F.pad(x, (0, right, 0, bottom), mode="replicate")
        return x


def resize(images: Float[Tensor, "n c h w"], size: tuple[int, int]) -> Float[Tensor, "n c th tw"]:
    """Resizes bilinearly with antialiasing.

    The resize is a linear map along each axis. Where the graph is exported it is written as two matrix products, which
    every runtime computes alike; eager calls use torch's kernel for the same map, which is faster on large frames.
    """
    height, width = images.shape[-2:]
    if (height, width) == tuple(size):
        return images
    if not torch.compiler.is_exporting():
        return F.interpolate(images, size=size, mode="bilinear", antialias=True, align_corners=False)
    return resize_matrix(height, size[0]).to(images) @ images @ resize_matrix(width, size[1]).to(images).T


@torch.inference_mode(False)  # inference tensors would break every later gradient
def resize_matrix(source: int, target: int) -> Float[Tensor, "target source"]:
    """Returns the (target, source) float32 matrix of the antialiased bilinear resize along one axis."""
    return torch.from_numpy(_triangles(source, target))


@lru_cache(maxsize=256)
def _triangles(source: int, target: int) -> npt.NDArray[np.float32]:
    """The resize as weights: a triangle around each target pixel, as wide as it is in source pixels, 2 at least.

    In numpy, because a tensor made while a graph is exported has no values, and would stay in the cache. All steps are
    in float32 and in the order of torch's kernel, so that both round alike.
    """
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    step = np.float32(source) / np.float32(target)
    reach = max(step, one)
    centres = step * (np.arange(target, dtype=np.float32)[:, None] + half)
    first = np.maximum((centres - reach + half).astype(np.int64), 0)
    last = np.minimum((centres + reach + half).astype(np.int64), source)
    place = np.arange(source)
    distance = (place - first).astype(np.float32) + (first.astype(np.float32) - centres) + half
    weights = np.maximum(zero, one - np.abs(distance * (one / reach)))
    weights = np.where((place >= first) & (place < last), weights, zero)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)
