"""What the detectors on backbone features share: images -> patch features -> one score per patch -> map and score."""

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from anomaly.backbones import Backbone, BackboneSpec, Provenance, restore_backbone
from anomaly.catalog import build
from anomaly.detector import Detector, Scorer, Scores
from anomaly.detectors.few_shot import with_turned
from anomaly.detectors.levels import Batch, Sample, image_keys
from anomaly.errors import ArtifactError, InputError, SettingError
from anomaly.input_spec import Canvas, Images

_RGB = 3
_NETWORK = "backbone.network."


@dataclass(frozen=True, kw_only=True)
class EmbeddingDetector(Detector):
    """Settings that every detector on backbone features has.

    Attributes:
        backbone: the feature extractor and its layers.
        top_fraction: the image score is the mean over this fraction of its patches, the highest ones.
        smoothing: standard deviation in canvas pixels of the Gaussian that smooths the map; 0 switches it off.
        relative: standardise each patch score by mean and deviation of the scores that normal images have at its
            position (see `levels`); 0 is then "as usual here".
    """

    state_names: ClassVar[tuple[str, ...]]
    """Names of the tensors that a scorer of the family stores besides its backbone's."""

    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    top_fraction: float = 0.01
    smoothing: float = 4.0
    relative: bool = True

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 0 < self.top_fraction <= 1:
            raise SettingError.of(self.name, "top_fraction", "above 0 and at most 1", self.top_fraction)
        if not 0 <= self.smoothing <= 100:
            raise SettingError.of(self.name, "smoothing", "0 to 100 canvas pixels", self.smoothing)

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> "EmbeddingScorer":
        """Builds backbone and scorer from stored tensors. See `Detector.restore`."""
        if set(description) != {"backbone"}:
            raise ArtifactError(f"description of {self.name} must hold 'backbone'; got {sorted(description)}")
        weights = {key.removeprefix(_NETWORK): value for key, value in state.items() if key.startswith(_NETWORK)}
        own = {key: value for key, value in state.items() if not key.startswith(_NETWORK)}
        if set(own) != set(self.state_names):
            raise ArtifactError(f"state of {self.name} must hold {sorted(self.state_names)}; got {sorted(own)}")
        return self.rebuild(restore_backbone(self.backbone, build(Provenance, description["backbone"]), weights), own)

    @abstractmethod
    def rebuild(self, backbone: Backbone, state: Mapping[str, Tensor]) -> "EmbeddingScorer":
        """Builds the scorer from a loaded backbone and the tensors named in `state_names`."""

    def canvases(self, backbone: Backbone, images: Iterable[Images]) -> Iterator[Canvas]:
        """Yields the canvas of each batch.

        Raises:
            InputError: a batch does not fit `input`, or there is no image at all.
            SettingError: the canvas is not a multiple of the patches of a ViT.
        """
        if any(side % backbone.multiple for side in self.input.size):
            allowed = f"multiples of {backbone.multiple} for backbone {backbone.spec.name!r}"
            raise SettingError.of("InputSpec", "size", allowed, self.input.size)
        empty = True
        for batch in images:
            empty = False
            with torch.no_grad():  # never around the yield: the mode would leak into the caller
                canvas = self.input.canvas(batch)
            yield canvas
        if empty:
            raise InputError(f"{self.name} was given no image to fit on; at least one is needed")

    def stream(self, backbone: Backbone, images: Iterable[Images]) -> Iterator[Batch]:
        """Yields the features of each batch, in float32, with the hashes of its images; raises what `canvases` does."""
        for canvas in self.canvases(backbone, images):
            with torch.no_grad():
                features = embed(backbone, canvas)
            yield Batch(image_keys(canvas.pixels), features, canvas.inside((features.shape[1], features.shape[2])))


