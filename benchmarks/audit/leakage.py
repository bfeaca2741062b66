"""Do train and test share images, nearly the same images, or patients?

Nearly the same: perceptual hashes differ in at most a tenth of their bits, and what sets the two images apart from the
mean training image agrees too (correlation of small thumbnails). The second condition keeps parts that lie alike from
counting, because all they share is in the mean; where it is not enough, training images are near-duplicates of each
other just as often, which is printed beside. Hashes are compared in blocks, by matrix products of their signs.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.audit.fingerprints import BITS, THUMB, Fingerprint
from benchmarks.datasets.examples import TRAIN, Example

NEAR_BITS = BITS // 10
"""Bits in which the hashes of near-duplicates may differ."""

NEAR_CORRELATION = 0.9
_CANDIDATES = 5
_BLOCK = 1024
_SHOWN = 5


@dataclass(frozen=True)
class Leakage:
    """What train and test share, or what a set without official split repeats.

    Attributes:
        split: whether there is a split; otherwise all images are compared with all others.
        compared: images of the test part, or all.
        exact: how many of them have the same pixels as one of the train part (or another one).
        near: how many have a near-duplicate there, exact ones included.
        usual: share of train images that have a near-duplicate among the other train images, 0..1.
        groups: groups (patients, items, lots) that are on both sides; None if the set names none.
        conflicts: images with the same pixels and different labels.
        pairs: up to five of the near-duplicates: image, its twin, bits that differ, correlation.
    """

    split: bool
    compared: int
    exact: int
    near: int
    usual: float
    groups: int | None
    conflicts: int
    pairs: tuple[tuple[str, str, int, float], ...]

    @property
    def share(self) -> float:
        """Share of the compared images that have a near-duplicate, 0..1."""
        return self.near / self.compared if self.compared else 0.0


def leakage(examples: Sequence[Example], prints: Sequence[Fingerprint]) -> Leakage:
    """Compares the train part with all other images, or all images with each other if there is only one part.

    Args:
        examples: images of one set, at least two.
        prints: their fingerprints, in the same order.
    """
    learned = np.array([example.split == TRAIN for example in examples])
    split = bool(learned.any() and not learned.all())
    reference = np.flatnonzero(learned) if split else np.arange(len(examples))
    queries = np.flatnonzero(~learned) if split else reference
    twins = near_duplicates(prints, queries, reference)
    usual = near_duplicates(prints, reference, reference) if split else twins
    known = {prints[i].exact for i in reference.tolist()}
    counts: dict[str, int] = defaultdict(int)
    for i in queries.tolist():
        counts[prints[i].exact] += 1
    exact = sum(prints[i].exact in known if split else counts[prints[i].exact] > 1 for i in queries.tolist())
    shown = sorted(twins.items(), key=lambda item: (item[1][1], item[0]))[:_SHOWN]
    return Leakage(
        split=split,
        compared=len(queries),
        exact=int(exact),
        near=len(twins),
        usual=len(usual) / len(reference),
        groups=_shared_groups(examples, learned) if split else None,
        conflicts=_conflicts(examples, prints),
        pairs=tuple((_name(examples[i]), _name(examples[j]), bits, round(r, 3)) for i, (j, bits, r) in shown),
    )


def near_duplicates(
    prints: Sequence[Fingerprint], queries: NDArray[np.intp], reference: NDArray[np.intp]
) -> dict[int, tuple[int, int, float]]:
    """Finds the near-duplicates of images among others; an image is never its own.

    Args:
        prints: fingerprints of all images.
        queries: indices of the images to find twins for.
        reference: indices of the images to find them among.

    Returns:
        Image -> its nearest twin, bits in which the hashes differ, correlation of the thumbnails. Time: one matrix
        product of (queries, 64) and (64, reference).
    """
    signs = np.stack([one.signs for one in prints]).astype(np.float32)
    thumbs = np.stack([one.thumb for one in prints]).reshape(len(prints), THUMB * THUMB)
    centred = thumbs - thumbs[reference].mean(axis=0)
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    centred = np.divide(centred, lengths, out=np.zeros_like(centred), where=lengths > 1e-6)
    exact = np.array([one.exact for one in prints])
    found: dict[int, tuple[int, int, float]] = {}
    for begin in range(0, len(queries), _BLOCK):
        block = queries[begin : begin + _BLOCK]
        agree = signs[block] @ signs[reference].T
        agree[block[:, None] == reference[None, :]] = -np.inf
        kept = min(_CANDIDATES, len(reference))
        nearest = np.argpartition(-agree, kept - 1, axis=1)[:, :kept]
        for row, i in enumerate(block.tolist()):
            best = _best(i, reference[nearest[row]], agree[row, nearest[row]], centred, exact)
            if best is not None:
                found[i] = best
    return found


def _best(
    i: int, candidates: NDArray[np.intp], agree: NDArray[Any], centred: NDArray[Any], exact: NDArray[Any]
) -> tuple[int, int, float] | None:
    twins = []
    for j, product in zip(candidates.tolist(), agree.tolist(), strict=True):
        if product == -np.inf:
            continue
        bits, same = round((BITS - product) / 2), bool(exact[i] == exact[j])
        correlation = 1.0 if same else float(centred[i] @ centred[j])
        if same or (bits <= NEAR_BITS and correlation >= NEAR_CORRELATION):
            twins.append((j, bits, correlation))
    return max(twins, key=lambda twin: twin[2]) if twins else None


def _shared_groups(examples: Sequence[Example], learned: NDArray[np.bool_]) -> int | None:
    sides: tuple[set[str], set[str]] = (set(), set())
    for example, inside in zip(examples, learned, strict=True):
        if example.group:
            sides[bool(inside)].add(example.group)
    return len(sides[0] & sides[1]) if sides[0] and sides[1] else None


def _conflicts(examples: Sequence[Example], prints: Sequence[Fingerprint]) -> int:
    labels: dict[str, set[int]] = defaultdict(set)
    for example, one in zip(examples, prints, strict=True):
        labels[one.exact].add(example.label)
    return sum({0, 1} <= labels[one.exact] for one in prints)


def _name(example: Example) -> str:
    place = "/".join(example.path.parts[-3:])
    return place if example.row is None else f"{place}[{example.split} {example.row}]"
