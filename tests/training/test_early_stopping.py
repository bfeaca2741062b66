import csv
import math

import pytest
import torch
from torch import Tensor, nn

from anomaly.errors import SettingError
from anomaly.training import LOG, TrainingSettings, train

SETTINGS = TrainingSettings(60, 0.05, ema=0.0, evaluate_every=4, patience=3)


class Curve:
    """Validation losses by the number of the evaluation, whatever was learned; remembers what it has seen."""

    def __init__(self, *losses):
        self.losses, self.seen = [float(loss) for loss in losses], []

    def __call__(self, average):
        self.seen.append({name: value.clone() for name, value in average.state_dict().items()})
        return self.losses[min(len(self.seen), len(self.losses)) - 1]


def _run(folder, validate, stop_after=None, settings=SETTINGS):
    torch.manual_seed(0)
    model = nn.Linear(3, 1)

    def loss_at(step: int) -> Tensor:
        return (model(torch.randn(8, 3)) - 1.0).square().mean()

    return train(
        model, loss_at, settings, folder=folder, validate=validate, stop_after=stop_after, progress=False
    ).state_dict()


def _steps(folder):
    with (folder / LOG).open() as source:
        return [int(row["step"]) for row in csv.DictReader(source)]


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_stops_when_patience_ends_and_returns_the_best_average(tmp_path):
    curve = Curve(5, 3, 4, 4, 4, 1)
    best = _run(tmp_path, curve)
    assert _steps(tmp_path) == [4, 8, 12, 16, 20]
    assert _equal(best, curve.seen[1])
    assert not _equal(best, curve.seen[-1])


def test_a_lower_loss_gives_new_patience(tmp_path):
    curve = Curve(5, 6, 6, 4, 6, 6, 6, 1)
    assert _equal(_run(tmp_path, curve), curve.seen[3])
    assert _steps(tmp_path)[-1] == 28


def test_without_patience_all_steps_are_done_and_the_best_average_is_returned(tmp_path):
    curve = Curve(5, 3, 4)
    best = _run(tmp_path, curve, settings=TrainingSettings(60, 0.05, ema=0.0, evaluate_every=4))
    assert _steps(tmp_path)[-1] == 60
    assert _equal(best, curve.seen[1])


@pytest.mark.parametrize("stop", [3, 8, 9, 13, 17, 19])
def test_resumed_run_stops_where_the_uninterrupted_one_does(tmp_path, stop):
    losses = (5, 3, 4, 4, 4, 1)
    whole = _run(tmp_path / "whole", Curve(*losses))
    _run(tmp_path / "parts", Curve(*losses), stop_after=stop)
    resumed = _run(tmp_path / "parts", Curve(*losses[stop // 4 :]))
    assert _equal(whole, resumed)
    assert _steps(tmp_path / "whole") == _steps(tmp_path / "parts")


def test_a_run_that_stopped_early_is_not_gone_on_with(tmp_path):
    best = _run(tmp_path, Curve(5, 3, 4, 4, 4))
    unused = Curve(math.nan)
    assert _equal(best, _run(tmp_path, unused))
    assert not unused.seen


def test_patience_without_validation_is_refused():
    with pytest.raises(SettingError, match="patience of TrainingSettings must be 0 where nothing is held out"):
        _run(None, None)
