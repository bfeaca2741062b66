"""Normal distributions of positions, estimated from the sums of `gaussian_summary`."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from anomaly.detectors.gaussian_summary import Summary

_PSEUDO_IMAGES = 0.1  # by which the spread within positions is drawn towards the spread over all of them


@dataclass(frozen=True, eq=False)
class Model:
    """The distributions, in coordinates y = (x - center) @ matrix that make them simple.

    In these coordinates features spread around the mean of their position with covariance I (shared by all positions),
    and the means spread around 0 with covariance diag(between). The first k coordinates span the random directions;
    the others are what those do not predict.

    Attributes:
        center: (D,) mean of all patches.
        matrix: (D, D) map to the coordinates.
        between: (D,) variance of the means of positions, 0 or more.
        count: (P, 1) images that show a position.
        means: (P, D) mean of the patches seen at a position, in the coordinates.
        local: (P, k, k) scatter around it in the first k coordinates.
        prior: pseudo-images by which it is drawn towards I.
    """

    center: Tensor
    matrix: Tensor
    between: Tensor
    count: Tensor
    means: Tensor
    local: Tensor
    prior: float

    @classmethod
    def of(cls, summary: Summary, prior: float, shrinkage: float) -> "Model":
        """Estimates the shared covariance, how positions differ, and the coordinates."""
        count = summary.count.reshape(-1, 1)
        total, seen = count.sum(), (count > 0).sum()
        points = summary.center.flatten(0, 1)
        center = (count * points).sum(dim=0) / total
        shifts = points - center
        among = (count * shifts).T @ shifts
        pseudo = _PSEUDO_IMAGES * seen
        within = (summary.scatter + pseudo * (summary.scatter + among) / total) / (total - seen + pseudo)
        within.diagonal().add_(shrinkage * within.diagonal().mean())

        directions = summary.projection.double()
        k = directions.shape[1]
        basis = torch.cat([directions, _complement(directions)], dim=1)
        white = torch.linalg.solve_triangular(
            torch.linalg.cholesky(basis.T @ within @ basis), basis.T, upper=False
        ).T  # its first k columns span the random directions
        noise = seen / total  # of the means, as they are means of few patches
        parts, between = [], []
        for columns in (white[:, :k], white[:, k:]):
            values, vectors = torch.linalg.eigh(columns.T @ among @ columns / total)
            parts.append(columns @ vectors)
            between.append((values - noise).clamp(min=0.0))
        matrix = torch.cat(parts, dim=1)
        turn = directions.T @ parts[0]  # the random directions to the first k coordinates
        local = turn.T @ summary.local.flatten(0, 1) @ turn
        return cls(center, matrix, torch.cat(between), count, shifts @ matrix, local, prior)

    def positions(self) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the distributions of the patch to come at each position.

        Returns:
            means (P, D); whitening maps (P, k, k) of the first k coordinates; factors (P, D - k) of the others.
        """
        uncertain = self.between / (self.count * self.between + 1)
        k = self.local.shape[-1]
        covariance = self._local(self.local, self.count) + torch.diag_embed(uncertain[:, :k])
        whitening = _whitening(covariance).transpose(1, 2).contiguous()
        return self.means * self.count * uncertain, whitening, (1 + uncertain[:, k:]).rsqrt()

    def leave_one_out(self, images: Iterable[Float64[Tensor, "p d"]]) -> Float64[Tensor, "k p"]:
        """Scores training images by their distances from what the other images say of each position.

        Only what belongs to a position forgets the image; what all positions share changes too little to matter.
        Where an image was not seen (padding), the result means nothing.

        Args:
            images: patches of each image in the coordinates.
        """
        k = self.local.shape[-1]
        others = (self.count - 1).clamp(min=0.0)
        uncertain = self.between / (others * self.between + 1)
        whitening = _whitening(self._local(self.local, others) + torch.diag_embed(uncertain[:, :k]))
        weight = (self.count / others.clamp(min=1.0) / (_freedom(others) + self.prior)).sqrt()
        scores = []
        for mapped in images:
            deviation = mapped - uncertain * (self.count * self.means - mapped)
            shared = (deviation[:, k:].square() / (1 + uncertain[:, k:])).sum(dim=1)
            # The scatter forgets the image by a change of rank one: Sherman and Morrison's formula.
            change = weight * (mapped - self.means)[:, :k]
            white = whitening @ torch.stack([deviation[:, :k], change], dim=2)
            inner = white.transpose(1, 2) @ white
            local = inner[:, 0, 0] + inner[:, 0, 1].square() / (1 - inner[:, 1, 1]).clamp(min=1e-6)
            scores.append((local + shared).sqrt())
        return torch.stack(scores)

    def _local(self, scatter: Tensor, count: Tensor) -> Tensor:
        identity = torch.eye(scatter.shape[-1], dtype=scatter.dtype)
        return (scatter + self.prior * identity) / (_freedom(count) + self.prior)[:, :, None]


def _freedom(count: Tensor) -> Tensor:
    """Returns the degrees of freedom of a scatter around the mean of `count` images."""
    return (count - 1).clamp(min=0.0)


def _whitening(covariance: Tensor) -> Tensor:
    """Returns the lower triangular maps that make (P, k, k) covariances the identity."""
    identity = torch.eye(covariance.shape[-1], dtype=covariance.dtype).expand_as(covariance)
    maps: Tensor = torch.linalg.solve_triangular(torch.linalg.cholesky(covariance), identity, upper=False)
    return maps


def _complement(directions: Tensor) -> Tensor:
    """Returns an orthonormal basis (D, D - k) of what is orthogonal to (D, k) orthonormal directions."""
    basis: Tensor = torch.linalg.svd(directions, full_matrices=True).U
    return basis[:, directions.shape[1] :]
