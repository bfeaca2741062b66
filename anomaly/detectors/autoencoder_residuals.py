"""How a reconstruction differs from its image: one measure is both the loss of a training and the anomaly map.

Sources: Wang et al., Image Quality Assessment: From Error Visibility to Structural Similarity, 2004; Bergmann et al.,
Improving Unsupervised Defect Segmentation by Applying Structural Similarity to Autoencoders (arXiv 1807.02011);
Shvetsova et al., Anomaly Detection in Medical Imaging with Deep Perceptual Autoencoders (arXiv 2006.13265).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomaly.backbones import Backbone
from anomaly.detectors.embedding import feature_maps, finest, on_grid, upsampling_matrix
from anomaly.input_spec import Canvas

Measure = Literal["l1", "ssim", "perceptual"]
MEASURES: tuple[Measure, ...] = ("l1", "ssim", "perceptual")
_SIGMA = 1.5
_C1, _C2 = 0.01**2, 0.03**2


class Residual(nn.Module, ABC):
    """Compares images with their reconstructions, both in [0, 1] but for what a reconstruction overshoots."""

    @abstractmethod
    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Returns one value per cell, averaged over channels; 0 for equal images, higher for a larger difference.

        Args:
            images: (N, C, *size) float32.
            reconstructions: (N, C, *size) float32.

        Returns:
            (N, *grid) float32; the grid is that of the pixels, or of the features.
        """


class L1Residual(Residual):
    """Absolute difference."""

    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Compares pixels; two or three dimensions."""
        return (images - reconstructions).abs().mean(dim=1)


class SSIMResidual(Residual):
    """1 - SSIM under a Gaussian window of 1.5 px, mirrored at the border; 0 to 2.

    The window is applied as one small matrix per axis, which is faster than a dense convolution and exports as matrix
    products. In the interior the values are those of `monai.metrics.SSIMMetric` with a window of 13.
    """

    def __init__(self, size: Sequence[int]) -> None:
        """Makes the windows for images with these sides."""
        super().__init__()
        for axis, side in enumerate(size):
            self.register_buffer(f"window{axis}", upsampling_matrix(side, side, _SIGMA).T.clone(), persistent=False)

    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Compares neighbourhoods; two or three dimensions."""
        x, y = images, reconstructions
        blurred = torch.stack([x, y, x * x, y * y, x * y])
        for axis, window in enumerate(self.buffers(), start=3):
            blurred = (blurred.movedim(axis, -1) @ window).movedim(-1, axis)
        mean_x, mean_y, xx, yy, xy = blurred
        cross = mean_x * mean_y
        squares = mean_x.square() + mean_y.square()
        similarity: Tensor = (2 * cross + _C1) / (squares + _C1) * (2 * (xy - cross) + _C2) / (xx + yy - squares + _C2)
        return (1 - similarity).mean(dim=1)


class PerceptualResidual(Residual):
    """Absolute difference of backbone features, each in units of its deviation over normal images.

    Maps of several layers count alike and are compared on their own grids, then brought to the finest.
    """

    scale: Tensor

    def __init__(self, backbone: Backbone, scale: Float[Tensor, " d"]) -> None:
        """Keeps the backbone and 1 / deviation of each of the features of all layers together."""
        super().__init__()
        self.backbone = backbone
        self.register_buffer("scale", scale)

    def forward(self, images: Tensor, reconstructions: Tensor) -> Tensor:
        """Compares features; two dimensions."""
        wanted = feature_maps(self.backbone, _canvas(images))
        got = feature_maps(self.backbone, _canvas(reconstructions))
        grid, start, layers = finest(wanted), 0, []
        for want, have in zip(wanted, got, strict=True):
            scale = self.scale[start : start + want.shape[1]].view(1, -1, 1, 1)
            start += want.shape[1]
            layers.append(on_grid(((want - have).abs() * scale).mean(dim=1, keepdim=True), grid))
        return torch.cat(layers, dim=1).mean(dim=1)


@torch.no_grad()
def feature_scale(backbone: Backbone, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " d"]:
    """Returns 1 / standard deviation of each feature over images and positions; dead features count with 0."""
    deviations = torch.cat([m.std(dim=(0, 2, 3)) for m in feature_maps(backbone, _canvas(images))])
    floor = 1e-3 * deviations.mean()
    return torch.where(deviations > floor, 1 / deviations.clamp(min=1e-12), 0.0)


def _canvas(images: Tensor) -> Canvas:
    return Canvas(images, ((images.shape[-2], images.shape[-1]),) * images.shape[0])
