"""All parts that were seen and have no durable result yet, behind one lock: each gets exactly one outcome.

    admit -> offer -> take_batch -> settle -> take_settled -> reported
               `-------- settle (unreadable, overload, timeout, stopped)

The first outcome of a part counts; a later one is refused. The number of parts in here is bounded, so a source waits
where results cannot be reported.
"""

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Condition

from inspection.parts import Inspected, Part


@dataclass(eq=False)
class Ticket:
    """A part on its way.

    Attributes:
        part: the part.
        since: monotonic seconds when it was captured.
        arrived: monotonic seconds when the line took it in.
        outcome: what became of it; None as long as it is open.
    """

    part: Part
    since: float
    arrived: float
    outcome: Inspected | None = None


class Belt:
    """The parts in flight; every method may be called from any thread."""

    def __init__(self, limit: int, queue: int, patience: float, from_capture: bool) -> None:
        """Makes an empty belt.

        Args:
            limit: most parts in flight.
            queue: most parts that wait for the inspection.
            patience: seconds after which a part is overdue.
            from_capture: patience runs from the capture of a part; otherwise from the start of its inspection, and
                while an inspection is overdue also for the parts that wait.
        """
        self._limit, self._queue, self._patience, self._from_capture = limit, queue, patience, from_capture
        self._changed = Condition()
        self._flight: dict[Ticket, None] = {}
        self._waiting: deque[Ticket] = deque()
        self._settled: deque[Ticket] = deque()
        self._inspecting: list[Ticket] = []
        self._started = 0.0
        self._ended = self._closed = self._finished = False

    def admit(self, part: Part) -> Ticket | None:
        """Takes a part in; waits where too many are in flight, unless the belt is closed. None: it is finished."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._flight) < self._limit)
            if self._finished:
                return None
            now = time.monotonic()
            age = (datetime.now(UTC) - part.captured).total_seconds()
            ticket = Ticket(part, now - max(0.0, age), now)
            self._flight[ticket] = None
            return ticket

    def offer(self, ticket: Ticket, wait: bool) -> bool:
        """Queues a part for inspection. False: the queue is full (with `wait`: the belt was closed meanwhile)."""
        with self._changed:
            if wait:
                self._changed.wait_for(lambda: self._closed or ticket.outcome or len(self._waiting) < self._queue)
            if self._closed or ticket.outcome or len(self._waiting) >= self._queue:
                return False
            self._waiting.append(ticket)
            self._changed.notify_all()
            return True

    def take_batch(self, most: int, until: Callable[[Ticket], float]) -> list[Ticket]:
        """Takes the next parts to inspect, once there are any; the inspection of the last batch is over.

        Args:
            most: most parts of a batch.
            until: monotonic time until which the given first part of a batch may wait for others.

        Returns:
            The batch; empty if no more parts come.
        """
        with self._changed:
            self._inspecting = []
            while True:
                self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return []
                left = until(self._waiting[0]) - time.monotonic()
                if left <= 0 or self._ended or len(self._waiting) >= most:
                    break
                self._changed.wait(left)
            self._inspecting = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
            self._started = time.monotonic()
            self._changed.notify_all()
            return list(self._inspecting)

    def settle(self, ticket: Ticket, outcome: Inspected) -> bool:
        """Gives a part its outcome. False: it has one already, and this one is discarded."""
        with self._changed:
            if ticket.outcome is not None:
                return False
            ticket.outcome = outcome
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            self._settled.append(ticket)
            self._changed.notify_all()
            return True

    def take_settled(self, most: int) -> list[Ticket]:
        """Takes up to `most` parts with an outcome, once there are any; empty if nothing is in flight any more."""
        with self._changed:
            self._changed.wait_for(lambda: self._settled or (self._ended and not self._flight))
            return [self._settled.popleft() for _ in range(min(most, len(self._settled)))]

    def reported(self, tickets: Sequence[Ticket]) -> None:
        """Lets parts go whose results are durable."""
        with self._changed:
            for ticket in tickets:
                del self._flight[ticket]
            self._changed.notify_all()

    def end(self) -> None:
        """Says that no more parts come; those in flight go on."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> list[Ticket]:
        """Queues no more parts, ends all waiting, and returns the parts that have no outcome."""
        with self._changed:
            self._closed = self._ended = True
            self._changed.notify_all()
            return [ticket for ticket in self._flight if ticket.outcome is None]

    def finish(self) -> None:
        """Takes no more parts: what comes now is not seen."""
        with self._changed:
            self._finished = self._closed = self._ended = True
            self._changed.notify_all()

    def overdue(self) -> list[Ticket]:
        """Returns the parts without outcome whose time is over."""
        now = time.monotonic()
        with self._changed:
            opened = [ticket for ticket in self._flight if ticket.outcome is None]
            if self._from_capture:
                return [ticket for ticket in opened if now >= ticket.since + self._patience]
            hung = self._started + self._patience
            if not self._inspecting or now < hung:
                return []
            return [
                ticket
                for ticket in opened
                if ticket in self._inspecting or now >= max(ticket.arrived, hung) + self._patience
            ]

    def inspecting_for(self) -> float:
        """Returns for how many seconds the present batch has been inspected; 0 if there is none."""
        with self._changed:
            return time.monotonic() - self._started if self._inspecting else 0.0

    @property
    def waiting(self) -> int:
        """Parts that wait for the inspection."""
        return len(self._waiting)

    @property
    def flight(self) -> list[Ticket]:
        """Parts that were taken in and have no durable result yet."""
        with self._changed:
            return list(self._flight)

    @property
    def ended(self) -> bool:
        """No more parts come."""
        return self._ended

    @property
    def done(self) -> bool:
        """No more parts come and none is in flight."""
        with self._changed:
            return self._ended and not self._flight
