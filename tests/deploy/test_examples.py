"""The examples for integrators: the C++ program scores as Python does, Triton's configuration fits the model."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from anomaly.deploy import load
from anomaly.deploy import onnx as onnx_target
from anomaly.deploy.engines import Origin, describe_engine, sidecar
from anomaly.deploy.export import frame_of
from anomaly.deploy.graph import describe

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def model(artifact_of, graph_of, grey, tmp_path_factory):
    """An export for interleaved frames of 80 x 100 px, 1 to 4 at once."""
    path = tmp_path_factory.mktemp("export") / "part.onnx"
    artifact = artifact_of("subspace", grey)
    frame = frame_of(artifact, (80, 100), "NHWC", (1, 4))
    graph = graph_of("subspace", grey, (80, 100), "NHWC", (1, 4))
    onnx_target.write(graph, path, describe(artifact, frame, "onnx", "fp32", {}).to_metadata())
    return path


def headers() -> Path | None:
    """The folder of ONNX Runtime's C++ headers: ONNXRUNTIME_INCLUDE, or where systems put them; the wheel has none."""
    places = [os.environ.get("ONNXRUNTIME_INCLUDE"), "/usr/include/onnxruntime", "/usr/local/include/onnxruntime"]
    return next((Path(p) for p in places if p and (Path(p) / "onnxruntime_cxx_api.h").is_file()), None)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """The C++ program, built against the library of the Python wheel."""
    include = headers()
    if include is None or not shutil.which("cmake") or not shutil.which("g++"):
        pytest.skip("needs cmake, g++ and ONNX Runtime's C++ headers (ONNXRUNTIME_INCLUDE)")
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if not libraries:
        pytest.skip("this ONNX Runtime has no shared library in its wheel")
    root = tmp_path_factory.mktemp("cpp")
    (root / "lib").mkdir()
    (root / "include").symlink_to(include)
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (root / "lib" / name).symlink_to(libraries[0])
    for step in (
        ["cmake", "-S", EXAMPLES / "cpp", "-B", root / "build", f"-DONNXRUNTIME_ROOT={root}"],
        ["cmake", "--build", root / "build"],
    ):
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "warning" not in done.stdout + done.stderr
    return root / "build" / "score"


def ran(program, *words):
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False)


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
def test_the_program_in_cpp_scores_as_python_does(layout, program, model, artifact_of, graph_of, grey, tmp_path: Path):
    path, size = model, (80, 100)
    if layout == "NCHW":
        path, size, artifact = tmp_path / "planes.onnx", grey.size, artifact_of("subspace", grey)
        metadata = describe(artifact, frame_of(artifact, batch=(1, 8)), "onnx", "fp32", {}).to_metadata()
        onnx_target.write(graph_of("subspace", grey), path, metadata)
    runtime = load(path, threads=1)
    for seed in range(3):
        image = np.random.default_rng(seed).integers(0, 60 + 90 * seed, size, dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / "frame.pgm")
        done = ran(program, path, tmp_path / "frame.pgm")
        assert done.returncode == 0, done.stderr
        told = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
        wanted = runtime(image)
        assert float(told["score"]) == pytest.approx(wanted.score[0], rel=1e-5)
        assert float(told["p_value"]) == pytest.approx(wanted.p_value[0], rel=1e-5)
        assert told["decision"] == wanted.decisions[0]
        assert str(runtime.manifest.ng) in told["threshold"]
        row, column = np.unravel_index(wanted.map[0].argmax(), wanted.map[0].shape)
        assert told["peak"] == f"row {row}, column {column} of the map"


