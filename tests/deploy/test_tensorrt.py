"""TensorRT as far as it goes without a GPU: clear errors before anything crashes, typed models, cache keys, names.

The recorded run is tested on a CUDA that the host plays; the engine itself where there is a GPU.
"""

import ast
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.deploy import cuda, engines, load, run_onnx, run_tensorrt, tensorrt
from anomaly.deploy import onnx as onnx_target
from anomaly.deploy.engines import Origin, describe_engine, read_engine, sidecar
from anomaly.deploy.export import export, frame_of
from anomaly.deploy.graph import describe
from anomaly.deploy.manifest import INPUT
from anomaly.deploy.run_tensorrt import TensorRtRuntime, lengths
from anomaly.deploy.testing import check_runtime
from anomaly.errors import ArtifactError, DeviceError, ExportError, MissingExtraError, SettingError
from anomaly.input_spec import InputSpec
from tests.deploy.host_cuda import HostCuda, HostEngine

ORIGIN = Origin("11.4.0", "NVIDIA L4", "8.9")
NAMES = {
    "": "Builder OnnxParser Runtime Logger __version__",
    "Logger": "WARNING ERROR",
    "NetworkDefinitionCreationFlag": "STRONGLY_TYPED",
    "BuilderFlag": "TF32",
    "ProfilingVerbosity": "DETAILED",
    "LayerInformationFormat": "JSON",
    "TensorIOMode": "OUTPUT",
    "Builder": "create_network create_builder_config create_optimization_profile build_serialized_network",
    "IBuilderConfig": "profiling_verbosity clear_flag create_timing_cache set_timing_cache get_timing_cache "
    "add_optimization_profile",
    "ITimingCache": "serialize",
    "IOptimizationProfile": "set_shape",
    "OnnxParser": "parse_from_file num_errors get_error",
    "ParserError": "desc",
    "Runtime": "deserialize_cuda_engine",
    "ICudaEngine": "create_engine_inspector create_execution_context num_io_tensors get_tensor_name get_tensor_mode",
    "EngineInspector": "get_engine_information",
    "IExecutionContext": "set_input_shape set_tensor_address execute_async_v3",
}
"""What the suite uses of TensorRT: class -> names."""
OBJECTS = {"tensorrt", "builder", "parser", "config", "times", "profile", "engine", "inspector", "context", "runtime"}


def has_gpu() -> bool:
    try:
        cuda.find(0)
    except (DeviceError, MissingExtraError):
        return False
    return True


without_gpu = pytest.mark.skipif(has_gpu(), reason="there is a CUDA GPU")


@pytest.fixture
def metadata(artifact_of, grey):
    artifact = artifact_of("subspace", grey)
    return describe(artifact, frame_of(artifact, batch=(1, 4)), "tensorrt", "fp32", {}).to_metadata()


@without_gpu
def test_an_export_without_a_gpu_says_what_to_do_before_any_work(artifact_of, grey, tmp_path: Path):
    artifact = artifact_of("subspace", grey)
    with pytest.raises(DeviceError, match="nvidia-smi") as error:
        export(artifact, frame_of(artifact, batch=(1, 4)), tmp_path / "part.engine", target="tensorrt")
    assert "trtexec --onnx=part.onnx --saveEngine=part.engine --stronglyTyped" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@without_gpu
@pytest.mark.parametrize("suffix", [".engine", ".plan"])
def test_an_engine_without_a_gpu_is_an_error_before_tensorrt_is_imported(suffix, tmp_path: Path):
    """An import that would end the process stands in for the package."""
    (tmp_path / "tensorrt.py").write_text("import os\nos._exit(139)\n")
    (tmp_path / f"part{suffix}").write_bytes(b"plan")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from anomaly.deploy import load\nfrom anomaly.errors import DeviceError\n"
        f"try: load({str(tmp_path / f'part{suffix}')!r}, device='cuda')\n"
        "except DeviceError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "no CUDA GPU can be used here" in done.stdout


@pytest.mark.parametrize("arguments", [{}, {"device": "cuda:x"}, {"device": "cuda", "provider": "tensorrt"}])
def test_what_an_engine_cannot_mean_is_refused(arguments, tmp_path: Path):
    (tmp_path / "part.engine").write_bytes(b"plan")
    with pytest.raises(SettingError):
        load(tmp_path / "part.engine", **arguments)


