"""What score is normal at each position: the border of a part, an edge or a structure scores higher than a plain field.

The score of a patch is divided by the mean score that normal images have at its position, so that 1 means "as usual
here". The mean is taken over a bounded sample of the training images. Which images are sampled depends only on their
content (the smallest hashes, a bottom-k sketch: Cohen and Kaplan, Summarizing Data using Bottom-k Sketches, PODC 2007),
not on their order, so samples drawn on different machines merge to the sample that one machine would have drawn.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

SAMPLED = 64
_PRIOR = 3.0  # a position is trusted against the mean of all positions as soon as a few images have shown it


@dataclass(frozen=True, eq=False)
class Sample:
    """Features of some images: of a batch, or of the sampled training images.

    Attributes:
        keys: (k,) int64 hashes of the images; ascending where they are kept.
        features: (k, h, w, D); float16 where they are kept.
        inside: (k, h, w), which patches lie on the image and not on padding.
    """

    keys: Int64[Tensor, " k"]
    features: Float[Tensor, "k h w d"]
    inside: Bool[Tensor, "k h w"]

    def kept(self) -> "Sample":
        """Returns what is kept of a batch: the `SAMPLED` smallest keys, ascending, features in float16."""
        smallest = self.keys.sort(stable=True).indices[:SAMPLED]
        return Sample(self.keys[smallest], self.features[smallest].half(), self.inside[smallest])

    def merge(self, other: "Sample") -> "Sample":
        """Returns the sample of both sets of images together: the `SAMPLED` smallest keys."""
        keys = torch.cat([self.keys, other.keys])
        kept = keys.sort(stable=True).indices[:SAMPLED]
        if torch.equal(kept, torch.arange(len(self.keys))):
            return self
        features = torch.cat([self.features, other.features])[kept]
        return Sample(keys[kept], features, torch.cat([self.inside, other.inside])[kept])


def image_keys(pixels: Float[Tensor, "n c h w"]) -> Int64[Tensor, " n"]:
    """Returns one hash per image; equal images have equal keys."""
    digests = [hashlib.blake2b(image.cpu().contiguous().numpy().tobytes(), digest_size=8).digest() for image in pixels]
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in digests])


def level_map(scores: Float[Tensor, "k h w"], inside: Bool[Tensor, "k h w"]) -> Float[Tensor, "h w"]:
    """Returns the mean score at each position, drawn towards the mean of all positions where few images show it."""
    seen = torch.where(inside, scores, 0.0)
    overall = seen.sum() / inside.sum().clamp(min=1)
    if not overall > 0:
        return torch.ones(scores.shape[1:])
    return (seen.sum(dim=0) + _PRIOR * overall) / (inside.sum(dim=0) + _PRIOR)
