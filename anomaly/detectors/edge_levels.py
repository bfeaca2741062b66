"""What residual is normal at an edge of that steepness: for volumes, which lie anywhere, so that positions say nothing.

Every reconstruction is worse at a steep edge than in a plain field. Mean and deviation of the residual are measured
over normal voxels as functions of the steepness of the reconstruction there, and interpolated between knots.
"""

import torch
from jaxtyping import Float
from torch import Tensor

KNOTS = 16
_PRIOR = 100.0
"""Voxels of all groups together that the deviation of each group is drawn towards."""


def steepness(volume: Float[Tensor, "d h w"]) -> Float[Tensor, "d h w"]:
    """Returns the sum of the absolute central differences along the axes, per voxel."""
    axes = [axis for axis in range(3) if volume.shape[axis] > 1]
    steps: list[Tensor] = list(torch.gradient(volume, dim=axes)) if axes else [torch.zeros_like(volume)]
    return torch.stack(steps).abs().sum(dim=0)


def edge_levels(steep: Float[Tensor, " n"], residual: Float[Tensor, " n"]) -> Float[Tensor, "3 k"]:
    """Returns mean steepness, and mean and deviation of the residual, of groups of voxels that are about as steep.

    The groups are about equally large; n must be `KNOTS` or more.
    """
    order = steep.argsort()
    groups = [(steep[part], residual[part]) for part in order.chunk(KNOTS)]
    knots = torch.stack([s.mean() for s, _ in groups])
    squares = torch.stack([(r - r.mean()).square().sum() for _, r in groups])
    general = squares.sum() / len(residual)
    if not general > 0:  # residuals that do not vary are left as they are
        return torch.stack([knots, torch.zeros_like(knots), torch.ones_like(knots)])
    count = torch.tensor([float(len(r)) for _, r in groups])
    deviation = ((squares + _PRIOR * general) / (count + _PRIOR)).sqrt()
    return torch.stack([knots, torch.stack([r.mean() for _, r in groups]), deviation])


def relative_to_edges(residual: Tensor, steep: Tensor, levels: Float[Tensor, "3 k"]) -> Tensor:
    """Returns residuals in deviations above what is normal at their steepness; 0 is "as usual at such an edge"."""
    knots, mean, deviation = levels
    upper = torch.bucketize(steep.detach(), knots).clamp(1, KNOTS - 1)
    width = (knots[upper] - knots[upper - 1]).clamp(min=1e-12)
    share = ((steep - knots[upper - 1]) / width).clamp(0, 1)
    usual = mean[upper - 1] + share * (mean[upper] - mean[upper - 1])
    spread = deviation[upper - 1] + share * (deviation[upper] - deviation[upper - 1])
    relative: Tensor = (residual - usual) / spread
    return relative
