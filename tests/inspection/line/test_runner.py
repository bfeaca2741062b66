"""Every part that is seen ends as exactly one result, and nothing is OK that was not judged."""

import random
import threading
import time
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anomaly.calibration import Decision
from inspection.line.alarms import AlarmKind
from inspection.line.errors import LineError
from inspection.line.runner import Line, State, Status
from inspection.line.settings import LineSettings
from inspection.line.sources.given import GivenParts
from inspection.line.testing import Judge, Kept, in_thread, part, parts, wait_until
from inspection.parts import JUDGED, Part, Reason

QUICK = LineSettings(part_timeout_ms=150.0, deadline_ms=100.0, watchdog_s=0.1, stop_s=0.2, report_retry_s=0.3)


def test_all_parts_are_judged_and_reported_once():
    kept, judge = Kept(), Judge()
    status = Line(GivenParts(parts(200)), judge, kept, QUICK).run()
    assert kept.names == sorted(judge.asked) == [f"p{number:04d}" for number in range(200)]
    assert status.state == State.DONE
    assert (status.figures.seen, status.figures.reported, status.figures.judged) == (200, 200, 200)
    assert status.figures.yield_share == 1.0
    assert status.figures.last_ng is None
    assert status.unreported == 0
    assert all(result.milliseconds["batch"] >= 0 for result in kept.results)


def test_batches_are_as_large_as_allowed_and_no_larger():
    sizes: list[int] = []

    def judge(batch):
        sizes.append(len(batch))
        time.sleep(0.01)
        return Judge()(batch)

    Line(GivenParts(parts(40)), judge, Kept(), replace_settings(batch=8, batch_wait_ms=50.0)).run()
    assert sum(sizes) == 40
    assert max(sizes) == 8
    assert len(sizes) <= 8


def test_a_lone_part_does_not_wait_for_a_full_batch():
    def slow_source():
        yield part("first")
        time.sleep(0.6)
        yield part("second")

    sizes: list[int] = []

    def judge(batch):
        sizes.append(len(batch))
        return Judge()(batch)

    Line(GivenParts(slow_source()), judge, Kept(), replace_settings(batch=8, batch_wait_ms=20.0)).run()
    assert sizes == [1, 1]


def test_a_part_without_image_is_reported_with_its_problem_and_never_inspected():
    kept, judge = Kept(), Judge()
    source = GivenParts([part("good"), part("bad", problem="is truncated")])
    status = Line(source, judge, kept, QUICK, recipe="r" * 64, model="m" * 64).run()
    bad = kept.of("bad")
    assert (bad.decision, bad.reason, bad.detail) == (Decision.NG, Reason.UNREADABLE, "is truncated")
    assert (bad.recipe, bad.model) == ("r" * 64, "m" * 64)
    assert judge.asked == ["good"]
    assert status.figures.last_ng is not None
    assert status.figures.last_ng.part == "bad"


def test_an_exception_costs_only_the_part_that_raises_it():
    def before(one: Part) -> None:
        if one.id == "p0007":
            raise RuntimeError("CUDA error: an illegal memory access")

    kept = Kept()
    Line(GivenParts(parts(20)), Judge(before), kept, QUICK).run()
    assert kept.names == [f"p{number:04d}" for number in range(20)]
    assert kept.of("p0007").reason == Reason.ERROR
    assert kept.of("p0007").decision == Decision.NG
    assert "illegal memory access" in kept.of("p0007").detail
    assert Counter(result.decision for result in kept.results) == {Decision.OK: 19, Decision.NG: 1}


@pytest.mark.parametrize("fault", [SystemExit, MemoryError, KeyboardInterrupt])
def test_even_an_inspector_that_exits_does_not_end_the_line(fault):
    def before(one: Part) -> None:
        if one.id == "p0000":
            raise fault

    kept = Kept()
    Line(GivenParts(parts(3)), Judge(before), kept, QUICK).run()
    assert [kept.of(f"p{number:04d}").reason for number in range(3)] == [Reason.ERROR, Reason.SCORE, Reason.SCORE]


def swapped(batch):
    judged = Judge()(batch)
    return [replace(one, result=replace(one.result, part="another")) for one in judged]


@pytest.mark.parametrize("broken", [lambda batch: [], lambda batch: None, lambda batch: Judge()(batch) * 2, swapped])
def test_an_inspector_that_returns_something_else_never_gives_ok(broken):
    kept = Kept()
    Line(GivenParts(parts(3)), broken, kept, QUICK).run()
    assert [result.reason for result in kept.results] == [Reason.ERROR] * 3


