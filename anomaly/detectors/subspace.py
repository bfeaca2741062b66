"""Subspace detector: how far a patch lies from the linear subspace that normal patches span.

One pass over the images sums up a mean and a covariance; sums made on different machines merge exactly. A patch's score
is the norm of one linear map of its centred feature, so scoring is one matrix product. A scorer keeps the sums, so that
it can learn further normals without the old images.

Sources: Rippel et al., Modeling the Distribution of Normal Data in Pre-Trained Deep Features (arXiv 2005.14140) for
Mahalanobis; SubspaceAD (arXiv 2602.23013) for the PCA residual on patch features.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from anomaly.backbones import Backbone, load_backbone
from anomaly.detectors.embedding import EmbeddingScorer, OnePassDetector, mix
from anomaly.detectors.levels import Batch, LevelSums, Sample
from anomaly.detectors.patch_sums import STATE_NAMES, PatchSums, with_sums
from anomaly.errors import InputError, SettingError
from anomaly.input_spec import Images


@dataclass(frozen=True, kw_only=True)
class SubspaceDetector(OnePassDetector):
    """PCA residual or Mahalanobis distance of patch features.

    Memory of a fit: two D x D float64 matrices, the features of 64 images in float16 and one batch, whatever the number
    of images. Cost: the backbone, plus D^2 multiplications a patch. Scoring: D x M multiplications a patch, M <= D.

    Attributes:
        score: "residual" counts only what lies outside the principal subspace; "mahalanobis" weighs every direction by
            the inverse of its (shrunk) normal variance.
        variance: fraction of the variance that the principal subspace of "residual" holds.
        shrinkage: fraction of the mean variance that is added to every direction of "mahalanobis".
    """

    name: ClassVar[str] = "subspace"
    state_names: ClassVar[tuple[str, ...]] = ("level", "offset", "matrix", *STATE_NAMES)

    score: Literal["residual", "mahalanobis"] = "residual"
    variance: float = 0.9
    shrinkage: float = 0.01

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        super().__post_init__()
        if self.score not in ("residual", "mahalanobis"):
            raise SettingError.of(self.name, "score", "'residual' or 'mahalanobis'", self.score)
        if not 0 < self.variance < 1:
            raise SettingError.of(self.name, "variance", "above 0 and below 1", self.variance)
        if not 0 < self.shrinkage <= 1:
            raise SettingError.of(self.name, "shrinkage", "above 0 and at most 1", self.shrinkage)

    def fit(self, images: Iterable[Images]) -> "SubspaceScorer":
        """Sums up the patches in one pass, then finds the subspace. See `Detector.fit`."""
        backbone = load_backbone(self.backbone)
        return self.from_summary(self.summarise(self.enriched(images), backbone), backbone)

    def summarise(self, images: Iterable[Images], backbone: Backbone | None = None) -> "Summary":
        """Sums up the patches of images; summaries made on different machines merge exactly.

        Raises:
            InputError: a batch does not fit `input`, or there is no image at all.
        """
        summary: Summary | None = None
        for batch in self.stream(backbone or load_backbone(self.backbone), images):
            part = Summary.of(batch)
            summary = part if summary is None else summary.merge(part)
        assert summary is not None
        return summary

    def from_summary(self, summary: "Summary", backbone: Backbone | None = None) -> "SubspaceScorer":
        """Finds the subspace of summed-up patches and builds the scorer."""
        return self.merged(summary, backbone or load_backbone(self.backbone), None)

    def merged(self, summary: "Summary", backbone: Backbone, earlier: "SubspaceScorer | None") -> "SubspaceScorer":
        """Builds the scorer of summed-up patches whose levels also rest on those of an earlier scorer.

        The levels of `earlier` were measured with its own matrix on images that are gone. They are carried over by one
        factor, the ratio of the root mean square scores that both matrices give all patches of its fit (exact, from
        the sums), and merged with the levels measured on `summary.sample` now: every image that a level was ever
        measured on counts the same.
        """
        matrix = self._matrix(summary)
        settings, offset = replace(self, backbone=backbone.spec), -(summary.center.float() @ matrix)
        scorer = SubspaceScorer(settings, backbone, None, offset, matrix, summary.sums(None))
        if not self.relative:
            return scorer
        inside = torch.stack(summary.sample.inside)
        scores = scorer.sample_scores(summary.sample)
        levels = LevelSums.of(scores, inside)
        if earlier is not None:
            before = earlier.sums.mean_square(earlier.matrix, earlier.offset)
            factor = (earlier.sums.mean_square(matrix, offset) / before) ** 0.5 if before > 0 else 1.0
            levels = earlier.sums.level_sums().scaled(factor).merge(levels)
        return SubspaceScorer(settings, backbone, levels.map(), offset, matrix, summary.sums(levels))

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> EmbeddingScorer:
        """Builds backbone and scorer from stored tensors; models from before sums were kept have none."""
        return super().restore(with_sums(state), description)

    def rebuild(self, backbone: Backbone, state: Mapping[str, Tensor]) -> "SubspaceScorer":
        """Builds the scorer from a loaded backbone and stored tensors."""
        sums = PatchSums.restored(state)
        return SubspaceScorer(self, backbone, state["level"], state["offset"], state["matrix"], sums)

    def _matrix(self, summary: "Summary") -> Float[Tensor, "d m"]:
        values, vectors = torch.linalg.eigh(summary.scatter / summary.count)
        values = values.clamp(min=0.0)
        if self.score == "mahalanobis":
            matrix: Tensor = vectors / (values + self.shrinkage * values.mean()).sqrt()
            return matrix.float()
        outside = values.cumsum(0) <= (1 - self.variance) * values.sum()
        outside[0] = True  # at least one direction is left to leave the subspace by
        matrix = vectors[:, outside]
        return matrix.float()


@dataclass(frozen=True, eq=False)
class Summary:
    """What a fit keeps of its images: enough for every setting of `score`, and exact to merge.

    Attributes:
        count: scalar float64, number of patches.
        center: (D,) float64, mean of the features.
        scatter: (D, D) float64, sum of outer products of the centred features.
        sample: features of at most 64 images, for the levels of the positions.
    """

    count: Tensor
    center: Tensor
    scatter: Tensor
    sample: Sample

    @classmethod
    def of(cls, batch: Batch) -> "Summary":
        """Sums up one batch."""
        features = batch.features[batch.inside]
        center = features.mean(dim=0)
        centred = features - center
        count = torch.tensor(float(len(features)), dtype=torch.float64)
        return cls(count, center.double(), (centred.T @ centred).double(), batch.kept())

    def merge(self, other: "Summary") -> "Summary":
        """Returns the summary of both sets of images together.

        Source: Chan, Golub, LeVeque, Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979.
        """
        count = self.count + other.count
        shift = other.center - self.center
        center = self.center + shift * (other.count / count)
        scatter = self.scatter + other.scatter + torch.outer(shift, shift) * (self.count * other.count / count)
        return Summary(count, center, scatter, self.sample.merge(other.sample))

    def sums(self, levels: LevelSums | None) -> PatchSums:
        """Returns what a scorer keeps of the summary."""
        return PatchSums.of(self.count, self.center, self.scatter, levels)

    def to_tensors(self) -> dict[str, Tensor]:
        """Returns plain tensors, e.g. to be written to a safetensors file and merged elsewhere."""
        sample = {
            "sample.keys": torch.tensor(self.sample.keys),
            "sample.features": torch.stack(self.sample.features),
            "sample.inside": torch.stack(self.sample.inside),
        }
        return {"count": self.count, "center": self.center, "scatter": self.scatter, **sample}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> "Summary":
        """Rebuilds a summary from the tensors that `to_tensors` gave.

        Raises:
            InputError: a tensor is missing or unknown.
        """
        parts = {f"sample.{name}" for name in Sample._fields}
        if set(tensors) != {"count", "center", "scatter"} | parts:
            raise InputError(f"a summary holds count, center, scatter and {sorted(parts)}; got {sorted(tensors)}")
        features, inside = list(tensors["sample.features"]), list(tensors["sample.inside"])
        sample = Sample(tensors["sample.keys"].tolist(), features, inside)
        return cls(tensors["count"], tensors["center"], tensors["scatter"], sample)


class SubspaceScorer(EmbeddingScorer):
    """Distance of patches from the normal subspace."""

    offset: Tensor
    matrix: Tensor

    def __init__(
        self,
        detector: SubspaceDetector,
        backbone: Backbone,
        level: Tensor | None,
        offset: Tensor,
        matrix: Tensor,
        sums: PatchSums,
    ) -> None:
        """Stores the map x -> x @ matrix + offset, (D, M) and (M,) float32, whose output norm is the score."""
        super().__init__(detector, backbone, level)
        self._detector = detector
        self.register_buffer("offset", offset)
        self.register_buffer("matrix", matrix.contiguous())
        self.sums = sums

    def patch_scores(self, maps: list[Tensor]) -> Float[Tensor, "n h w"]:
        """Returns the norm of the mapped, centred features."""
        return mix(maps, self.matrix, self.offset).square().sum(dim=1).sqrt()

    def sample_scores(self, sample: Sample) -> Float[Tensor, "k h w"]:
        """Returns the patch scores of sampled images, before their positions are taken into account."""
        return torch.cat([self.patch_scores([f[None].float().permute(0, 3, 1, 2)]) for f in sample.features])

    def refitted(self, images: Iterable[Images]) -> "SubspaceScorer":
        """Learns further normals: mean and subspace are those of one fit on the old and the new images together.

        The levels of the positions are not, see `SubspaceDetector.merged`. See `anomaly.detector.Refittable`.

        Raises:
            ArtifactError: the scorer comes from a model file from before sums were kept.
        """
        self.sums.require()
        old = Summary(self.sums.count, self.sums.center, self.sums.full_scatter(), Sample([], [], []))
        new = self._detector.summarise(images, self.backbone)
        return self._detector.merged(old.merge(new), self.backbone, self)
