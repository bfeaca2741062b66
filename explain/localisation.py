"""Maps against known defects, corrected for chance: a map may hit a mask merely because defects lie where they lie.

Every figure is computed for the image's own mask (paired) and for the masks of the other images (crossed). The lift is
paired minus crossed, with a bootstrap interval over images; a lift whose interval holds 0 is no evidence.

Sources: Zhang et al., Top-down Neural Attention by Excitation Backprop (arXiv 1608.00507) for the pointing game; Wang
et al., Score-CAM (arXiv 1910.01279) for the energy inside; Efron and Tibshirani, An Introduction to the Bootstrap,
1993.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from anomaly.errors import InputError

FIGURES = ("pointing", "iou", "energy")
"""Pointing game (share of images whose peak lies in the mask); IoU of the mask with as many of the strongest pixels;
share of the positive energy of the map inside the mask."""

LEAST = 5
"""Images below which a bootstrap interval proves nothing."""

Map = Float32[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Lift:
    """A figure over several images.

    Attributes:
        paired: mean with the own masks, 0 to 1.
        crossed: mean with the masks of other images; None for a single image.
        lift: paired - crossed; None for a single image.
        low: lower end of the 95 % interval of the lift; None for a single image.
        high: upper end of it.
        images: number of images.
    """

    paired: float
    crossed: float | None
    lift: float | None
    low: float | None
    high: float | None
    images: int

    @property
    def proven(self) -> bool:
        """Whether the lift is above chance beyond the choice of images; never with fewer than 5 of them."""
        return self.low is not None and self.low > 0 and self.images >= LEAST


def against_mask(values: Map, mask: Mask) -> dict[str, float]:
    """Returns each of `FIGURES` for one map and one mask.

    Args:
        values: (h, w) float32.
        mask: (h, w) bool with at least one pixel.

    Raises:
        InputError: the shapes differ, or the mask is empty.
    """
    if values.shape != mask.shape or not mask.any():
        raise InputError(f"a mask must have the shape of the map, {values.shape}, and a pixel; got {mask.shape}")
    peak = np.unravel_index(int(values.argmax()), values.shape)
    count = int(mask.sum())
    strongest = np.zeros(mask.size, bool)
    strongest[np.argsort(-values.ravel(), kind="stable")[:count]] = True
    both = int((strongest & mask.ravel()).sum())
    positive = np.maximum(values, 0).astype(np.float64)
    total = float(positive.sum())
    # A map of nothing but zeros points nowhere, rather than at its first pixel.
    return {
        "pointing": float(mask[peak]) if total > 0 else 0.0,
        "iou": both / (2 * count - both) if total > 0 else 0.0,
        "energy": float(positive[mask].sum()) / total if total > 0 else 0.0,
    }


def lifts(maps: Sequence[Map], masks: Sequence[Mask], seed: int = 0, rounds: int = 1000) -> dict[str, Lift]:
    """Returns each of `FIGURES` over images, paired minus crossed.

    Args:
        maps: (h, w) float32, one per image; sizes may differ.
        masks: (h, w) bool, one per image, none empty.
        seed: seed of the bootstrap.
        rounds: draws of it.

    Raises:
        InputError: no image, or as `against_mask`.
    """
    if not maps or len(maps) != len(masks):
        raise InputError(f"there must be a mask for each map, and one at least; got {len(maps)} and {len(masks)}")
    count = len(maps)
    table = np.zeros((len(FIGURES), count, count))
    for i, values in enumerate(maps):
        for j, mask in enumerate(masks):
            found = against_mask(values, mask if i == j else stretched(mask, values.shape))
            table[:, i, j] = [found[name] for name in FIGURES]
    return {name: _lift(table[k], seed, rounds) for k, name in enumerate(FIGURES)}


def stretched(mask: Mask, shape: Sequence[int]) -> Bool[np.ndarray, "_ _"]:
    """Returns a mask stretched to another size; never empty."""
    if mask.shape == tuple(shape):
        return mask
    grown = cv2.resize(mask.astype(np.float32), (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(grown >= min(0.5, float(grown.max())))


def lift_of(own: Float[np.ndarray, " n"], crossed: Float[np.ndarray, " n"], seed: int = 0, rounds: int = 1000) -> Lift:
    """Returns the mean of a figure, of what chance gives, and their difference over images, drawn with replacement.

    Args:
        own: the figure of each image with its own mask.
        crossed: its mean with the masks of other images.
        seed: seed of the bootstrap.
        rounds: draws of it.

    Raises:
        InputError: there is no image, or the two differ in length.
    """
    count = len(own)
    if not count or len(crossed) != count:
        raise InputError(f"there must be one figure and its chance for each image; got {count} and {len(crossed)}")
    difference = own - crossed
    rng = np.random.default_rng(seed)
    means = difference[rng.integers(0, count, (rounds, count))].mean(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    mean, chance = float(own.mean()), float(crossed.mean())
    return Lift(mean, chance, mean - chance, float(low), float(high), count)


def _lift(table: Float[np.ndarray, "n n"], seed: int, rounds: int) -> Lift:
    """Each image stands for its own figure minus its mean with the other masks."""
    count, own = len(table), np.diag(table)
    if count < 2:
        return Lift(float(own.mean()), None, None, None, None, count)
    return lift_of(own, (table.sum(axis=1) - own) / (count - 1), seed, rounds)
