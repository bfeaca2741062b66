"""What the benchmarks measure with: image sets and their judge, the meter, calls in turns."""

import subprocess
import sys
from dataclasses import replace
from importlib import import_module
from threading import Event, Thread

import numpy as np
import pytest
import torch

from anomaly.detector import Scores
from anomaly.errors import DatasetError
from anomaly.images import read_mask
from anomaly.metrics import auroc, pixel_auroc
from benchmarks.image_sets import judge, open_set
from benchmarks.isolated import FIGURES, Meter, peak_mib, run_isolated
from benchmarks.latency import Call, settle, take_turns


def test_a_set_is_stretched_to_its_canvas_as_rgb_and_drawn_by_seed(folder):
    images = open_set(str(folder), train=5, size=(64, 96))
    assert (images.input.channels, images.input.size, images.input.resize) == (3, (64, 96), "stretch")
    assert len(images.train) == len(set(images.train)) == 5
    assert images.train == open_set(str(folder), train=5).train
    assert sorted(open_set(str(folder)).train) == sorted(open_set(str(folder), seed=1).train)
    assert open_set(str(folder)).train != open_set(str(folder), seed=1).train
    assert {sample.label for sample in open_set(str(folder), test=4).test} == {0, 1}


def test_an_unknown_set_is_refused():
    with pytest.raises(DatasetError, match="magnetic_tile"):
        open_set("no-such-set")


def test_the_judge_compares_scores_and_maps_with_the_truth(folder):
    images = open_set(str(folder), size=(96, 96))

    def dark(canvas):
        grey = canvas.pixels.mean(dim=1)
        return Scores(-grey.mean(dim=(1, 2)), -grey)

    outcome = judge(images, {"dark": dark, "bright": lambda canvas: Scores(*(-part for part in dark(canvas)))})
    assert outcome.labels == [sample.label for sample in images.test]
    truth = [read_mask(s.mask, 96, 96) if s.mask else np.zeros((96, 96), bool) for s in images.test]
    found = outcome.figures("dark")
    assert found["image_auroc"] == auroc(outcome.scores["dark"], outcome.labels)
    assert found["pixel_auroc"] == pixel_auroc(outcome.maps["dark"], truth)
    assert found["image_auroc"] == pytest.approx(1 - outcome.figures("bright")["image_auroc"])
    assert 0.5 <= outcome.shortcut_aurocs()["mean grey"] <= 1


def test_a_file_that_cannot_be_used_ends_a_benchmark(folder, tmp_path):
    images = open_set(str(folder))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    with pytest.raises(DatasetError, match="cannot be used"):
        list(replace(images, train=[*images.train, broken]).frames())


def test_the_meter_tells_features_from_the_rest():
    meter = Meter()
    assert list(meter.features(torch.rand(300, 300).matrix_power(9).sum().item() for _ in range(3)))
    figures = meter.figures()
    assert tuple(figures) == FIGURES
    assert figures["fit_wall_s"] >= figures["features_wall_s"] > 0
    assert figures["fit_cpu_s"] == pytest.approx(figures["features_cpu_s"] + figures["rest_cpu_s"])
    assert figures["peak_mib"] >= figures["imports_mib"] > 1


def test_work_in_another_process_has_its_own_peak_memory():
    ballast = np.ones(300 * 2**17)  # 300 MiB of ours
    assert run_isolated("benchmarks.isolated:peak_mib", {}, 1) < 150 < ballast.nbytes / 2**20 < peak_mib()


def test_a_failure_in_another_process_is_an_error(capfd):
    with pytest.raises(subprocess.CalledProcessError):
        run_isolated("benchmarks.isolated:nothing", {}, 1)
    assert "nothing" in capfd.readouterr().err


def test_calls_take_turns():
    order = []
    calls = {
        name: Call(lambda name=name: order.append((name, torch.get_num_threads())), t)
        for name, t in (("a", 1), ("b", 2))
    }
    before = torch.get_num_threads()
    found = take_turns(calls, runs=2)
    assert order == [("a", 1), ("a", 1), ("b", 2), ("b", 2)] * 5
    assert torch.get_num_threads() == before
    assert all(latency.p90 >= latency.median > 0 for latency in found.values())


def _spin(stop: Event) -> None:
    while not stop.is_set():
        pass


def test_a_turn_begins_when_the_threads_of_the_last_one_rest():
    stop = Event()
    spinning = Thread(target=_spin, args=(stop,))
    spinning.start()
    try:
        settle(most=0.2)  # gives up
        assert not stop.is_set()
        ended = Thread(target=lambda: (stop.wait(0.3), stop.set()))
        ended.start()
        settle(most=60)
        assert stop.is_set()
    finally:
        stop.set()
        spinning.join()


@pytest.mark.parametrize("name", ["against_anomalib", "anomalib_models", "backbones", "detectors", "scaling"])
def test_every_command_has_help_with_examples(name, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit, match="0"):
        import_module(f"benchmarks.{name}").main()
    assert f"python -m benchmarks.{name} --out" in capsys.readouterr().out
