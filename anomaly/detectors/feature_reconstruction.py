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
from anomaly.detectors.feature_store import FeatureStore
from anomaly.detectors.levels import SAMPLED, level_map
from anomaly.detectors.map_store import LayerMap
from anomaly.errors import ArtifactError, SettingError
from anomaly.input_spec import Canvas, Images
from anomaly.training import TrainingSettings, batch_indices, device, train

_NETWORK = "network."


@dataclass(frozen=True, kw_only=True)
class ReconstructionDetector(EmbeddingDetector):
    """Settings of the detectors that reconstruct backbone features.

    Attributes:
        steps: training steps.
        batch: images of a training step.
        learning_rate: highest learning rate of the training.
    """

    state_names: ClassVar[tuple[str, ...]] = ("level", "offset", "scale")
    centred: ClassVar[bool] = True
    """Whether the mean of each channel is subtracted from the features."""

    steps: int
    batch: int = 8
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        super().__post_init__()
        if not 1 <= self.batch <= 1024:
            raise SettingError.of(self.name, "batch", "1 to 1024 images", self.batch)
        self.training()

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

    def prepared(self) -> Backbone:
        """Loads the backbone."""
        return load_backbone(self.backbone)

    def stored(self, backbone: Backbone, images: Iterable[Images]) -> Iterator[LayerMap]:
        """Yields the targets of each batch, the groups one after the other."""
        for canvas in self.canvases(backbone, images):
            with torch.no_grad():
                targets = torch.cat(self.targets(feature_maps(backbone, canvas)), dim=1)
            yield LayerMap(targets, canvas.inside((targets.shape[2], targets.shape[3])))

    def trained(self, backbone: Backbone, store: FeatureStore) -> "ReconstructionScorer":
        """Trains the network on stored features, on the GPU where there is one, and measures the levels."""
        settings, where = replace(self, backbone=backbone.spec), device()
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            offset = store.mean if self.centred else torch.zeros_like(store.mean)
            scorer = settings.untrained(backbone, None, offset, store.deviation).to(where)

        def errors_of(indices: Sequence[int]) -> Tensor:
            return scorer.network.error(scorer.standardised(store.read(indices).features.to(where)))

        def loss_at(step: int) -> Tensor:
            batch = store.read(batch_indices(step, self.batch, len(store), self.seed))
            features = scorer.standardised(batch.features.to(where))
            return scorer.network.loss(features, batch.inside.to(where), step / self.steps)

        trained = train(scorer.network, loss_at, self.training())
        scorer.network.load_state_dict(trained.state_dict())
        scorer.eval().requires_grad_(False)
        if self.relative:
            sample = store.spread(SAMPLED)
            errors = torch.cat([errors_of([index]).cpu() for index in sample])
            scorer.level = level_map(errors, store.read(sample).inside)
        return scorer.cpu()

    def untrained(
        self, backbone: Backbone, level: Tensor | None, offset: Tensor, scale: Tensor
    ) -> "ReconstructionScorer":
        """Builds the scorer with an untrained network; see `ReconstructionScorer`."""
        height, width = self.input.size
        with torch.no_grad():  # an empty image tells how many channels there are
            blank = Canvas(torch.zeros(1, self.input.channels, height, width), ((height, width),))
            targets = self.targets(feature_maps(backbone, blank))
        network = self.network([target.shape[1] for target in targets])
        return ReconstructionScorer(self, backbone, level, offset, scale, network)

    def training(self) -> TrainingSettings:
        """Returns the settings of the training."""
        return TrainingSettings(steps=self.steps, learning_rate=self.learning_rate, seed=self.seed)

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
        """Builds the scorer with an untrained network, whose weights `restore` loads."""
        scorer = self.untrained(backbone, state["level"], state["offset"], state["scale"])
        scorer.network.eval().requires_grad_(False)
        return scorer


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

    offset: Tensor
    scale: Tensor

    def __init__(
        self,
        detector: ReconstructionDetector,
        backbone: Backbone,
        level: Tensor | None,
        offset: Tensor,
        scale: Tensor,
        network: Reconstructor,
    ) -> None:
        """Stores what is subtracted from each channel and what it is divided by, (D,) each, and the network."""
        super().__init__(detector, backbone, level)
        self.reconstruction = detector
        self.register_buffer("offset", offset)
        self.register_buffer("scale", scale)
        self.network = network

    def patch_scores(self, maps: list[Tensor]) -> Float[Tensor, "n h w"]:
        """Returns how badly the targets of each patch are reconstructed."""
        return self.network.error(self.standardised(torch.cat(self.reconstruction.targets(maps), dim=1)))

    def standardised(self, features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n d h w"]:
        """Returns features with deviation 1 over the training patches, channel by channel."""
        return (features - self.offset[:, None, None]) / self.scale[:, None, None]
