"""What score is normal at each position: the border of a part, an edge or a structure scores higher than a plain field.

The score of a patch is standardised by mean and deviation of the scores that normal images have at its position, so
that 0 means "as usual here" and 1 is one deviation more. Both are taken over a bounded sample of the training images.
Which images are sampled depends only on their content (the smallest hashes, a bottom-k sketch: Cohen and Kaplan,
Summarizing Data using Bottom-k Sketches, PODC 2007), not on their order, so samples drawn on different machines merge
to the sample that one machine would have drawn.
"""

import hashlib
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

SAMPLED = 64
# A position is trusted against all positions together once it was seen in more images than this.
_PRIOR_MEAN, _PRIOR_DEVIATION = 3.0, 10.0


class Batch(NamedTuple):
    """Features of the images of one batch.

    Attributes:
        keys: (k,) int64 hashes of the images.
        features: (k, h, w, D) float32.
        inside: (k, h, w) bool, which patches lie on the image and not on padding.
    """

    keys: Int64[Tensor, " k"]
    features: Float[Tensor, "k h w d"]
    inside: Bool[Tensor, "k h w"]

    def kept(self) -> "Sample":
        """Returns what is kept of the batch: the `SAMPLED` smallest keys."""
        order = self.keys.sort(stable=True).indices[:SAMPLED].tolist()
        features, inside = [self.features[i].half() for i in order], [self.inside[i].clone() for i in order]
        return Sample([int(self.keys[i]) for i in order], features, inside)


class Sample(NamedTuple):
    """Features of the sampled training images, image by image so that a merge copies none.

    Attributes:
        keys: k hashes of the images, ascending.
        features: k tensors (h, w, D), float16.
        inside: k tensors (h, w), bool.
    """

    keys: list[int]
    features: list[Float[Tensor, "h w d"]]
    inside: list[Bool[Tensor, "h w"]]

    def merge(self, other: "Sample") -> "Sample":
        """Returns the sample of both sets of images together: the `SAMPLED` smallest keys."""
        keys = self.keys + other.keys
        features, inside = self.features + other.features, self.inside + other.inside
        kept = sorted(range(len(keys)), key=keys.__getitem__)[:SAMPLED]
        return Sample([keys[i] for i in kept], [features[i] for i in kept], [inside[i] for i in kept])


def image_keys(pixels: Float[Tensor, "n c h w"]) -> Int64[Tensor, " n"]:
    """Returns one hash per image; equal images have equal keys."""
    digests = [hashlib.blake2b(image.cpu().contiguous().numpy().tobytes(), digest_size=8).digest() for image in pixels]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests])


class LevelSums(NamedTuple):
    """What the levels of the positions rest on; sums over different images of the same scores merge exactly.

    Attributes:
        seen: (h, w) float64, images whose patch at the position was inside.
        mean: (h, w) float64, mean of their scores; 0 where there is none.
        squared: (h, w) float64, sum of squared deviations from the mean.
    """

    seen: Float[Tensor, "h w"]
    mean: Float[Tensor, "h w"]
    squared: Float[Tensor, "h w"]

    @classmethod
    def of(cls, scores: Float[Tensor, "k h w"], inside: Bool[Tensor, "k h w"]) -> "LevelSums":
        """Sums up the patch scores of k images."""
        seen = inside.sum(dim=0).double()
        mean = torch.where(inside, scores.double(), 0.0).sum(dim=0) / seen.clamp(min=1)
        squared = torch.where(inside, scores.double() - mean, 0.0).square().sum(dim=0)
        return cls(seen, mean, squared)

    def merge(self, other: "LevelSums") -> "LevelSums":
        """Returns the sums over both sets of images together, each image with the same weight."""
        seen, shift = self.seen + other.seen, other.mean - self.mean
        share = other.seen / seen.clamp(min=1)
        return LevelSums(
            seen, self.mean + shift * share, self.squared + other.squared + shift.square() * self.seen * share
        )

    def scaled(self, factor: float) -> "LevelSums":
        """Returns the sums of the scores times a factor."""
        return LevelSums(self.seen, self.mean * factor, self.squared * factor**2)

    def map(self) -> Float[Tensor, "2 h w"]:
        """Returns mean and deviation at each position, as `level_map` does."""
        total = self.seen.sum().clamp(min=1)
        general_mean = (self.mean * self.seen).sum() / total
        mean = (self.mean * self.seen + _PRIOR_MEAN * general_mean) / (self.seen + _PRIOR_MEAN)
        squared = self.squared + self.seen * (self.mean - mean).square()
        general = squared.sum() / total
        if not general > 0:
            return torch.stack([torch.zeros_like(mean), torch.ones_like(mean)]).float()
        deviation = ((squared + _PRIOR_DEVIATION * general) / (self.seen + _PRIOR_DEVIATION)).sqrt()
        return torch.stack([mean, deviation]).float()


def level_map(scores: Float[Tensor, "k h w"], inside: Bool[Tensor, "k h w"]) -> Float[Tensor, "2 h w"]:
    """Returns mean and deviation of the scores at each position, drawn towards those of all positions together.

    Scores that do not vary at all, as a single image may give, are left as they are: mean 0, deviation 1.
    """
    return LevelSums.of(scores, inside).map()
