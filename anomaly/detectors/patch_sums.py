"""Sums over the patches of a fit, kept in the model file so that further normals can be learned without the old images.

Mean and scatter are sufficient for every detector that needs no more than first and second moments; they merge
exactly (Chan, Golub, LeVeque 1979). A file grows by 4 D (D + 1) bytes for D features, e.g. 0.33 MB for 288.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from anomaly.detectors.levels import LevelSums
from anomaly.errors import ArtifactError

PREFIX = "sums."
NAMES = ("count", "center", "scatter", "levels")
STATE_NAMES = tuple(PREFIX + name for name in NAMES)


class PatchSums(nn.Module):
    """Count, mean and scatter of patches, and the sums behind the levels; float64 on the CPU wherever the scorer goes.

    Scoring never reads them. They are empty in a scorer of a model file from before they were kept.

    Attributes:
        count: () float64, number of patches.
        center: (D,) float64, mean of the features.
        scatter: (D (D + 1) / 2,) float64, upper triangle of the sum of outer products of centred features.
        levels: (3, h, w) float64, the parts of `LevelSums`; empty where positions count alike.
    """

    count: Tensor
    center: Tensor
    scatter: Tensor
    levels: Tensor

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        """Keeps the tensors named in `NAMES`.

        Raises:
            ArtifactError: their shapes do not fit each other.
        """
        super().__init__()
        dims = tensors["center"].numel()
        if tensors["scatter"].numel() != dims * (dims + 1) // 2 or tensors["count"].numel() != min(dims, 1):
            shapes = {name: tuple(tensors[name].shape) for name in NAMES}
            raise ArtifactError(f"stored sums must hold one count, D means and D (D + 1) / 2 products; got {shapes}")
        for name in NAMES:
            self.register_buffer(name, tensors[name].double())

    @classmethod
    def of(
        cls, count: Tensor, center: Float[Tensor, " d"], scatter: Float[Tensor, "d d"], levels: LevelSums | None
    ) -> "PatchSums":
        """Packs sums; (D, D) `scatter` is symmetric."""
        rows, columns = torch.triu_indices(len(center), len(center))
        packed = {"count": count, "center": center, "scatter": scatter[rows, columns]}
        return cls({**packed, "levels": torch.empty(0) if levels is None else torch.stack(levels)})

    @classmethod
    def restored(cls, state: Mapping[str, Tensor]) -> "PatchSums":
        """Takes the sums out of the state of a scorer."""
        return cls({name: state[PREFIX + name] for name in NAMES})

    def require(self) -> None:
        """Refuses sums that are empty.

        Raises:
            ArtifactError: the model file is older than the sums.
        """
        if not self.center.numel():
            raise ArtifactError(
                "this model was written before models kept the sums over their training patches, so it cannot learn "
                "further normals without the old images: fit it once more on all images; then refits need new ones only"
            )

    def full_scatter(self) -> Float[Tensor, "d d"]:
        """Returns the (D, D) scatter."""
        dims = len(self.center)
        rows, columns = torch.triu_indices(dims, dims)
        full = self.scatter.new_empty(dims, dims)
        full[rows, columns] = self.scatter
        full[columns, rows] = self.scatter
        return full

    def mean_square(self, matrix: Float[Tensor, "d m"], offset: Float[Tensor, " m"]) -> float:
        """Returns the mean of |x @ matrix + offset|^2 over all patches x that the sums are of."""
        matrix, offset = matrix.cpu().double(), offset.cpu().double()
        spread = (matrix * (self.full_scatter() @ matrix)).sum() / self.count
        return float(spread + (self.center @ matrix + offset).square().sum())

    def level_sums(self) -> LevelSums:
        """Returns the sums behind the levels, where there are any."""
        return LevelSums(*self.levels)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PatchSums":
        """Stays as it is where a scorer is moved to a device or another precision: rounded sums would not merge."""
        return self


def with_sums(state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Returns the state of a scorer, with empty sums where it is from before they were kept."""
    if any(key.startswith(PREFIX) for key in state):
        return state
    return {**state, **{name: torch.empty(0, dtype=torch.float64) for name in STATE_NAMES}}
