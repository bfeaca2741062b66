"""The log of the service: one JSON object per line, made of a closed list of fields, none of which names a patient.

No text of another library reaches it: pynetdicom and dicomweb-client log identifiers and data sets, so their loggers
are shut.
"""

import json
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO, TypedDict, Unpack

from anomaly.errors import AnomalyError
from medical.privacy.logs import LIBRARIES


class Fields(TypedDict, total=False):
    """What a line may say. A study is named by its pseudonym, an error by words of this suite."""

    study: str
    state: str
    source: str
    peer: str
    destination: str
    count: int
    seconds: float
    cause: str
    error: str
    status: str
    attempt: int
    address: str
    port: int
    outcome: str


class Journal:
    """Writes log lines; safe to share between threads."""

    def __init__(self, stream: TextIO | None = None) -> None:
        """Writes to standard error unless another stream is given."""
        self._stream, self._lock = stream, threading.Lock()
        self._listener: Callable[[str, Fields], None] | None = None

    def told_to(self, listener: Callable[[str, Fields], None]) -> None:
        """Tells each event to a listener, too: the audit trail. If that fails the log says so."""
        self._listener = listener

    def note(self, event: str, **fields: Unpack[Fields]) -> None:
        """Writes one line.

        Args:
            event: what happened, one of the words that docs/triage-pacs.md lists.
            fields: see `Fields`.
        """
        line = {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": event, **fields}
        with self._lock:
            stream = self._stream or sys.stderr
            with suppress(OSError, ValueError):  # nobody reads the log, or its disk is full: the service goes on
                stream.write(json.dumps(line) + "\n")
                stream.flush()
        if self._listener is not None and event != "audit failed":
            try:
                self._listener(event, fields)
            except Exception as error:  # a service that works and says so is better than none
                self.note("audit failed", error=words_of(error))


def words_of(error: BaseException) -> str:
    """Returns what may be logged of an error: our own words; of others, which may repeat data, the kind."""
    return str(error) if isinstance(error, AnomalyError) else type(error).__name__


def shut_libraries() -> None:
    """Silences what libraries that handle patient data log, warn of, or raise in threads of their own.

    It holds for the rest of the process.
    """
    warnings.showwarning = _nothing
    threading.excepthook = _kind_only
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers = [logging.NullHandler()]
        logger.propagate = False
        logger.setLevel(logging.CRITICAL + 1)


def _nothing(*_: object, **__: object) -> None:
    """Pydicom's warnings repeat the values of attributes."""


def _kind_only(arguments: threading.ExceptHookArgs) -> None:
    Journal().note("thread failed", error=arguments.exc_type.__name__)