@dataclass(frozen=True, kw_only=True)
class OnePassDetector(EmbeddingDetector):
    """Settings that the detectors have which see each image once and train nothing.

    Attributes:
        few_images: a fit on at most this many images also learns their flips and half turns, and quarter turns where
            the canvas is square (see `few_shot`); 0 switches it off. Switch it off where a normal part seen mirrored
            or turned is a defect. Sums that are to be merged (`summarise`) never hold turned images.
    """

    few_images: int = 8

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        super().__post_init__()
        if not 0 <= self.few_images <= 64:
            raise SettingError.of(self.name, "few_images", "0 to 64 images", self.few_images)

    def enriched(self, images: Iterable[Images]) -> Iterator[Images]:
        """Yields the batches that a fit learns from: those given, and turned copies if there are few."""
        height, width = self.input.size
        return with_turned(images, self.few_images, square=height == width)

    def sample(self, backbone: Backbone, images: Iterable[Images]) -> Sample:
        """Returns the features of the images that levels are measured on; turned copies are among few.

        Raises:
            InputError: a batch does not fit `input`, or there is no image at all.
        """
        found: Sample | None = None
        for batch in self.stream(backbone, self.enriched(images)):
            found = batch.kept() if found is None else found.merge(batch.kept())
        assert found is not None
        return found


class EmbeddingScorer(Scorer):
    """Scores patches of backbone features; a family defines `patch_scores`."""

    level: Tensor

    def __init__(self, detector: EmbeddingDetector, backbone: Backbone, level: Tensor | None) -> None:
        """Keeps the backbone, whose weights are part of the learned state, and the levels (2, h, w) of the positions.

        Without levels (while they are being measured) every position counts alike.
        """
        super().__init__(detector)
        self.settings = detector
        self.backbone = backbone
        self.register_buffer("level", torch.tensor([[[0.0]], [[1.0]]]) if level is None else level)

    @abstractmethod
    def patch_scores(self, maps: list[Tensor]) -> Float[Tensor, "n h w"]:
        """Scores patches, before their positions are taken into account; higher is more anomalous.

        Args:
            maps: feature maps as `feature_maps` gives them, or one (N, D, h, w) map as `embed` does, channels first.
        """

    def description(self) -> dict[str, Any]:
        """Returns the provenance of the backbone."""
        return {"backbone": asdict(self.backbone.provenance)}

    def score_canvas(self, canvas: Canvas) -> Scores:
        """Scores images that lie on the canvas already."""
        patches = (self.patch_scores(feature_maps(self.backbone, canvas)) - self.level[0]) / self.level[1]
        height, width = canvas.pixels.shape[-2:]
        rows = upsampling_matrix(patches.shape[1], height, self.settings.smoothing).to(patches)
        columns = upsampling_matrix(patches.shape[2], width, self.settings.smoothing).to(patches)
        anomaly_map = rows @ patches @ columns.T
        inside = canvas.inside((patches.shape[1], patches.shape[2])) if canvas.padded else None
        if canvas.padded:
            covered = canvas.inside((height, width))
            lowest = anomaly_map.masked_fill(~covered, torch.inf).amin(dim=(1, 2), keepdim=True)
            anomaly_map = torch.where(covered, anomaly_map, lowest)
        return Scores(top_mean(patches, self.settings.top_fraction, inside), anomaly_map)


def feature_maps(backbone: Backbone, canvas: Canvas) -> list[Float[Tensor, "n _ _ _"]]:
    """Extracts the maps of the backbone's layers, each averaged over 3 x 3 neighbours as PatchCore does.

    Grey images are replicated to RGB. Images of other than 1 or 3 channels go through the backbone in groups of three
    channels (the last group is filled up by repeating the last channel) whose features are concatenated, so that no
    band is lost; the cost grows with the number of groups.

    Source: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022 (arXiv 2106.08265).
    """
    pixels = canvas.pixels
    n, channels, height, width = pixels.shape
    groups = math.ceil(channels / _RGB)
    if channels == 1:
        pixels = pixels.expand(n, _RGB, height, width)
    elif channels % _RGB:
        pixels = torch.cat([pixels, pixels[:, -1:].expand(n, _RGB * groups - channels, height, width)], dim=1)
    maps = backbone(pixels.reshape(n * groups, _RGB, height, width))
    pooled = [F.avg_pool2d(m, 3, stride=1, padding=1, count_include_pad=False) for m in maps]
    return [m.reshape(n, groups * m.shape[1], *m.shape[2:]) for m in pooled]


def embed(backbone: Backbone, canvas: Canvas) -> Float[Tensor, "n h w d"]:
    """Concatenates the feature maps on the finest grid: one vector of D values per patch."""
    maps = feature_maps(backbone, canvas)
    grid = finest(maps)
    return torch.cat([on_grid(m, grid) for m in maps], dim=1).permute(0, 2, 3, 1)


