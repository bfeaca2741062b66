"""Errors of the results of a line.

AnomalyError
├── StoreError             the database cannot be opened, read or written; nothing of the call was stored
│   └── PartConflictError  a part id came again with another result; the other results of the call were stored
└── DeliveryError          a receiver has not acknowledged a message; it stays in the outbox
"""

from collections.abc import Sequence

from anomaly.errors import AnomalyError


class StoreError(AnomalyError):
    """The database cannot be opened, read or written; nothing of the call was stored, and it may be repeated."""


class PartConflictError(StoreError):
    """Part ids came again with other results than those stored, which stay. All others of the call are stored."""

    def __init__(self, run: str, parts: Sequence[str]) -> None:
        """Stores the ids; `parts` are those whose results were refused."""
        shown = ", ".join(repr(part) for part in parts[:5]) + (", ..." if len(parts) > 5 else "")
        super().__init__(
            f"{len(parts)} part(s) of run {run!r} are stored with another result, which was kept: {shown}. A part id "
            "must be unique within its run; give repeated parts another id"
        )
        self.run = run
        self.parts = tuple(parts)


class DeliveryError(AnomalyError):
    """A receiver has not acknowledged; what it has not acknowledged stays in the outbox.

    Attributes:
        delivered: how many messages of the call, from the first, were acknowledged before.
    """

    def __init__(self, reason: str, delivered: int = 0) -> None:
        """Stores the reason and how many messages were acknowledged before it."""
        super().__init__(reason)
        self.delivered = delivered
