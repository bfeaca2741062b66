import csv

import pytest
import torch
from torch import Tensor, nn

from anomaly.errors import ArtifactError, SettingError
from anomaly.training import CHECKPOINT, LOG, TrainingSettings, train


def _network():
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 1))


def _run(folder, stop_after=None, model=None, **changes):
    model = model or _network()

    def loss_at(step: int) -> Tensor:
        x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return (model(x) - x.sum(1, keepdim=True)).square().mean()

    def evaluate(average):
        return {"error": float(average(torch.ones(1, 4)).detach())}

    settings = TrainingSettings(**{"steps": 40, "learning_rate": 0.05, "ema": 0.9, "evaluate_every": 10} | changes)
    return train(
        model, loss_at, settings, folder=folder, evaluate=evaluate, stop_after=stop_after, progress=False
    ).state_dict()


def _log(folder):
    with (folder / LOG).open() as source:
        return list(csv.DictReader(source))


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_resumed_run_equals_uninterrupted_run_bit_for_bit(tmp_path):
    whole = _run(tmp_path / "whole")
    _run(tmp_path / "parts", stop_after=13)
    assert _equal(whole, _run(tmp_path / "parts"))
    logs = [_log(tmp_path / name) for name in ("whole", "parts")]
    assert [row["step"] for row in logs[0]] == ["10", "20", "30", "40"]
    assert [row["error"] for row in logs[0]] == [row["error"] for row in logs[1]]


def test_same_seed_same_weights_other_seed_other_weights():
    assert _equal(_run(None), _run(None))
    assert not _equal(_run(None), _run(None, seed=1))


def test_callers_random_state_is_left_alone():
    model = _network()
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    _run(None, model=model)
    assert torch.equal(torch.rand(3), expected)


def test_loss_falls(tmp_path):
    _run(tmp_path, steps=200)
    losses = [float(row["loss"]) for row in _log(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]


def test_rows_after_the_checkpoint_are_dropped_on_resume(tmp_path):
    _run(tmp_path, stop_after=13)
    early = (tmp_path / CHECKPOINT).read_bytes()
    _run(tmp_path)
    (tmp_path / CHECKPOINT).write_bytes(early)
    _run(tmp_path)
    steps = [row["step"] for row in _log(tmp_path)]
    assert steps == ["10", "20", "30", "40"]


def test_checkpoint_of_other_settings_is_refused(tmp_path):
    _run(tmp_path, stop_after=5)
    with pytest.raises(ArtifactError, match="name another folder"):
        _run(tmp_path, seed=1)


def test_checkpoint_of_another_network_is_refused(tmp_path):
    _run(tmp_path, stop_after=5)
    with pytest.raises(ArtifactError, match="another network"):
        _run(tmp_path, model=nn.Linear(4, 1))


def test_one_cycle_rises_then_falls_to_zero():
    settings = TrainingSettings(steps=100, learning_rate=1.0, warmup=0.1)
    rates = [settings.rate(step) for step in range(100)]
    assert max(rates) == 1.0
    assert rates.index(1.0) == 10
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.001


@pytest.mark.parametrize(
    ("name", "value"), [("steps", 0), ("learning_rate", 0.0), ("warmup", 1.0), ("ema", 1.0), ("evaluate_every", 0)]
)
def test_bad_settings_are_refused(name, value):
    with pytest.raises(SettingError, match=f"{name} of TrainingSettings must be"):
        TrainingSettings(**{"steps": 1} | {name: value})
