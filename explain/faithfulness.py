"""Does a map mean what it seems to say? Cells are replaced by normal content, best first, and the score is read.

- Deletion: the cells that the map ranks highest are replaced by those of the normal twin. A faithful map makes the
  anomaly vanish early. Insertion: the same cells are put into the twin. A faithful map makes it appear early.
  (Petsiuk, Das, Saenko, RISE, arXiv 1806.07421; with normal content instead of grey, because grey is anomalous.)
- Infidelity: how badly the map predicts what random removals do to the score (Yeh et al., On the (In)fidelity and
  Sensitivity of Explanations, arXiv 1901.09392; captum), with the best scale for the map, as a share of what a map of
  zeros reaches: 0 is perfect, 1 predicts nothing.

Anomaly is counted between the score of the twin (0) and that of the image (1). Where the twin lies nearer to the image
than to what is typical of normal parts, nothing can be judged, and nothing is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from explain.cells import Blend
from explain.explanation import Explanation

SHARES = (0.0, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.0)
"""Shares of the image that are replaced."""
MARKED = 0.04
"""The share that is put into words: the strongest 4 % of the image."""
REMOVALS, REMOVED = 24, (0.05, 0.5)
"""Random removals behind the infidelity, and the least and greatest share of cells that one removes."""
CHANCE = 5
"""Random orders behind what chance reaches."""


@dataclass(frozen=True)
class Faithfulness:
    """What happened to the score when cells were replaced in the order of a map.

    Attributes:
        shares: shares of the image that were replaced, ascending from 0 to 1.
        deletion: anomaly that is left after each, 1 at 0.
        insertion: anomaly that has appeared after inserting as much into the twin, 0 at 0.
        deletion_auc: area under `deletion`; lower is better.
        insertion_auc: area under `insertion`; higher is better.
        removed: share of the anomaly that goes with the strongest 4 % of the image.
        removed_by_chance: the same for random cells.
        infidelity: 0 perfect, 1 as good as no map.
    """

    shares: tuple[float, ...]
    deletion: tuple[float, ...]
    insertion: tuple[float, ...]
    deletion_auc: float
    insertion_auc: float
    removed: float
    removed_by_chance: float
    infidelity: float

    def in_words(self) -> str:
        """One sentence for people."""
        lost, chance = round(100 * self.removed), round(100 * self.removed_by_chance)
        area = f"Removing the strongest {100 * MARKED:.0f} % of the image"
        verb = f"takes away {lost} % of the anomaly" if lost >= 0 else f"adds {-lost} % to the anomaly"
        by_chance = f"takes away {chance} %" if chance >= 0 else f"adds {-chance} %"
        return f"{area} {verb}; removing as much at random {by_chance}."


@dataclass(frozen=True)
class Ground:
    """What faithfulness is judged on for one image.

    Attributes:
        image: score of the image.
        twin: score of its normal twin.
        typical: a typical score of normal parts; None where it is not known.
        normal: whether the content of the twin is meant to be normal.
    """

    image: float
    twin: float
    typical: float | None = None
    normal: bool = True

    @property
    def judged(self) -> bool:
        """Whether anything can be judged: the twin must score lower than the image, and nearer to what is typical."""
        if self.twin >= self.image:
            return False
        return self.typical is None or self.twin <= (self.image + self.typical) / 2

    def share(self, scores: Tensor) -> Float[np.ndarray, " n"]:
        """Returns scores as shares of the anomaly, 0 at the twin and 1 at the image."""
        return np.asarray((scores.double().numpy() - self.twin) / (self.image - self.twin))


def ground(blend: Blend, typical: float | None = None) -> Ground:
    """Scores an image and its twin.

    Args:
        blend: image and twin.
        typical: see `Ground`.
    """
    both = torch.stack([torch.ones(blend.cells.count), torch.zeros(blend.cells.count)])
    image, twin = (float(s) for s in blend(both))
    return Ground(image, twin, typical, blend.subject.twin.normal)


def faithfulness(explanation: Explanation, blend: Blend, on: Ground) -> Faithfulness | None:
    """Measures how faithful a map is; None where nothing can be judged.

    Args:
        explanation: the map.
        blend: image, twin and cells; what it has scored once it does not score again.
        on: from `ground`.
    """
    if not on.judged:
        return None
    cells = blend.cells
    order = cells.ranked(explanation.map)
    deletion, insertion = (on.share(blend(_kept(order, SHARES, inserted))) for inserted in (False, True))
    rng = np.random.default_rng(0)
    chance = torch.cat([_kept(rng.permutation(cells.count), (MARKED,), False) for _ in range(CHANCE)])
    return Faithfulness(
        shares=SHARES,
        deletion=tuple(deletion.tolist()),
        insertion=tuple(insertion.tolist()),
        deletion_auc=float(np.trapezoid(deletion, SHARES)),
        insertion_auc=float(np.trapezoid(insertion, SHARES)),
        removed=float(1 - deletion[SHARES.index(MARKED)]),
        removed_by_chance=float(1 - on.share(blend(chance)).mean()),
        infidelity=infidelity(explanation, blend),
    )


def infidelity(explanation: Explanation, blend: Blend, removals: int = REMOVALS) -> float:
    """Returns captum's infidelity of the map summed up over cells, as a share of that of a map of zeros.

    The removals are the same for every map, so that maps are compared on the same ground; 0 where no removal changes
    the score at all.
    """
    import captum.metrics

    cells = blend.cells
    removed = _removals(cells.count, removals)
    everything = torch.ones(1, cells.count)
    change = blend(everything) - blend(1 - removed)
    if not float(change.square().mean()) > 0:
        return 0.0
    parts = iter(removed)

    def perturb(inputs: Tensor) -> tuple[Tensor, Tensor]:
        taken = torch.stack([next(parts) for _ in range(len(inputs))])
        return taken, inputs - taken

    values = torch.from_numpy(cells.sums(explanation.map)).float()[None]
    if not bool(values.any()):
        return 1.0
    found = captum.metrics.infidelity(
        blend, perturb, everything, values, n_perturb_samples=removals, normalize=True
    )  # captum scales the map so that it predicts best
    return float(found[0] / change.square().mean())


def _removals(count: int, removals: int) -> Float[Tensor, "n k"]:
    """Returns random sets of cells: connected ones and scattered ones would differ; these are scattered."""
    generator = torch.Generator().manual_seed(0)
    low, high = REMOVED
    share = low + (high - low) * torch.rand(removals, 1, generator=generator)
    taken = (torch.rand(removals, count, generator=generator) < share).float()
    taken[taken.sum(dim=1) == 0, 0] = 1.0
    return taken


def _kept(order: Int64[np.ndarray, " k"], shares: Sequence[float], inserted: bool) -> Float[Tensor, "n k"]:
    """Returns which cells show the image when the first of an order are removed from it, or inserted into the twin."""
    count = len(order)
    found = torch.zeros(len(shares), count) if inserted else torch.ones(len(shares), count)
    for row, share in enumerate(shares):
        found[row, torch.from_numpy(order[: math.ceil(share * count - 1e-9)].copy())] = float(inserted)
    return found
