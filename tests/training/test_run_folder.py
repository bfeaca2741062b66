import pytest
import torch
from torch import Tensor, nn

from anomaly.errors import ArtifactError
from anomaly.training import CHECKPOINT, TrainingSettings, run_folder, train


def _fit(stop_after=None):
    """Two trainings, as a detector with two stages has them."""
    ends = []
    for size in (2, 3):
        torch.manual_seed(0)
        model = nn.Linear(size, 1)

        def loss_at(step: int, size: int = size, model: nn.Module = model) -> Tensor:
            return (model(torch.randn(4, size)) - 1).square().mean()

        average = train(model, loss_at, TrainingSettings(20), stop_after=stop_after, progress=False)
        ends.append(average.state_dict()["weight"])
    return ends


def test_trainings_in_a_run_folder_are_numbered_and_go_on(tmp_path):
    whole = _fit()
    with run_folder(tmp_path / "run", {"seed": 1}):
        stopped = _fit(stop_after=7)
    assert sorted(path.parent.name for path in tmp_path.rglob(CHECKPOINT)) == ["1", "2"]
    with run_folder(tmp_path / "run", {"seed": 1}):
        resumed = _fit()
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(whole, stopped, strict=True))


def test_run_of_another_identity_is_refused(tmp_path):
    with run_folder(tmp_path, {"images": "a", "settings": {"seed": (1, 2)}}):
        _fit(stop_after=3)
    with (
        run_folder(tmp_path, {"images": "b", "settings": {"seed": [1, 2]}}),
        pytest.raises(ArtifactError, match="holds a run with other images: "),
    ):
        _fit()


def test_nothing_is_written_where_nothing_is_trained(tmp_path):
    with run_folder(tmp_path / "run", {}):
        pass
    _fit()
    assert not (tmp_path / "run").exists()
