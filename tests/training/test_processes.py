"""Several processes, and processes that are killed: real ones, on the CPU with gloo."""

import csv
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from anomaly.errors import SettingError
from anomaly.training import CHECKPOINT, LOG, TrainingSettings, batch_indices, joined, processes, train

BATCH, COUNT, STEPS = 8, 40, 30

TOLERANCE = 1e-4
"""Relative; sums of a batch in two parts and in one differ by float rounding. The log has five digits."""


def run(folder: Path, *, noise: float = 0.0, norm: bool = False, kill_at: int | None = None, rank: int = 0) -> None:
    data = torch.randn(COUNT, 4, generator=torch.Generator().manual_seed(1))
    truth = data.sum(1, keepdim=True)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8) if norm else nn.Tanh(), nn.Tanh(), nn.Linear(8, 1))

    def loss_at(step: int) -> Tensor:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        index = batch_indices(step, BATCH, COUNT, seed=0)
        return (model(data[index] + noise * torch.randn(len(index), 4)) - truth[index]).square().mean()

    def validate(average: nn.Module) -> float:
        with torch.no_grad():
            return float((average(data[:8]) - truth[:8]).square().mean())

    how = TrainingSettings(STEPS, 0.05, ema=0.9, evaluate_every=1, checkpoint_seconds=0.0, patience=25)
    average = train(model, loss_at, how, folder=folder, validate=validate, progress=False)
    save_file(average.state_dict(), folder / f"end{rank}.safetensors")


def _run(folder, kind, launcher=()):
    command = [sys.executable, *launcher, __file__, str(folder), kind]
    return subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _losses(folder):
    with (folder / LOG).open() as source:
        return torch.tensor([[float(row["loss"]), float(row["validation_loss"])] for row in csv.DictReader(source)])


@pytest.mark.slow
def test_killed_and_resumed_training_ends_like_an_uninterrupted_one_bit_for_bit(tmp_path):
    killed = _run(tmp_path / "parts", "kill")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "parts" / CHECKPOINT).exists()
    assert len(_losses(tmp_path / "parts")) == 13
    run(tmp_path / "parts", noise=0.1)
    run(tmp_path / "whole", noise=0.1)
    whole, parts = (load_file(tmp_path / name / "end0.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert torch.equal(_losses(tmp_path / "whole"), _losses(tmp_path / "parts"))
    assert len(_losses(tmp_path / "whole")) == STEPS


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The files of two processes that trained together."""
    folder = tmp_path_factory.mktemp("together")
    done = _run(folder, "share", ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"))
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_two_processes_have_the_losses_of_one_with_the_same_batch(together, tmp_path):
    run(tmp_path)
    torch.testing.assert_close(_losses(together / "plain"), _losses(tmp_path), rtol=TOLERANCE, atol=0)
    alone, two = (load_file(folder / "end0.safetensors") for folder in (tmp_path, together / "plain"))
    for name, value in alone.items():
        torch.testing.assert_close(two[name], value, rtol=TOLERANCE, atol=TOLERANCE)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["plain", "norm"])
def test_all_processes_end_with_the_same_network(together, kind):
    first, second = (load_file(together / kind / f"end{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(first[name], second[name]) for name in first)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 50), st.integers(1, 4), st.integers(1, 6), st.integers(1, 30), st.integers(0, 3))
def test_shares_of_the_processes_make_up_the_batch(step, count, share, images, seed):
    def of(rank, number):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(processes, "place", lambda: (rank, number))
            return batch_indices(step, count * share, images, seed)

    parts = [of(rank, count) for rank in range(count)]
    assert {len(part) for part in parts} == {share}
    assert sorted(index for part in parts for index in part) == sorted(of(0, 1))


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30))
def test_every_epoch_shows_every_image_once(images, batch):
    seen = [index for step in range(images) for index in batch_indices(step, batch, images, seed=0)]
    for start in range(0, len(seen) - images + 1, images):
        assert sorted(seen[start : start + images]) == list(range(images))


def test_epochs_have_different_orders():
    seen = [index for step in range(5) for index in batch_indices(step, 4, 10, seed=0)]
    assert seen[:10] != seen[10:]


def test_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setattr(processes, "place", lambda: (0, 2))
    with pytest.raises(SettingError, match="multiple of the 2 processes that share it; got 5"):
        batch_indices(0, 5, 10, seed=0)


if __name__ == "__main__":  # a process of its own: one that is killed, or one of several under torchrun
    if sys.argv[2] == "kill":
        run(Path(sys.argv[1]), noise=0.1, kill_at=13)
    with joined() as (rank, _):
        run(Path(sys.argv[1]) / "plain", rank=rank)
        run(Path(sys.argv[1]) / "norm", norm=True, rank=rank)
