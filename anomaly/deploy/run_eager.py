"""The model file itself, run by PyTorch: the reference that every export is compared with. Needs the whole suite."""

from pathlib import Path

import numpy as np
import torch

from anomaly.artifact import Artifact
from anomaly.artifact import load as load_artifact
from anomaly.deploy.graph import describe
from anomaly.deploy.manifest import DECISIONS, Frame, Frames
from anomaly.deploy.runtime import Runtime, Scores
from anomaly.errors import DeviceError, SettingError

_ANY_NUMBER = 64


class EagerRuntime(Runtime):
    """A scorer in PyTorch, judged by its calibration in float64."""

    def __init__(self, artifact: Artifact, frame: Frame | None = None, device: str = "cpu") -> None:
        """Wraps a model.

        Args:
            artifact: the model; its scorer is moved to the device.
            frame: the frames to take; by default (N, C, H, W) of any size, 64 at once at most.
            device: "cpu", "cuda" or "cuda:N".
        """
        spec = artifact.scorer.input
        frame = frame or Frame(
            channels=spec.channels,
            height=None,
            width=None,
            dtype=spec.dtype,
            value_range=spec.value_range,
            unit=spec.unit,
            batch=(1, _ANY_NUMBER),
        )
        super().__init__(describe(artifact, frame, "eager", "fp32", {}), device)
        self.artifact = artifact
        self._scorer = artifact.scorer.to(device).eval()

    @classmethod
    def open(cls, path: Path, device: str, provider: str | None, threads: int | None) -> "EagerRuntime":
        """Loads a model file; a provider compiles it for the GPU. See `load`."""
        kind, _, number = device.partition(":")
        if kind not in ("cpu", "cuda") or (number and not number.isdigit()):
            raise SettingError.of("load", "device", "'cpu', 'cuda' or 'cuda:N' for a .safetensors file", device)
        if kind == "cuda" and not torch.cuda.is_available():
            raise DeviceError("PyTorch finds no CUDA device here: check driver and PyTorch build, or use device 'cpu'")
        if threads is not None:
            torch.set_num_threads(threads)
        if provider is None:
            return cls(load_artifact(path), device=device)
        from anomaly.deploy.run_fast import WAYS, FastRuntime

        if provider not in WAYS or kind != "cuda":
            allowed = f"None, or {', '.join(WAYS)} on device 'cuda', for a .safetensors file"
            raise SettingError.of("load", "provider", allowed, f"{provider}' on '{device}")
        return FastRuntime(load_artifact(path), provider, device)

    def covered(self, height: int, width: int) -> tuple[int, int]:
        """Returns height and width in pixels of the map that a frame of `height` x `width` covers."""
        return self.artifact.scorer.input.covered(height, width)

    def run(self, batch: Frames) -> Scores:
        """Runs the scorer and its calibration."""
        images = batch if self.frame.layout == "NCHW" else batch.transpose(0, 3, 1, 2)
        with torch.inference_mode():
            # A copy, because PyTorch has no read-only tensors.
            scores = self._scorer(torch.from_numpy(images.copy()).to(self.running_on))
        return self.judged(scores.score.cpu().numpy(), scores.map.cpu().numpy())

    def judged(self, score: Frames, anomaly_map: Frames) -> Scores:
        """Returns scores and maps with their p-values and decisions."""
        calibration = self.artifact.calibration
        codes = [DECISIONS.index(decision.value) for decision in calibration.decide_all(score)]
        return Scores(
            score,
            anomaly_map,
            calibration.p_value(score).astype(np.float32),
            np.array(codes, dtype=np.int32),
        )