def test_an_engine_carries_its_manifest_beside_it(metadata, tmp_path: Path):
    path = tmp_path / "part.engine"
    path.write_bytes(b"plan")
    with pytest.raises(ArtifactError, match=r"part\.engine\.json"):
        read_engine(path)
    sidecar(path).write_text(describe_engine(b"plan", ORIGIN, metadata))
    plan, origin, manifest = read_engine(path)
    assert (plan, origin, manifest.frame.batch) == (b"plan", ORIGIN, (1, 4))
    path.write_bytes(b"another plan")
    with pytest.raises(ArtifactError, match="another engine"):
        read_engine(path)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sha256": "", "built_with": {"gpu": ""}, "metadata": {}}'])
def test_a_damaged_manifest_is_refused(content, tmp_path: Path):
    (tmp_path / "part.engine").write_bytes(b"plan")
    sidecar(tmp_path / "part.engine").write_text(content)
    with pytest.raises(ArtifactError, match="damaged"):
        read_engine(tmp_path / "part.engine")


@pytest.mark.parametrize("here", [Origin("10.13.3", "NVIDIA L4", "8.9"), Origin("11.4.0", "NVIDIA A2", "8.6")])
def test_an_engine_of_another_machine_is_refused_before_it_is_opened(here, metadata, tmp_path: Path, monkeypatch):
    (tmp_path / "part.engine").write_bytes(b"plan")
    sidecar(tmp_path / "part.engine").write_text(describe_engine(b"plan", ORIGIN, metadata))
    package = SimpleNamespace(__version__=here.tensorrt)
    gpu = cuda.Gpu(0, here.gpu, here.capability)
    monkeypatch.setattr(run_tensorrt, "import_tensorrt", lambda number: (package, gpu))
    with pytest.raises(DeviceError, match="Engines do not travel"):
        load(tmp_path / "part.engine", device="cuda")


def test_the_provider_of_onnx_runtime_keeps_its_engines_and_knows_its_shapes(
    artifact_of, graph_of, grey, tmp_path: Path, monkeypatch
):
    monkeypatch.setenv("ANOMALY_ENGINES", str(tmp_path / "engines"))
    artifact, path, found = artifact_of("subspace", grey), tmp_path / "part.onnx", {}
    for precision in ("fp32", "fp16", "int8"):
        metadata = describe(artifact, frame_of(artifact, batch=(1, 4)), "onnx", precision, {}).to_metadata()
        onnx_target.write(graph_of("subspace", grey), path, metadata)
        if precision == "int8":
            with pytest.raises(SettingError, match="zero points"):
                run_onnx._engine_options(onnxruntime, path)
        else:
            found[precision] = run_onnx._engine_options(onnxruntime, path)
    assert [found[p]["trt_fp16_enable"] for p in found] == [False, True]
    assert found["fp16"]["trt_profile_opt_shapes"] == "frame:4x1x64x96"
    folders = {options["trt_engine_cache_path"] for options in found.values()}
    assert len(folders) == 2, "another file, another folder"
    assert all(Path(folder).parent == tmp_path / "engines" for folder in folders)
    library = next((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime_providers_tensorrt.so"), None)
    if library is not None:
        content = library.read_bytes() + b"".join(p.read_bytes() for p in library.parent.glob("libonnxruntime.so.*"))
        assert [name for name in found["fp16"] if name.encode() not in content] == [], "names of the options"


words = st.text(max_size=6)


@given(*[st.tuples(st.binary(max_size=6), words, words, words, words) for _ in range(2)])
def test_engines_share_a_key_only_if_nothing_differs(first, second):
    keys = [engines.engine_key(model, Origin(*origin), precision) for model, *origin, precision in (first, second)]
    assert (keys[0] == keys[1]) == (first == second)


def test_engines_are_kept_where_the_user_says(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("ANOMALY_ENGINES", str(tmp_path))
    assert engines.cache_folder() == tmp_path
    engines.keep(tmp_path / "a" / "x", b"1")
    engines.keep(tmp_path / "a" / "x", b"2")
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "a").iterdir()] == [("x", b"2")]
    assert engines.timing_file(ORIGIN) != engines.timing_file(ORIGIN._replace(gpu="NVIDIA A2"))


def test_the_command_line_for_trtexec_names_shapes_only_where_they_vary(artifact_of, grey):
    artifact = artifact_of("subspace", grey)
    fixed = tensorrt.trtexec(Path("a b.onnx"), frame_of(artifact))
    assert fixed == "trtexec '--onnx=a b.onnx' '--saveEngine=a b.engine' --stronglyTyped --noTF32"
    varying = tensorrt.trtexec(Path("a.onnx"), frame_of(artifact, batch=(1, 4)))
    assert varying.endswith("--minShapes=frame:1x1x64x96 --optShapes=frame:4x1x64x96 --maxShapes=frame:4x1x64x96")


def test_frames_of_16_bits_are_refused(artifact_of):
    spec = InputSpec(channels=1, dtype="uint16", value_range=(0.0, 65535.0), size=(64, 96))
    frame = replace(frame_of(artifact_of("subspace", replace(spec, dtype="uint8", value_range=(0.0, 255.0)))))
    with pytest.raises(ExportError, match="uint16"):
        tensorrt.require(replace(frame, dtype="uint16"))


@pytest.mark.parametrize(
    ("key", "half", "full"),
    [("Format/Datatype", "Row major linear FP16 format", "Row major linear FP32"), ("DataType", "Half", "Float")],
)
def test_the_inspector_must_confirm_the_precision(key, half, full):
    def told(kind):
        layer = {"Name": "conv", "Inputs": [{"Name": "x", key: full}], "Outputs": [{"Name": "y", key: kind}]}
        return json.dumps({"Layers": ["a layer without details", layer]})

    tensorrt.check_built_precision(told(full), "fp32")
    tensorrt.check_built_precision(told(half), "fp16")
    with pytest.raises(ExportError, match="none of 2 layers in fp16"):
        tensorrt.check_built_precision(told(full), "fp16")
    with pytest.raises(ExportError, match="int8"):
        tensorrt.check_built_precision(told(half), "int8")


def test_typed_networks_are_asked_for_up_to_version_10():
    def package(version):
        return SimpleNamespace(
            __version__=version, NetworkDefinitionCreationFlag=SimpleNamespace(STRONGLY_TYPED=np.int64(1))
        )

    assert [tensorrt.creation_flags(package(v)) for v in ("10.3.0", "10.13.3.9", "11.4.0.106")] == [2, 2, 0]


def scores_of(model, frames):
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {INPUT: frames})


