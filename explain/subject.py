"""What is explained: the image score of a scorer as a function of one raw frame (or of one slice of a volume)."""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor, nn

from anomaly.detector import Scorer, Scores
from anomaly.errors import InputError
from explain.twin import Twin

BATCH = 4
"""Images scored together."""


class ImageScore(nn.Module):
    """The image score as one number per raw frame; frames (N, C, h, w) float32 are kept within the value range."""

    def __init__(self, scorer: Scorer) -> None:
        """Wraps a fitted scorer, which stays as it is."""
        super().__init__()
        self.scorer = scorer

    def forward(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Returns (N,) anomaly scores; differentiable."""
        low, high = self.scorer.input.value_range
        scores: Scores = self.scorer(images.clamp(low, high))
        return scores.score


class SliceScore(nn.Module):
    """The score of a volume as a function of one of its slices; the other slices stay as they are."""

    def __init__(self, scorer: Scorer, volume: Float[Tensor, "c d h w"], index: int) -> None:
        """Keeps the volume.

        Raises:
            InputError: there is no such slice.
        """
        super().__init__()
        if not 0 <= index < volume.shape[1]:
            raise InputError(f"the slice must be 0 to {volume.shape[1] - 1}; got {index}")
        self.scorer, self.volume, self.index = scorer, volume, index

    def forward(self, slices: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Returns (N,) scores of the volume with each slice in its place; differentiable."""
        before, after = self.volume[:, : self.index], self.volume[:, self.index + 1 :]
        whole = [torch.cat([before, one[:, None], after], dim=1) for one in slices]
        scores: Scores = self.scorer(torch.stack(whole))
        return scores.score


@dataclass(frozen=True, eq=False)
class Subject:
    """One image before a scorer, with what it should have looked like.

    Attributes:
        scorer: the fitted scorer.
        score: (N, C, h, w) float32 frames -> (N,) scores, differentiable.
        image: (C, h, w) float32 raw frame.
        anomaly_map: (h, w) float32, the scorer's own map at the resolution of the frame.
        twin: the same part as it should have looked, by which regions are replaced; also the baseline of attributions.
        normals: (K, C, h, w) float32, further normal baselines; K may be 0.
        seed: seed of methods that draw samples.
    """

    scorer: Scorer
    score: nn.Module
    image: Float[Tensor, "c h w"]
    anomaly_map: Float32[np.ndarray, "h w"]
    twin: Twin
    normals: Float[Tensor, "k c h w"]
    seed: int = 0
    planar: bool = field(default=True)
    """Whether the scorer sees the frame as an image, so that its layers have the grid of the frame."""

    @classmethod
    def of(cls, scorer: Scorer, image: Tensor, twin: Twin, normals: Tensor | None = None, seed: int = 0) -> "Subject":
        """Prepares a raw frame.

        Args:
            scorer: a fitted scorer, in evaluation mode.
            image: (C, h, w), dtype and values as the scorer's `InputSpec` declares them.
            twin: of the same shape, see `explain.twin`.
            normals: (K, C, h, w), see the class.
            seed: see the class.

        Raises:
            InputError: the frame does not fit the scorer, or the twin does not fit the frame.
        """
        height, width = image.shape[-2:]
        with torch.no_grad():
            canvas_map = scorer(image[None]).map[0]
            found = scorer.input.on_image(canvas_map, height, width).numpy()
        return cls(scorer, ImageScore(scorer), image.float(), found, _fitting(twin, image), _some(normals, image), seed)

    @classmethod
    def of_slice(cls, scorer: Scorer, volume: Tensor, index: int, twin: Twin, seed: int = 0) -> "Subject":
        """Prepares one slice of a raw volume (C, D, h, w); the score is that of the whole volume.

        Raises:
            InputError: the volume does not fit the scorer, there is no such slice, or the twin does not fit it.
        """
        score = SliceScore(scorer, volume.float(), index)
        image = volume[:, index].float()
        with torch.no_grad():
            found = scorer(volume[None]).map[0, index].numpy()
        return cls(scorer, score, image, found, _fitting(twin, image), _some(None, image), seed, planar=False)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frame in pixels."""
        return self.image.shape[-2], self.image.shape[-1]

    def scores(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, " n"]:
        """Returns the scores of frames without a gradient, a few frames at a time."""
        with torch.no_grad():
            return torch.cat([self.score(part) for part in torch.split(images, BATCH)])


def _fitting(twin: Twin, image: Tensor) -> Twin:
    if twin.image.shape != image.shape:
        wanted, got = tuple(image.shape), tuple(twin.image.shape)
        raise InputError(f"the normal twin must have the shape of the image, {wanted}; got {got}")
    return twin


def _some(normals: Tensor | None, image: Tensor) -> Tensor:
    return image.new_zeros((0, *image.shape), dtype=torch.float32) if normals is None else normals.float()
