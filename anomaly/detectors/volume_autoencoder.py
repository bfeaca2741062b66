"""Autoencoder on volumes (CT, MR): trained on patches of normal volumes, slid over a volume to score it.

The networks and residuals are those of the autoencoder on images, in three dimensions; windows overlap and are blended
by MONAI's `sliding_window_inference`. Volumes lie anywhere, so residuals are standardised by what is normal at edges as
steep (see `edge_levels`), not by position.

Source: Kascenas, Pugeault, O'Neil, Denoising Autoencoders for Unsupervised Anomaly Detection in Brain MRI, MIDL 2022.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from anomaly.detector import Detector, Scorer, Scores
from anomaly.detectors.autoencoder_networks import KINDS, Architecture, Kind, Reconstructor, coarse_noise
from anomaly.detectors.autoencoder_residuals import L1Residual, Residual, SSIMResidual
from anomaly.detectors.edge_levels import KNOTS, edge_levels, relative_to_edges, steepness
from anomaly.detectors.embedding import upsampling_matrix
from anomaly.detectors.volume_store import VolumeStore
from anomaly.errors import ArtifactError, SettingError
from anomaly.training import TrainingSettings, batch_indices, device, train
from anomaly.volume_spec import Volumes, VolumeSpec

_SAMPLED, _VOXELS = 16, 100_000
_WINDOWS = 4


@dataclass(frozen=True, kw_only=True)
class VolumeAutoencoderDetector(Detector):
    """Reconstruction error of an autoencoder in three dimensions.

    Memory of a fit: the network, its optimiser, one batch of patches and one volume; the volumes wait on disk.

    Attributes:
        input: the raw volumes that the scorer will accept.
        network: "denoising" (a U-Net without bottleneck, for which `noise` must be above 0), "plain" or "variational".
        measure: "l1" or "ssim": the loss, and the anomaly map.
        patch: depth, height and width in voxels of a patch, multiples of 2 ** len(widths).
        widths: channels after each halving of the resolution, 2 to 6 of them.
        code: values in the bottleneck of a patch (plain and variational).
        noise: largest standard deviation of the coarse noise that the network must remove in training, in units of the
            value range.
        noise_cell: side of a cell of that noise in voxels.
        prior: weight of the divergence from the prior of "variational".
        steps: optimiser steps.
        batch: patches in a step.
        learning_rate: peak learning rate.
        overlap: share of a patch that neighbouring windows have in common.
        top_fraction: the score of a volume is the mean over this fraction of its voxels, the highest ones.
        smoothing: standard deviation in voxels of the Gaussian that smooths the residual; 0 switches it off.
    """

    name: ClassVar[str] = "volume_autoencoder"

    input: VolumeSpec = field(default_factory=VolumeSpec)  # type: ignore[assignment]  # see `volume_spec`
    network: Kind = "denoising"
    measure: Literal["l1", "ssim"] = "l1"
    patch: tuple[int, int, int] = (16, 64, 64)
    widths: tuple[int, ...] = (16, 32, 64)
    code: int = 256
    noise: float = 0.4
    noise_cell: int = 8
    prior: float = 0.01
    steps: int = 600
    batch: int = 4
    learning_rate: float = 2e-3
    overlap: float = 0.25
    top_fraction: float = 0.001
    smoothing: float = 1.0

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        step = 2 ** len(self.widths)
        for name, allowed, good in (
            ("network", f"one of {', '.join(KINDS)}", self.network in KINDS),
            ("measure", "'l1' or 'ssim'", self.measure in ("l1", "ssim")),
            ("widths", "2 to 6 numbers, 1 or more each", 2 <= len(self.widths) <= 6 and min(self.widths) >= 1),
            ("patch", f"three multiples of {step}", all(s > 0 and s % step == 0 for s in self.patch)),
            ("code", "1 or more", self.code >= 1),
            ("noise", "0 to 1", 0 <= self.noise <= 1),
            ("noise", "above 0 for the denoising network", self.noise > 0 or self.network != "denoising"),
            ("noise_cell", "1 to 256 voxels", 1 <= self.noise_cell <= 256),
            ("prior", "0 or more", self.prior >= 0),
            ("batch", "2 or more", self.batch >= 2),
            ("overlap", "0 or more and below 1", 0 <= self.overlap < 1),
            ("top_fraction", "above 0 and at most 1", 0 < self.top_fraction <= 1),
            ("smoothing", "0 to 100 voxels", 0 <= self.smoothing <= 100),
        ):
            if not good:
                raise SettingError.of(self.name, name, allowed, getattr(self, name))
        self.training()

    def training(self) -> TrainingSettings:
        """Returns the settings of the training."""
        return TrainingSettings(steps=self.steps, learning_rate=self.learning_rate, seed=self.seed)

    def fit(self, images: Iterable[Volumes]) -> "VolumeAutoencoderScorer":
        """Trains on patches of volumes that wait on disk. See `Detector.fit`; batches are (N, C, D, H, W)."""
        store = VolumeStore(self.input, images)
        with torch.inference_mode(False), torch.enable_grad():  # a caller may have switched gradients off
            with torch.random.fork_rng():
                torch.manual_seed(self.seed)
                scorer = VolumeAutoencoderScorer(self).to(device())

            def loss_at(step: int) -> Tensor:
                chosen = batch_indices(step, self.batch, len(store), self.seed)
                return scorer.loss(store.patches(chosen, self.patch).to(device()))

            trained = train(scorer.reconstructor, loss_at, self.training())
        scorer.reconstructor.load_state_dict(trained.state_dict())
        scorer.eval().requires_grad_(False)
        scorer.level = self._level(scorer, store)
        return scorer.cpu()

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> "VolumeAutoencoderScorer":
        """Builds the network and loads its weights. See `Detector.restore`."""
        if description:
            raise ArtifactError(f"description of {self.name} must be empty; got {sorted(description)}")
        scorer = VolumeAutoencoderScorer(self)
        try:
            scorer.load_state_dict(dict(state), strict=True)
        except RuntimeError as error:
            raise ArtifactError(f"the state does not fit {self.name}: {error}") from None
        return scorer.requires_grad_(False)

    @staticmethod
    def _level(scorer: "VolumeAutoencoderScorer", store: VolumeStore) -> Tensor:
        sample = torch.linspace(0, len(store) - 1, min(_SAMPLED, len(store))).round().int().tolist()
        steeps, residuals = [], []
        for index in sample:
            residual, steep = scorer.residual_map(store.read(index).to(device()))
            stride = max(1, residual.numel() // _VOXELS)
            steeps.append(steep.flatten()[::stride].cpu())
            residuals.append(residual.flatten()[::stride].cpu())
        return edge_levels(torch.cat(steeps), torch.cat(residuals))


class VolumeAutoencoderScorer(Scorer):
    """Scores volumes by what their reconstruction lacks; `Scores.map` is (N, D, H, W)."""

    level: Tensor

    def __init__(self, detector: VolumeAutoencoderDetector) -> None:
        """Builds the network with random weights from torch's global generator."""
        super().__init__(detector)
        self.settings = detector
        kind, size, channels = detector.network, detector.patch, detector.input.channels
        self.reconstructor = Reconstructor(Architecture(kind, size, channels, detector.widths, detector.code))
        self.residual: Residual = L1Residual() if detector.measure == "l1" else SSIMResidual(size)
        self.register_buffer("level", torch.stack([torch.linspace(0, 1, KNOTS), torch.zeros(KNOTS), torch.ones(KNOTS)]))

    @property
    def input(self) -> VolumeSpec:  # type: ignore[override]  # see `volume_spec`
        """The raw volumes that the scorer accepts."""
        return self.settings.input

    def forward(self, images: Volumes) -> Scores:
        """Scores raw volumes.

        Args:
            images: (N, C, D, H, W), or a sequence of (C, D, H, W); values as `VolumeSpec` declares them. The map holds
                one value per voxel of the largest volume; beyond a smaller one it is that volume's smallest value.

        Raises:
            InputError: the volumes do not fit the `VolumeSpec`.
        """
        spec = self.settings.input
        maps = [relative_to_edges(*self.residual_map(volume), self.level) for volume in spec.windowed(images)]
        shape = [max(m.shape[axis] for m in maps) for axis in range(3)]
        whole = []
        for found in maps:
            frame = found.amin().expand(shape).clone()
            frame[tuple(slice(0, side) for side in found.shape)] = found
            whole.append(frame)
        return Scores(torch.stack([self._top(m) for m in maps]), torch.stack(whole))

    def score_canvas(self, canvas: Any) -> Scores:
        """Volumes have no canvas.

        Raises:
            TypeError: always; call the scorer.
        """
        raise TypeError("volumes are not put on a canvas; call the scorer with raw volumes")

    def loss(self, patches: Float[Tensor, "n c d h w"]) -> Tensor:
        """Returns the loss of windowed patches, with noise from the global generator."""
        settings = self.settings
        reconstructions, divergence = self.reconstructor(coarse_noise(patches, settings.noise, settings.noise_cell))
        error = self.residual(patches, reconstructions).mean()
        loss: Tensor = error + settings.prior * divergence.mean() / patches[0].numel()
        return loss

    def residual_map(self, volume: Float[Tensor, "c d h w"]) -> tuple[Float[Tensor, "d h w"], Float[Tensor, "d h w"]]:
        """Returns residual of a windowed volume and steepness of its reconstruction, smoothed, one value per voxel."""
        from monai.inferers import sliding_window_inference

        def window(patches: Tensor) -> Tensor:
            reconstructions = self.reconstructor(patches)[0]
            return torch.stack([self.residual(patches, reconstructions), reconstructions.mean(dim=1)], dim=1)

        # A network knows least at the border of a window: neighbours cover it, and beyond the volume its last values.
        margins = [math.ceil(self.settings.overlap * side / 2) for side in self.settings.patch]
        padding = [margin for margin in reversed(margins) for _ in range(2)]
        found = sliding_window_inference(
            F.pad(volume[None], padding, mode="replicate"),
            self.settings.patch,
            _WINDOWS,
            window,
            overlap=self.settings.overlap,
            mode="gaussian",
            padding_mode="replicate",
        )
        assert isinstance(found, Tensor)
        whole = tuple(slice(m, m + side) for m, side in zip(margins, volume.shape[1:], strict=True))
        residual, reconstruction = found[0][:, *whole]
        return self._smoothed(residual), self._smoothed(steepness(reconstruction))

    def _smoothed(self, values: Float[Tensor, "d h w"]) -> Float[Tensor, "d h w"]:
        for axis, side in enumerate(values.shape):
            kernel = upsampling_matrix(side, side, self.settings.smoothing).to(values)
            values = (values.movedim(axis, -1) @ kernel.T).movedim(-1, axis)
        return values

    def _top(self, anomaly_map: Tensor) -> Tensor:
        count = max(1, math.floor(self.settings.top_fraction * anomaly_map.numel()))
        return anomaly_map.flatten().topk(count).values.mean()
