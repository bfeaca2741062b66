"""The scoring graph as a TensorRT engine, built for the GPU that it is built on.

TensorRT 11 knows typed networks only: the precision of a node is that of its tensors in the ONNX file, and the flags
for fp16 and int8 are gone. TensorRT 10 (all that JetPack 6 has) builds such networks too where it is asked to. So both
get the same typed model: fp16 as float16 nodes, int8 as symmetric Q/DQ; and the engine inspector must confirm that
layers were built in that precision (NVIDIA, "Migrating from TensorRT 10.x to 11.x").

Building takes minutes. Engines are kept in a cache, under a key of model, TensorRT version, GPU and precision; how fast
each kernel was is kept there too, which shortens the next build on the same GPU.
"""

import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from anomaly.deploy import onnx as onnx_target
from anomaly.deploy.engines import Origin, cache_folder, describe_engine, engine_key, keep, sidecar, timing_file
from anomaly.deploy.manifest import INPUT, Frame, Frames, Manifest
from anomaly.deploy.run_tensorrt import import_tensorrt
from anomaly.errors import DeviceError, ExportError, MissingExtraError

SUFFIX = ".engine"
DEVICE = "cuda"
_TYPES = {"fp16": ("half", "fp16"), "int8": ("int8",)}
"""What the inspector calls the types of a precision, in lower case."""


class Typed(NamedTuple):
    """A model whose tensors say in which precision it is built.

    Attributes:
        model: onnx.ModelProto.
        precision: "fp32", "fp16" or "int8".
    """

    model: Any
    precision: str


def require(frame: Frame) -> None:
    """Checks that an engine can be built here, before any work is done.

    Raises:
        DeviceError: there is no GPU.
        ExportError: TensorRT has no type for the frames.
        MissingExtraError: TensorRT is not installed.
    """
    if frame.dtype == "uint16":
        raise ExportError("TensorRT takes no uint16 frames: export to ONNX, and run it with ONNX Runtime on CUDA")
    try:
        import_tensorrt(0)
    except (DeviceError, MissingExtraError) as error:
        raise type(error)(
            f"{error}\nRun the export on the machine of the line: there it also proves that the engine scores like the "
            "model. For other programs build one from an fp32 or fp16 export to ONNX in layout NCHW:\n  "
            + trtexec(Path("part.onnx"), frame)
        ) from error


def trtexec(model: Path, frame: Frame) -> str:
    """Returns the command line that builds an engine from an ONNX file elsewhere.

    `--stronglyTyped` makes TensorRT 10 take the precision from the file; TensorRT 11 always does.
    """
    words = ["trtexec", f"--onnx={model}", f"--saveEngine={model.with_suffix(SUFFIX)}", "--stronglyTyped", "--noTF32"]
    fewest, most = frame.batch
    if fewest < most:
        for name, count in (("min", fewest), ("opt", most), ("max", most)):
            words.append(f"--{name}Shapes={INPUT}:{'x'.join(map(str, frame.shape(count)))}")
    return shlex.join(words)


def variants(model: Any, precision: str, frames: Frames | None) -> Iterator[tuple[str, Typed]]:
    """Yields the model in a precision, widest variant first, each with a line that says what it covers.

    Args:
        model: ONNX model as `anomaly.deploy.onnx.to_onnx` returns it.
        precision: "fp32", "fp16" or "int8".
        frames: raw frames of normals to calibrate int8 with.
    """
    ready = cast_first(model)
    for words, variant in onnx_target.variants(ready, precision, frames, symmetric=True):
        yield words, Typed(variant, precision)


def cast_first(model: Any) -> Any:
    """Returns the model with raw frames cast before they are transposed: TensorRT moves no uint8 tensors."""
    import onnx

    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    users = [node for node in moved.graph.node if INPUT in node.input]
    if len(users) != 1 or users[0].op_type != "Transpose":
        return moved
    (transpose,) = users
    casts = [node for node in moved.graph.node if transpose.output[0] in node.input]
    if len(casts) != 1 or casts[0].op_type != "Cast":
        return moved
    (cast,) = casts
    between = f"{INPUT}.cast"
    result = cast.output[0]
    cast.input[0], cast.output[0] = INPUT, between
    transpose.input[0], transpose.output[0] = between, result
    nodes = [cast, transpose, *(node for node in moved.graph.node if node not in (cast, transpose))]
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del moved.graph.node[:]
    moved.graph.node.extend(kept)
    del moved.graph.value_info[:]
    return onnx.shape_inference.infer_shapes(moved)