def project(maps: list[Tensor], matrix: Float[Tensor, "d m"], offset: Float[Tensor, " m"]) -> Float[Tensor, "n h w m"]:
    """Returns `features @ matrix + offset` for the features that `embed` gives, at a fraction of the cost."""
    return mix(maps, matrix, offset).permute(0, 2, 3, 1)


def mix(maps: list[Tensor], matrix: Float[Tensor, "d m"], offset: Float[Tensor, " m"]) -> Float[Tensor, "n m h w"]:
    """Returns what `project` does, channels first.

    Resizing a map and mixing its channels commute, so a coarse map is mixed on its own grid and resized afterwards.
    The product is written as a 1 x 1 convolution: runtimes keep feature maps in layouts of their own, and a matrix
    product would make them turn every map around.
    """
    grid = finest(maps)
    total: Tensor | None = None
    start = 0
    for m in maps:
        part = matrix[start : start + m.shape[1]].T[:, :, None, None]
        start += m.shape[1]
        mixed = F.conv2d(m, part, offset if total is None else None)
        total = on_grid(mixed, grid) if total is None else total + on_grid(mixed, grid)
    assert total is not None
    return total


def finest(maps: list[Tensor]) -> tuple[int, int]:
    """Returns rows and columns of the finest of some maps."""
    return max(m.shape[-2] for m in maps), max(m.shape[-1] for m in maps)


def on_grid(features: Float[Tensor, "n d _ _"], grid: tuple[int, int]) -> Float[Tensor, "n d h w"]:
    """Resizes maps bilinearly to a grid of (rows, columns)."""
    if tuple(features.shape[-2:]) == grid:
        return features
    return F.interpolate(features, size=grid, mode="bilinear", align_corners=False)


def top_mean(
    patches: Float[Tensor, "n h w"], fraction: float, inside: Bool[Tensor, "#n h w"] | None
) -> Float[Tensor, " n"]:
    """Returns the mean over the highest `fraction` of the patches of each image, at least one patch.

    Args:
        patches: one score per patch.
        fraction: above 0, at most 1.
        inside: which patches count, of each image or (1, h, w) of all; None for all patches.
    """
    flat = patches.flatten(1)
    most = max(1, round(fraction * flat.shape[1]))
    if inside is None:
        return flat.topk(most, dim=1).values.mean(dim=1)
    inside = inside.flatten(1)
    counts = (inside.sum(dim=1).double() * fraction).round().clamp(min=1).long()  # as Python rounds it above
    highest = flat.masked_fill(~inside, -torch.inf).topk(most, dim=1).values  # never fewer than counts
    chosen = torch.arange(highest.shape[1], device=flat.device) < counts[:, None]
    return torch.where(chosen, highest, 0.0).sum(dim=1) / counts


@torch.inference_mode(False)  # inference tensors would break every later gradient
def upsampling_matrix(source: int, target: int, smoothing: float) -> Float[Tensor, "target source"]:
    """Returns the (target, source) float32 matrix that resizes bilinearly and smooths with a Gaussian along one axis.

    Both are linear maps, so a map is upsampled and smoothed by two small matrix products instead of a large blur.
    The Gaussian is cut off at 4 standard deviations and reflected at the ends.
    """
    return torch.from_numpy(_upsampling(source, target, smoothing))


@lru_cache(maxsize=64)
def _upsampling(source: int, target: int, smoothing: float) -> npt.NDArray[np.float32]:
    """In numpy, because a tensor made while a graph is exported has no values, and would stay in the cache."""
    rows = np.arange(target)
    place = np.clip((rows + 0.5) * source / target - 0.5, 0, source - 1)
    below = np.minimum(place.astype(int), max(source - 2, 0))
    up = np.zeros((target, source))
    up[rows, below] = 1 - (place - below)
    up[rows, np.minimum(below + 1, source - 1)] += place - below
    if smoothing == 0:
        return up.astype(np.float32)
    offsets = np.arange(-(radius := math.ceil(4 * smoothing)), radius + 1)
    weights = np.exp(-0.5 * (offsets / smoothing) ** 2)
    positions = (rows[:, None] + offsets) % (2 * target)
    positions = np.where(positions < target, positions, 2 * target - 1 - positions)
    blur = np.zeros((target, target))
    np.add.at(blur, (rows[:, None], positions), weights / weights.sum())
    return (blur @ up).astype(np.float32)
