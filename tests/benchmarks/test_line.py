"""The sustained run of a line: schedule, figures, files, and the table of faults."""

import csv

import numpy as np
import pytest

from benchmarks.line import Measured, drive, per_second, plot, prepare, row_of, table, write_seconds
from benchmarks.tables import number
from inspection.line.counters import Counters
from inspection.line.runner import State, Status
from inspection.line.testing import ok, part
from inspection.parts import PartResult, Reason


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return prepare(tmp_path_factory.mktemp("bench"), "brushed_metal", 64, 5000.0)


def measured_of(latencies, unjudged=0) -> Measured:
    counters = Counters(0.1)
    for number_, latency in enumerate(latencies):
        counters.saw()
        result = ok(part(f"{number_}")).result
        if number_ < unjudged:
            result = PartResult.not_judged(part(f"{number_}"), "NG", Reason.OVERLOAD, "full")
        counters.reported(result, latency / 1000)
    status = Status(state=State.DONE, figures=counters.figures(), waiting=0, queue=1, unreported=0, alarms=())
    return Measured(status, np.arange(len(latencies)) / 2, np.array(latencies, float), 0.5)


def test_a_run_holds_if_p99_keeps_the_deadline_and_every_part_was_judged():
    assert measured_of([50.0] * 200).holds(100.0)
    assert not measured_of([50.0] * 150 + [150.0] * 50).holds(100.0)
    assert not measured_of([50.0] * 200, unjudged=1).holds(100.0)


def test_seconds_count_every_result_once():
    rows = per_second(measured_of([10.0, 30.0, 20.0, 20.0, 90.0]))
    assert [row["second"] for row in rows] == [0, 1, 2]
    assert [row["parts"] for row in rows] == [2, 2, 1]
    assert rows[0] == {"second": 0, "parts": 2, "p50_ms": 20.0, "p99_ms": pytest.approx(29.8), "max_ms": 30.0}


def test_frames_come_on_schedule_with_the_time_of_the_schedule(bench):
    found = list(bench.camera(50.0, 0.4))
    assert len(found) == 20
    steps = np.diff([one.captured.timestamp() for one in found])
    assert np.allclose(steps, 0.02, atol=1e-5)
    assert found[0].image.shape[:2] == (64, 64)


def test_a_run_of_the_real_line_is_measured_and_drawn(bench, tmp_path):
    measured = drive(bench, 10.0, 2.0)
    row = row_of(measured, 10.0, 5000.0)
    assert (row["parts"], row["judged"], row["holds"]) == (20, 20, "yes")
    assert 0 < row["p50_ms"] <= row["p99_ms"] <= row["max_ms"]
    assert len(measured.latencies) == 20
    seconds = per_second(measured)
    write_seconds(seconds, tmp_path / "seconds.csv")
    with (tmp_path / "seconds.csv").open(newline="") as file:
        assert sum(float(one["parts"]) for one in csv.DictReader(file)) == 20
    plot(seconds, 5000.0, "title", tmp_path / "line.svg")
    assert "<svg" in (tmp_path / "line.svg").read_text()
    text = {name: str(value) for name, value in row.items()}
    assert number(row["p50_ms"], 1) in table([{"run": "sustained", "frame": "64 x 64", "seconds": "2", **text}])


def test_a_camera_that_no_line_can_follow_does_not_hold(bench):
    measured = drive(bench, 2000.0, 0.3)
    assert measured.status.figures.seen == measured.status.figures.reported == 600
    assert not measured.holds(20.0)