@pytest.fixture(scope="module")
def interleaved(artifact_of, graph_of, grey):
    artifact = artifact_of("subspace", grey)
    frame = frame_of(artifact, (80, 100), "NHWC", (1, 4))
    return graph_of("subspace", grey, (80, 100), "NHWC", (1, 4)), frame


def test_frames_are_cast_before_they_are_transposed(interleaved):
    graph, frame = interleaved
    moved = tensorrt.cast_first(graph)
    onnx.checker.check_model(moved, full_check=True)
    (user,) = [node for node in moved.graph.node if INPUT in node.input]
    assert user.op_type == "Cast"
    frames = np.random.default_rng(0).integers(0, 256, frame.shape(2), dtype=np.uint8)
    for a, b in zip(scores_of(graph, frames), scores_of(moved, frames), strict=True):
        assert np.array_equal(a, b)
    assert onnx_target.parts(moved) == onnx_target.parts(graph), "the notes of the nodes are kept"


def test_int8_for_tensorrt_has_no_zero_points_and_float_biases(interleaved):
    graph, frame = interleaved
    frames = np.random.default_rng(0).integers(0, 256, frame.shape(4), dtype=np.uint8)
    *_, (words, typed) = tensorrt.variants(graph, "int8", frames)
    assert typed.precision == "int8"
    assert words.startswith("int8: networks")
    constants = {i.name: onnx.numpy_helper.to_array(i) for i in typed.model.graph.initializer}
    steps = [node for node in typed.model.graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    assert len(steps) > 10
    points = [constants[node.input[2]] for node in steps]
    assert {point.dtype.name for point in points} == {"int8"}
    assert not any(point.any() for point in points)
    assert not any(array.dtype == np.int32 for name, array in constants.items() if "bias" in name)
    wanted, got = scores_of(graph, frames)[0], scores_of(typed.model, frames)[0]
    assert np.abs(got / wanted - 1).max() < 0.3


@given(st.integers(1, 40), st.integers(0, 40))
def test_prepared_lengths_reach_from_fewest_to_most(fewest, more):
    found = lengths(fewest, fewest + more)
    assert found == sorted(set(found))
    assert (found[0], found[-1]) == (fewest, fewest + more)
    assert len(found) == min(run_tensorrt.LENGTHS, more + 1)


@pytest.mark.parametrize("can_be_recorded", [True, False])
def test_the_recorded_run_keeps_the_contract_on_a_cuda_that_the_host_plays(
    can_be_recorded, artifact_of, graph_of, grey, grey_frames, tmp_path: Path, monkeypatch
):
    host = HostCuda()
    monkeypatch.setattr(cuda, "_runtime", lambda: host)
    graph = graph_of("subspace", grey)
    artifact = artifact_of("subspace", grey)
    manifest = describe(artifact, frame_of(artifact, batch=(1, 8)), "tensorrt", "fp32", {})
    onnx_target.write(graph, tmp_path / "part.onnx", manifest.to_metadata())
    engine = HostEngine(tmp_path / "part.onnx", host, can_be_recorded)
    runtime = TensorRtRuntime(manifest, engine, cuda.Gpu(0, "host", "0.0"), ORIGIN)
    assert runtime.running_on.endswith(", CUDA graph" if can_be_recorded else ", without CUDA graph")
    check_runtime(runtime, grey_frames)
    assert bool(host.launches) == can_be_recorded
    wanted = load(tmp_path / "part.onnx", threads=1)(grey_frames)
    for got, expected in zip(runtime(grey_frames), wanted, strict=True):
        assert np.allclose(got, expected, rtol=1e-5)
    runtime.close()
    assert host.blocks == {}, "all memory is given back"


def test_every_name_of_tensorrt_that_is_used_is_in_the_table():
    used = set()
    for module in (tensorrt, run_tensorrt):
        for node in ast.walk(ast.parse(Path(module.__file__).read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in OBJECTS:
                used.add(node.attr)
    listed = {name for names in NAMES.values() for name in names.split()} | {name for name in NAMES if name}
    assert used - listed == set()


def test_names_exist_in_the_tensorrt_that_is_installed():
    """In another process: the package must be able to crash without taking the tests along."""
    code = (
        "import json, sys\ntry: import tensorrt\nexcept ImportError as error: print('absent:', error); sys.exit()\n"
        "table = json.loads(sys.argv[1])\n"
        "print(json.dumps([f'{o}.{n}' for o, names in table.items() for n in names.split()\n"
        "                  if not hasattr(getattr(tensorrt, o) if o else tensorrt, n)]))"
    )
    done = subprocess.run([sys.executable, "-c", code, json.dumps(NAMES)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    if done.stdout.startswith("absent"):
        pytest.skip(f"TensorRT is not installed ({done.stdout.strip()})")
    assert json.loads(done.stdout) == []


def test_names_exist_in_the_cuda_bindings_that_are_installed():
    runtime = pytest.importorskip("cuda.bindings.runtime")
    source = ast.parse(Path(cuda.__file__).read_text())
    used = {n.attr for n in ast.walk(source) if isinstance(n, ast.Attribute) and n.attr.startswith("cuda")}
    used -= {"cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost", "cudaStreamCaptureModeThreadLocal"}
    assert len(used) > 10
    assert [name for name in used if not hasattr(runtime, name)] == []
    assert runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
    assert runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
    assert runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal is not None
    assert {"name", "major", "minor"} <= set(dir(runtime.cudaDeviceProp))


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_engine_scores_like_its_model(precision, artifact_of, grey, grey_frames, tmp_path: Path, monkeypatch):
    pytest.importorskip("tensorrt")
    if not has_gpu():
        pytest.skip("no CUDA GPU")
    monkeypatch.setenv("ANOMALY_ENGINES", str(tmp_path / "cache"))
    artifact = artifact_of("subspace", grey)
    frame = frame_of(artifact, batch=(1, 4))
    out = tmp_path / "part.engine"
    manifest = export(artifact, frame, out, target="tensorrt", precision=precision)
    assert manifest.parity["batches"] == (1, 4)
    runtime = load(out, device="cuda")
    check_runtime(runtime, grey_frames)
    assert len(list((tmp_path / "cache").glob("*.engine"))) >= 1
