"""The runtime needs numpy and ONNX Runtime, nothing else of what the suite depends on."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from anomaly.deploy import load
from anomaly.deploy import onnx as onnx_target
from anomaly.deploy.export import Gate, frame_of, ship
from anomaly.deploy.frames import parity_frames
from anomaly.deploy.graph import describe

ROOT = Path(__file__).parents[2]
SCORE = """
import sys, numpy as np
from anomaly.deploy import load
from anomaly.deploy.testing import check_runtime
runtime = load(sys.argv[1], threads=1)
frames = np.load(sys.argv[2])
scores = runtime(frames)
check_runtime(runtime, frames)
heavy = {"torch", "timm", "scipy", "cv2", "typer", "rich", "pydantic", "safetensors", "jaxtyping", "onnx", "PIL"}
assert not heavy & set(sys.modules), heavy & set(sys.modules)
np.save(sys.argv[3], scores.score)
print(scores.decisions)
"""
BLOCKED = """
import sys
class Blocker:
    allowed = {"anomaly", "numpy", "onnxruntime", "packaging", "flatbuffers", "google", "coloredlogs", "humanfriendly"}
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in self.allowed and top not in sys.stdlib_module_names:
            raise ModuleNotFoundError(f"{top} is blocked", name=top)
sys.meta_path.insert(0, Blocker())
"""


@pytest.fixture(scope="module")
def exported(artifact_of, graph_of, grey, tmp_path_factory):
    folder = tmp_path_factory.mktemp("light")
    artifact = artifact_of("subspace", grey)
    frame = frame_of(artifact)
    gate = Gate(artifact, frame, "fp32", parity_frames(frame, None))
    graph = graph_of("subspace", grey, None, "NCHW", (1, 1))
    manifest = describe(artifact, frame, "onnx", "fp32", {})
    ship(onnx_target.variants(graph, "fp32", None), onnx_target.write, gate, manifest, folder / "model.onnx")
    frames = np.random.default_rng(0).integers(0, 256, frame.shape(3), dtype=np.uint8)
    np.save(folder / "frames.npy", frames)
    return folder


def scored(python, code, folder: Path, **kwargs):
    arguments = [str(folder / name) for name in ("model.onnx", "frames.npy", "scores.npy")]
    done = subprocess.run([python, "-I", "-c", code, *arguments], capture_output=True, text=True, check=False, **kwargs)
    assert done.returncode == 0, done.stderr
    wanted = load(folder / "model.onnx")(np.load(folder / "frames.npy")).score
    assert np.allclose(np.load(folder / "scores.npy"), wanted, rtol=1e-4)


def test_scores_where_everything_but_numpy_and_onnxruntime_is_blocked(exported):
    scored(sys.executable, BLOCKED + SCORE, exported)


@pytest.mark.network
@pytest.mark.slow
def test_scores_in_a_fresh_environment_with_numpy_and_onnxruntime_only(exported, tmp_path: Path):
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("uv is not installed")
    python = tmp_path / "venv" / "bin" / "python"
    steps = [
        [uv, "build", "--wheel", "--quiet", "--out-dir", tmp_path / "dist", ROOT],
        [uv, "venv", "--quiet", "--python", sys.executable, tmp_path / "venv"],
        [uv, "pip", "install", "--quiet", "--python", python, "numpy", "onnxruntime"],
    ]
    for step in steps:
        done = subprocess.run(step, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"no package registry: {done.stderr.strip()[-300:]}")
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True)
    listed = subprocess.run([uv, "pip", "list", "--python", python], capture_output=True, text=True, check=True).stdout
    assert "torch" not in listed
    scored(python, SCORE, exported)
