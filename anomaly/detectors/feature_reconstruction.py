"""What the detectors share that learn to reconstruct the features of a frozen backbone.

The features of the training images are stored once, a small network is trained on them, and patches whose features it
reconstructs badly are anomalous.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anomaly.backbones import Backbone, load_backbone
from anomaly.detectors.embedding import EmbeddingDetector, EmbeddingScorer, feature_maps, finest, on_grid
from anomaly.detectors.feature_store import FeatureStore, StoredBatch
from anomaly.detectors.levels import SAMPLED, level_map
from anomaly.errors import ArtifactError, SettingError
from anomaly.input_spec import Canvas, Images
from anomaly.training import TrainingSettings, train

_NETWORK = "network."


@dataclass(frozen=True, kw_only=True)
class ReconstructionDetector(EmbeddingDetector):
    """Settings of the detectors that reconstruct backbone features.

    Attributes:
        steps: training steps.
        batch: images of a training step.
        learning_rate: highest learning rate of the training.
    """

    state_names: ClassVar[tuple[str, ...]] = ("level", "mean", "deviation")

    steps: int
    batch: int = 8
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        super().__post_init__()
        if self.steps < 1:
            raise SettingError.of(self.name, "steps", "at least 1", self.steps)
        if not 1 <= self.batch <= 1024:
            raise SettingError.of(self.name, "batch", "1 to 1024 images", self.batch)
        if not self.learning_rate > 0:
            raise SettingError.of(self.name, "learning_rate", "above 0", self.learning_rate)

    @abstractmethod
    def network(self, groups: Sequence[int]) -> "Reconstructor":
        """Builds the untrained network for groups of so many channels."""

    def targets(self, maps: list[Tensor]) -> list[Float[Tensor, "n _ h w"]]:
        """Returns what is to be reconstructed, one map per group of layers: here each layer on the finest grid."""
        grid = finest(maps)
        return [on_grid(m, grid) for m in maps]

    @torch.inference_mode(False)  # training needs gradients, whatever the caller switched off
    @torch.enable_grad()
    def fit(self, images: Iterable[Images]) -> "ReconstructionScorer":
        """Stores the features in one pass, trains the network on them. See `Detector.fit`."""
        backbone = self.prepared()
        return self.trained(backbone, FeatureStore(self.stored(backbone, images)))

    def stored(self, backbone: Backbone, images: Iterable[Images]) -> Iterator[StoredBatch]:
        """Yields the targets of each batch, the groups one after the other."""
        widths = [m.shape[1] for m in self.blank_maps(backbone)]
        for batch in self.stream(backbone, images):
            maps = torch.split(batch.features.permute(0, 3, 1, 2), widths, dim=1)
            yield StoredBatch(torch.cat(self.targets(list(maps)), dim=1), batch.inside)

    def blank_maps(self, backbone: Backbone) -> list[Float[Tensor, "1 _ _ _"]]:
        """Returns the feature maps of an empty image: they tell channels and grids."""
        height, width = self.input.size
        with torch.no_grad():
            pixels = torch.zeros(1, self.input.channels, height, width)
            return feature_maps(backbone, Canvas(pixels, ((height, width),)))

    def prepared(self) -> Backbone:
        """Loads the backbone."""
        return load_backbone(self.backbone)

    def trained(self, backbone: Backbone, store: FeatureStore) -> "ReconstructionScorer":
        """Trains the network on stored features and measures the levels of the positions."""
        settled = replace(self, backbone=backbone.spec)
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            network = self.network([t.shape[1] for t in self.targets(self.blank_maps(backbone))])
        scorer = ReconstructionScorer(settled, backbone, None, store.mean, store.deviation, network)

        def loss_at(step: int) -> Tensor:
            batch = store.at_step(step, self.batch, self.seed)
            return network.loss(scorer.standardised(batch.features), batch.inside, step / self.steps)

        settings = TrainingSettings(steps=self.steps, learning_rate=self.learning_rate, seed=self.seed)
        trained = train(network, loss_at, settings)
        assert isinstance(trained, Reconstructor)
        scorer.network = trained
        if self.relative:
            parts = [store.read([i]) for i in store.spread(SAMPLED)]
            with torch.no_grad():
                errors = torch.cat([scorer.network.error(scorer.standardised(part.features)) for part in parts])
            scorer.level = level_map(errors, torch.cat([part.inside for part in parts]))
        return scorer

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> "ReconstructionScorer":
        """Builds backbone, network and scorer from stored tensors. See `Detector.restore`."""
        network = {key.removeprefix(_NETWORK): value for key, value in state.items() if key.startswith(_NETWORK)}
        rest = {key: value for key, value in state.items() if not key.startswith(_NETWORK)}
        scorer = super().restore(rest, description)
        assert isinstance(scorer, ReconstructionScorer)
        try:
            scorer.network.load_state_dict(network, strict=True)
        except RuntimeError as error:
            raise ArtifactError(f"the artifact's tensors do not fit the network of {self.name}: {error}") from None
        return scorer

    def rebuild(self, backbone: Backbone, state: Mapping[str, Tensor]) -> "ReconstructionScorer":
        """Builds the scorer with an untrained network, whose tensors `restore` loads."""
        groups = [t.shape[1] for t in self.targets(self.blank_maps(backbone))]
        network = self.network(groups).eval().requires_grad_(False)
        return ReconstructionScorer(self, backbone, state["level"], state["mean"], state["deviation"], network)


class Reconstructor(nn.Module):
    """A network that reconstructs standardised features."""

    @abstractmethod
    def loss(
        self, features: Float[Tensor, "n d h w"], inside: Bool[Tensor, "n h w"], progress: float
    ) -> Float[Tensor, ""]:
        """Returns the loss of a training batch.

        Args:
            features: standardised features.
            inside: patches that lie on an image; others do not count.
            progress: share of the training that is done, 0 to 1.
        """

    @abstractmethod
    def error(self, features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n h w"]:
        """Returns how badly each patch is reconstructed; higher is worse."""


class ReconstructionScorer(EmbeddingScorer):
    """Scores patches by how badly their features are reconstructed."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        detector: ReconstructionDetector,
        backbone: Backbone,
        level: Tensor | None,
        mean: Tensor,
        deviation: Tensor,
        network: Reconstructor,
    ) -> None:
        """Stores mean and deviation (D,) of the channels, and the trained network."""
        super().__init__(detector, backbone, level)
        self.reconstruction = detector
        self.register_buffer("mean", mean)
        self.register_buffer("deviation", deviation)
        self.network = network

    def patch_scores(self, maps: list[Tensor]) -> Float[Tensor, "n h w"]:
        """Returns how badly the targets of each patch are reconstructed."""
        return self.network.error(self.standardised(torch.cat(self.reconstruction.targets(maps), dim=1)))

    def standardised(self, features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """Returns features with mean 0 and deviation 1 over the training patches, channel by channel."""
        return (features - self.mean[:, None, None]) / self.deviation[:, None, None]