def write(typed: Typed, path: Path, metadata: Mapping[str, str]) -> list[Path]:
    """Writes the engine and what lies beside it, and returns the files, the one that is loaded last.

    An engine is taken from the cache if it was built before.

    Raises:
        ExportError: TensorRT cannot build the model, or built it in another precision.
    """
    tensorrt, gpu = import_tensorrt(0)
    origin = Origin(tensorrt.__version__, gpu.name, gpu.capability)
    model = typed.model.SerializeToString(deterministic=True)
    kept = cache_folder() / f"{engine_key(model, origin, typed.precision)}{SUFFIX}"
    if kept.is_file():
        plan = kept.read_bytes()
    else:
        gpu.select()
        frame = Manifest.from_metadata(metadata, path).frame
        plan = _built(tensorrt, typed, frame, timing_file(origin))
        keep(kept, plan)
    path.write_bytes(plan)
    beside = sidecar(path)
    beside.write_text(describe_engine(plan, origin, metadata), encoding="utf-8")
    return [beside, path]


def check_built_precision(information: str, precision: str) -> None:
    """Checks what the engine inspector says of an engine's layers.

    Args:
        information: JSON of `get_engine_information`, built with detailed verbosity; of TensorRT 10 or 11.
        precision: what was wanted.

    Raises:
        ExportError: no layer was built in that precision.
    """
    wanted = _TYPES.get(precision)
    if wanted is None:
        return
    layers = json.loads(information).get("Layers", [])
    if not any(word in text for layer in layers for text in _types(layer) for word in wanted):
        raise ExportError(
            f"TensorRT built none of {len(layers)} layers in {precision}: this GPU or this TensorRT has no kernels for "
            "it; export in fp32"
        )


def _types(layer: Any) -> Iterator[str]:
    """Yields the types of a layer's tensors: "Format/Datatype" up to TensorRT 10, "DataType" from 11 on."""
    if not isinstance(layer, dict):
        return
    for tensor in (*layer.get("Inputs", ()), *layer.get("Outputs", ())):
        if isinstance(tensor, dict):
            yield from (str(value).lower() for key, value in tensor.items() if "datatype" in key.lower())


def _built(tensorrt: Any, typed: Typed, frame: Frame, timing: Path) -> bytes:
    """Builds an engine, checks its precision and returns its plan."""
    logger = tensorrt.Logger(tensorrt.Logger.WARNING)
    builder = tensorrt.Builder(logger)
    network = builder.create_network(creation_flags(tensorrt))
    parser = tensorrt.OnnxParser(network, logger)
    with TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        onnx_target.write(typed.model, file, {})
        if not parser.parse_from_file(str(file)):
            reasons = "; ".join(parser.get_error(i).desc() for i in range(parser.num_errors))
            raise ExportError(f"TensorRT {tensorrt.__version__} cannot take the graph: {reasons}")
    config = builder.create_builder_config()
    config.profiling_verbosity = tensorrt.ProfilingVerbosity.DETAILED
    config.clear_flag(tensorrt.BuilderFlag.TF32)  # it keeps ten bits of a float32 product
    _add_profile(builder, config, frame)
    times = config.create_timing_cache(timing.read_bytes() if timing.is_file() else b"")
    config.set_timing_cache(times, ignore_mismatch=False)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise ExportError(f"TensorRT {tensorrt.__version__} cannot build the engine; its log above says why")
    keep(timing, bytes(config.get_timing_cache().serialize()))
    engine = tensorrt.Runtime(logger).deserialize_cuda_engine(plan)
    if engine is None:
        raise ExportError("TensorRT cannot open the engine that it has just built; its log above says why")
    inspector = engine.create_engine_inspector()
    check_built_precision(inspector.get_engine_information(tensorrt.LayerInformationFormat.JSON), typed.precision)
    return bytes(plan)


def creation_flags(tensorrt: Any) -> int:
    """Returns the flags of a typed network: up to TensorRT 10 it must be asked for, from 11 on there is no other."""
    if int(tensorrt.__version__.partition(".")[0]) >= 11:
        return 0
    return 1 << int(tensorrt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _add_profile(builder: Any, config: Any, frame: Frame) -> None:
    """Tells the builder how many frames a run may have, where that is not fixed."""
    fewest, most = frame.batch
    if fewest == most:
        return
    profile = builder.create_optimization_profile()
    profile.set_shape(INPUT, frame.shape(fewest), frame.shape(most), frame.shape(most))
    config.add_optimization_profile(profile)
