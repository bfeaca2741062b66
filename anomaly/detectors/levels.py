"""What score is normal at each position: the border of a part, an edge or a structure scores higher than a plain field.

The score of a patch is standardised by mean and deviation of the scores that normal images have at its position, so
that 0 means "as usual here" and 1 is one deviation more. Both are taken over a bounded sample of the training images.
Which images are sampled depends only on their content (the smallest hashes, a bottom-k sketch: Cohen and Kaplan,
Summarizing Data using Bottom-k Sketches, PODC 2007), not on their order, so samples drawn on different machines merge
to the sample that one machine would have drawn.
"""

import hashlib
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

SAMPLED = 64
# A position is trusted against all positions together once it was seen in more images than this.
_PRIOR_MEAN, _PRIOR_DEVIATION = 3.0, 10.0


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


def level_map(scores: Float[Tensor, "k h w"], inside: Bool[Tensor, "k h w"]) -> Float[Tensor, "2 h w"]:
    """Returns mean and deviation of the scores at each position, drawn towards those of all positions together.

    Scores that do not vary at all, as a single image may give, are left as they are: mean 0, deviation 1.
    """
    count, total = inside.sum(dim=0), inside.sum().clamp(min=1)
    seen = torch.where(inside, scores, 0.0)
    mean = (seen.sum(dim=0) + _PRIOR_MEAN * seen.sum() / total) / (count + _PRIOR_MEAN)
    squared = torch.where(inside, (scores - mean).square(), 0.0)
    general = squared.sum() / total
    if not general > 0:
        return torch.stack([torch.zeros_like(mean), torch.ones_like(mean)])
    deviation = ((squared.sum(dim=0) + _PRIOR_DEVIATION * general) / (count + _PRIOR_DEVIATION)).sqrt()
    return torch.stack([mean, deviation])
