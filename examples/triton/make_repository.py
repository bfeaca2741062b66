"""A model repository for NVIDIA Triton from an exported model: the folders, config.pbtxt and a warm-up.

    anomaly export part.safetensors --batch 1..8
    python examples/triton/make_repository.py part.onnx --out models
    tritonserver --model-repository=models

`--device gpu` runs an .onnx file on the GPU, `--tensorrt` through the TensorRT provider of ONNX Runtime; an .engine
file is served as it is (Triton must have the TensorRT version that built it). The fields are those of Triton's
ModelConfig (docs/user_guide/model_configuration.md, onnxruntime_backend/README.md).
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path

from anomaly.deploy import Manifest, load
from anomaly.deploy.engines import read_engine
from anomaly.deploy.manifest import INPUT
from anomaly.errors import AnomalyError, SettingError

TYPES = {"uint8": "TYPE_UINT8", "uint16": "TYPE_UINT16", "float32": "TYPE_FP32", "int32": "TYPE_INT32"}
FILES = {
    ".onnx": ("onnxruntime", "model.onnx"),
    ".engine": ("tensorrt", "model.plan"),
    ".plan": ("tensorrt", "model.plan"),
}


def config(name: str, manifest: Manifest, backend: str, device: str, tensorrt: bool) -> str:
    """Returns the content of config.pbtxt.

    Args:
        name: of the model in Triton.
        manifest: what the export says of itself.
        backend: "onnxruntime" or "tensorrt".
        device: "cpu" or "gpu".
        tensorrt: whether ONNX Runtime uses its TensorRT provider.
    """
    fewest, most = manifest.frame.batch
    batched = fewest < most  # Triton batches only where the model's own number of frames is free
    outputs = {"score": (), "map": manifest.canvas, "p_value": (), "decision": ()}
    lines = [
        f"name: {json.dumps(name)}",
        f'backend: "{backend}"',
        f"max_batch_size: {most if batched else 0}",
        *_tensors("input", {INPUT: (manifest.frame.dtype, manifest.frame.shape()[1:])}, batched, most),
        *_tensors(
            "output",
            {key: ("int32" if key == "decision" else "float32", shape) for key, shape in outputs.items()},
            batched,
            most,
        ),
        f"instance_group [ {{ count: 1 kind: KIND_{device.upper()} }} ]",
    ]
    if batched:
        lines.append("dynamic_batching { }")
    kind = TYPES[manifest.frame.dtype]
    shape = manifest.frame.shape()[1:] if batched else manifest.frame.shape(most)
    lines += [
        "model_warmup [ {",
        '  name: "black frame"',
        "  batch_size: 1",
        f'  inputs {{ key: "{INPUT}" value: {{ data_type: {kind} dims: {_dims(shape)} zero_data: true }} }}',
        "} ]",
    ]
    if tensorrt:
        lines += _tensorrt(manifest)
    return "\n".join(lines) + "\n"


def _tensors(kind: str, tensors: dict[str, tuple[str, tuple[int, ...]]], batched: bool, count: int) -> Iterable[str]:
    """Yields the entries of inputs or outputs; a shape must not be empty, so one number a frame is reshaped."""
    yield f"{kind} ["
    entries = []
    for name, (dtype, shape) in tensors.items():
        full = shape if batched else (count, *shape)
        reshape = "" if full else " reshape: { shape: [ ] }"
        entries.append(f'  {{ name: "{name}" data_type: {TYPES[dtype]} dims: {_dims(full or (1,))}{reshape} }}')
    yield ",\n".join(entries)
    yield "]"


def _tensorrt(manifest: Manifest) -> list[str]:
    precision = "FP16" if manifest.precision == "fp16" else "FP32"
    parameters = {"precision_mode": precision, "trt_engine_cache_enable": "1", "trt_engine_cache_path": "/tmp/engines"}  # noqa: S108 - in Triton's container
    fewest, most = manifest.frame.batch
    if fewest < most:
        for which, count in (("min", fewest), ("opt", most), ("max", most)):
            parameters[f"trt_profile_{which}_shapes"] = f"{INPUT}:{'x'.join(map(str, manifest.frame.shape(count)))}"
    entries = [f'    parameters {{ key: "{key}" value: "{value}" }}' for key, value in parameters.items()]
    return [
        "optimization { execution_accelerators { gpu_execution_accelerator: [ {",
        '    name: "tensorrt"',
        *entries,
        "} ] } }",
    ]


def _dims(shape: Iterable[int]) -> str:
    return f"[ {', '.join(str(side) for side in shape)} ]"


def make(model: Path, out: Path, name: str, device: str, tensorrt: bool) -> Path:
    """Writes the repository and returns the folder of the model.

    Raises:
        SettingError: the kind of file is not served, or the device does not fit it.
        ArtifactError: the file is damaged or no export of this suite.
    """
    if model.suffix not in FILES:
        raise SettingError.of("make_repository", "model", f"a file with one of {', '.join(FILES)}", model.name)
    backend, file = FILES[model.suffix]
    if (backend == "tensorrt" or tensorrt) and device != "gpu":
        raise SettingError("TensorRT runs on a GPU: add --device gpu")
    manifest = read_engine(model)[2] if backend == "tensorrt" else load(model).manifest
    if tensorrt and backend == "onnxruntime" and manifest.precision == "int8":
        raise SettingError(
            "an int8 export to ONNX has zero points, which TensorRT does not take: use fp16, or --format tensorrt"
        )
    folder = out / name
    (folder / "1").mkdir(parents=True, exist_ok=True)
    shutil.copyfile(model, folder / "1" / file)
    (folder / "config.pbtxt").write_text(
        config(name, manifest, backend, device, tensorrt and backend == "onnxruntime"), encoding="utf-8"
    )
    return folder


def main() -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="file that `anomaly export` wrote: .onnx, .engine or .plan")
    parser.add_argument("--out", type=Path, required=True, help="folder of the repository")
    parser.add_argument("--name", help="name of the model in Triton; default: that of the file")
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--tensorrt", action="store_true", help="ONNX Runtime's TensorRT provider, for .onnx files")
    options = parser.parse_args()
    try:
        folder = make(options.model, options.out, options.name or options.model.stem, options.device, options.tensorrt)
    except AnomalyError as error:
        sys.exit(f"Error: {error}")
    print(f"Wrote {folder / 'config.pbtxt'}; start Triton with: tritonserver --model-repository={options.out}")


if __name__ == "__main__":
    main()
