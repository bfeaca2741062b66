"""Logs that cannot leak: an event of a closed list with fields of a closed list, each checked for its form.

A record of anything else, be it a library's or our own, is reduced to where it comes from; an exception to its class,
its place in the code and, for errors of this package (written by the rule of `medical.refusals`), its words. The text
of a log record, of a warning and of a foreign exception is never written: pydicom's repeat the values of attributes.
"""

import json
import logging
import os
import re
import sys
import threading
import traceback
import types
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, TextIO, TypedDict, Unpack

from medical.outcome import Priority
from medical.refusals import Reason, RefusedError

LIBRARIES = (
    "pydicom",
    "pynetdicom",
    "highdicom",
    "dicomweb_client",
    "httpx",
    "httpcore",
    "urllib3",
    "requests",
    "monai",
    "PIL",
)
"""Their loggers lose their own handlers, which would write the text of a record, and everything below WARNING."""
WITHHELD = "withheld"
logging.getLogger("medical.events").addHandler(logging.NullHandler())  # else `logging` prints what nobody set up


class Event(StrEnum):
    """What can be logged."""

    STARTED = "started"
    STOPPED = "stopped"
    READ = "read"
    REFUSED = "refused"
    ANALYSED = "analysed"
    NOT_ANALYSED = "not analysed"
    WRITTEN = "written"
    SENT = "sent"
    VERIFIED = "verified"
    FITTED = "fitted"
    DEIDENTIFIED = "de-identified"
    FAILED = "failed"
    WARNED = "warned"
    RECORD = "record"


class Fields(TypedDict, total=False):
    """What a line may say besides its event; studies, series, patients and files by their pseudonym."""

    study: str
    series: str
    patient: str
    file: str
    reason: str
    decision: str
    status: str
    priority: str
    score: float
    p_value: float
    objects: int
    count: int
    seconds: float
    megabytes: float
    model: str
    version: str


def _one_of(*words: str) -> Callable[[object], bool]:
    return lambda value: value in words


def _like(pattern: str) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value, re.ASCII) is not None


def _number(value: object) -> bool:
    return isinstance(value, int | float)


_PSEUDONYM = _like("[0-9a-f]{16}")
_FORMS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("study", "series", "patient", "file"), _PSEUDONYM),
    **dict.fromkeys(("score", "p_value", "objects", "count", "seconds", "megabytes"), _number),
    "reason": _one_of(*Reason),
    "decision": _one_of("OK", "REVIEW", "NG"),
    "status": _one_of("ANALYSED", "PARTLY_ANALYSED", "NOT_ANALYSED"),
    "priority": _one_of(*Priority),
    "model": _like("[0-9a-f]{12,64}"),
    "version": _like(r"\d{1,3}(\.\d{1,3}){1,2}"),
}
_LEVELS = {Event.FAILED: logging.ERROR, Event.WARNED: logging.WARNING}


def log(event: Event, **fields: Unpack[Fields]) -> None:
    """Logs an event; within an `except` block, with the exception reduced as the module says.

    A field that is not in the list or has not its form is written as "withheld": a log must not stop the work.
    """
    level = _LEVELS.get(event, logging.INFO)
    error = sys.exc_info()[1] if event is Event.FAILED else None
    more = {"fields": fields, "reduced": {} if error is None else reduced(error)}  # never the exception itself
    logging.getLogger("medical.events").log(level, event.value, extra=more)


class SafeFormatter(logging.Formatter):
    """One JSON object per record; nothing of the record's text, arguments, names or stack is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": moment, "level": record.levelname if record.levelno % 10 == 0 else "OTHER"}
        if record.name == "medical.events":
            line["event"] = Event(record.msg).value
            line |= {
                name: _safe(name, value) for name, value in getattr(record, "fields", {}).items() if name in _FORMS
            }
            unknown = set(getattr(record, "fields", {})) - set(_FORMS)
            line |= {"unlisted": len(unknown)} if unknown else {}
            line |= getattr(record, "reduced", {})
        else:
            line |= {"event": Event.RECORD.value, "at": _place(record.pathname, record.lineno)}
        if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
            line |= reduced(record.exc_info[1])
        return json.dumps(line)


def reduced(error: BaseException) -> dict[str, Any]:
    """Returns what may be written of an exception: its class, where it was raised, its code and words if it is ours."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    found: dict[str, Any] = {
        "error": type(error).__name__,
        "raised": " < ".join(_place(frame.filename, frame.lineno) for frame in reversed(frames)),
    }
    if isinstance(error, RefusedError):
        found["reason"] = error.refusal.reason.value
    if type(error).__module__.startswith("medical."):
        found["words"] = str(error)
    return found


def words_of(error: BaseException) -> str:
    """Returns what people may be told of an error: our words, those of the system for its number, else its kind."""
    if type(error).__module__.startswith("medical."):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return type(error).__name__


def set_up_logging(file: Path | None = None, stream: TextIO | None = None) -> None:
    """Sends everything that is logged or warned, or ends the process or a thread, through `SafeFormatter`.

    Replaces the handlers of the root logger. Call it first in a command, once.

    Args:
        file: appended to, made with mode 0600; `stream` unless given.
        stream: standard error unless given.

    Raises:
        OSError: the file cannot be written.
    """
    if file is None:
        handler: logging.StreamHandler[Any] = _Quiet(stream or sys.stderr)
    else:
        file.touch(mode=0o600)
        handler = _Quiet(file.open("a", encoding="ascii"))
    handler.setFormatter(SafeFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)
    warnings.showwarning = _warned
    sys.excepthook = _ended
    threading.excepthook = lambda ended: _failed(ended.exc_value)


class _Quiet(logging.StreamHandler[Any]):
    """When a line cannot be written, `logging` prints the record's text and arguments; this prints neither."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        print("a log line could not be written", file=sys.__stderr__)


def _safe(name: str, value: object) -> object:
    return value if _FORMS[name](value) else WITHHELD


def _place(path: str, line: int | None) -> str:
    """File of the code and line, as "triage.py:94"; a path that is no code's is withheld."""
    name = re.split(r"[/\\]", path)[-1]
    loaded = any(module for module in list(sys.modules.values()) if getattr(module, "__file__", None) == path)
    return f"{name}:{line}" if loaded else WITHHELD


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    record = logging.LogRecord("warnings", logging.WARNING, filename, lineno, "", None, None)
    logging.getLogger().handle(record)


def _ended(kind: type[BaseException], error: BaseException, trace: types.TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        return
    _failed(error)


def _failed(error: BaseException | None) -> None:
    known = None if error is None else (type(error), error, error.__traceback__)
    logging.getLogger("medical.events").error(Event.FAILED.value, exc_info=known)
