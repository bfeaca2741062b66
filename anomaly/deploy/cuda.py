"""The few calls of the CUDA runtime that TensorRT needs around it, through NVIDIA's own bindings (cuda-bindings).

TensorRT takes memory, streams and graphs as numbers. PyTorch could lend them, but the line must not need PyTorch.
"""

import ctypes
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from anomaly.errors import DeviceError, MissingExtraError


class Gpu(NamedTuple):
    """A GPU of this machine.

    Attributes:
        number: its place among the GPUs.
        name: e.g. "NVIDIA L4".
        capability: compute capability, e.g. "8.9".
    """

    number: int
    name: str
    capability: str

    def select(self) -> None:
        """Makes it the GPU of the calling thread."""
        _checked(_runtime().cudaSetDevice(self.number))


def find(number: int) -> Gpu:
    """Returns a GPU, and never crashes where there is none.

    Raises:
        DeviceError: there is no such GPU, or its driver cannot be used.
        MissingExtraError: the bindings are not installed.
    """
    runtime = _runtime()
    error, count = runtime.cudaGetDeviceCount()
    if int(error) or not count:
        raise DeviceError(
            f"no CUDA GPU can be used here ({error.name}): check the driver with nvidia-smi, or use the CPU through an "
            ".onnx or .xml export"
        )
    if not 0 <= number < count:
        raise DeviceError(f"device cuda:{number} is not there, only cuda:0 to cuda:{count - 1}")
    properties = _checked(runtime.cudaGetDeviceProperties(number))
    name = properties.name
    text = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    return Gpu(number, text.rstrip("\0"), f"{properties.major}.{properties.minor}")


class Pair:
    """A block of pinned memory of the host as an array, and as much memory of the GPU.

    Attributes:
        host: the array; copies from and to the GPU run beside the CPU because its pages are pinned.
        device: address on the GPU.
    """

    def __init__(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        """Allocates both; the GPU must be selected.

        Raises:
            DeviceError: there is not enough memory.
        """
        runtime = _runtime()
        self.bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        address = int(_checked(runtime.cudaMallocHost(self.bytes)))
        raw = (ctypes.c_uint8 * self.bytes).from_address(address)
        self.host: npt.NDArray[Any] = np.ctypeslib.as_array(raw).view(dtype).reshape(shape)
        self.device = int(_checked(runtime.cudaMalloc(self.bytes)))

    def upload(self, stream: Any) -> None:
        """Queues the copy to the GPU."""
        runtime = _runtime()
        kind = runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        _checked(runtime.cudaMemcpyAsync(self.device, self.host.ctypes.data, self.bytes, kind, stream))

    def download(self, stream: Any) -> None:
        """Queues the copy from the GPU."""
        runtime = _runtime()
        kind = runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        _checked(runtime.cudaMemcpyAsync(self.host.ctypes.data, self.device, self.bytes, kind, stream))

    def free(self) -> None:
        """Gives the memory back; the array must not be used after it."""
        runtime = _runtime()
        runtime.cudaFree(self.device)
        runtime.cudaFreeHost(self.host.ctypes.data)


class Replay:
    """Copy in, compute, copy out, recorded once as a CUDA graph and replayed with one call.

    Attributes:
        inputs: name -> memory of an input.
        outputs: name -> memory of an output.
        recorded: whether it is a graph; False where the work cannot be recorded and is queued anew each time.
    """

    def __init__(self, inputs: Mapping[str, Pair], outputs: Mapping[str, Pair], compute: Callable[[int], bool]) -> None:
        """Runs the work once, then records it; the GPU must be selected.

        Args:
            inputs: memory that is copied to the GPU before.
            outputs: memory that is copied from the GPU afterwards.
            compute: queues the computation on a stream, given as a number; returns whether that worked.

        Raises:
            DeviceError: the computation fails.
        """
        runtime = _runtime()
        self.inputs, self.outputs, self._compute = dict(inputs), dict(outputs), compute
        self._stream = _checked(runtime.cudaStreamCreateWithFlags(runtime.cudaStreamNonBlocking))
        self._queue()
        self._wait()
        self._graph = self._record()
        self.recorded = self._graph is not None

    def run(self) -> None:
        """Does the work and waits for it.

        Raises:
            DeviceError: it fails.
        """
        if self._graph is None:
            self._queue()
        else:
            _checked(_runtime().cudaGraphLaunch(self._graph, self._stream))
        self._wait()

    def close(self) -> None:
        """Gives all memory back."""
        runtime = _runtime()
        if self._graph is not None:
            runtime.cudaGraphExecDestroy(self._graph)
        runtime.cudaStreamDestroy(self._stream)
        for pair in (*self.inputs.values(), *self.outputs.values()):
            pair.free()

    def _queue(self) -> None:
        for pair in self.inputs.values():
            pair.upload(self._stream)
        if not self._compute(int(self._stream)):
            raise DeviceError("TensorRT could not queue the run; its log says why")
        for pair in self.outputs.values():
            pair.download(self._stream)

    def _wait(self) -> None:
        _checked(_runtime().cudaStreamSynchronize(self._stream))

    def _record(self) -> Any | None:
        """Returns the graph; None where something in the work cannot be recorded."""
        runtime = _runtime()
        _checked(
            runtime.cudaStreamBeginCapture(self._stream, runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal)
        )
        try:
            self._queue()
        except DeviceError:
            runtime.cudaStreamEndCapture(self._stream)
            return None
        error, graph = runtime.cudaStreamEndCapture(self._stream)
        if int(error):
            return None
        error, recorded = runtime.cudaGraphInstantiate(graph, 0)
        runtime.cudaGraphDestroy(graph)
        return None if int(error) else recorded


def _runtime() -> Any:
    try:
        from cuda.bindings import runtime
    except ImportError as error:
        raise MissingExtraError(
            "TensorRT needs NVIDIA's Python bindings of CUDA: pip install cuda-bindings (PyTorch for CUDA brings them)"
        ) from error
    return runtime


def _checked(result: tuple[Any, ...]) -> Any:
    """Returns what a call of the runtime returned besides its error.

    Raises:
        DeviceError: it failed.
    """
    error, *values = result
    if int(error):
        raise DeviceError(f"CUDA: {error.name}")
    return values[0] if len(values) == 1 else tuple(values)
