"""The scoring graph as ONNX, opset 20, in fp32, fp16 and int8.

Every other target starts from the fp32 model that `to_onnx` makes. A precision below fp32 is tried in variants, widest
first; the parity gate takes the first one that holds:

1. networks and the detector's own matrix products (distance to a bank, projection on a subspace),
2. networks alone,
3. for int8, networks but for their first two convolutions, whose errors every later layer carries on.

Whether a node belongs to a network is read off the graph: what a submodule of the scorer computes is network, what the
scorer computes itself is its scoring arithmetic. Preprocessing, levels, maps and calibration always stay in fp32.
"""

import contextlib
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from anomaly.deploy.graph import ScoringGraph
from anomaly.deploy.half import to_half
from anomaly.deploy.manifest import INPUT, OUTPUTS, Frame, Frames
from anomaly.deploy.simplify import NETWORK, PRODUCT, simplify
from anomaly.errors import ExportError, SettingError

SUFFIX = ".onnx"
DEVICE = "cpu"
"""Where the parity of an export is measured."""
OPSET = 20
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_LARGEST = 2**31 - 1
_FIRST = 2
_SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "AddQDQPairToWeight": True, "QuantizeBias": False}


def to_onnx(graph: ScoringGraph) -> Any:
    """Exports the graph, in fp32.

    Raises:
        ExportError: PyTorch cannot export the detector; the message says why.
    """
    fewest, most = graph.frame.batch
    dynamic = {"frames": {0: torch.export.Dim("batch", min=fewest, max=most)}} if fewest < most else None
    example = graph.example(most if dynamic else fewest)  # a dynamic batch must not be 0 or 1 while it is traced
    try:
        with _quietly(), torch.no_grad():
            program = torch.onnx.export(
                graph.eval(),
                (example,),
                dynamo=True,
                opset_version=OPSET,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes=dynamic,
                verbose=False,
            )
    except Exception as error:  # the exporter's errors have no common base
        name = graph.scorer.detector.name
        reason = str(error.__cause__ or error).strip().splitlines()
        raise ExportError(f"detector {name!r} cannot be exported: {reason[0] if reason else error!r}") from error
    assert program is not None
    model = simplify(program.model_proto)
    if dynamic and model.graph.input[0].type.tensor_type.shape.dim[0].HasField("dim_value"):
        raise ExportError(
            f"detector {graph.scorer.detector.name!r} cannot be exported with a dynamic batch, its network fixes the "
            "number of frames: export it with one number, such as --batch 1"
        )
    if model.ByteSize() > _LARGEST:
        raise ExportError("the model is larger than 2 GB, the limit of one ONNX file; fit it with fewer parameters")
    return model


def require(frame: Frame) -> None:
    """Checks that the format can be made here: ONNX always can, for any frame."""


def variants(model: Any, precision: str, frames: Frames | None, symmetric: bool = False) -> Iterator[tuple[str, Any]]:
    """Yields the model in a precision, widest variant first, each with a line that says what it covers.

    Args:
        model: what `to_onnx` returned.
        precision: "fp32", "fp16" or "int8".
        frames: raw frames of normals to calibrate int8 with, in the shape that the model takes.
        symmetric: int8 without zero points and with float biases, as TensorRT takes it.
    """
    if precision == "fp32":
        yield "fp32", model
        return
    for words, nodes in covers(model, precision):
        if precision == "fp16":
            yield f"fp16: {words}", to_half(model, nodes)
        else:
            assert frames is not None
            yield f"int8: {words}", quantised(model, nodes, frames, symmetric)


def covers(model: Any, precision: str) -> list[tuple[str, set[str]]]:
    """Returns what "fp16" or "int8" may cover, widest first: words, and names of nodes.

    Raises:
        ExportError: there is no network in the graph.
    """
    networks, products = parts(model)
    if not networks:
        raise ExportError("the graph has no network, so there is nothing to run below fp32; export it in fp32")
    found = [("networks", networks)]
    if products:
        found.insert(0, ("networks and the detector's own products", networks | products))
    within = [node for node in model.graph.node if node.op_type in _PRODUCTS and node.name in networks]
    first = {node.name for node in [n for n in within if n.op_type == "Conv"][:_FIRST]}
    if precision == "int8" and first and len(within) > len(first):
        found.append((f"networks but for their first {_FIRST} convolutions", networks - first))
    return found


def write(model: Any, path: Path, metadata: Mapping[str, str]) -> list[Path]:
    """Writes a model with its metadata and returns the files."""
    import onnx

    written = onnx.ModelProto()
    written.CopyFrom(model)
    del written.metadata_props[:]
    onnx.helper.set_model_props(written, dict(metadata))
    graph = written.graph
    for part in (*graph.node, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]  # the exporter's notes name source files of the machine it ran on
    onnx.save_model(written, path)
    return [path]


def parts(model: Any) -> tuple[set[str], set[str]]:
    """Returns the names of the nodes inside networks, and of the scorer's own products with learned tensors."""
    own = {part: {n.name for n in model.graph.node if part in _notes(n)} for part in (NETWORK, PRODUCT)}
    return own[NETWORK], own[PRODUCT]


def _notes(node: Any) -> set[str]:
    return {entry.key for entry in node.metadata_props}


def quantised(model: Any, nodes: set[str], frames: Frames, symmetric: bool = False) -> Any:
    """Quantises products to Q/DQ with ONNX Runtime's static quantiser.

    Weights are symmetric, per channel; activations are scaled by their range over the normals. For CPUs the weights get
    7 bits: without VNNI a CPU adds two products of 8 bits in 16, and would saturate.

    Args:
        model: onnx.ModelProto in float32.
        nodes: names of the nodes that may be quantised.
        frames: raw frames of normals.
        symmetric: all in int8 without zero points, weights as Q/DQ of their float values, biases in float.
    """
    import onnx
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    kept = [node.name for node in model.graph.node if node.op_type in _PRODUCTS and node.name not in nodes]
    with TemporaryDirectory() as folder, _quietly():
        source, target = Path(folder) / "fp32.onnx", Path(folder) / "int8.onnx"
        onnx.save_model(model, source)
        quantize_static(
            source,
            target,
            _Reader(runs(model, frames)),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(_PRODUCTS),
            per_channel=True,
            reduce_range=not symmetric,
            activation_type=QuantType.QInt8 if symmetric else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=kept,
            extra_options=_SYMMETRIC if symmetric else {},
        )
        return onnx.load_model(target)


def runs(model: Any, frames: Frames) -> list[Frames]:
    """Returns frames in batches that a model takes: as many as it fixes, the last one filled up; else one by one."""
    count = max(1, model.graph.input[0].type.tensor_type.shape.dim[0].dim_value)
    missing = -len(frames) % count
    filled = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
    return [filled[start : start + count] for start in range(0, len(filled), count)]


class _Reader:
    """Gives the quantiser one run after another, as its protocol asks."""

    def __init__(self, batches: Sequence[Frames]) -> None:
        self._left = iter(batches)

    def get_next(self) -> dict[str, Frames] | None:
        batch = next(self._left, None)
        return None if batch is None else {INPUT: batch}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silences the exporters' chatter; what fails still raises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def check_precision(precision: str) -> None:
    """Refuses a precision that does not exist.

    Raises:
        SettingError: it is not "fp32", "fp16" or "int8".
    """
    if precision not in ("fp32", "fp16", "int8"):
        raise SettingError.of("export", "precision", "'fp32', 'fp16' or 'int8'", precision)
