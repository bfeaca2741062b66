"""Alarms: what is wrong with the line itself, since when and until when."""

from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from threading import Lock

_KEPT = 1000


class AlarmKind(StrEnum):
    """What is wrong."""

    SOURCE_STALLED = "SOURCE_STALLED"
    """No part came for longer than the watchdog allows."""
    SOURCE_FAILED = "SOURCE_FAILED"
    """The source gave up."""
    OVERLOAD = "OVERLOAD"
    """Parts came faster than they were inspected and were reported unjudged."""
    INSPECTION_HANGS = "INSPECTION_HANGS"
    """The inspection takes longer than a part may take; parts are reported as TIMEOUT."""
    REPORTING_FAILS = "REPORTING_FAILS"
    """Results cannot be made durable; the line tries again and the source waits."""


@dataclass(frozen=True, kw_only=True)
class Alarm:
    """One alarm.

    Attributes:
        kind: what is wrong.
        text: the same for people, with figures.
        since: when it was raised, with a time zone.
        until: when it was over; None while it lasts.
    """

    kind: AlarmKind
    text: str
    since: datetime
    until: datetime | None = None


class Alarms:
    """Raises and clears alarms, one of a kind at a time; every method may be called from any thread."""

    def __init__(self) -> None:
        """Starts without any."""
        self._lock = Lock()
        self._active: dict[AlarmKind, Alarm] = {}
        self._past: deque[Alarm] = deque(maxlen=_KEPT)

    def raise_(self, kind: AlarmKind, text: str) -> None:
        """Raises an alarm; nothing happens if one of its kind lasts already."""
        with self._lock:
            self._active.setdefault(kind, Alarm(kind=kind, text=text, since=datetime.now(UTC)))

    def clear(self, kind: AlarmKind) -> None:
        """Ends the alarm of that kind, if there is one."""
        with self._lock:
            alarm = self._active.pop(kind, None)
            if alarm is not None:
                self._past.append(replace(alarm, until=datetime.now(UTC)))

    def all(self) -> tuple[Alarm, ...]:
        """Returns the last 1,000 that are over, then those that last."""
        with self._lock:
            return (*self._past, *self._active.values())