def test_a_hanging_inspection_is_reported_as_timeout_and_what_it_says_later_is_discarded():
    release = threading.Event()

    def before(one: Part) -> None:
        if one.id == "p0001":
            release.wait(10)

    def source():
        yield from parts(2)
        wait_until(lambda: bool(kept.results) and kept.results[-1].part == "p0001")
        time.sleep(0.1)
        release.set()
        yield part("after")

    kept = Kept()
    status = Line(GivenParts(source()), Judge(before), kept, replace_settings(batch=1, watchdog_s=9.0)).run()
    assert kept.of("p0001").reason == Reason.TIMEOUT
    assert kept.of("p0001").decision == Decision.NG
    assert kept.of("after").reason == Reason.SCORE, "the line goes on once the inspection is back"
    assert status.figures.late == 1
    assert [alarm.kind for alarm in status.alarms if alarm.until] == [AlarmKind.INSPECTION_HANGS]


def test_an_inspection_that_never_comes_back_ends_every_part_and_the_line():
    forever = threading.Event()
    kept = Kept()
    status = Line(GivenParts(parts(6)), Judge(lambda one: forever.wait()), kept, replace_settings(batch=2)).run()
    assert kept.names == [f"p{number:04d}" for number in range(6)]
    assert {result.reason for result in kept.results} == {Reason.TIMEOUT}
    assert [alarm.kind for alarm in status.alarms if not alarm.until] == [AlarmKind.INSPECTION_HANGS]
    forever.set()


def test_where_the_source_waits_a_long_queue_is_no_timeout():
    def slow(one: Part) -> None:
        time.sleep(0.03)

    kept = Kept()
    source = GivenParts(list(parts(20)))  # all captured at once: the last one waits 0.6 s, four times the timeout
    status = Line(source, Judge(slow), kept, replace_settings(batch=1)).run()
    assert {result.reason for result in kept.results} == {Reason.SCORE}
    assert status.figures.missed > 0


def test_where_the_source_does_not_wait_the_timeout_counts_from_the_capture():
    def slow(one: Part) -> None:
        time.sleep(0.03)

    kept = Kept()
    Line(GivenParts(list(parts(20))), Judge(slow), kept, replace_settings(batch=1, on_overload="ng")).run()
    reasons = Counter(result.reason for result in kept.results)
    assert reasons[Reason.SCORE] >= 1
    assert reasons[Reason.TIMEOUT] >= 10
    assert sum(reasons.values()) == 20


@pytest.mark.parametrize(("policy", "decision"), [("ng", Decision.NG), ("review", Decision.REVIEW)])
def test_what_does_not_fit_into_the_queue_is_reported_as_the_policy_says(policy, decision):
    release = threading.Event()
    kept = Kept()
    settings = replace_settings(queue=3, batch=1, on_overload=policy, part_timeout_ms=10_000.0, watchdog_s=10.0)

    def source():
        yield part("inspected")
        wait_until(lambda: judge.asked == ["inspected"])
        yield from parts(10)
        wait_until(lambda: len(kept.results) == 7)
        release.set()

    judge = Judge(lambda one: release.wait(10))
    status = Line(GivenParts(source()), judge, kept, settings).run()
    overloaded = [result for result in kept.results if result.reason == Reason.OVERLOAD]
    assert sorted(result.part for result in overloaded) == [f"p{number:04d}" for number in range(3, 10)]
    assert {result.decision for result in overloaded} == {decision}
    assert len(kept.results) == 11
    assert AlarmKind.OVERLOAD in {alarm.kind for alarm in status.alarms}


def test_a_blocked_source_waits_and_is_not_called_stalled():
    kept = Kept()
    settings = replace_settings(queue=1, batch=1, watchdog_s=0.05)
    status = Line(GivenParts(parts(10)), Judge(lambda one: time.sleep(0.1)), kept, settings).run()
    assert {result.reason for result in kept.results} == {Reason.SCORE}
    assert status.alarms == ()


def test_a_stalled_camera_raises_the_alarm_until_parts_come_again():
    def camera():
        yield part("before")
        time.sleep(0.4)
        yield part("after")

    line = Line(GivenParts(camera()), Judge(), Kept(), QUICK)
    thread, ended = in_thread(line.run)
    wait_until(lambda: bool(line.status().alarms))
    assert line.status().alarms[0].until is None
    thread.join(5)
    (status,) = ended
    assert isinstance(status, Status)
    (alarm,) = status.alarms
    assert alarm.kind == AlarmKind.SOURCE_STALLED
    assert alarm.until is not None
    assert status.figures.reported == 2


