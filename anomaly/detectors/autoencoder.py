"""Autoencoder on pixels: what a network trained on normal images cannot reconstruct is anomalous.

The anomaly map is the difference between image and reconstruction in the same measure that the network was trained with
(see `autoencoder_residuals`), standardised by what is normal at each position (see `levels`).

Sources: Cai et al., MedIAnomaly (arXiv 2404.04518) for what matters: a small bottleneck, corrupted input and a
perceptual measure; the networks' own in `autoencoder_networks`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from anomaly.backbones import Backbone, BackboneSpec, Provenance, load_backbone, restore_backbone
from anomaly.catalog import build
from anomaly.detector import Detector, Scorer, Scores
from anomaly.detectors.autoencoder_networks import KINDS, Architecture, Kind, Reconstructor, coarse_noise, working_size
from anomaly.detectors.autoencoder_residuals import (
    MEASURES,
    L1Residual,
    Measure,
    PerceptualResidual,
    Residual,
    SSIMResidual,
    feature_scale,
)
from anomaly.detectors.canvas_store import CanvasStore
from anomaly.detectors.embedding import top_mean, upsampling_matrix
from anomaly.detectors.levels import SAMPLED, level_map
from anomaly.errors import ArtifactError, SettingError
from anomaly.images.augmentation import Augmentation, augment
from anomaly.input_spec import Canvas, Images, InputSpec, resize_matrix
from anomaly.training import TrainingSettings, batch_indices, device, train

_BACKBONE = "residual.backbone.network."
_READ = 16


@dataclass(frozen=True, kw_only=True)
class AutoencoderDetector(Detector):
    """Reconstruction error of an autoencoder.

    Memory of a fit: the network, its optimiser and one batch; the images wait on disk, 4 bytes a value at `resolution`.

    Attributes:
        network: "plain" (codes on a coarse grid), "variational" (one code vector with a prior) or "denoising" (a U-Net
            without bottleneck, for which `noise` must be above 0).
        measure: "l1", "ssim" or "perceptual": the loss, and the anomaly map.
        backbone: whose features "perceptual" compares; not used by the others.
        resolution: the canvas is shrunk to about resolution x resolution pixels of area; never enlarged.
        widths: channels after each halving of the resolution, 2 to 6 of them.
        code: values in the bottleneck of an image (plain: at least one in each cell of the coarsest grid).
        noise: largest standard deviation of the coarse noise that the network must remove in training, in units of the
            value range.
        noise_cell: side of a cell of that noise in pixels of `resolution`.
        prior: weight of the divergence from the prior of "variational"; 1 is the evidence bound with unit scale.
        augmentation: how normal images are varied while the network is trained.
        steps: optimiser steps.
        batch: images in a step.
        learning_rate: peak learning rate.
        top_fraction: the image score is the mean over this fraction of the cells of the map, the highest ones.
        smoothing: standard deviation in canvas pixels of the Gaussians that smooth the residual and the map; 0
            switches them off.
        relative: standardise each cell by mean and deviation of what normal images have at its position.
    """

    name: ClassVar[str] = "autoencoder"

    network: Kind = "plain"
    measure: Measure = "perceptual"
    backbone: BackboneSpec = field(default_factory=BackboneSpec)
    resolution: int = 96
    widths: tuple[int, ...] = (16, 32, 64, 128)
    code: int = 64
    noise: float = 0.35
    noise_cell: int = 8
    prior: float = 0.01
    augmentation: Augmentation = field(default_factory=Augmentation)
    steps: int = 600
    batch: int = 8
    learning_rate: float = 2e-3
    top_fraction: float = 0.01
    smoothing: float = 4.0
    relative: bool = True

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        for name, allowed, good in (
            ("network", f"one of {', '.join(KINDS)}", self.network in KINDS),
            ("measure", f"one of {', '.join(MEASURES)}", self.measure in MEASURES),
            ("resolution", "32 to 1024 pixels", 32 <= self.resolution <= 1024),
            ("widths", "2 to 6 numbers, 1 to 1024 each", _are_widths(self.widths)),
            ("code", "1 or more", self.code >= 1),
            ("noise", "0 to 1", 0 <= self.noise <= 1),
            ("noise", "above 0 for the denoising network", self.noise > 0 or self.network != "denoising"),
            ("noise_cell", "1 to 256 pixels", 1 <= self.noise_cell <= 256),
            ("prior", "0 or more", self.prior >= 0),
            ("batch", "2 or more", self.batch >= 2),
            ("top_fraction", "above 0 and at most 1", 0 < self.top_fraction <= 1),
            ("smoothing", "0 to 100 canvas pixels", 0 <= self.smoothing <= 100),
        ):
            if not good:
                raise SettingError.of(self.name, name, allowed, getattr(self, name))
        self.training()

    def training(self) -> TrainingSettings:
        """Returns the settings of the training."""
        return TrainingSettings(steps=self.steps, learning_rate=self.learning_rate, seed=self.seed)

    @property
    def working(self) -> tuple[int, int]:
        """Height and width in pixels that the network works on."""
        height, width = working_size(self.input.size, self.resolution, len(self.widths))
        return height, width

    def architecture(self) -> Architecture:
        """Returns what the network is built from."""
        return Architecture(self.network, self.working, self.input.channels, self.widths, self.code)

    def fit(self, images: Iterable[Images]) -> "AutoencoderScorer":
        """Trains the network on images that wait on disk, then measures the levels. See `Detector.fit`."""
        store, sizes = self._store(images)
        with torch.inference_mode(False), torch.enable_grad():  # a caller may have switched gradients off
            scorer = self._untrained(store).to(device())

            def read(indices: list[int]) -> Canvas:
                return Canvas(store.read(indices).pixels.to(device()), tuple(sizes[i] for i in indices))

            def loss_at(step: int) -> Tensor:
                return scorer.loss(read(batch_indices(step, self.batch, len(store), self.seed)))

            trained = train(scorer.reconstructor, loss_at, self.training())
        scorer.reconstructor.load_state_dict(trained.state_dict())
        scorer.eval().requires_grad_(False)
        if self.relative:
            sample = _spaced(len(store))
            parts = [scorer.cells(read(sample[i : i + _READ])) for i in range(0, len(sample), _READ)]
            scorer.level = level_map(
                torch.cat([cells for cells, _ in parts]), torch.cat([inside for _, inside in parts])
            )
        return scorer.cpu()

    def _untrained(self, store: CanvasStore) -> "AutoencoderScorer":
        backbone = load_backbone(self.backbone) if self.measure == "perceptual" else None
        scale = feature_scale(backbone, store.read(_spaced(len(store))).pixels) if backbone else None
        settings = replace(self, backbone=backbone.spec) if backbone else self
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            return AutoencoderScorer(settings, settings.residual(backbone, scale))

    def residual(self, backbone: Backbone | None, scale: Tensor | None) -> Residual:
        """Returns the measure; "perceptual" needs backbone and scale of the features."""
        if self.measure == "l1":
            return L1Residual()
        if self.measure == "ssim":
            return SSIMResidual(self.working)
        assert backbone is not None
        assert scale is not None
        return PerceptualResidual(backbone, scale)

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> "AutoencoderScorer":
        """Builds the networks and loads their weights. See `Detector.restore`."""
        expected = {"backbone"} if self.measure == "perceptual" else set()
        if set(description) != expected:
            raise ArtifactError(f"description of {self.name} must hold {sorted(expected)}; got {sorted(description)}")
        backbone = None
        if expected:
            weights = {k.removeprefix(_BACKBONE): v for k, v in state.items() if k.startswith(_BACKBONE)}
            backbone = restore_backbone(self.backbone, build(Provenance, description["backbone"]), weights)
        scorer = AutoencoderScorer(self, self.residual(backbone, state.get("residual.scale")))
        try:
            scorer.load_state_dict(dict(state), strict=True)
        except RuntimeError as error:
            raise ArtifactError(f"the state does not fit {self.name}: {error}") from None
        return scorer.requires_grad_(False)

    def _store(self, images: Iterable[Images]) -> tuple[CanvasStore, list[tuple[int, int]]]:
        """Writes the images down at the size that the network works on; returns them with the sizes they cover."""
        sizes: list[tuple[int, int]] = []
        shrink = Shrink(self)

        def shrunk() -> Iterable[Images]:
            for batch in images:
                with torch.no_grad():
                    canvas = shrink(self.input.canvas(batch))
                sizes.extend(canvas.sizes)
                yield canvas.pixels.clamp(0, 1)

        spec = InputSpec(
            channels=self.input.channels,
            dtype="float32",
            value_range=(0.0, 1.0),
            size=self.working,
            resize="stretch",
        )
        return CanvasStore(spec, shrunk()), sizes


class AutoencoderScorer(Scorer):
    """Scores images by what their reconstruction lacks."""

    level: Tensor

    def __init__(self, detector: AutoencoderDetector, residual: Residual) -> None:
        """Builds the network with random weights from torch's global generator."""
        super().__init__(detector)
        self.settings = detector
        self.residual = residual
        self.reconstructor = Reconstructor(detector.architecture())
        self.shrink = Shrink(detector)
        canvas, size = detector.input.size, self.reconstructor.architecture.size
        with torch.no_grad():
            grid = residual(*[torch.zeros(1, detector.input.channels, *size)] * 2).shape[1:]
        sigma = detector.smoothing * math.sqrt(math.prod(grid) / math.prod(canvas))
        self.smooth = AlongAxes(*(upsampling_matrix(cells, cells, sigma) for cells in grid))
        self.enlarge = AlongAxes(
            *(upsampling_matrix(*sides, detector.smoothing) for sides in zip(grid, canvas, strict=True))
        )
        self.register_buffer("level", torch.stack([torch.zeros(grid), torch.ones(grid)]))

    def description(self) -> dict[str, Any]:
        """Returns the provenance of the backbone of a perceptual measure."""
        if isinstance(self.residual, PerceptualResidual):
            return {"backbone": asdict(self.residual.backbone.provenance)}
        return {}

    def loss(self, canvas: Canvas) -> Tensor:
        """Returns the loss of a batch at the working size, with noise and augmentation from the global generator."""
        settings = self.settings
        images = augment(canvas.pixels, settings.augmentation)
        corrupted = coarse_noise(images, settings.noise, settings.noise_cell)
        reconstructions, divergence = self.reconstructor(corrupted)
        residual = self.residual(images, reconstructions)
        inside = canvas.inside((residual.shape[1], residual.shape[2])).to(residual)
        error = (residual * inside).sum() / inside.sum()
        loss: Tensor = error + settings.prior * divergence.mean() / images[0].numel()
        return loss

    def reconstruct(self, images: Images) -> Float[Tensor, "n c h w"]:
        """Returns what the network makes of raw frames, at the size that it works on, values in about [0, 1]."""
        canvas = self.shrink(self.input.canvas(images))
        reconstructions: Tensor = self.reconstructor(canvas.pixels)[0]
        return reconstructions

    def cells(self, canvas: Canvas) -> tuple[Float[Tensor, "n gh gw"], Bool[Tensor, "_ gh gw"]]:
        """Returns the smoothed residual of each cell, not yet standardised, and which cells lie on the image.

        Args:
            canvas: images at the working size.
        """
        residual: Tensor = self.residual(canvas.pixels, self.reconstructor(canvas.pixels)[0])
        inside = canvas.inside((residual.shape[1], residual.shape[2]))
        if canvas.padded:  # which has no part in what is beside it
            residual = self.smooth(residual * inside) / self.smooth(inside.to(residual)).clamp(min=1e-6)
        else:
            residual = self.smooth(residual)
        return residual, inside

    def score_canvas(self, canvas: Canvas) -> Scores:
        """Scores images that lie on the canvas already."""
        residual, inside = self.cells(self.shrink(canvas))
        cells = (residual - self.level[0]) / self.level[1]
        anomaly_map: Tensor = self.enlarge(cells)
        if canvas.padded:
            covered = canvas.inside(self.input.size)
            lowest = anomaly_map.masked_fill(~covered, torch.inf).amin(dim=(1, 2), keepdim=True)
            anomaly_map = torch.where(covered, anomaly_map, lowest)
        return Scores(top_mean(cells, self.settings.top_fraction, inside if canvas.padded else None), anomaly_map)


