"""Feature autoencoder: a convolutional autoencoder learns to reconstruct the feature maps of a frozen backbone.

Where the structure of the reconstruction differs from that of the features (1 - SSIM, averaged over the channels) the
image is anomalous. The bottleneck is small enough that only what is common in normal images gets through.

Source: Meissen et al., Unsupervised Anomaly Localization with Structural Feature-Autoencoders (arXiv 2208.10992).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anomaly.detectors.embedding import upsampling_matrix
from anomaly.detectors.feature_reconstruction import ReconstructionDetector, Reconstructor
from anomaly.errors import SettingError

_WINDOW = 1.5
"""Deviation in patches of the Gaussian window of the structural similarity."""


@dataclass(frozen=True, kw_only=True)
class FeatureAutoencoderDetector(ReconstructionDetector):
    """Convolutional autoencoder on backbone features, trained and scored by structural similarity.

    Attributes:
        channels: channels of the features that are reconstructed, evenly spaced over those of all layers; all where
            there are fewer.
        widths: channels of the autoencoder on the full grid and after each halving; the last is the bottleneck.
        dropout: probability with which a channel of the autoencoder is dropped while training.
        top_fraction: by default the image score is the mean over all patches, which measured better on X-rays; 0.01
            was a little better for small pits and cracks (docs/feature-autoencoders.md).
    """

    name: ClassVar[str] = "feature_autoencoder"
    centred: ClassVar[bool] = False  # structural similarity compares means too, and wants them away from 0

    steps: int = 400
    learning_rate: float = 6e-3
    top_fraction: float = 1.0
    channels: int = 96
    widths: tuple[int, ...] = (64, 96, 128, 192, 256)
    dropout: float = 0.1

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        super().__post_init__()
        if self.channels < 1:
            raise SettingError.of(self.name, "channels", "at least 1", self.channels)
        if not 2 <= len(self.widths) <= 8 or any(not 1 <= width <= 4096 for width in self.widths):
            raise SettingError.of(self.name, "widths", "2 to 8 numbers of channels, 1 to 4096 each", self.widths)
        if not 0 <= self.dropout < 1:
            raise SettingError.of(self.name, "dropout", "at least 0 and below 1", self.dropout)

    def targets(self, maps: list[Tensor]) -> list[Float[Tensor, "n _ h w"]]:
        """Returns the chosen channels of all layers, on the finest grid."""
        features = torch.cat(super().targets(maps), dim=1)
        count = min(self.channels, features.shape[1])
        return [features[:, [i * features.shape[1] // count for i in range(count)]]]

    def network(self, groups: Sequence[int]) -> "ConvolutionalAutoencoder":
        """Builds the untrained autoencoder."""
        return ConvolutionalAutoencoder(sum(groups), self.widths, self.dropout)


class ConvolutionalAutoencoder(Reconstructor):
    """Halves the grid with strided convolutions, and doubles it as often; no shortcuts around the bottleneck."""

    def __init__(self, channels: int, widths: Sequence[int], dropout: float) -> None:
        """Builds the network; see `FeatureAutoencoderDetector` for `widths` and `dropout`."""
        super().__init__()
        steps = list(pairwise(widths))
        self.reduce = nn.Conv2d(channels, widths[0], 1)
        self.encoder = nn.ModuleList(_Step(nn.Conv2d(a, b, 3, 2, 1, bias=False), b, dropout) for a, b in steps)
        self.decoder = nn.ModuleList(
            _Step(nn.ConvTranspose2d(b, a, 4, 2, 1, bias=False), a, dropout) for a, b in reversed(steps)
        )
        self.expand = nn.Conv2d(widths[0], channels, 1)

    def forward(self, features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """Reconstructs standardised features."""
        x = self.reduce(features)
        sizes = []
        for step in self.encoder:
            sizes.append(x.shape[-2:])
            x = step(x)
        for step in self.decoder:
            height, width = sizes.pop()
            x = step(x)[..., :height, :width]  # an odd side was rounded up when it was halved
        reconstruction: Tensor = self.expand(x)
        return reconstruction

    def loss(
        self, features: Float[Tensor, "n d h w"], inside: Bool[Tensor, "n h w"], progress: float
    ) -> Float[Tensor, ""]:
        """Returns the mean of `error` over the patches inside the images."""
        return self.error(features)[inside].mean()

    def error(self, features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n h w"]:
        """Returns 1 - SSIM of the reconstruction, averaged over the channels; 0 to 2."""
        return 1 - structural_similarity(features, self(features)).mean(dim=1)


def structural_similarity(
    a: Float[Tensor, "n d h w"], b: Float[Tensor, "n d h w"], constants: tuple[float, float] = (1e-4, 9e-4)
) -> Float[Tensor, "n d h w"]:
    """Returns the structural similarity of two maps around each position, channel by channel; -1 to 1.

    Source: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, IEEE TIP 2004.

    Args:
        a: features of deviation about 1.
        b: features to compare.
        constants: what keeps the ratios of means and of variances from dividing by nothing.
    """
    rows = upsampling_matrix(a.shape[-2], a.shape[-2], _WINDOW).to(a)
    columns = upsampling_matrix(a.shape[-1], a.shape[-1], _WINDOW).to(a).T

    def local(x: Tensor) -> Tensor:
        return rows @ x @ columns

    mean_a, mean_b = local(a), local(b)
    product, squares = mean_a * mean_b, mean_a.square() + mean_b.square()
    covariance, variances = local(a * b) - product, local(a.square() + b.square()) - squares
    first, second = constants
    return ((2 * product + first) * (2 * covariance + second)) / ((squares + first) * (variances + second))


class _Step(nn.Module):
    """A convolution that halves or doubles the grid, normalised, rectified and, while training, dropped in part."""

    def __init__(self, convolution: nn.Module, width: int, dropout: float) -> None:
        super().__init__()
        self.convolution = convolution
        self.norm = nn.BatchNorm2d(width)
        self.after = nn.Sequential(nn.LeakyReLU(), nn.Dropout2d(dropout))

    def forward(self, x: Float[Tensor, "n _ _ _"]) -> Float[Tensor, "n _ _ _"]:
        y: Tensor = self.after(self.norm(self.convolution(x)))
        return y
