"""The three threads of a line: acquisition, inspection, reporting."""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from threading import Event

from anomaly.calibration import Decision
from inspection.line.alarms import AlarmKind, Alarms
from inspection.line.belt import Belt, Ticket
from inspection.line.counters import Counters
from inspection.line.settings import LineSettings
from inspection.line.sources.base import Source
from inspection.parts import Inspected, Inspector, Part, PartResult, Reason

Report = Callable[[Sequence[Inspected]], None]
"""Makes results durable before it returns; raises if it cannot."""

REPORTED_TOGETHER = 64
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Common:
    """What the threads share.

    Attributes:
        belt: the parts in flight.
        counters: what was done.
        alarms: what is wrong.
        settings: how the line runs.
        recipe: sha256 of the recipe, for results that the line itself makes.
        model: sha256 of the model, for the same.
    """

    belt: Belt
    counters: Counters
    alarms: Alarms
    settings: LineSettings
    recipe: str
    model: str

    def settle_unjudged(self, ticket: Ticket, reason: Reason, detail: str, decision: Decision | None = None) -> bool:
        """Gives a part an outcome that was not judged: NG or REVIEW. False: it has an outcome already."""
        decision = decision or self.settings.unjudged
        stamp = {"recipe": self.recipe, "model": self.model}
        result = PartResult.not_judged(ticket.part, decision, reason, detail, **stamp)
        return self.belt.settle(ticket, Inspected(result, ticket.part.image))


class Acquisition:
    """Asks the source for parts and puts them on the belt.

    Attributes:
        failure: why the source gave up; None if it did not.
        refused: ids of parts that came when it was over, and were not taken.
    """

    def __init__(self, common: Common, source: Source, stop: Event) -> None:
        """Stores what is needed; `stop` ends it after the part in hand."""
        self._common, self._source, self._stop = common, source, stop
        self._asked: float | None = None
        self.failure: BaseException | None = None
        self.refused: list[str] = []

    def run(self) -> None:
        """Runs until the source ends, fails or is stopped."""
        try:
            with closing(self._source.parts(self._stop)) as parts:
                self._asked = time.monotonic()
                for part in parts:
                    self._asked = None
                    self._take(part)
                    if self._stop.is_set():
                        break
                    self._asked = time.monotonic()
        except BaseException as error:  # a generator that calls sys.exit must not look like a source that ended
            self.failure = error
            self._common.alarms.raise_(AlarmKind.SOURCE_FAILED, f"{self._source.name}: {_words(error)}")
        finally:
            self._asked = None
            self._common.alarms.clear(AlarmKind.SOURCE_STALLED)
            self._common.alarms.clear(AlarmKind.OVERLOAD)
            self._common.belt.end()

    def silent_for(self) -> float:
        """Returns for how many seconds the source has been asked for a part in vain."""
        asked = self._asked
        return 0.0 if asked is None else time.monotonic() - asked

    def _take(self, part: Part) -> None:
        if not isinstance(part, Part):
            raise TypeError(f"a source must yield Part; got {type(part).__name__}")
        common = self._common
        common.alarms.clear(AlarmKind.SOURCE_STALLED)
        ticket = common.belt.admit(part)
        if ticket is None:
            self.refused.append(part.id)
            return
        common.counters.saw()
        if part.image is None:
            common.settle_unjudged(ticket, Reason.UNREADABLE, part.problem)
            return
        decision = common.settings.overloaded
        if common.belt.offer(ticket, wait=decision is None):
            return
        if decision is None or common.belt.ended:
            common.settle_unjudged(ticket, Reason.STOPPED, "the line was stopped before the part was judged")
        else:
            text = f"the queue of {common.settings.queue} parts was full"
            common.alarms.raise_(AlarmKind.OVERLOAD, text)
            common.settle_unjudged(ticket, Reason.OVERLOAD, text, decision)


