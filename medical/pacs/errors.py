"""Errors of the PACS service. Their words hold no patient data, so that they may be logged, stored and shown.

AnomalyError
├── ConfigError      the file of settings cannot be used; one line per fault
├── QueueError       the database of the queue cannot be opened, read or written; nothing of the call was stored
├── SpoolError       the spool cannot be written or read at the moment
│   └── DamagedError a stored file is missing or has changed since it was stored
├── ObjectError      an object was not taken; `status` is what a C-STORE answers
├── AnalysisError    one attempt to analyse a study ended without a result; `cause` says how
├── DeliveryError    results were not delivered or not found afterwards; they stay and are tried again
└── PeerError        a peer cannot be reached, refuses, or answers what it must not
"""

from collections.abc import Sequence
from pathlib import Path

from anomaly.errors import AnomalyError
from medical.pacs.states import Cause


class ConfigError(AnomalyError):
    """The file of settings cannot be used."""

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        """Makes the message: one line per fault."""
        self.faults = tuple(faults)
        if len(self.faults) == 1:
            super().__init__(f"{path}: {self.faults[0]}")
        else:
            super().__init__(f"{path} has {len(self.faults)} faults:" + "".join(f"\n  {line}" for line in self.faults))


class QueueError(AnomalyError):
    """The database of the queue cannot be opened, read or written; nothing of the call was stored."""


class SpoolError(AnomalyError):
    """The spool cannot be written or read at the moment, e.g. because the disk is full."""


class DamagedError(SpoolError):
    """A stored file is missing, or has changed since it was stored."""


class ObjectError(AnomalyError):
    """An object was not taken."""

    def __init__(self, status: int, reason: str, *, later: bool = False) -> None:
        """Stores what a C-STORE answers (PS3.4 table B.2-1) and whether the same object may be taken later."""
        super().__init__(reason)
        self.status, self.later = status, later


class AnalysisError(AnomalyError):
    """One attempt to analyse a study ended without a result."""

    def __init__(self, cause: Cause, detail: str) -> None:
        """Stores the coded cause; the message is "CAUSE: words"."""
        super().__init__(f"{cause}: {detail}")
        self.cause, self.detail = cause, detail


class DeliveryError(AnomalyError):
    """Results were not delivered, or are not found where they were sent; they stay and are tried again."""


class PeerError(AnomalyError):
    """A peer cannot be reached, refuses, or answers what it must not."""
