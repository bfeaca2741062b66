"""What a fit of the Gaussian detector keeps of its images: sums per position, exact to merge."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomaly.detectors.levels import Batch, LevelSums, Sample
from anomaly.errors import ArtifactError, InputError

NAMES = ("projection", "count", "center", "scatter", "local", "levels")


@dataclass(frozen=True, eq=False)
class Summary:
    """Sums over images; enough for every setting but the projection.

    Attributes:
        projection: (D, k) float32, the random directions that `local` is in.
        count: (h, w) float64, images that show the position (and not padding there).
        center: (h, w, D) float64, mean of the features at each position.
        scatter: (D, D) float64, sum of outer products of the features less the mean of their position.
        local: (h, w, k, k) float64, the same at each position, projected.
        sample: features of at most 64 images, for the levels of the positions.
    """

    projection: Tensor
    count: Tensor
    center: Tensor
    scatter: Tensor
    local: Tensor
    sample: Sample

    @classmethod
    def of(cls, batch: Batch, projection: Float[Tensor, "d k"]) -> "Summary":
        """Sums up one batch."""
        inside = batch.inside.double()
        count = inside.sum(dim=0)
        features = batch.features.double()
        center = (features * inside[..., None]).sum(dim=0) / count.clamp(min=1.0)[..., None]
        centred = (features - center) * inside[..., None]
        rows = centred.flatten(0, 2)
        projected = (centred @ projection.double()).permute(1, 2, 0, 3)
        local = projected.transpose(2, 3) @ projected
        return cls(projection, count, center, (rows.T @ rows).double(), local, batch.kept())

    def merge(self, other: "Summary") -> "Summary":
        """Returns the summary of both sets of images together.

        Source: Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.

        Raises:
            InputError: the summaries are of other random directions or of another grid.
        """
        same = self.projection.shape == other.projection.shape and torch.allclose(self.projection, other.projection)
        if not same or self.count.shape != other.count.shape:
            raise InputError(
                "summaries merge only if they have the same grid and the same random directions: fit both with the "
                f"same canvas, backbone, local_components and seed; got grids {tuple(self.count.shape)} and "
                f"{tuple(other.count.shape)}"
            )
        count = self.count + other.count
        shift = other.center - self.center
        center = self.center + shift * (other.count / count.clamp(min=1.0))[..., None]
        weighted = shift * (self.count * other.count / count.clamp(min=1.0))[..., None]
        between = weighted.flatten(0, 1).T @ shift.flatten(0, 1)
        local = self.local + other.local
        left, right = (weighted @ self.projection.double()), (shift @ self.projection.double())
        local.flatten(0, 1).baddbmm_(left.flatten(0, 1)[:, :, None], right.flatten(0, 1)[:, None])
        scatter = self.scatter + other.scatter + between
        return Summary(self.projection, count, center, scatter, local, self.sample.merge(other.sample))

    def sums(self, levels: LevelSums | None) -> "PositionSums":
        """Returns what a scorer keeps of the summary."""
        rows, columns = torch.triu_indices(*self.local.shape[-2:]).unbind()
        return PositionSums(
            {
                "projection": self.projection,
                "count": self.count.float(),
                "center": self.center.float(),
                "scatter": self.scatter,
                "local": self.local[..., rows, columns].float(),
                "levels": torch.empty(0) if levels is None else torch.stack(levels),
            }
        )


class PositionSums(nn.Module):
    """The sums in a scorer's state: all but the sample, so that it can learn further normals without the old images.

    They stay on the CPU and in their precision wherever the scorer goes.

    Attributes:
        projection, count, center, scatter: as in `Summary`, in float32, `scatter` in float64.
        local: (h, w, k (k + 1) / 2) float32, upper triangles.
        levels: (3, h, w) float64, the parts of `LevelSums`; empty where positions count alike.
    """

    projection: Tensor
    count: Tensor
    center: Tensor
    scatter: Tensor
    local: Tensor
    levels: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Keeps the tensors named in `NAMES`.

        Raises:
            ArtifactError: their shapes do not fit each other.
        """
        super().__init__()
        d, k = tensors["projection"].shape
        grid = tuple(tensors["count"].shape)
        wanted = {"center": (*grid, d), "scatter": (d, d), "local": (*grid, k * (k + 1) // 2)}
        got = {name: tuple(tensors[name].shape) for name in wanted}
        if got != wanted:
            raise ArtifactError(f"sums of {d} features, {k} directions on a grid {grid} must be {wanted}; got {got}")
        for name in NAMES:
            self.register_buffer(name, tensors[name].contiguous())

    def summary(self) -> Summary:
        """Returns the summary that they were made of, without its sample."""
        k = self.projection.shape[1]
        rows, columns = torch.triu_indices(k, k).unbind()
        local = torch.zeros(*self.count.shape, k, k, dtype=torch.float64)
        local[..., rows, columns] = local[..., columns, rows] = self.local.double()
        center, sample = self.center.double(), Sample([], [], [])
        return Summary(self.projection, self.count.double(), center, self.scatter.double(), local, sample)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PositionSums":
        """Stays as it is where a scorer is moved to a device or another precision: rounded sums would not merge."""
        return self
