"""What a machine can do at best, and how much of it a graph needs.

The roofline model of Williams, Waterman and Patterson ("Roofline: an insightful visual performance model for multicore
architectures", Communications of the ACM 52(4), 2009). The two roofs are measured where the latencies are, in the same
run and on the same threads: a large matrix product in float32 and a copy of a large block of memory. The work of a
graph is that of its convolutions and matrix products; the bytes are those that must move whatever the caches do:
weights, input and outputs, once each.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

_SIDE = 1536
_BLOCK = 2**26
_REPEATS = 5


class Roofline(NamedTuple):
    """The limits of a machine.

    Attributes:
        gflops: floating-point operations of a float32 matrix product, in 1e9 a second; a multiplication and an addition
            count as two.
        gbytes: bytes read and written by a copy, in 1e9 a second.
    """

    gflops: float
    gbytes: float

    def least_ms(self, work: "Work") -> float:
        """Returns the shortest time in milliseconds in which float32 arithmetic can do the work."""
        return max(work.gflop / self.gflops, work.gbyte / self.gbytes) * 1000

    def limit(self, work: "Work") -> str:
        """Returns which roof the work meets first."""
        return "arithmetic" if work.gflop / self.gflops >= work.gbyte / self.gbytes else "memory"


class Work(NamedTuple):
    """What one run of a graph needs: 1e9 operations of its products, and 1e9 bytes of weights, input and outputs."""

    gflop: float
    gbyte: float


def measure(threads: int, device: str = "cpu") -> Roofline:
    """Measures a machine; the best of five, since whatever disturbs can only add time.

    Args:
        threads: threads of the CPU.
        device: "cpu" or "cuda".
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        a, b = torch.rand(_SIDE, _SIDE, device=device), torch.rand(_SIDE, _SIDE, device=device)
        product = torch.empty_like(a)
        source = torch.ones(_BLOCK, dtype=torch.uint8, device=device)
        target = torch.empty_like(source)
        seconds = _best(lambda: torch.mm(a, b, out=product), device), _best(lambda: target.copy_(source), device)
    finally:
        torch.set_num_threads(before)
    return Roofline(2e-9 * _SIDE**3 / seconds[0], 2e-9 * _BLOCK / seconds[1])


def _best(call: Callable[[], object], device: str) -> float:
    taken = []
    for _ in range(1 + _REPEATS):
        start = time.perf_counter()
        call()
        if device != "cpu":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - start)
    return min(taken[1:])


def work_of(path: Path) -> Work:
    """Returns what one run of an ONNX file with static shapes needs."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(path), data_prop=True)
    graph = model.graph
    shapes = {value.name: _shape(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    shapes |= {constant.name: tuple(constant.dims) for constant in graph.initializer}
    operations = sum(_multiplications(node, shapes) for node in graph.node)
    weights = sum(constant.ByteSize() for constant in graph.initializer)
    ends = sum(_bytes(value) for value in (*graph.input, *graph.output))
    return Work(2e-9 * operations, 1e-9 * (weights + ends))


def _multiplications(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    """Returns the multiplications of a convolution or a matrix product; 0 for other nodes."""
    if node.op_type == "Conv":
        return _size(shapes[node.output[0]]) * _size(shapes[node.input[1]][1:])
    if node.op_type in ("MatMul", "Gemm"):
        first = shapes[node.input[0]]
        turned = node.op_type == "Gemm" and any(a.name == "transA" and a.i for a in node.attribute)
        return _size(shapes[node.output[0]]) * int(first[0 if turned else -1])
    return 0


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(side.dim_value for side in value.type.tensor_type.shape.dim)


def _bytes(value: Any) -> int:
    import onnx

    kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    return int(_size(_shape(value)) * np.dtype(kind).itemsize)


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64))
