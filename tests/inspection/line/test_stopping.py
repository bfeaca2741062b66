"""A line that is stopped: what is in flight is finished or reported as STOPPED, and nothing is lost."""

import threading
import time

import pytest

from anomaly.calibration import Decision
from inspection.line.runner import Line, State, Status
from inspection.line.settings import LineSettings
from inspection.line.sources.given import GivenParts
from inspection.line.testing import Judge, Kept, in_thread, part, parts, wait_until
from inspection.parts import Reason


def settings_of(**values) -> LineSettings:
    return LineSettings(
        **{"part_timeout_ms": 150.0, "deadline_ms": 100.0, "stop_s": 0.2, "report_retry_s": 0.3, **values}
    )


def test_a_graceful_stop_finishes_what_is_in_flight():
    def endless():
        number = 0
        while True:
            number += 1
            yield part(f"{number}")

    kept = Kept()
    line = Line(GivenParts(endless()), Judge(lambda one: time.sleep(0.002)), kept, settings_of(stop_s=5.0))
    thread, ended = in_thread(line.run)
    wait_until(lambda: len(kept.results) > 20)
    line.stop()
    thread.join(5)
    (status,) = ended
    assert isinstance(status, Status)
    assert status.state == State.DONE
    assert status.figures.seen == status.figures.reported == len(kept.results)
    assert {result.reason for result in kept.results} == {Reason.SCORE}


def test_a_stop_reports_as_stopped_what_is_not_judged_in_time():
    release, given = threading.Event(), []

    def source():
        for one in parts(100):
            given.append(one.id)
            yield one

    kept, judge = Kept(), Judge(lambda one: release.wait(10))
    settings = settings_of(queue=3, batch=1, part_timeout_ms=10_000.0)
    line = Line(GivenParts(source()), judge, kept, settings)
    thread, ended = in_thread(line.run)
    wait_until(lambda: line.status().waiting == 3 and len(given) == 5)
    line.stop()
    thread.join(5)
    release.set()
    (status,) = ended
    assert isinstance(status, Status)
    assert status.figures.seen == 5  # inspected, three in the queue, one in the source's hand
    assert sorted(result.part for result in kept.results) == sorted(given)
    assert {result.reason for result in kept.results} == {Reason.STOPPED}
    assert {result.decision for result in kept.results} == {Decision.NG}


@pytest.mark.parametrize("policy", ["block", "ng"])
def test_a_stop_while_reporting_fails_loses_nothing_that_the_source_has_given(policy):
    broken, given = threading.Event(), []

    def endless():
        while True:
            given.append(str(len(given)))
            yield part(given[-1])

    def report() -> None:
        if not broken.is_set():
            raise OSError("database is locked")

    kept = Kept(before=report)
    line = Line(
        GivenParts(endless()),
        Judge(),
        kept,
        settings_of(queue=4, batch=1, on_overload=policy, report_retry_s=20.0),
    )
    thread, ended = in_thread(line.run)
    wait_until(lambda: line.status().unreported == 2 * 4 + 64 and len(given) == 2 * 4 + 64 + 1)
    line.stop()
    time.sleep(0.5)  # longer than stop_s
    broken.set()
    thread.join(10)
    assert isinstance(ended[0], Status), ended
    assert sorted(result.part for result in kept.results) == sorted(given)


def test_a_second_stop_does_not_wait():
    release = threading.Event()
    line = Line(GivenParts(parts(2)), Judge(lambda one: release.wait(10)), Kept(), LineSettings(stop_s=60.0))
    thread, ended = in_thread(line.run)
    wait_until(lambda: line.status().unreported == 2)
    line.stop()
    line.stop()
    thread.join(5)
    release.set()
    assert isinstance(ended[0], Status)
    assert ended[0].figures.reasons == {Reason.STOPPED: 2}


def test_a_stop_ends_a_line_whose_camera_hangs():
    forever = threading.Event()

    def camera():
        yield part("one")
        forever.wait()

    kept = Kept()
    line = Line(GivenParts(camera()), Judge(), kept, settings_of())
    thread, ended = in_thread(line.run)
    wait_until(lambda: kept.names == ["one"])
    line.stop()
    thread.join(5)
    assert isinstance(ended[0], Status)
    forever.set()
