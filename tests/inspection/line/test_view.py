"""What people and machines are shown of a line."""

import io
import json
import math
import threading
import time
from itertools import count

from rich.console import Console

from inspection.line.alarms import AlarmKind, Alarms
from inspection.line.counters import Counters
from inspection.line.runner import State, Status
from inspection.line.summary import as_json, in_one_line, in_words
from inspection.line.testing import ok, part
from inspection.line.view import LineView, drawn
from inspection.parts import PartResult, Reason


def status_of(latencies, state=State.RUNNING) -> Status:
    """A line that reported one OK part per latency (seconds), and then one part that was not judged."""
    counters, alarms = Counters(deadline_s=0.1), Alarms()
    for number, latency in enumerate(latencies):
        counters.saw()
        counters.reported(ok(part(f"p{number}")).result, latency)
    if latencies:
        counters.saw()
        bad = PartResult.not_judged(part("bad"), "NG", Reason.UNREADABLE, "is [truncated]")
        counters.reported(bad, 0.05)
        counters.discarded()
        alarms.raise_(AlarmKind.SOURCE_STALLED, "no part came for 30 s")
    return Status(state=state, figures=counters.figures(), waiting=3, queue=8, unreported=2, alarms=alarms.all())


def test_latency_rate_yield_and_deadlines_are_counted():
    figures = status_of([0.01 * number for number in range(1, 20)]).figures
    assert (figures.seen, figures.reported, figures.judged, figures.late) == (20, 20, 19, 1)
    assert figures.missed == 9, "0.11 s to 0.19 s are above 0.1 s"
    assert math.isclose(figures.p50_ms, 95.0)
    assert math.isclose(figures.p99_ms, 188.1)
    assert figures.yield_share == 19 / 20
    assert figures.decisions == {"OK": 19, "NG": 1}
    assert figures.reasons == {"SCORE": 19, "UNREADABLE": 1}
    assert figures.last_ng.part == "bad"


def test_a_line_without_parts_has_no_figures_that_mean_nothing():
    values = json.loads(json.dumps(as_json(status_of([])), allow_nan=False))
    assert values["p50_ms"] is values["yield"] is values["rate"] is values["last_ng"] is None
    assert "yield" not in in_one_line(status_of([]))
    assert "0 of 0 parts" in in_words("run", status_of([]))


def test_the_summary_says_everything():
    values = json.loads(json.dumps(as_json(status_of([0.02, 0.2])), allow_nan=False))
    assert values["decisions"] == {"OK": 2, "REVIEW": 0, "NG": 1}
    assert values["missed_deadlines"] == values["discarded_late"] == 1
    assert values["last_ng"]["part"] == "bad"
    assert values["alarms"][0]["kind"] == "SOURCE_STALLED"
    words = in_words("run-1", status_of([0.02, 0.2]))
    for said in ("3 of 3 parts", "2 OK, 0 REVIEW, 1 NG; yield 66.7%", "1 UNREADABLE", "1 deadlines missed", "30 s"):
        assert said in words


def shown(status: Status, problems=()) -> str:
    console = Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None)
    console.print(drawn("lid on camera 0", 100.0, status, problems))
    return console.file.getvalue()


def test_the_terminal_shows_rate_latency_deadlines_yield_last_ng_queue_and_alarms():
    text = shown(status_of([0.02, 0.2]), ["mqtt://x: 3 messages wait"])
    for said in ("p50", "p99", "deadline 100 ms", "1 deadlines missed", "yield 66.7%", "3/8", "RUNNING", "a second"):
        assert said in text
    assert "is [truncated]" in text, "brackets are text, not markup"
    assert "ALARM SOURCE_STALLED: no part came for 30 s" in text
    assert "mqtt://x: 3 messages wait" in text
    assert "p50" not in shown(status_of([]))


def test_without_a_terminal_lines_are_written_and_each_alarm_once(monkeypatch):
    monkeypatch.setattr("inspection.line.view._ASKED_EVERY_S", 0.02)
    monkeypatch.setattr("inspection.line.view._LINE_EVERY_S", 0.04)
    console = Console(file=io.StringIO(), width=80)
    status = status_of([0.02])
    waiting = count(1)
    with LineView("lid on camera 0", 100.0, lambda: status, lambda: [f"mqtt: {next(waiting)} wait"], console):
        time.sleep(0.3)
    lines = console.file.getvalue().splitlines()
    assert "lid on camera 0" in lines[0]
    assert sum("ALARM SOURCE_STALLED" in line for line in lines) == 1
    assert sum("mqtt: 1 wait" in line for line in lines) == sum("mqtt" in line for line in lines) == 1
    assert sum("RUNNING: 2 parts" in line for line in lines) > 2
    assert all("last NG bad (UNREADABLE: is [truncated])" in line for line in lines if "RUNNING" in line)


def test_on_a_terminal_it_is_drawn_until_the_end(monkeypatch):
    monkeypatch.setattr("inspection.line.view._DRAWN_EVERY_S", 0.02)
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    states = iter([State.RUNNING] * 3)
    with LineView("lid", 100.0, lambda: status_of([0.02], next(states, State.DONE)), list, console):
        time.sleep(0.3)
    text = console.file.getvalue()
    assert "RUNNING" in text
    assert "DONE" in text


def test_a_terminal_that_stands_still_does_not_stop_the_end():
    class Still(io.StringIO):
        def write(self, text: str) -> int:
            threading.Event().wait(30)
            return len(text)

    begun = time.monotonic()
    with LineView("lid", 100.0, lambda: status_of([0.02]), list, Console(file=Still())):
        pass
    assert time.monotonic() - begun < 5
