"""Latency from raw frame to decision: work and roofline by hand, figures and files of a run, a small run itself."""

import csv

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from anomaly.errors import SettingError
from benchmarks import line_latency
from benchmarks.cli import app
from benchmarks.commands import numbers
from benchmarks.latency import Call, times_in_turns
from benchmarks.latency_report import report, table
from benchmarks.line_latency import OURS, Result, Row, Wish, fastest
from benchmarks.roofline import Roofline, Work, measure, work_of

ROOF = Roofline(gflops=100.0, gbytes=10.0)


def row(model=OURS, runtime="ONNX Runtime", precision="fp32", batch=1, times=(10.0, 11.0, 12.0), frame=256, canvas=256):
    return Row(model, runtime, precision, batch, frame, canvas, precision, list(times), Work(0.5 * batch, 0.01))


RESULT = Result(
    rows=[
        row(times=(20.0, 21.0, 30.0)),
        row(runtime="OpenVINO", precision="int8", times=(8.0, 9.0, 9.5)),
        row(runtime="OpenVINO", precision="int8", batch=8, times=(80.0, 90.0)),
        row(model="anomalib Padim", times=(44.0, 45.0, 46.0)),
    ],
    wafers=[row(runtime="OpenVINO", precision="int8", batch=36, times=(500.0,), frame=512, canvas=512)],
    rooflines={"cpu": ROOF},
    skipped=["anomalib's exports: No module named 'anomalib'"],
)


@pytest.fixture
def graph(tmp_path):
    """A convolution of 3 x 8 x 8 to 4 x 8 x 8 with 3 x 3 kernels, (4, 64) by (64, 5), (5, 4) by (4, 2)."""
    weights = {"w": (4, 3, 3, 3), "m": (64, 5), "g": (4, 2)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Reshape", ["c", "shape"], ["flat"]),
        helper.make_node("MatMul", ["flat", "m"], ["p"]),
        helper.make_node("Gemm", ["p", "g"], ["y"], transA=1),
    ]
    constants = [onnx.numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in weights.items()]
    constants.append(onnx.numpy_helper.from_array(np.array([4, 64]), "shape"))
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 2])],
            constants,
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )
    onnx.save_model(model, tmp_path / "g.onnx")
    return tmp_path / "g.onnx"


def test_the_work_of_a_graph_is_that_of_its_products(graph):
    work = work_of(graph)
    multiplications = 4 * 8 * 8 * (3 * 3 * 3) + 4 * 5 * 64 + 5 * 2 * 4
    assert work.gflop == pytest.approx(2e-9 * multiplications)
    least = 4 * (4 * 27 + 64 * 5 + 8 + 3 * 64 + 10)
    assert least <= 1e9 * work.gbyte < least + 200


def test_the_roof_is_the_nearer_of_both():
    assert ROOF.least_ms(Work(1.0, 0.01)) == pytest.approx(10.0)
    assert ROOF.limit(Work(1.0, 0.01)) == "arithmetic"
    assert ROOF.least_ms(Work(0.1, 0.1)) == pytest.approx(10.0)
    assert ROOF.limit(Work(0.01, 0.1)) == "memory"


def test_the_machine_is_measured():
    found = measure(1)
    assert 0.5 < found.gflops < 1e5
    assert 0.1 < found.gbytes < 1e4


def test_every_time_of_a_call_is_kept_and_rounds_are_reported():
    told = []
    taken = times_in_turns({"a": Call(lambda: None, 1)}, 4, lambda what, steps: (told.append(steps), told.append)[1])
    assert [len(times) for times in taken.values()] == [4]
    assert told == [7, *[1] * 7]


def test_figures_of_a_row():
    figures = row(times=range(1, 102), batch=2).figures()
    assert figures == {
        "p50_ms": 51,
        "p90_ms": 91,
        "p99_ms": 100,
        "max_ms": 101,
        "jitter_ms": 49,
        "images_per_s": pytest.approx(2000 / 51),
    }


def test_the_fastest_runtime_is_never_pytorch_nor_the_peer():
    rows = [*RESULT.rows, row(runtime="PyTorch", times=(1.0,))]
    assert fastest(rows) is RESULT.rows[1]
    assert fastest(rows, "anomalib Padim") is RESULT.rows[3]
    assert fastest(rows, "anomalib Patchcore") is None


def test_the_report_says_what_was_reached_what_was_left_out_and_keeps_everything(tmp_path):
    text = report(RESULT, Wish(threads=2), tmp_path)
    assert "goal of 10 ms with two threads: reached" in text
    assert "anomalib Padim: fastest 45.0 ms (ONNX Runtime), 5.0 times ours" in text
    assert "500 ms of 360 ms; limited by arithmetic: 18 GFLOP take 180 ms" in text
    assert "left out: anomalib's exports: No module named 'anomalib'" in text
    with (tmp_path / "latency.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(r["batch"], r["p50_ms"], r["threads"]) for r in rows][:2] == [("1", "21", "2"), ("1", "9", "2")]
    assert {r["commit"] for r in rows} == {rows[0]["commit"]} != {""}
    assert (tmp_path / "latency.svg").read_text().startswith("<?xml")
    assert (tmp_path / "latency.md").read_text().strip() in text


def test_the_table_shows_the_share_of_the_roofline():
    assert "56%" in table(RESULT.rows[1:2], {"cpu": ROOF})  # 5 of 9 ms


def test_without_anomalib_its_rows_are_left_out_with_a_line(monkeypatch, tmp_path):
    def missing(*_):
        raise ModuleNotFoundError("No module named 'anomalib'")

    monkeypatch.setattr(line_latency, "export_peers", missing)
    monkeypatch.setattr(line_latency, "shared_file", lambda relative: tmp_path)
    monkeypatch.setattr(line_latency, "frames_from_files", lambda *_: np.zeros((1, 1, 8, 8), np.uint8))
    monkeypatch.setattr(line_latency, "frame_of", lambda *_: None)
    artifact = type("A", (), {"scorer": type("S", (), {"input": None})})
    skipped = []
    assert line_latency._peers(artifact, [], Wish(), tmp_path, skipped, lambda what, steps: lambda done: None) == []
    assert skipped == ["anomalib's exports: No module named 'anomalib'"]


@pytest.mark.parametrize("text", ["", "0", "1,x", "-1", "1.5"])
def test_numbers_that_are_none_are_refused(text):
    with pytest.raises(SettingError, match="--batches"):
        numbers("--batches", text)


def test_numbers_are_read():
    assert numbers("--batches", "8, 1,") == (8, 1)


@pytest.mark.slow
def test_the_command_measures_every_runtime_of_this_machine(tmp_path):
    options = ["--runs", "2", "--batches", "1", "--no-peers", "--no-wafer", "--size", "64", "--threads", "1"]
    run = CliRunner().invoke(app, ["latency", *options, "--out", str(tmp_path)])
    assert run.exit_code == 0, run.output
    with (tmp_path / "latency.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {(r["runtime"], r["precision"]) for r in rows}
    assert {("PyTorch", "fp32"), ("ONNX Runtime", "fp32"), ("OpenVINO", "fp32")} <= found
    assert all(float(r["p50_ms"]) > 0 and float(r["roofline_ms"]) > 0 for r in rows)
    assert all(0 < float(r["p50_ms"]) <= float(r["p99_ms"]) <= float(r["max_ms"]) for r in rows)