class Inspection:
    """Takes batches off the belt and has them judged."""

    def __init__(self, common: Common, inspector: Inspector) -> None:
        """Stores what is needed."""
        self._common, self._inspector = common, inspector
        self._expected = 0.0

    def run(self) -> None:
        """Runs until no more parts come. It may hang in the inspector: the supervisor settles its parts then."""
        belt = self._common.belt
        while batch := belt.take_batch(self._common.settings.batch, self._until):
            begun = time.monotonic()
            outcomes = self._judge([ticket.part for ticket in batch])
            self._expected = time.monotonic() - begun
            settle_overdue(self._common)
            for ticket, outcome in zip(batch, outcomes, strict=True):
                if not belt.settle(ticket, outcome):
                    self._common.counters.discarded()
            self._common.alarms.clear(AlarmKind.INSPECTION_HANGS)

    def _until(self, first: Ticket) -> float:
        """A batch waits for more parts only as long as its first part can still make its deadline."""
        settings = self._common.settings
        deadline = first.since + settings.deadline_ms / 1000 - 2 * self._expected
        return min(first.arrived + settings.batch_wait_ms / 1000, deadline)

    def _judge(self, parts: list[Part]) -> list[Inspected]:
        try:
            return self._checked(parts)
        except BaseException as error:  # the thread must not end, whatever the inspector raises
            if len(parts) == 1:
                return [self._failed(parts[0], error)]
            _log.warning("inspection of %d parts failed, trying each alone: %s", len(parts), _words(error))
        return [inspected for part in parts for inspected in self._judge([part])]

    def _checked(self, parts: list[Part]) -> list[Inspected]:
        begun = time.monotonic()
        outcomes = self._inspector(parts)
        took = 1000 * (time.monotonic() - begun)
        names, wanted = [outcome.result.part for outcome in outcomes], [part.id for part in parts]
        if names != wanted:
            raise ValueError(f"the inspector returned results of {names} for parts {wanted}")
        return [
            replace(
                outcome, result=replace(outcome.result, milliseconds={"batch": took, **outcome.result.milliseconds})
            )
            for outcome in outcomes
        ]

    def _failed(self, part: Part, error: BaseException) -> Inspected:
        _log.error("inspection of %s failed: %s", part.id, _words(error))
        _log.debug("where it failed", exc_info=error)
        common = self._common
        stamp = {"recipe": common.recipe, "model": common.model}
        result = PartResult.not_judged(part, common.settings.unjudged, Reason.ERROR, _words(error), **stamp)
        return Inspected(result, part.image)


class Reporting:
    """Has results made durable; tries again for a while if that fails, and then gives up loudly.

    Attributes:
        failure: why it gave up; None if it did not.
        begun: monotonic time at which the report that is under way was begun; None if there is none.
    """

    def __init__(self, common: Common, source: Source, report: Report) -> None:
        """Stores what is needed."""
        self._common, self._source, self._report = common, source, report
        self._given_up = Event()
        self.failure: BaseException | None = None
        self.begun: float | None = None

    def run(self) -> None:
        """Runs until nothing is in flight any more, or reporting has failed for too long."""
        belt, counters = self._common.belt, self._common.counters
        while tickets := belt.take_settled(REPORTED_TOGETHER):
            inspected = [ticket.outcome for ticket in tickets if ticket.outcome is not None]
            parts = [ticket.part for ticket in tickets]
            self.begun = time.monotonic()
            done = self._insist(partial(self._report, inspected)) and self._insist(
                partial(self._source.reported, parts)
            )
            if not done:
                return
            self.begun = None
            now = time.monotonic()
            for ticket, outcome in zip(tickets, inspected, strict=True):
                counters.reported(outcome.result, now - ticket.since)
            belt.reported(tickets)

    def give_up(self) -> None:
        """Ends the attempts; the report that is under way is not waited for."""
        self._given_up.set()

    def _insist(self, work: Callable[[], None]) -> bool:
        """Does it, again and again while it fails and there is time; False: given up."""
        begun, pause = time.monotonic(), _FIRST_PAUSE_S
        while True:
            try:
                work()
            except BaseException as error:
                self._common.alarms.raise_(AlarmKind.REPORTING_FAILS, _words(error))
                if time.monotonic() - begun + pause > self._common.settings.report_retry_s or self._given_up.wait(
                    pause
                ):
                    self.failure = error
                    return False
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            else:
                self._common.alarms.clear(AlarmKind.REPORTING_FAILS)
                return True


def settle_overdue(common: Common) -> None:
    """Reports parts as TIMEOUT whose time is over."""
    text = f"not judged within {common.settings.part_timeout_ms / 1000:g} s"
    for ticket in common.belt.overdue():
        common.settle_unjudged(ticket, Reason.TIMEOUT, text)


def _words(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