class AlongAxes(nn.Module):
    """A linear map along the rows and one along the columns, as two matrix products that every runtime has."""

    rows: Tensor
    columns: Tensor

    def __init__(self, rows: Float[Tensor, "th h"], columns: Float[Tensor, "tw w"]) -> None:
        """Keeps the matrices; they follow from the settings and are not stored."""
        super().__init__()
        self.register_buffer("rows", rows.clone(), persistent=False)
        self.register_buffer("columns", columns.T.clone(), persistent=False)

    def forward(self, x: Float[Tensor, "*n h w"]) -> Float[Tensor, "*n th tw"]:
        """Maps height and width."""
        mapped: Tensor = self.rows @ x @ self.columns
        return mapped


class Shrink(nn.Module):
    """From the canvas to the size that the network works on, antialiased."""

    def __init__(self, detector: AutoencoderDetector) -> None:
        """Makes the matrices of the resize."""
        super().__init__()
        self.factors = [side / full for side, full in zip(detector.working, detector.input.size, strict=True)]
        pairs = zip(detector.input.size, detector.working, strict=True)
        self.resize = AlongAxes(*(resize_matrix(full, side) for full, side in pairs))

    def forward(self, canvas: Canvas) -> Canvas:
        """Resizes the canvas and scales the sizes of its images alike."""
        high, wide = self.factors
        sizes = tuple((max(1, round(h * high)), max(1, round(w * wide))) for h, w in canvas.sizes)
        return Canvas(self.resize(canvas.pixels), sizes)


def _spaced(count: int) -> list[int]:
    return [round(i) for i in torch.linspace(0, count - 1, min(SAMPLED, count)).tolist()]


def _are_widths(widths: tuple[int, ...]) -> bool:
    return 2 <= len(widths) <= 6 and all(1 <= width <= 1024 for width in widths)
