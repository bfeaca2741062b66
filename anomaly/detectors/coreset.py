"""Few points that stand for many: fast greedy k-center, and k-means prototypes, both in batched matrix products."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

_PER_PASS = 64
_CANDIDATES = 16 * _PER_PASS
_PROJECTED = 64
_ROWS = 16_384


def k_center(points: Float[Tensor, "n d"], count: int, generator: torch.Generator) -> Int[Tensor, " m"]:
    """Chooses `count` points so that the largest distance of any point to a chosen one is small.

    Greedy farthest-point selection (Gonzalez 1985; Sener and Savarese, arXiv 1708.00489) on a random projection to 64
    dimensions. Each pass takes the 1,024 points farthest from the chosen ones, picks up to 64 among them greedily and
    updates all distances with one matrix product: n x 64 x 64 multiplications instead of 64 passes over the points. A
    pass ends early where a point outside the 1,024 could be the farthest, so the choice is that of one point at a time.
    Memory: the projected points, one distance per point and one block of 16,384 x 64.

    Returns:
        Sorted indices, all different; all points when there are not more than `count`.
    """
    n = points.shape[0]
    if n <= count:
        return torch.arange(n)
    x = _projected(points, generator)
    norms = x.square().sum(dim=1)
    picked = torch.randint(n, (1,), generator=generator)
    distance = torch.full((n,), torch.inf)
    chosen = [picked]
    left = count - 1
    while left:
        _update(distance, x, norms, picked)
        distance[picked] = -1.0  # never again, even where points are equal
        candidates = distance.topk(min(_CANDIDATES, n)).indices
        picked = candidates[_greedy(x[candidates], distance[candidates], min(left, _PER_PASS))]
        chosen.append(picked)
        left -= len(picked)
    return torch.cat(chosen).sort().values


def _projected(points: Tensor, generator: torch.Generator) -> Tensor:
    if points.shape[1] <= _PROJECTED:
        return points.float()
    directions = torch.randn(points.shape[1], _PROJECTED, generator=generator) / _PROJECTED**0.5
    return torch.cat([block.float() @ directions for block in _blocks(points)])


def _greedy(x: Tensor, distance: Tensor, count: int) -> Tensor:
    """Farthest-point selection among the farthest points, while none but they can be the farthest; one at least.

    Args:
        x: (c, k) candidates.
        distance: (c,) their squared distances to all earlier choices, descending; other points have at most the last.
        count: how many to pick at most.
    """
    between = torch.cdist(x, x).square()
    last = distance[-1]
    picked: list[Tensor] = []
    while len(picked) < count:
        farthest = distance.argmax()
        if picked and distance[farthest] < last:
            break
        picked.append(farthest)
        distance = torch.minimum(distance, between[farthest])
        distance[farthest] = -1.0
    return torch.stack(picked)


def _update(distance: Tensor, x: Tensor, norms: Tensor, centres: Tensor) -> None:
    """Lowers each squared distance to that of the nearest of some new centres, in place."""
    to = x[centres].T.contiguous()
    for start in range(0, len(x), _ROWS):
        rows = slice(start, start + _ROWS)
        squared = torch.addmm(norms[centres], x[rows], to, alpha=-2).amin(dim=1).add_(norms[rows]).clamp_(min=0)
        torch.minimum(distance[rows], squared, out=distance[rows])


def k_means(
    points: Float[Tensor, "n d"], centres: Float[Tensor, "m d"], counts: Float[Tensor, " m"], rounds: int = 3
) -> tuple[Float[Tensor, "m d"], Float[Tensor, " m"]]:
    """Moves prototypes towards the points nearest to them; the past of each weighs as many points as it has seen.

    Lloyd's rounds on one chunk, merged with the past as in mini-batch k-means (Sculley, WWW 2010). A prototype that no
    point is nearest to stays where it is.

    Returns:
        New centres, and how many points each has seen.
    """
    old = centres
    sums, seen = torch.zeros_like(old), torch.zeros_like(counts)
    for _ in range(rounds):
        nearest = torch.cat([_nearest(block, centres) for block in _blocks(points)])
        sums = torch.zeros_like(old).index_add_(0, nearest, points)
        seen = torch.bincount(nearest, minlength=len(old)).to(counts)
        total = counts + seen
        centres = torch.where((total > 0)[:, None], (old * counts[:, None] + sums) / total.clamp(min=1)[:, None], old)
    return centres, counts + seen


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    return torch.addmm(centres.square().sum(dim=1), points, centres.T, alpha=-2).argmin(dim=1)


def _blocks(points: Tensor) -> list[Tensor]:
    return [points[start : start + _ROWS] for start in range(0, len(points), _ROWS)]
