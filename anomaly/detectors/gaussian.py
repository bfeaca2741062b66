"""Gaussian detector: every position of the frame has its own normal distribution of patch features.

PaDiM keeps a mean and a full covariance per position; its file is large and few images give a poor covariance. Here a
feature x is split into z, its projection on a few fixed random directions, and r, what z does not predict of x:

- r has a mean per position and one covariance for all positions;
- z has a mean per position and a covariance per position, drawn towards the shared one.

Means are estimated as in the two-covariance model: a position that was seen seldom is drawn towards the mean of all
positions in just those directions in which positions hardly differ, and what is not known of its mean widens its
distribution. A position that was never seen thus has the distribution of all positions together. The score is the
Mahalanobis distance. Everything comes from sums over the images, so one pass suffices and sums merge exactly.

Sources: Defard et al., PaDiM (arXiv 2011.08785); Ioffe, Probabilistic Linear Discriminant Analysis, ECCV 2006.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from anomaly.backbones import Backbone, load_backbone
from anomaly.detectors.embedding import EmbeddingScorer, OnePassDetector, project
from anomaly.detectors.gaussian_model import Model
from anomaly.detectors.gaussian_summary import NAMES, PositionSums, Summary
from anomaly.detectors.levels import LevelSums, Sample
from anomaly.errors import SettingError
from anomaly.input_spec import Images


@dataclass(frozen=True, kw_only=True)
class GaussianDetector(OnePassDetector):
    """Mahalanobis distance of each patch from the normal distribution of its position.

    With P positions (1,024 at 256 x 256 px), D features and k `local_components`:

    - memory of a fit: 3 x P x (k^2 + D) x 8 bytes, two D x D float64 matrices, the features of 64 images in float16
      and one batch, whatever the number of images;
    - cost of a fit: the backbone, plus D^2 + D k + k^2 multiplications a patch;
    - scoring: D^2 + k^2 multiplications a patch;
    - model file: the backbone, plus P x (k (k + 1) / 2 + D) x 4 and D^2 x 8 bytes (10.5 MB with the bundled one).

    Attributes:
        local_components: random directions in which every position has a covariance of its own.
        prior: pseudo-images by which the covariance of a position is drawn towards the shared one.
        shrinkage: fraction of the mean variance that is added to every direction of the shared covariance.
    """

    name: ClassVar[str] = "gaussian"
    state_names: ClassVar[tuple[str, ...]] = ("level", *(f"sums.{name}" for name in NAMES))

    local_components: int = 64
    prior: float = 100.0
    shrinkage: float = 0.01

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        super().__post_init__()
        if not 1 <= self.local_components <= 512:
            raise SettingError.of(self.name, "local_components", "1 to 512", self.local_components)
        if not 0 < self.prior <= 1_000_000:
            raise SettingError.of(self.name, "prior", "above 0 and at most 1,000,000 images", self.prior)
        if not 0 < self.shrinkage <= 1:
            raise SettingError.of(self.name, "shrinkage", "above 0 and at most 1", self.shrinkage)

    def fit(self, images: Iterable[Images]) -> "GaussianScorer":
        """Sums up the patches in one pass, then estimates the distributions. See `Detector.fit`."""
        backbone = load_backbone(self.backbone)
        return self.from_summary(self.summarise(self.enriched(images), backbone), backbone)

    def summarise(self, images: Iterable[Images], backbone: Backbone | None = None) -> Summary:
        """Sums up the patches of images; summaries made on different machines merge exactly.

        Raises:
            InputError: a batch does not fit `input`, or there is no image at all.
        """
        summary: Summary | None = None
        for batch in self.stream(backbone or load_backbone(self.backbone), images):
            if summary is None:
                projection = random_directions(batch.features.shape[-1], self.local_components, self.seed)
                summary = Summary.of(batch, projection)
            else:
                summary = summary.merge(Summary.of(batch, summary.projection))
        assert summary is not None
        return summary

    def from_summary(self, summary: Summary, backbone: Backbone | None = None) -> "GaussianScorer":
        """Estimates the distributions and builds the scorer."""
        return self.merged(summary, backbone or load_backbone(self.backbone), None)

    def merged(self, summary: Summary, backbone: Backbone, earlier: "GaussianScorer | None") -> "GaussianScorer":
        """Builds the scorer of summed-up patches whose levels also rest on those of an earlier scorer.

        The levels of `earlier` are carried over by one factor, the ratio of the mean scores that both models give the
        images of `summary.sample`, and merged with the levels measured there now.
        """
        settings = replace(self, backbone=backbone.spec)
        scorer = GaussianScorer(settings, backbone, None, summary.sums(None))
        if not self.relative:
            return scorer
        inside = torch.stack(summary.sample.inside)
        scores = scorer.leave_one_out(summary.sample)
        levels = LevelSums.of(scores, inside)
        if earlier is not None:
            factor = float(scores[inside].mean() / earlier.sample_scores(summary.sample)[inside].mean())
            levels = LevelSums(*earlier.sums.levels).scaled(factor).merge(levels)
        return GaussianScorer(settings, backbone, levels.map(), summary.sums(levels))

    def rebuild(self, backbone: Backbone, state: Mapping[str, Tensor]) -> "GaussianScorer":
        """Builds the scorer from a loaded backbone and stored tensors."""
        return GaussianScorer(self, backbone, state["level"], PositionSums({n: state[f"sums.{n}"] for n in NAMES}))


def random_directions(features: int, count: int, seed: int) -> Float[Tensor, "d k"]:
    """Returns `count` orthonormal random directions (all, if there are fewer), the same wherever they are drawn."""
    drawn = torch.randn(features, min(count, features), generator=torch.Generator().manual_seed(seed)).double()
    directions, triangle = torch.linalg.qr(drawn)
    unique: Tensor = directions * triangle.diagonal().sign()  # libraries differ in the signs they choose
    return unique.float()


class GaussianScorer(EmbeddingScorer):
    """Mahalanobis distance of patches. The state holds the sums; the maps that score are derived from them."""

    matrix: Tensor
    offset: Tensor
    mean: Tensor
    whitening: Tensor
    scale: Tensor

    def __init__(
        self, detector: GaussianDetector, backbone: Backbone, level: Tensor | None, sums: PositionSums
    ) -> None:
        """Stores the sums and derives the distributions of the positions from them."""
        super().__init__(detector, backbone, level)
        self._detector = detector
        self.sums = sums
        model = self._model()
        mean, whitening, scale = model.positions()
        self.register_buffer("matrix", model.matrix.float(), persistent=False)
        self.register_buffer("offset", -(model.center @ model.matrix).float(), persistent=False)
        self.register_buffer("mean", mean.float(), persistent=False)
        self.register_buffer("whitening", whitening.float(), persistent=False)
        self.register_buffer("scale", scale.float(), persistent=False)

    def patch_scores(self, maps: list[Tensor]) -> Float[Tensor, "n h w"]:
        """Returns the Mahalanobis distance to the distribution of each patch's position."""
        mapped = project(maps, self.matrix, self.offset)
        n, h, w, _ = mapped.shape
        deviation = mapped.reshape(n, h * w, -1) - self.mean
        k = self.whitening.shape[-1]
        local = torch.bmm(deviation[..., :k].transpose(0, 1), self.whitening).square().sum(dim=-1).T
        shared = (deviation[..., k:] * self.scale).square().sum(dim=-1)
        return (local + shared).sqrt().reshape(n, h, w)

    def leave_one_out(self, sample: Sample) -> Float[Tensor, "k h w"]:
        """Scores training images against the distributions that the others give their positions."""
        model = self._model()
        mapped = ((f.flatten(0, 1).double() - model.center) @ model.matrix for f in sample.features)
        return model.leave_one_out(mapped).float().view(-1, *sample.inside[0].shape)

    def refitted(self, images: Iterable[Images]) -> "GaussianScorer":
        """Learns further normals: all distributions are those of one fit on the old and the new images together.

        The levels of the positions are not, see `GaussianDetector.merged`. See `anomaly.detector.Refittable`.
        """
        new = self._detector.summarise(images, self.backbone)
        return self._detector.merged(self.sums.summary().merge(new), self.backbone, self)

    def reduced(
        self, bank: int | None, components: int | None, images: Iterable[Images], *, fitted: bool
    ) -> "GaussianScorer":
        """Keeps fewer local components; exact, as the sums of fewer directions are part of those of all.

        See `anomaly.compression.Reducible`.
        """
        own = self.sums.projection.shape[1]
        if bank is not None:
            raise SettingError("a gaussian detector has no bank; make its components fewer")
        if components is not None and components > own:
            raise SettingError.of("Compression", "components", f"at most {own}, as many as the model has", components)
        kept = own if components is None else components
        old = self.sums.summary()
        smaller = replace(old, projection=old.projection[:, :kept].contiguous(), local=old.local[..., :kept, :kept])
        settings = replace(self._detector, local_components=kept)
        scorer = GaussianScorer(settings, self.backbone, None, smaller.sums(None))
        sample = settings.sample(self.backbone, images)
        if not settings.relative:
            return scorer
        scores = scorer.leave_one_out(sample) if fitted else scorer.sample_scores(sample)
        levels = LevelSums.of(scores, torch.stack(sample.inside))
        return GaussianScorer(settings, self.backbone, levels.map(), smaller.sums(levels))

    def sample_scores(self, sample: Sample) -> Float[Tensor, "k h w"]:
        """Returns the patch scores of sampled images, before their positions are taken into account."""
        return torch.cat([self.patch_scores([f[None].float().permute(0, 3, 1, 2)]) for f in sample.features])

    def _model(self) -> Model:
        return Model.of(self.sums.summary(), self._detector.prior, self._detector.shrinkage)