@pytest.mark.peer
@pytest.mark.slow
def test_the_program_in_cpp_refuses_what_the_model_does_not_take(program, model, tmp_path: Path):
    Image.fromarray(np.zeros((40, 50), np.uint8)).save(tmp_path / "small.pgm")
    Image.fromarray(np.zeros((80, 100, 3), np.uint8)).save(tmp_path / "colour.ppm")
    (tmp_path / "cut.pgm").write_bytes(b"P5 # a comment\n100 80\n255\n" + bytes(100))
    (tmp_path / "deep.pgm").write_bytes(b"P5 100 80 65535\n" + bytes(16000))
    (tmp_path / "text.pgm").write_bytes(b"P2 1 1 255 0")
    expected = "the model takes uint8 (N, 80, 100, 1) in layout NHWC"
    for name, message in {
        "small.pgm": f"uint8 40 x 50 x 1; {expected}",
        "colour.ppm": f"uint8 80 x 100 x 3; {expected}",
        "deep.pgm": f"uint16 80 x 100 x 1; {expected}",
        "cut.pgm": "too few or too many pixels",
        "text.pgm": "no binary PGM or PPM image",
        "absent.pgm": "cannot be opened",
    }.items():
        done = ran(program, model, tmp_path / name)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
    assert "usage" in ran(program, model).stderr


def repository(*words):
    script = EXAMPLES / "triton" / "make_repository.py"
    return subprocess.run([sys.executable, script, *map(str, words)], capture_output=True, text=True, check=False)


def test_triton_gets_a_repository_that_fits_the_model(model, tmp_path: Path):
    done = repository(model, "--out", tmp_path / "models")
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "models" / "part"
    assert (folder / "1" / "model.onnx").read_bytes() == model.read_bytes()
    text = (folder / "config.pbtxt").read_text()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for tensor in (*session.get_inputs(), *session.get_outputs()):
        kind = {"tensor(uint8)": "UINT8", "tensor(float)": "FP32", "tensor(int32)": "INT32"}[tensor.type]
        shape = ", ".join(map(str, tensor.shape[1:])) or "1"
        entry = re.search(rf'name: "{tensor.name}" data_type: TYPE_{kind} dims: \[ ([\d, ]+) \](.*)', text)
        assert entry is not None
        assert entry[1] == shape
        assert ("reshape: { shape: [ ] }" in entry[2]) == (len(tensor.shape) == 1)
    assert "max_batch_size: 4\n" in text
    assert "dynamic_batching" in text
    assert "KIND_CPU" in text
    assert "tensorrt" not in text


def test_triton_runs_engines_and_the_tensorrt_provider_on_the_gpu(model, artifact_of, grey, tmp_path: Path):
    done = repository(model, "--out", tmp_path, "--device", "gpu", "--tensorrt")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "part" / "config.pbtxt").read_text()
    assert 'key: "trt_profile_max_shapes" value: "frame:4x80x100x1"' in text
    assert "KIND_GPU" in text
    assert repository(model, "--out", tmp_path, "--tensorrt").stderr.startswith("Error: TensorRT runs on a GPU")

    artifact = artifact_of("subspace", grey)
    (tmp_path / "fixed.engine").write_bytes(b"plan")
    manifest = describe(artifact, frame_of(artifact), "tensorrt", "fp16", {})
    beside = describe_engine(b"plan", Origin("11.4.0", "NVIDIA L4", "8.9"), manifest.to_metadata())
    sidecar(tmp_path / "fixed.engine").write_text(beside)
    done = repository(tmp_path / "fixed.engine", "--out", tmp_path, "--device", "gpu")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "fixed" / "config.pbtxt").read_text()
    assert 'backend: "tensorrt"\nmax_batch_size: 0\n' in text
    assert 'name: "frame" data_type: TYPE_UINT8 dims: [ 1, 1, 64, 96 ]' in text
    assert 'name: "score" data_type: TYPE_FP32 dims: [ 1 ]' in text
    assert (tmp_path / "fixed" / "1" / "model.plan").read_bytes() == b"plan"
    assert "dynamic_batching" not in text


def test_triton_serves_no_other_files(tmp_path: Path):
    (tmp_path / "part.xml").write_text("")
    assert "a file with one of .onnx" in repository(tmp_path / "part.xml", "--out", tmp_path).stderr
