"""The model file compiled for a GPU: half precision only if it keeps its parity; without a GPU all but the compiler."""

import numpy as np
import pytest
import torch

from anomaly.artifact import load as load_artifact
from anomaly.artifact import save
from anomaly.deploy import load, run_fast
from anomaly.deploy.parity import BOUNDS
from anomaly.deploy.run_fast import WAYS, FastRuntime
from anomaly.deploy.testing import check_runtime
from anomaly.errors import ParityError, SettingError


@pytest.fixture
def model_file(artifact_of, grey, tmp_path):
    save(tmp_path / "model.safetensors", artifact_of("subspace", grey))
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("way", ["compile", "compile-bf16"])
def test_channels_last_and_autocast_keep_the_contract_and_the_parity(way, model_file, grey_frames):
    runtime = FastRuntime(load_artifact(model_file), way, "cpu", compiled=False)
    assert (runtime.parity.score_max > 1e-5) == (way == "compile-bf16"), "half precision must show"
    if way == "compile":
        check_runtime(runtime, grey_frames)
    wanted, got = load(model_file)(grey_frames), runtime(grey_frames)
    assert np.abs(got.score - wanted.score).max() < 0.05 * np.abs(wanted.score).max()
    assert {values.dtype.name for values in got} == {"float32", "int32"}
    weights = [p for p in runtime.artifact.scorer.state_dict().values() if p.ndim == 4 and min(p.shape) > 1]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_a_way_that_scores_differently_is_refused(model_file, monkeypatch):
    monkeypatch.setitem(run_fast.BOUNDS, "fp16", BOUNDS["fp32"])
    with pytest.raises(ParityError, match="'compile-bf16' on cpu would score other than the model: score_max"):
        FastRuntime(load_artifact(model_file), "compile-bf16", "cpu", compiled=False)


@pytest.mark.parametrize("arguments", [{"provider": "compile"}, {"provider": "tensorrt"}])
def test_ways_that_do_not_exist_here_are_refused(arguments, model_file):
    with pytest.raises(SettingError, match="compile-fp16"):
        load(model_file, **arguments)


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.parametrize("way", sorted(WAYS))
def test_compiled_models_keep_the_contract_on_the_gpu(way, model_file, grey_frames):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA GPU")
    runtime = load(model_file, device="cuda", provider=way)
    check_runtime(runtime, grey_frames)
