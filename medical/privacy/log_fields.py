"""What a line of the log may say: the closed lists of its events and fields, and the form that each field must have."""

import ipaddress
import logging
import re
from collections.abc import Callable
from enum import StrEnum
from typing import TypedDict

_STATUSES = ("ANALYSED", "PARTLY_ANALYSED", "NOT_ANALYSED")
_OURS = ("anomaly.", "medical.")
SOURCES = frozenset({"folder", "dicomweb"})
"""Where objects come from that no peer sent."""


class Event(StrEnum):
    """What can be logged; docs/triage-pacs.md (service) and docs/triage-privacy.md (runs) list the events."""

    STARTED = "started"
    STOPPED = "stopped"
    WARNING = "warning"
    RESUMED = "resumed"
    OBJECT = "object"
    OBJECT_REFUSED = "object refused"
    REFUSED = "refused"
    COMPLETE = "complete"
    ANALYSING = "analysing"
    ANALYSED = "analysed"
    NOT_ANALYSED = "not analysed"
    NO_RESULT = "no result"
    WRITTEN = "written"
    REPLACED = "replaced"
    VERIFIED = "verified"
    DELIVERED = "delivered"
    DELIVERY_FAILED = "delivery failed"
    FAILED = "failed"
    FILES_REMOVED = "files removed"
    FOLDER_FAILED = "folder failed"
    DICOMWEB_FAILED = "dicomweb failed"
    THREAD_FAILED = "thread failed"
    AUDIT_FAILED = "audit failed"
    RECORD = "record"


LEVELS = {
    **dict.fromkeys((Event.FAILED, Event.THREAD_FAILED, Event.AUDIT_FAILED), logging.ERROR),
    **dict.fromkeys((Event.WARNING, Event.OBJECT_REFUSED, Event.REFUSED, Event.NO_RESULT), logging.WARNING),
    **dict.fromkeys((Event.DELIVERY_FAILED, Event.FOLDER_FAILED, Event.DICOMWEB_FAILED), logging.WARNING),
}
"""Levels of `logging`; all other events are INFO."""


class Fields(TypedDict, total=False):
    """What a line may say besides its event.

    A study is named by its pseudonym, peers and destinations as the settings do. `error` is an exception, which is
    reduced, or a member of an enumeration of this suite, whose words stand in the code; never a text.
    """

    study: str
    model: str
    outcome: str
    score: float
    p_value: float
    reason: StrEnum
    decision: StrEnum
    priority: StrEnum
    state: StrEnum
    cause: StrEnum
    error: BaseException | StrEnum
    status: str
    source: str
    peer: str
    destination: str
    address: str
    port: int
    count: int
    removed: int
    attempt: int
    seconds: float


Form = Callable[[object], bool]


def is_term(value: object) -> bool:
    """Whether a value is a member of an enumeration of this suite: its words are known before anything is read."""
    return isinstance(value, StrEnum) and type(value).__module__.startswith(_OURS)


def forms(names: frozenset[str]) -> dict[str, Form]:
    """Returns the form of every field but `error`.

    Args:
        names: of peers and destinations, which the settings state; others are withheld, since they may be anything.
    """
    named: Form = lambda value: isinstance(value, str) and value in names | SOURCES  # noqa: E731
    return {
        "study": _like("[0-9a-f]{16}"),
        "model": _like("[0-9a-f]{12,64}"),
        "outcome": lambda value: is_term(value) or value in _STATUSES,
        "status": lambda value: is_term(value) or _like("[0-9A-F]{4}")(value),
        "address": _is_address,
        **dict.fromkeys(("source", "peer", "destination"), named),
        **dict.fromkeys(("reason", "decision", "priority", "state", "cause"), is_term),
        **dict.fromkeys(("score", "p_value", "port", "count", "removed", "attempt", "seconds"), _is_number),
    }


def _like(pattern: str) -> Form:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _is_address(value: object) -> bool:
    """An IP address, without a zone, which is free text."""
    try:
        return isinstance(value, str) and ipaddress.ip_address(value) is not None and "%" not in value
    except ValueError:
        return False
