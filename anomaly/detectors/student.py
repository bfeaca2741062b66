"""Student detector: a small network says what the deep features of a normal patch are, given the shallow ones.

The teacher is the backbone. Its shallow features x and deep features y are whitened; the student s is trained to
predict y from x on normal images. The score of a patch is how far y is from what x leads one to expect,

    score = |M (y - s(x))|

where M whitens what the student leaves unexplained on normal images. A linear student would give the conditional
Mahalanobis distance of y given x; the network also learns which deep features belong to which shallow neighbourhood.
Teacher and student share one pass of the backbone: the score costs a few small convolutions on the deep grid, and no
search.

Sources: Bergmann et al., Uninformed Students (arXiv 1911.02357) and Batzner et al., EfficientAD (arXiv 2303.14535) for
the discrepancy of a student as anomaly score; Rippel et al. (arXiv 2005.14140) for the Mahalanobis distance.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.backbones import Backbone, load_backbone
from anomaly.detectors.embedding import EmbeddingDetector, EmbeddingScorer, feature_maps, on_grid
from anomaly.detectors.levels import level_map
from anomaly.detectors.map_store import LayerMap, MapStore
from anomaly.errors import ArtifactError, SettingError
from anomaly.input_spec import Canvas, Images
from anomaly.training import TrainingSettings, batch_indices, device, train

_SHRINKAGE = 0.01
_READ = 16
_HELD_OUT, _EVALUATIONS, _PATIENCE = 10, 10, 3


@dataclass(frozen=True, kw_only=True)
class StudentDetector(EmbeddingDetector):
    """Discrepancy between deep features and a student's prediction of them from shallow ones.

    Two layers of the backbone are used, the shallow one and the deep one (the default layers of every backbone).

    Memory of a fit: one batch of features and two D x D matrices in float64; the features wait on disk in float16
    (0.3 MB an image of 256 px for the bundled backbone). Training resumes and runs under torchrun, see
    `anomaly.training`. A tenth of the images is held out of the training (not of the rest) to keep the best student.

    Attributes:
        width: channels of the student.
        steps: training steps.
        batch: images per step, over all processes.
        learning_rate: peak of the one-cycle schedule.
    """

    name: ClassVar[str] = "student"
    state_names: ClassVar[tuple[str, ...]] = (
        "level",
        *(f"{layer}.{part}" for layer in ("shallow", "deep") for part in ("weight", "bias")),
        *(f"student.{layer}.{part}" for layer in ("entry", "middle", "head") for part in ("weight", "bias")),
    )

    width: int = 128
    steps: int = 300
    batch: int = 8
    learning_rate: float = 3e-3

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        super().__post_init__()
        for name in ("width", "steps", "batch"):
            if getattr(self, name) < 1:
                raise SettingError.of(self.name, name, "at least 1", getattr(self, name))
        if not self.learning_rate > 0:
            raise SettingError.of(self.name, "learning_rate", "above 0", self.learning_rate)

    @torch.inference_mode(False)  # tensors made in inference mode could not be trained
    def fit(self, images: Iterable[Images]) -> "StudentScorer":
        """Runs the backbone once, trains the student, then measures what it leaves unexplained. See `Detector.fit`."""
        where = device()
        backbone = load_backbone(self.backbone).to(where)
        if len(backbone.spec.layers) != 2:
            got = ", ".join(backbone.spec.layers)
            raise SettingError.of(self.name, "layers of the backbone", "two, a shallow and a deep one", got)
        store = MapStore(2, self._maps(backbone, images))
        shallow, deep = (_whitening(store.batches(layer, _READ)).to(where) for layer in (0, 1))
        student = self._train(store, shallow, deep)
        settings = replace(self, backbone=backbone.spec)
        scorer = StudentScorer(settings, backbone, None, shallow, deep, student).cpu()
        scorer.whiten_residuals(store)
        scorer.measure_levels(store)
        return scorer

    def rebuild(self, backbone: Backbone, state: Mapping[str, Tensor]) -> "StudentScorer":
        """Builds the scorer from a loaded backbone and stored tensors."""
        inputs, outputs = (len(state[f"{layer}.bias"]) for layer in ("shallow", "deep"))
        parts = nn.Conv2d(inputs, inputs, 1), nn.Conv2d(outputs, outputs, 1), Student(inputs, self.width, outputs)
        scorer = StudentScorer(self, backbone, state["level"], *parts)
        try:
            for name, part in (("shallow", parts[0]), ("deep", parts[1]), ("student", parts[2])):
                part.load_state_dict(
                    {k.removeprefix(f"{name}."): v for k, v in state.items() if k.startswith(f"{name}.")}
                )
        except RuntimeError as error:
            raise ArtifactError(f"the tensors of {self.name} do not fit its settings: {error}") from error
        return scorer

    def _maps(self, backbone: Backbone, images: Iterable[Images]) -> Iterator[list[LayerMap]]:
        for canvas in self.canvases(backbone, images):
            with torch.no_grad():
                maps = feature_maps(backbone, Canvas(canvas.pixels.to(backbone.mean.device), canvas.sizes))
            yield [LayerMap(m.cpu(), canvas.inside((m.shape[2], m.shape[3]))) for m in maps]

    def _train(self, store: MapStore, shallow: nn.Conv2d, deep: nn.Conv2d) -> "Student":
        where = shallow.weight.device
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            student = Student(shallow.out_channels, self.width, deep.out_channels).to(where)
        order = np.random.default_rng(self.seed).permutation(len(store)).tolist()
        held, used = order[: len(order) // _HELD_OUT], order[len(order) // _HELD_OUT :]

        def loss_of(network: nn.Module, indices: list[int]) -> Tensor:
            x, y = store.read(0, indices), store.read(1, indices)
            with torch.no_grad():
                given, wanted = shallow(x.features.to(where)), deep(y.features.to(where))
            error = (network(given, wanted.shape[-2:]) - wanted).square().mean(dim=1)
            inside = y.inside.to(where)
            return torch.where(inside, error, 0.0).sum() / inside.sum().clamp(min=1)

        def loss_at(step: int) -> Tensor:
            return loss_of(student, [used[i] for i in batch_indices(step, self.batch, len(used), self.seed)])

        def validate(network: nn.Module) -> float:
            with torch.no_grad():
                parts = [held[start : start + _READ] for start in range(0, len(held), _READ)]
                return sum(float(loss_of(network, part)) * len(part) for part in parts) / len(held)

        settings = TrainingSettings(
            self.steps,
            self.learning_rate,
            ema=0.99,
            seed=self.seed,
            evaluate_every=max(1, self.steps // _EVALUATIONS),
            patience=_PATIENCE if held else 0,
        )
        trained = train(student, loss_at, settings, validate=validate if held else None)
        assert isinstance(trained, Student)
        return trained


class Student(nn.Module):
    """Predicts whitened deep features from whitened shallow ones: three convolutions, two of them 3 x 3."""

    def __init__(self, inputs: int, width: int, outputs: int) -> None:
        """Builds the layers with random weights."""
        super().__init__()
        self.entry = nn.Conv2d(inputs, width, 3, padding=1)
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.head = nn.Conv2d(width, outputs, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, shallow: Float[Tensor, "n d h w"], grid: tuple[int, int]) -> Float[Tensor, "n e gh gw"]:
        """Predicts deep features.

        Args:
            shallow: whitened shallow features.
            grid: rows and columns of the deep features, as fine as the shallow ones or coarser.
        """
        stride = max(1, round(shallow.shape[-1] / grid[1]))
        x = F.conv2d(shallow, self.entry.weight, self.entry.bias, stride=stride, padding=1).relu()
        return on_grid(self.head(self.middle(x).relu()), grid)


class StudentScorer(EmbeddingScorer):
    """Distance of deep features from what the student expects of them."""

    def __init__(
        self,
        detector: StudentDetector,
        backbone: Backbone,
        level: Tensor | None,
        shallow: nn.Conv2d,
        deep: nn.Conv2d,
        student: Student,
    ) -> None:
        """Takes the whitening of both layers, 1 x 1 convolutions, and the student."""
        super().__init__(detector, backbone, level)
        self.shallow, self.deep, self.student = shallow, deep, student
        self.requires_grad_(requires_grad=False)

    def patch_scores(self, maps: list[Tensor]) -> Float[Tensor, "n h w"]:
        """Returns the length of what the student did not expect, on the deep grid."""
        return self.residuals(maps).square().sum(dim=1).sqrt()

    def residuals(self, maps: list[Tensor]) -> Float[Tensor, "n d h w"]:
        """Returns deep features less their prediction."""
        deep: Tensor = self.deep(maps[1])
        expected: Tensor = self.student(self.shallow(maps[0]), (deep.shape[-2], deep.shape[-1]))
        return deep - expected

    @torch.no_grad()
    def whiten_residuals(self, store: MapStore) -> None:
        """Folds the whitening of what the student leaves unexplained into the last layers."""
        unexplained = _whitening(LayerMap(self.residuals([x.features, y.features]), y.inside) for x, y in _pairs(store))
        matrix = unexplained.weight[:, :, 0, 0]
        for layer in (self.deep, self.student.head):
            assert layer.bias is not None
            layer.weight.copy_((matrix @ layer.weight[:, :, 0, 0])[:, :, None, None])
            layer.bias.copy_(matrix @ layer.bias)
        assert self.deep.bias is not None
        assert unexplained.bias is not None
        self.deep.bias.add_(unexplained.bias)

    @torch.no_grad()
    def measure_levels(self, store: MapStore) -> None:
        """Measures what score is normal at each position."""
        pairs = [(self.patch_scores([x.features, y.features]), y.inside) for x, y in _pairs(store)]
        self.level = level_map(torch.cat([scores for scores, _ in pairs]), torch.cat([inside for _, inside in pairs]))


def _pairs(store: MapStore) -> Iterator[tuple[LayerMap, LayerMap]]:
    return zip(store.batches(0, _READ), store.batches(1, _READ), strict=True)


def _whitening(batches: Iterable[LayerMap]) -> nn.Conv2d:
    """Returns the affine map, a 1 x 1 convolution, after which patches have mean 0 and (shrunk) covariance 1.

    Every direction gets a share of the mean variance, the larger the fewer patches there are for each of them: what few
    images do not show must not count as impossible.
    """
    count, total, outer = 0, torch.zeros(()), torch.zeros(())
    for batch in batches:
        patches = batch.features.permute(0, 2, 3, 1)[batch.inside].double()
        count, total, outer = count + len(patches), total + patches.sum(dim=0), outer + patches.T @ patches
    mean = total / count
    values, vectors = torch.linalg.eigh(outer / count - torch.outer(mean, mean))
    values = values.clamp(min=0.0)
    shrinkage = _SHRINKAGE + len(mean) / count
    scale = (values + shrinkage * values.mean() + torch.finfo(torch.float32).tiny).rsqrt()
    matrix = (vectors * scale).T
    with torch.random.fork_rng([]):  # weights that are replaced at once take no random numbers from the caller
        layer = nn.Conv2d(len(mean), len(mean), 1).requires_grad_(requires_grad=False)
    layer.weight.copy_(matrix[:, :, None, None])
    assert layer.bias is not None
    layer.bias.copy_(-(matrix @ mean))
    return layer
