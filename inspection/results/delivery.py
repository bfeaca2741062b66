"""Delivers what waits in the outbox to one receiver: in order, at least once, repeated until it is acknowledged."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

from anomaly.errors import AnomalyError
from inspection.results.errors import DeliveryError
from inspection.results.messages import Message
from inspection.results.outbox import Outbox
from inspection.results.publisher import Publisher

BATCH = 100
"""Messages handed to a publisher together."""
IDLE_SECONDS = 1.0
"""How often a connection is looked after while there is nothing to deliver."""
FIRST_PAUSE, LONGEST_PAUSE = 0.25, 30.0
"""Seconds before the next attempt; doubled after each failure."""


class Delivery:
    """A thread that serves one receiver. Messages leave the outbox when the receiver has acknowledged them."""

    def __init__(self, outbox: Outbox, publisher: Publisher) -> None:
        """Keeps both; `start` begins."""
        self.receiver = publisher.address
        self._outbox = outbox
        self._publisher = publisher
        self._news = threading.Event()
        self._until = float("inf")
        self._closing = threading.Event()
        self._problem: tuple[str, datetime] | None = None
        self._failures = 0
        self._thread = threading.Thread(target=self._run, name=f"deliver to {self.receiver}", daemon=True)

    def start(self) -> None:
        """Begins to deliver."""
        self._thread.start()

    def wake(self) -> None:
        """Says that there is something new to deliver."""
        self._news.set()

    @property
    def problem(self) -> tuple[str, datetime] | None:
        """What keeps messages from being delivered, and since when; None while all is well."""
        return self._problem

    def close(self, deadline: float) -> None:
        """Ends the thread when all is delivered, or at the deadline.

        Args:
            deadline: a time of `time.monotonic`; the rest stays in the outbox for the next start.
        """
        self._until = deadline
        self._closing.set()
        self._news.set()
        self._thread.join(max(0.0, deadline - time.monotonic()) + 1.0)

    def _run(self) -> None:
        while not self._over():
            try:
                with self._outbox.claim(self.receiver) as holds:
                    if holds():
                        self._serve(holds)
                        return
                if self._closing.wait(IDLE_SECONDS):
                    return  # another process delivers, also what is ours
            except AnomalyError as error:
                self._failed(str(error))
            except Exception as error:  # the thread must live on; the live view shows what happened
                self._failed(f"{type(error).__name__}: {error}")

    def _serve(self, holds: Callable[[], bool]) -> None:
        """Delivers until it is over; returns with the publisher closed."""
        try:
            self._outbox.tidy(self.receiver)
            self._publisher.open()
            while holds() and not self._over():
                self._news.clear()
                if self._deliver():
                    continue
                self._publisher.check()
                self._well()
                if self._closing.is_set():
                    return
                self._news.wait(IDLE_SECONDS)
        finally:
            self._publisher.close()

    def _deliver(self) -> bool:
        """Delivers some messages; False if there are none."""
        stored = self._outbox.following(self.receiver, BATCH)
        if not stored:
            return False
        try:
            self._publisher.deliver([Message.of(one) for one in stored])
        except DeliveryError as error:
            self._outbox.acknowledged(self.receiver, stored[: error.delivered])
            raise
        self._outbox.acknowledged(self.receiver, stored)
        self._well()
        return True

    def _over(self) -> bool:
        return self._closing.is_set() and time.monotonic() >= self._until

    def _well(self) -> None:
        self._problem, self._failures = None, 0

    def _failed(self, reason: str) -> None:
        since = self._problem[1] if self._problem else datetime.now(UTC)
        self._problem = reason, since
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2**self._failures)
        self._failures = min(self._failures + 1, 20)
        if self._closing.is_set():
            time.sleep(max(0.0, min(pause, self._until - time.monotonic())))
        else:
            self._closing.wait(pause)  # a close begins with one more attempt at once
