"""The scoring graph as an OpenVINO IR: model.xml with the manifest, and model.bin with the weights beside it.

It is made from the ONNX model, node by node, so both carry one graph. fp16 stores the weights in half precision; CPUs
compute in fp32 all the same (`run_openvino` sees to that), GPUs and NPUs choose for themselves. int8 is quantised by
NNCF as Q/DQ ("FakeQuantize").
"""

import contextlib
import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from anomaly.deploy.manifest import INPUT, Frame, Frames
from anomaly.deploy.onnx import covers, runs
from anomaly.deploy.run_openvino import PLACE
from anomaly.errors import MissingExtraError

SUFFIX = ".xml"
DEVICE = "cpu"
_PRODUCTS = ("Convolution", "GroupConvolution", "MatMul")


def require(frame: Frame) -> None:
    """Checks that the format can be made here, before any work is done.

    Raises:
        MissingExtraError: OpenVINO is not installed.
    """
    _import()


def variants(model: Any, precision: str, frames: Frames | None) -> Iterator[tuple[str, Any]]:
    """Yields the model in a precision, widest variant first, each with a line that says what it covers.

    Args:
        model: ONNX model as `anomaly.deploy.onnx.to_onnx` returns it.
        precision: "fp32", "fp16" or "int8".
        frames: raw frames of normals to calibrate int8 with.

    Raises:
        MissingExtraError: OpenVINO, or NNCF for int8, is not installed.
    """
    if precision == "fp32":
        yield "fp32", (_converted(model), False)
        return
    if precision == "fp16":
        yield "fp16: stored weights", (_converted(model), True)
        return
    assert frames is not None
    for words, nodes in covers(model, precision):
        yield f"int8: {words}", (_int8(model, nodes, frames), False)


def write(model: Any, path: Path, metadata: Mapping[str, str]) -> list[Path]:
    """Writes IR and weights and returns the files, the one that is loaded last."""
    import openvino

    network, half = model
    for name, value in metadata.items():
        network.set_rt_info(value, [PLACE, name])
    openvino.save_model(network, path, compress_to_fp16=half)
    return [path.with_suffix(".bin"), path]


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError.of("openvino", "openvino", "an export to OpenVINO") from error
    return openvino


def _converted(model: Any) -> Any:
    return _import().Core().read_model(model.SerializeToString())


def _int8(model: Any, nodes: set[str], frames: Frames) -> Any:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            import nncf
    except ImportError as error:
        raise MissingExtraError.of("nncf", "openvino", "int8 for OpenVINO") from error
    network = _converted(model)
    kept = [
        op.get_friendly_name()
        for op in network.get_ops()
        if op.get_type_name() in _PRODUCTS and not _belongs(op.get_friendly_name(), nodes)
    ]
    batches = runs(model, frames)
    data = nncf.Dataset(batches, lambda batch: {INPUT: batch})
    scope = nncf.IgnoredScope(names=kept, validate=False)
    with contextlib.redirect_stdout(io.StringIO()):  # it draws bars of its own
        return nncf.quantize(network, data, subset_size=len(batches), ignored_scope=scope)


def _belongs(name: str, nodes: set[str]) -> bool:
    """Whether an operation comes from one of some ONNX nodes; OpenVINO may make "conv" to "conv/WithoutBiases"."""
    return name in nodes or any(name.startswith(f"{node}/") for node in nodes)
