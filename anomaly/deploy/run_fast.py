"""The model file in PyTorch on a GPU, as fast as PyTorch gets: channels last, half precision, one replayed CUDA graph.

`torch.compile` in mode "reduce-overhead" records a graph for each length of a batch. Its memory belongs to the thread
that recorded it, so all runs go through one thread. Half precision is only used if it keeps the parity of an export in
that precision: the scores are compared with those of the plain model on the same GPU before the first frame.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import torch

from anomaly.artifact import Artifact
from anomaly.deploy.frames import parity_frames
from anomaly.deploy.manifest import Frames
from anomaly.deploy.parity import BOUNDS, compare
from anomaly.deploy.run_eager import EagerRuntime
from anomaly.deploy.runtime import Scores
from anomaly.errors import ParityError

BATCH = 8
"""Frames of one run, where it is not one frame; shorter batches are filled up, so that only two graphs are recorded."""


class Way(NamedTuple):
    """How a model is run.

    Attributes:
        dtype: type of convolutions and products; None for that of the weights.
        bounds: key of `BOUNDS` that the scores must keep.
    """

    dtype: torch.dtype | None
    bounds: str


WAYS = {
    "compile": Way(None, "fp32"),
    "compile-fp16": Way(torch.float16, "fp16"),
    "compile-bf16": Way(torch.bfloat16, "fp16"),
}
"""Provider of a .safetensors file -> how it is run."""


class FastRuntime(EagerRuntime):
    """A scorer in PyTorch whose part behind the canvas is compiled; frames may have any size."""

    def __init__(self, artifact: Artifact, way: str, device: str, compiled: bool = True) -> None:
        """Prepares the model and compares it with the plain one.

        Args:
            artifact: the model; its scorer is moved to the device.
            way: name in `WAYS`.
            device: "cuda" or "cuda:N"; "cpu" for tests.
            compiled: False leaves out `torch.compile`.

        Raises:
            ParityError: the scores differ by more than an export in that precision may.
        """
        plain = EagerRuntime(artifact, device=device)
        frame = replace(plain.frame, batch=(1, BATCH))
        super().__init__(artifact, frame, device)
        self._dtype = WAYS[way].dtype
        height, width = self.manifest.canvas
        inputs = parity_frames(replace(frame, height=height, width=width), None)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="scorer")
        self._score: Any = artifact.scorer.score_canvas
        plain_scores = _Kept(plain, inputs)
        artifact.scorer.to(memory_format=torch.channels_last)
        if compiled:
            self._score = torch.compile(self._score, mode="reduce-overhead", dynamic=False)
        bounds = BOUNDS[WAYS[way].bounds]
        self.parity = compare(plain_scores, self, inputs, bounds.score_max)
        if problems := self.parity.beyond(bounds):
            raise ParityError(
                f"provider {way!r} on {device} would score other than the model: {'; '.join(problems)}. "
                "Load it without a provider"
            )

    def run(self, batch: Frames) -> Scores:
        """Runs the scorer in the one thread that owns the graphs, and judges its scores."""
        count = 1 if len(batch) == 1 else BATCH
        filled = np.concatenate([batch, np.repeat(batch[-1:], count - len(batch), axis=0)])
        score, anomaly_map = self._thread.submit(self._run, filled).result()
        return self.judged(score[: len(batch)], anomaly_map[: len(batch)])

    def _run(self, batch: Frames) -> tuple[Any, Any]:
        """Returns scores and maps as arrays of their own."""
        images = torch.from_numpy(batch if self.frame.layout == "NCHW" else batch.transpose(0, 3, 1, 2))
        on_gpu = self.running_on != "cpu"
        if on_gpu:
            images = images.pin_memory().to(self.running_on, non_blocking=True)
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        kind = self.running_on.partition(":")[0]
        with torch.inference_mode(), torch.autocast(kind, self._dtype, enabled=self._dtype is not None):
            canvas = self.artifact.scorer.input.canvas(images)
            canvas = canvas._replace(pixels=canvas.pixels.contiguous(memory_format=torch.channels_last))
            scores = self._score(canvas)
            return scores.score.float().cpu().numpy().copy(), scores.map.float().cpu().numpy().copy()


class _Kept(EagerRuntime):
    """The plain model's scores of some frames, taken before its weights are laid out anew."""

    def __init__(self, plain: EagerRuntime, inputs: dict[str, Frames]) -> None:
        super().__init__(plain.artifact, plain.frame, plain.running_on)
        frames = np.concatenate(list(inputs.values()))
        self._scores = {frame.tobytes(): plain(frame[None]) for frame in frames}

    def run(self, batch: Frames) -> Scores:
        return Scores.joined([self._scores[frame.tobytes()] for frame in batch])
