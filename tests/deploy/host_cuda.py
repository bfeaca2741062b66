"""The CUDA runtime and a TensorRT engine as the suite uses them, played by the host: memory is memory of the host, a
stream runs at once, a capture records what is queued, and the engine is ONNX Runtime on the bound addresses.

It shows that buffers, recording and replay fit together where there is no GPU; it shows nothing about TensorRT.
"""

import ctypes
from types import SimpleNamespace

import numpy as np
import onnxruntime

from anomaly.deploy.manifest import INPUT, OUTPUTS


class Code(int):
    name = "cudaSuccess"


OK = (Code(0),)


class HostCuda:
    """Stands in for `cuda.bindings.runtime`."""

    cudaStreamNonBlocking = 1
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self):
        self.blocks, self.recording, self.launches = {}, None, 0

    def queue(self, work):
        (work if self.recording is None else lambda: self.recording.append(work))()
        return OK

    def cudaSetDevice(self, number):
        return OK

    def cudaMallocHost(self, size):
        block = (ctypes.c_uint8 * size)()
        self.blocks[ctypes.addressof(block)] = block
        return (*OK, ctypes.addressof(block))

    cudaMalloc = cudaMallocHost

    def cudaFree(self, address):
        del self.blocks[address]
        return OK

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        return self.queue(lambda: ctypes.memmove(target, source, size))

    def cudaStreamCreateWithFlags(self, flags):
        return (*OK, 7)

    def cudaStreamDestroy(self, stream):
        return OK

    def cudaStreamSynchronize(self, stream):
        return OK

    def cudaStreamBeginCapture(self, stream, mode):
        self.recording = []
        return OK

    def cudaStreamEndCapture(self, stream):
        recorded, self.recording = self.recording, None
        return (*OK, recorded)

    def cudaGraphInstantiate(self, graph, flags):
        return (*OK, graph)

    def cudaGraphDestroy(self, graph):
        return OK

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph, stream):
        self.launches += 1
        for work in graph:
            work()
        return OK


class HostContext:
    """Stands in for an execution context."""

    def __init__(self, session, cuda, can_be_recorded):
        self.session, self.cuda, self.can_be_recorded = session, cuda, can_be_recorded
        self.addresses, self.shape = {}, None

    def set_input_shape(self, name, shape):
        self.shape = shape

    def set_tensor_address(self, name, address):
        self.addresses[name] = address

    def execute_async_v3(self, stream):
        if self.cuda.recording is not None and not self.can_be_recorded:
            return False
        self.cuda.queue(self.compute)
        return True

    def compute(self):
        block = self.cuda.blocks[self.addresses[INPUT]]
        frames = np.frombuffer(block, dtype=np.uint8).reshape(self.shape)
        for name, values in zip(OUTPUTS, self.session.run(OUTPUTS, {INPUT: frames}), strict=True):
            ctypes.memmove(self.addresses[name], values.ctypes.data, values.nbytes)


class HostEngine:
    """Stands in for an engine made of an ONNX file."""

    def __init__(self, path, cuda, can_be_recorded=True):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.cuda, self.can_be_recorded = cuda, can_be_recorded

    def create_execution_context(self):
        return HostContext(self.session, self.cuda, self.can_be_recorded)
