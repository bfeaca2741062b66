"""Exports score like their models, on every runtime that this machine has; beyond the bounds nothing is written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from anomaly import catalog, cli
from anomaly.artifact import save
from anomaly.deploy import export as export_module
from anomaly.deploy import load
from anomaly.deploy import onnx as onnx_target
from anomaly.deploy import openvino as openvino_target
from anomaly.deploy.export import Gate, export, frame_of, ship
from anomaly.deploy.frames import parity_frames
from anomaly.deploy.graph import ScoringGraph, describe
from anomaly.deploy.manifest import KEY
from anomaly.deploy.parity import BOUNDS
from anomaly.deploy.testing import check_runtime
from anomaly.detector import Scorer
from anomaly.errors import DeviceError, ExportError, InputError, ParityError, SettingError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

TARGETS = {
    "onnx fp32": (onnx_target, "fp32"),
    "onnx fp16": (onnx_target, "fp16"),
    "openvino fp32": (openvino_target, "fp32"),
}
FIXED = {"autoencoder": "its network fixes the number of frames"}
"""Detectors that cannot be exported with a dynamic batch -> why."""
RGB = InputSpec(size=(64, 64))


def shipped(artifact, graph, target, precision, out, frame, frames=None):
    manifest = describe(artifact, frame, target.__name__.rpartition(".")[2], precision, {})
    gate = Gate(artifact, frame, precision, parity_frames(frame, frames))
    return ship(target.variants(graph, precision, frames), target.write, gate, manifest, out)


@pytest.fixture(scope="session")
def table():
    """Collects the parity table and prints it at the end (pytest -s)."""
    rows = []
    yield rows
    print("\n| detector | export | covers | score max | score mean | map max | decisions changed |")
    print("|---|---|---|---|---|---|---|")
    for name, target, parity in rows:
        figures = " | ".join(f"{parity[key]:.1e}" for key in ("score_max", "score_mean", "map_max"))
        print(f"| {name} | {target} | {parity['covers']} | {figures} | {parity['decisions_changed']} |")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(catalog.DETECTORS))
def test_every_detector_exports_or_says_why_not(name, artifact_of, graph_of, tmp_path: Path, table):
    artifact, batch = artifact_of(name, RGB), (1, 8)
    if name in FIXED:
        with pytest.raises(ExportError, match=FIXED[name]):
            graph_of(name, RGB, None, "NCHW", batch)
        batch = (8, 8)
    graph = graph_of(name, RGB, None, "NCHW", batch)
    frame = frame_of(artifact, batch=batch)
    for words, (target, precision) in TARGETS.items():
        manifest = shipped(artifact, graph, target, precision, tmp_path / f"model{target.SUFFIX}", frame)
        table.append((name, words, manifest.parity))
        assert manifest.parity["batches"] == (1, 8)


class Nothing(Scorer):
    def score_canvas(self, canvas):
        raise NotImplementedError


@pytest.mark.parametrize("name", sorted(catalog.VOLUME_DETECTORS))
def test_a_detector_of_volumes_says_that_it_cannot_be_exported(name, artifact_of):
    volumes = Nothing(catalog.build(catalog.detector_class(name), {}))
    with pytest.raises(ExportError, match=f"{name}' takes volumes"):
        frame_of(replace(artifact_of("subspace", RGB), scorer=volumes))


@pytest.fixture(scope="module")
def grey_model(artifact_of, graph_of, grey):
    """A model whose frames are interleaved, of another size than the canvas, in batches of up to 4."""
    artifact = artifact_of("subspace", grey)
    return (
        artifact,
        frame_of(artifact, (80, 100), "NHWC", (1, 4)),
        graph_of("subspace", grey, (80, 100), "NHWC", (1, 4)),
    )


def frames_of(frame, count=3):
    return np.random.default_rng(5).integers(0, 256, frame.shape(count), dtype=np.uint8)


@pytest.mark.parametrize("target", [onnx_target, openvino_target], ids=["onnx", "openvino"])
def test_runtimes_keep_the_contract(target, grey_model, tmp_path: Path):
    artifact, frame, graph = grey_model
    out = tmp_path / f"model{target.SUFFIX}"
    manifest = shipped(artifact, graph, target, "fp32", out, frame)
    runtime = load(out, threads=1)
    assert json.loads(json.dumps(runtime.manifest.parity)) == json.loads(json.dumps(manifest.parity))
    assert runtime.frame == frame
    assert runtime.running_on in ("CPUExecutionProvider", "CPU")
    check_runtime(runtime, frames_of(frame))
    assert {path.stem for path in tmp_path.iterdir()} == {"model"}, "nothing but the export is left behind"


@pytest.mark.parametrize("target", [onnx_target, openvino_target], ids=["onnx", "openvino"])
def test_int8_quantises_the_network_and_is_measured(target, grey_model, tmp_path: Path, monkeypatch):
    artifact, frame, graph = grey_model
    wide = replace(BOUNDS["int8"], score_max=0.5, score_mean=0.25, map_mean=0.25)  # 12 images fitted on: little spread
    monkeypatch.setitem(export_module.BOUNDS, "int8", wide)
    normal = sample_images(replace(artifact.scorer.input, size=(80, 100)), 6, seed=7).numpy().transpose(0, 2, 3, 1)
    out = tmp_path / f"model{target.SUFFIX}"
    manifest = shipped(artifact, graph, target, "int8", out, frame, np.ascontiguousarray(normal))
    assert manifest.parity["covers"].startswith("int8: networks")
    assert 1e-4 < manifest.parity["score_max"] <= 0.5
    kinds = {node.op_type for node in onnx.load(out).graph.node} if target is onnx_target else out.read_text()
    assert ("QuantizeLinear" if target is onnx_target else "FakeQuantize") in kinds
    check_runtime(load(out, threads=1), frames_of(frame))


def test_model_file_itself_keeps_the_contract(artifact_of, grey, grey_frames, tmp_path: Path):
    save(tmp_path / "model.safetensors", artifact_of("subspace", grey))
    runtime = load(tmp_path / "model.safetensors")
    assert runtime.frame.height is None
    check_runtime(runtime, grey_frames)
    assert runtime(grey_frames[0, 0, :40, :30]).map.shape == (1, *grey.size)


def test_metadata_tell_an_integrator_everything(grey_model, tmp_path: Path):
    artifact, frame, graph = grey_model
    shipped(artifact, graph, onnx_target, "fp32", tmp_path / "model.onnx", frame)
    model = onnx.load(tmp_path / "model.onnx")
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["input.frame"] == "uint8 (N, 80, 100, 1) in layout NHWC, raw values 0 to 255 (grey value)"
    assert metadata["output.decision"] == "int32 (N): 0 OK, 1 REVIEW, 2 NG"
    assert float(metadata["threshold.ng"]) == artifact.calibration.ng.value
    assert json.loads(metadata[KEY])["parity"]["score_max"] < 1e-3
    assert [opset.version for opset in model.opset_import if opset.domain == ""] == [20]
    assert b"/anomaly/" not in (tmp_path / "model.onnx").read_bytes(), "paths of this machine"


def test_beyond_the_bounds_nothing_is_written(grey_model, tmp_path: Path, monkeypatch):
    artifact, frame, graph = grey_model
    out = tmp_path / "model.onnx"
    out.write_bytes(b"an earlier export")
    monkeypatch.setitem(export_module.BOUNDS, "fp16", replace(BOUNDS["fp16"], score_max=0.0))
    with pytest.raises(ParityError, match=r"own products: score_max is .*\n.*networks: score_max"):
        shipped(artifact, graph, onnx_target, "fp16", out, frame)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
    assert out.read_bytes() == b"an earlier export"


def test_scores_at_every_size_are_those_of_the_model(grey_model):
    """The resize of the graph is the resize of the scorer; the gate would not hold otherwise."""
    artifact, frame, graph = grey_model
    del graph
    planes = frames_of(frame).transpose(0, 3, 1, 2)
    scoring = ScoringGraph(artifact, frame)
    with torch.no_grad():
        wanted = artifact.scorer(torch.from_numpy(planes.copy()))
        got = scoring(torch.from_numpy(frames_of(frame)))
    assert torch.equal(got[0], wanted.score)


def test_a_provider_that_does_not_run_is_an_error(grey_model, tmp_path: Path):
    import onnxruntime

    artifact, frame, graph = grey_model
    shipped(artifact, graph, onnx_target, "fp32", tmp_path / "model.onnx", frame)
    if torch.cuda.is_available():
        pytest.skip("CUDA would run here")
    with pytest.raises(DeviceError, match="CUDAExecutionProvider"):
        load(tmp_path / "model.onnx", device="cuda")
    for provider in ("cuda", "rocm"):
        with pytest.raises(SettingError):
            load(tmp_path / "model.onnx", provider=provider)
    assert onnxruntime.get_available_providers()


def test_command_exports_and_reports(artifact_of, grey, tmp_path: Path, monkeypatch, graph_of):
    monkeypatch.setattr(export_module, "to_onnx", lambda graph: graph_of("subspace", grey, None, "NCHW", (1, 1)))
    save(tmp_path / "part.safetensors", artifact_of("subspace", grey))
    folder = tmp_path / "good"
    folder.mkdir()
    for i, image in enumerate(sample_images(grey, 4, seed=8).numpy()):
        Image.fromarray(image[0]).save(folder / f"{i}.png")
    run = CliRunner().invoke(cli.app, ["export", str(tmp_path / "part.safetensors"), "--images", str(folder)])
    assert run.exit_code == 0, run.output
    assert "decisions changed: 0" in run.output
    assert load(tmp_path / "part.onnx").manifest.parity["frames"] == {"normal": 4, "defective": 4, "extreme": 4}


@pytest.mark.parametrize(
    ("change", "error", "match"),
    [
        ({"target": "tflite"}, SettingError, "unknown format"),
        ({"target": "openvino"}, SettingError, r"must end in \.xml"),
        ({"precision": "int4"}, SettingError, "precision of export"),
        ({"precision": "int8"}, SettingError, "--images"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, error, match, artifact_of, grey, tmp_path: Path):
    artifact = artifact_of("subspace", grey)
    with pytest.raises(error, match=match):
        export(artifact, frame_of(artifact), tmp_path / "model.onnx", **change)
    assert list(tmp_path.iterdir()) == []


def test_images_of_another_size_name_the_size_to_export_with(artifact_of, grey, tmp_path: Path):
    artifact = artifact_of("subspace", grey)
    Image.fromarray(np.zeros((50, 70), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="--size 50x70"):
        export(artifact, frame_of(artifact), tmp_path / "model.onnx", normals=[tmp_path / "a.png"])
