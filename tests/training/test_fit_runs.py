"""`anomaly fit` of a detector that trains: a run folder to go on in, and several processes under torchrun."""

import os
import subprocess
import sys
from functools import partial

import pytest
import torch
from safetensors.torch import load_file

from anomaly.cli import main
from anomaly.detectors import student
from anomaly.images.synthetic import write_dataset
from anomaly.training import CHECKPOINT, LOG, TrainingSettings

SETTINGS = ("--detector", "student", "--set", "steps=12", "--set", "width=16", "--set", "batch=4")
TOLERANCE = 5e-3
"""Relative, of the length of each tensor: gradients are summed in two parts, and 12 steps of Adam carry it on."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "cast"
    write_dataset(root, "cast", 16, 2, 2, (64, 64), seed=0)
    return root / "train" / "good"


@pytest.fixture
def fit(monkeypatch, data):
    """Runs `anomaly fit` in this process; returns the tensors of the model."""

    def fitted(output, *options):
        monkeypatch.setattr(sys, "argv", ["anomaly", "fit", str(data), "-o", str(output), *SETTINGS, *options])
        with pytest.raises(SystemExit) as caught:
            main()
        assert not caught.value.code
        return load_file(output)

    return fitted


def _equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_interrupted_fit_goes_on_in_its_run_folder_to_the_same_model(fit, tmp_path, monkeypatch):
    whole = fit(tmp_path / "whole.safetensors")
    indices, seen = student.batch_indices, []

    def interrupted(step, *rest):
        seen.append(step)
        if len(seen) == 8:
            raise KeyboardInterrupt
        return indices(step, *rest)

    run = ("--run", str(tmp_path / "run"))
    monkeypatch.setattr(student, "batch_indices", interrupted)
    monkeypatch.setattr(student, "TrainingSettings", partial(TrainingSettings, checkpoint_seconds=0.0))
    with pytest.raises(AssertionError):
        fit(tmp_path / "parts.safetensors", *run)
    assert not (tmp_path / "parts.safetensors").exists()
    assert (tmp_path / "run" / "1" / CHECKPOINT).exists()
    assert _equal(whole, fit(tmp_path / "parts.safetensors", *run))
    assert seen == [*range(8), *range(7, 12)]
    assert _equal(whole, fit(tmp_path / "again.safetensors", *run))  # nothing is left to train
    assert len(seen) == 13
    assert (tmp_path / "run" / "1" / LOG).read_text().count("\n") == 13


def test_run_folder_of_other_settings_is_refused(fit, tmp_path, capsys):
    run = ("--run", str(tmp_path / "run"))
    fit(tmp_path / "one.safetensors", *run)
    with pytest.raises(AssertionError):
        fit(tmp_path / "two.safetensors", *run, "--seed", "1")
    assert "holds a run with other images, settings: give the same" in capsys.readouterr().err
    assert not (tmp_path / "two.safetensors").exists()


@pytest.mark.slow
def test_two_processes_under_torchrun_fit_the_model_of_one(fit, data, tmp_path):
    alone = fit(tmp_path / "alone.safetensors")
    output, run = tmp_path / "together.safetensors", tmp_path / "run"
    together = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "--no-python",
        "--",
    ]
    command = [sys.executable, "-c", "from anomaly.cli import main; main()", "fit", data, "-o", output, *SETTINGS]
    quiet = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    arguments = [str(part) for part in (*together, *command, "--run", run)]
    done = subprocess.run(arguments, capture_output=True, text=True, env=quiet)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Wrote ") == 1
    tensors = load_file(output)
    for name, value in alone.items():
        difference = (tensors[name].double() - value.double()).norm() / value.double().norm().clamp_min(1e-9)
        assert difference <= TOLERANCE, (name, float(difference))
