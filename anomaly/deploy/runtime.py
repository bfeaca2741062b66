"""The contract of a runtime: raw frames in as numpy arrays, `Scores` out, whatever runs the model.

This module needs the standard library and numpy alone. One small file per runtime defines how a batch is run
(`run_eager`, `run_onnx`, `run_openvino`, `run_tensorrt`); everything else is the same for all of them and lies here.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomaly.deploy.manifest import DECISIONS, OUTPUTS, Frame, Frames, Manifest
from anomaly.errors import ArtifactError, SettingError, UnknownNameError

RUNTIMES = {
    ".engine": "anomaly.deploy.run_tensorrt:TensorRtRuntime",
    ".onnx": "anomaly.deploy.run_onnx:OnnxRuntime",
    ".plan": "anomaly.deploy.run_tensorrt:TensorRtRuntime",
    ".safetensors": "anomaly.deploy.run_eager:EagerRuntime",
    ".xml": "anomaly.deploy.run_openvino:OpenVinoRuntime",
}
"""Suffix of a model file -> runtime, imported on demand."""


class Scores(NamedTuple):
    """Scores of N frames.

    Attributes:
        score: (N,) float32 anomaly scores, raw and unbounded, higher is more anomalous.
        map: (N, H, W) float32 anomaly maps on the canvas.
        p_value: (N,) float32, share of normal units that score at least as high.
        decision: (N,) int32 codes: 0 OK, 1 REVIEW, 2 NG.
    """

    score: npt.NDArray[np.float32]
    map: npt.NDArray[np.float32]
    p_value: npt.NDArray[np.float32]
    decision: npt.NDArray[np.int32]

    @property
    def decisions(self) -> list[str]:
        """The decisions in words: "OK", "REVIEW" or "NG"."""
        return [DECISIONS[code] for code in self.decision]

    @classmethod
    def of(cls, values: Sequence[Any]) -> "Scores":
        """Returns the outputs of a run in their types; copies nothing that has its type already."""
        score, anomaly_map, p_value = (np.asarray(value, np.float32) for value in values[:3])
        return cls(score, anomaly_map, p_value, np.asarray(values[3], np.int32))

    @classmethod
    def joined(cls, parts: Sequence["Scores"]) -> "Scores":
        """Returns the scores of several batches as those of one."""
        return parts[0] if len(parts) == 1 else cls.of([np.concatenate(values) for values in zip(*parts, strict=True)])

    def first(self, count: int) -> "Scores":
        """Returns the scores of the first `count` frames."""
        return Scores.of([values[:count] for values in self])


class Runtime(ABC):
    """A loaded model. Calls are thread-safe, never keep or change the frames, and never reuse the arrays they return.

    Attributes:
        manifest: what the model says of itself.
        running_on: what really runs the model, e.g. "CPUExecutionProvider".
    """

    def __init__(self, manifest: Manifest, running_on: str) -> None:
        """Keeps what every runtime knows."""
        self.manifest = manifest
        self.running_on = running_on

    @property
    def frame(self) -> Frame:
        """The frames that the model takes."""
        return self.manifest.frame

    def __call__(self, frames: Any) -> Scores:
        """Scores raw frames.

        Args:
            frames: one frame or a batch of any length, exactly as `frame` declares; see `Frame.batch_of`.

        Raises:
            InputError: the frames are not as declared; the message says what is expected.
        """
        batch = self.frame.batch_of(frames)
        fewest, most = self.frame.batch
        parts = [self._padded(batch[start : start + most], fewest) for start in range(0, len(batch), most)]
        return Scores.joined(parts)

    def warm_up(self, runs: int = 2) -> None:
        """Runs the model on frames of the lowest value, with the fewest and the most frames that it takes.

        The first run of a model may take much longer than the rest: do this before the line starts.
        """
        for count in sorted(set(self.frame.batch)):
            for _ in range(runs):
                self(self.example(count))

    def example(self, count: int = 1) -> Frames:
        """Returns `count` frames of the lowest value; where any size is taken, of the size of the canvas."""
        height, width = self.manifest.canvas
        shape = tuple({"H": height, "W": width}.get(side, side) for side in self.frame.shape(count))
        return np.full(shape, self.frame.value_range[0], dtype=self.frame.dtype)

    def covered(self, height: int, width: int) -> tuple[int, int]:
        """Returns height and width in pixels of the map that a frame of `height` x `width` covers."""
        assert self.manifest.covered is not None  # a runtime that takes frames of any size overrides this
        return self.manifest.covered

    def _padded(self, batch: Frames, fewest: int) -> Scores:
        """Runs a batch that may be shorter than the model allows; repeated frames change nothing for the others."""
        missing = fewest - len(batch)
        if missing <= 0:
            return self.run(batch)
        return self.run(np.concatenate([batch, np.repeat(batch[-1:], missing, axis=0)])).first(len(batch))

    @abstractmethod
    def run(self, batch: Frames) -> Scores:
        """Runs the model once; `batch` is checked and has a length that the model takes. Must be thread-safe."""


def load(path: Path | str, *, device: str = "cpu", provider: str | None = None, threads: int | None = None) -> Runtime:
    """Loads a model file and warms it up.

    Args:
        path: .onnx (ONNX Runtime), .xml (OpenVINO), .engine or .plan (TensorRT, device "cuda") or .safetensors (the
            model itself, in PyTorch).
        device: "cpu", "cuda" or "cuda:1"; for OpenVINO any of its devices, e.g. "gpu", "npu" or "auto".
        provider: for ONNX Runtime "cpu", "cuda" or "tensorrt"; by default what the device suggests. For a model file on
            "cuda" None, or "compile", "compile-fp16" or "compile-bf16", which compile it and check its parity.
        threads: threads of the CPU that one run uses; None leaves the choice to the runtime.

    Raises:
        ArtifactError: the file is missing, damaged or not of this suite.
        DeviceError: what was asked for is not there, or another device would run the model in its place.
        MissingExtraError: the package of the runtime is not installed; says how to install it.
        SettingError: an argument is not allowed.
    """
    path = Path(path)
    if path.suffix not in RUNTIMES:
        raise UnknownNameError.among("kind of model file", path.suffix, RUNTIMES)
    if not path.is_file():
        raise ArtifactError(f"no model file at {path}")
    if threads is not None and threads < 1:
        raise SettingError.of("load", "threads", "1 or more", threads)
    module, _, name = RUNTIMES[path.suffix].partition(":")
    opened: Runtime = getattr(import_module(module), name).open(path, device.lower(), provider, threads)
    opened.warm_up(1)
    return opened


def named(outputs: Sequence[str], path: Path) -> None:
    """Checks the outputs of a model file.

    Raises:
        ArtifactError: they are not `OUTPUTS`.
    """
    if tuple(outputs) != OUTPUTS:
        raise ArtifactError(f"{path} must have the outputs {', '.join(OUTPUTS)}; got {', '.join(outputs)}")
