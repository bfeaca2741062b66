"""The table of backbones: measured once per weights, set and detector."""

import pytest
import torch

from anomaly.errors import UnknownNameError
from benchmarks import backbones
from benchmarks.environment import FACTS
from benchmarks.latency import Latency
from benchmarks.tables import ResultFile

VALUES = backbones.VALUES


def test_quality_is_measured_once_and_limits_are_other_rows(folder, tmp_path, monkeypatch):
    path = tmp_path / "backbones.csv"
    bundled = [backbones.Named.of("bundled")]
    file = ResultFile(path, backbones.KEY, VALUES)
    (row,) = backbones.quality(file, bundled, [str(folder)], ["subspace"], 6)
    assert 0 <= float(row["image_auroc"]) <= 1
    assert 0 <= float(row["aupro_0.3"]) <= 1
    assert (row["train"], row["test"], row["weights"]) == ("6", "6", bundled[0].weights)

    with monkeypatch.context() as patched:
        patched.setattr(backbones, "judge", lambda *_: pytest.fail("measured again"))
        again = ResultFile(path, backbones.KEY, VALUES)
        assert backbones.quality(again, bundled, [str(folder)], ["subspace"], 6) == [row]
    assert len(backbones.quality(again, bundled, [str(folder)], ["subspace"], None)) == 1
    assert len(ResultFile(path, backbones.KEY, VALUES).rows) == 2
    assert "mean grey" in backbones.shortcut_table([row])


def test_latencies_are_taken_together_and_once(monkeypatch):
    taken = []

    def pretend(calls, runs):
        taken.append((list(calls), runs))
        for call in calls.values():
            call.run()
        return {name: Latency(float(i), float(i)) for i, name in enumerate(calls)}

    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(backbones, "take_turns", pretend)
    monkeypatch.setattr(backbones, "LATENCY_SIZE", 64)
    file = ResultFile(None, backbones.LATENCY_KEY, (*backbones.LATENCIES, "onnx_difference", *FACTS))
    bundled = [backbones.Named.of("bundled")]
    rows = backbones.latencies(file, bundled, 2)
    assert backbones.latencies(file, bundled, 2) == rows
    assert taken == [([f"bundled {variant}" for variant in backbones.LATENCIES], 2)]
    assert [rows[0][variant] for variant in backbones.LATENCIES] == ["0", "1", "2", "3"]
    assert float(rows[0]["onnx_difference"]) < 1e-4
    assert not torch.is_inference_mode_enabled()


def test_the_table_has_means_of_what_is_there():
    common = dict.fromkeys(VALUES, "")
    rows = [
        {**common, "backbone": "b", "detector": d, "dataset": s, "image_auroc": i, "pixel_auroc": p}
        for d, s, i, p in [
            ("subspace", "masks", "0.8", "0.9"),
            ("subspace", "no masks", "0.6", ""),
            ("memory_bank", "masks", "0.7", "0.95"),
            ("memory_bank", "no masks", "0.9", ""),
        ]
    ]
    lines = backbones.table(rows, []).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert cells[0][:7] == ["backbone", "detector", "masks I", "masks P", "no masks I", "mean I", "mean P"]
    assert cells[2][1:7] == ["subspace", "0.800", "0.900", "0.600", "0.700", "0.900"]
    assert cells[4][1:7] == [backbones.BETTER, "", "", "", "0.800", "0.950"]


def test_an_unknown_backbone_is_refused():
    with pytest.raises(UnknownNameError, match="bundled"):
        backbones.Named.of("resnet19")


@pytest.mark.shared
@pytest.mark.parametrize("name", backbones.BACKBONES)
def test_every_backbone_of_the_table_has_its_weights(name, shared):
    assert len(backbones.Named.of(name).weights) == 12
