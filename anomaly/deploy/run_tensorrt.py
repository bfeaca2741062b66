"""TensorRT on a CUDA GPU. Needs numpy, tensorrt and cuda-bindings alone.

An engine runs on the TensorRT version and the kind of GPU that it was built with. Beside `part.engine` lies
`part.engine.json` with the manifest, the hash of the engine, and what it was built with: a plan has no place for them.
"""

import threading
from pathlib import Path
from typing import Any

import numpy as np

from anomaly.deploy import cuda
from anomaly.deploy.engines import Origin, read_engine
from anomaly.deploy.manifest import INPUT, OUTPUTS, Frames, Manifest
from anomaly.deploy.runtime import Runtime, Scores, named
from anomaly.errors import ArtifactError, DeviceError, MissingExtraError, SettingError

LENGTHS = 8
"""Lengths of a batch that are prepared at most; others are filled up to the next one."""


def import_tensorrt(number: int) -> tuple[Any, cuda.Gpu]:
    """Returns the package and a GPU; the GPU is looked for first, because TensorRT may crash without one.

    Raises:
        DeviceError: there is no such GPU.
        MissingExtraError: TensorRT or the bindings of CUDA are not installed.
    """
    gpu = cuda.find(number)
    try:
        import tensorrt
    except ImportError as error:
        raise MissingExtraError.of("tensorrt", "tensorrt", "TensorRT") from error
    return tensorrt, gpu


class TensorRtRuntime(Runtime):
    """An engine with one recorded run for each length of a batch. Calls wait for each other: the GPU is one."""

    def __init__(self, manifest: Manifest, engine: Any, gpu: cuda.Gpu, origin: Origin) -> None:
        """Prepares memory and records the runs.

        Args:
            manifest: what the engine says of itself.
            engine: ICudaEngine.
            gpu: where it runs.
            origin: what it was built with.

        Raises:
            DeviceError: the GPU has not enough memory, or a run fails.
        """
        self._gpu, self._engine = gpu, engine
        self._lock = threading.Lock()
        fewest, most = manifest.frame.batch
        self._lengths = lengths(fewest, most)
        gpu.select()
        self._contexts = {count: engine.create_execution_context() for count in self._lengths}
        self._replays = {count: self._prepared(manifest, count) for count in self._lengths}
        way = "CUDA graph" if all(replay.recorded for replay in self._replays.values()) else "without CUDA graph"
        super().__init__(manifest, f"{origin.in_words()}, {way}")

    @classmethod
    def open(cls, path: Path, device: str, provider: str | None, threads: int | None) -> "TensorRtRuntime":
        """Reads an engine and prepares it. See `load`; the threads of the CPU play no part."""
        kind, _, number = device.partition(":")
        if kind != "cuda" or (number and not number.isdigit()):
            raise SettingError.of("load", "device", f"'cuda' or 'cuda:N' for {path.name}", device)
        if provider is not None:
            raise SettingError.of("load", "provider", f"None for {path.name}", provider)
        tensorrt, gpu = import_tensorrt(int(number or 0))
        plan, origin, manifest = read_engine(path)
        here = Origin(tensorrt.__version__, gpu.name, gpu.capability)
        if origin != here:
            raise DeviceError(
                f"{path} was built with {origin.in_words()}; here is {here.in_words()}. Engines do not travel: "
                "export again on this machine"
            )
        gpu.select()
        runtime = tensorrt.Runtime(tensorrt.Logger(tensorrt.Logger.ERROR))
        engine = runtime.deserialize_cuda_engine(plan)
        if engine is None:
            raise ArtifactError(f"TensorRT cannot open {path}: export again on this machine")
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        outputs = [n for n in names if engine.get_tensor_mode(n) == tensorrt.TensorIOMode.OUTPUT]
        named([name for name in OUTPUTS if name in outputs], path)
        return cls(manifest, engine, gpu, origin)

    def run(self, batch: Frames) -> Scores:
        """Copies the batch into pinned memory, replays the run, and copies the results out of it."""
        count = next(length for length in self._lengths if length >= len(batch))
        replay = self._replays[count]
        with self._lock:
            self._gpu.select()
            frames = replay.inputs[INPUT].host
            frames[: len(batch)] = batch
            frames[len(batch) :] = batch[-1:]
            replay.run()
            return Scores.of([replay.outputs[name].host[: len(batch)].copy() for name in OUTPUTS])

    def close(self) -> None:
        """Gives the memory of the GPU back; the runtime cannot be called after it."""
        self._gpu.select()
        for replay in self._replays.values():
            replay.close()
        self._replays = {}

    def _prepared(self, manifest: Manifest, count: int) -> cuda.Replay:
        """Returns the recorded run of a batch of `count` frames; each has a context, whose shapes then stay."""
        context = self._contexts[count]
        inputs = {INPUT: cuda.Pair(manifest.frame.shape(count), manifest.frame.dtype)}
        inputs[INPUT].host[...] = manifest.frame.value_range[0]
        context.set_input_shape(INPUT, manifest.frame.shape(count))
        shapes = {"map": (count, *manifest.canvas)}
        outputs = {
            name: cuda.Pair(shapes.get(name, (count,)), np.int32 if name == "decision" else np.float32)
            for name in OUTPUTS
        }
        for name, pair in (inputs | outputs).items():
            context.set_tensor_address(name, pair.device)
        return cuda.Replay(inputs, outputs, context.execute_async_v3)


def lengths(fewest: int, most: int) -> list[int]:
    """Returns the lengths of a batch that are prepared: all, or `LENGTHS` of them spread evenly."""
    return sorted({int(n) for n in np.linspace(fewest, most, min(LENGTHS, most - fewest + 1)).round()})
