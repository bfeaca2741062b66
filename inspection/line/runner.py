"""The line: acquisition, inspection and reporting in their own threads, and a supervisor that trusts none of them.

Whatever happens, a part that was taken in ends as exactly one result: judged, or NG or REVIEW with the reason. The
supervisor runs in the thread that calls `run`: it reports parts as TIMEOUT whose inspection hangs, raises the alarm
where the source is silent, and ends the line. A thread that hangs in foreign code cannot be ended; it is left behind
and whatever it says later is discarded.
"""

import time
from dataclasses import dataclass
from enum import StrEnum
from threading import Event, Thread

from inspection.line.alarms import Alarm, AlarmKind, Alarms
from inspection.line.belt import Belt, Ticket
from inspection.line.counters import Counters, Figures
from inspection.line.errors import LineError
from inspection.line.settings import LineSettings
from inspection.line.sources.base import Source
from inspection.line.stages import REPORTED_TOGETHER, Acquisition, Common, Inspection, Report, Reporting, settle_overdue
from inspection.parts import Inspector, Reason

_TICK_S = 0.02
_JOIN_S = 1.0
_HANG_S = 5.0


class State(StrEnum):
    """Where a line is: READY, RUNNING, FINISHING (the source ended) or STOPPING (it was told to), DONE or FAILED."""

    READY = "READY"
    RUNNING = "RUNNING"
    FINISHING = "FINISHING"
    STOPPING = "STOPPING"
    DONE = "DONE"
    FAILED = "FAILED"


@dataclass(frozen=True, kw_only=True)
class Status:
    """The line at one moment.

    Attributes:
        state: where it is.
        figures: what it has done.
        waiting: parts that wait for the inspection.
        queue: most parts that may wait.
        unreported: parts that were taken in and have no durable result.
        alarms: what was wrong and what still is, in this order.
    """

    state: State
    figures: Figures
    waiting: int
    queue: int
    unreported: int
    alarms: tuple[Alarm, ...]


class Line:
    """Runs once, from the first part of a source to the durable result of its last."""

    def __init__(
        self,
        source: Source,
        inspector: Inspector,
        report: Report,
        settings: LineSettings,
        recipe: str = "",
        model: str = "",
    ) -> None:
        """Stores the pieces; nothing starts yet.

        Args:
            source: where parts come from.
            inspector: judges them; it is called from one thread.
            report: makes results durable; it is called from one other thread.
            settings: how the line runs.
            recipe: sha256 of the recipe, for results of parts that the inspector never gave back.
            model: sha256 of the model, likewise.
        """
        hard = settings.overloaded is not None
        belt = Belt(2 * settings.queue + REPORTED_TOGETHER, settings.queue, settings.part_timeout_ms / 1000, hard)
        counters = Counters(settings.deadline_ms / 1000)
        self._common = Common(belt, counters, Alarms(), settings, recipe, model)
        self._stop = Event()
        self._acquisition = Acquisition(self._common, source, self._stop)
        self._inspection = Inspection(self._common, inspector)
        self._reporting = Reporting(self._common, source, report)
        stages = (self._acquisition, self._inspection, self._reporting)
        self._threads = [Thread(target=stage.run, name=type(stage).__name__, daemon=True) for stage in stages]
        self._state = State.READY
        self._asked_to_stop = self._asked_to_hurry = False

    def stop(self) -> None:
        """Ends the line: no more parts come, those in flight are judged, or STOPPED after `stop_s`.

        A second call does not wait for `stop_s`. Returns at once and takes no lock, so a signal handler may call it.
        """
        self._asked_to_hurry = self._asked_to_stop
        self._asked_to_stop = True

    def status(self) -> Status:
        """Returns the line as it is now; any thread may ask, e.g. one that draws it."""
        common = self._common
        return Status(
            state=self._state,
            figures=common.counters.figures(),
            waiting=common.belt.waiting,
            queue=common.settings.queue,
            unreported=len(common.belt.flight),
            alarms=common.alarms.all(),
        )

    def run(self) -> Status:
        """Runs until the source ends or `stop` is called, and every part has its durable result.

        Returns:
            The line at its end.

        Raises:
            LineError: results could not be made durable, or the source failed. The message names the parts without a
                durable result; every other part has one.
        """
        if self._state != State.READY:
            raise LineError(f"a line runs once; this one is {self._state}")
        self._state = State.RUNNING
        for thread in self._threads:
            thread.start()
        stopping = 0.0
        while not self._common.belt.done and self._reporting.failure is None and not self._reporting_hangs():
            stopping = self._follow(stopping, time.monotonic())
            self._supervise()
            time.sleep(_TICK_S)
        return self._ended()

    def _follow(self, stopping: float, now: float) -> float:
        """Goes from state to state; returns since when the line stops, 0 if it does not."""
        if self._asked_to_stop and self._state == State.RUNNING:
            self._state, stopping = State.STOPPING, now
            self._stop.set()
        if self._state == State.STOPPING and (self._asked_to_hurry or now - stopping > self._common.settings.stop_s):
            self._settle_stopped()
        if self._state == State.RUNNING and self._common.belt.ended:
            self._state = State.FINISHING
        elif self._state == State.FINISHING and self._asked_to_stop:
            self._state, stopping = State.STOPPING, now
        return stopping

    def _supervise(self) -> None:
        common = self._common
        hung, allowed = common.belt.inspecting_for(), common.settings.part_timeout_ms / 1000
        if hung > allowed:
            text = f"an inspection takes longer than {allowed:g} s; restart the line if this lasts"
            common.alarms.raise_(AlarmKind.INSPECTION_HANGS, text)
        else:
            common.alarms.clear(AlarmKind.INSPECTION_HANGS)
        settle_overdue(common)
        if not common.belt.waiting:
            common.alarms.clear(AlarmKind.OVERLOAD)
        if self._acquisition.silent_for() > common.settings.watchdog_s and self._state == State.RUNNING:
            text = f"no part came for {common.settings.watchdog_s:g} s; look at the camera, its cable or the folder"
            common.alarms.raise_(AlarmKind.SOURCE_STALLED, text)

    def _reporting_hangs(self) -> bool:
        begun, allowed = self._reporting.begun, self._common.settings.report_retry_s
        # A report that fails ends by itself after `allowed`; this one has not even returned.
        return begun is not None and time.monotonic() - begun > 2 * allowed + _HANG_S

    def _settle_stopped(self) -> None:
        for ticket in self._common.belt.close():
            self._common.settle_unjudged(ticket, Reason.STOPPED, "the line was stopped before the part was judged")

    def _ended(self) -> Status:
        self._reporting.give_up()
        self._stop.set()
        self._common.belt.finish()
        self._settle_stopped()
        lost = self._common.belt.flight
        problems = []
        if lost:
            cause = self._reporting.failure or "reporting does not return"
            problems.append(f"results cannot be kept ({cause}); without durable result: {self._listed(lost)}")
        if self._acquisition.failure is not None:
            problems.append(f"the source failed ({self._acquisition.failure}); what it had delivered is reported")
        self._state = State.FAILED if problems else State.DONE
        if problems:
            raise LineError("the line stopped: " + "; ".join(problems)) from (
                self._reporting.failure or self._acquisition.failure
            )
        return self.status()

    def _listed(self, lost: list[Ticket]) -> str:
        """Returns the parts without durable result; those that the source holds come last."""
        self._threads[0].join(_JOIN_S)
        names = [f"{t.part.id} ({t.outcome.result.decision if t.outcome else 'open'})" for t in lost]
        return ", ".join([*names, *(f"{name} (not taken in)" for name in self._acquisition.refused)])