@pytest.mark.parametrize("fault", [OSError("device is gone"), SystemExit(0)])
def test_a_source_that_fails_ends_the_line_loudly_with_everything_reported(fault):
    def camera():
        yield from parts(3)
        raise fault

    kept = Kept()
    with pytest.raises(LineError, match=r"the source failed .*; what it had delivered is reported"):
        Line(GivenParts(camera()), Judge(), kept, QUICK).run()
    assert kept.names == ["p0000", "p0001", "p0002"]


def test_reporting_that_fails_for_a_while_loses_nothing():
    failures = iter([OSError("No space left on device"), OSError("database is locked"), None])

    def before() -> None:
        fault = next(failures, None)
        if fault:
            raise fault

    kept = Kept(before=before)
    status = Line(GivenParts(parts(50)), Judge(), kept, QUICK).run()
    assert kept.names == [f"p{number:04d}" for number in range(50)]
    assert [alarm.kind for alarm in status.alarms] == [AlarmKind.REPORTING_FAILS]
    assert "No space left" in status.alarms[0].text


def test_reporting_that_goes_on_failing_stops_the_line_and_names_every_part():
    def full() -> None:
        raise OSError(28, "No space left on device")

    given = list(parts(300))
    taken: list[Part] = []

    def source():
        for one in given:
            taken.append(one)
            yield one

    line = Line(GivenParts(source()), Judge(), Kept(before=full), QUICK)
    with pytest.raises(LineError, match="No space left on device") as caught:
        line.run()
    assert line.status().state == State.FAILED
    assert len(taken) < 300, "the source was stopped"
    for one in taken:
        assert one.id in str(caught.value)


def test_reporting_that_never_returns_stops_the_line(monkeypatch):
    monkeypatch.setattr("inspection.line.runner._HANG_S", 0.1)
    forever = threading.Event()
    line = Line(GivenParts(parts(3)), Judge(), Kept(before=forever.wait), replace_settings(report_retry_s=0.0))
    with pytest.raises(LineError, match="does not return"):
        line.run()
    forever.set()


def test_a_line_runs_once():
    line = Line(GivenParts([]), Judge(), Kept(), QUICK)
    assert line.run().figures.seen == 0
    with pytest.raises(LineError, match="runs once"):
        line.run()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    seed=st.integers(0, 2**32 - 1),
    queue=st.integers(1, 8),
    batch=st.integers(1, 8),
    policy=st.sampled_from(["block", "ng", "review"]),
    stop_after=st.one_of(st.none(), st.integers(0, 60)),
)
def test_ids_in_are_ids_out_once_each_and_nothing_is_ok_unjudged(seed, queue, batch, policy, stop_after):
    chance = random.Random(seed)
    given, judged = [], set()

    def source():
        for number in range(60):
            one = part(f"{number}", problem="is corrupt" if chance.random() < 0.05 else "")
            given.append(one.id)
            if number == stop_after:
                line.stop()
            yield one
            if chance.random() < 0.2:
                time.sleep(chance.random() * 0.004)

    def before(one: Part) -> None:
        luck = chance.random()
        if luck < 0.05:
            raise ValueError("it cannot be judged")
        time.sleep(0.15 if luck > 0.99 else 0.005 * luck)
        judged.add(one.id)

    def report() -> None:
        if chance.random() < 0.1:
            raise OSError("database is locked")

    kept = Kept(before=report)
    quick = LineSettings(
        queue=queue, batch=min(batch, queue), on_overload=policy, part_timeout_ms=50.0, deadline_ms=40.0, stop_s=0.05
    )
    line = Line(GivenParts(source()), Judge(before), kept, quick)
    status = line.run()
    assert sorted(result.part for result in kept.results) == sorted(given)
    assert status.figures.seen == status.figures.reported == len(given)
    for result in kept.results:
        assert (result.decision == Decision.OK) == (result.reason in JUDGED)
        assert result.decision != Decision.OK or result.part in judged
    assert sum(status.figures.decisions.values()) == sum(status.figures.reasons.values()) == len(given)


def replace_settings(**values) -> LineSettings:
    return LineSettings(**{**QUICK.model_dump(), **values})
