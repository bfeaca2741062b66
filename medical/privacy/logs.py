"""The one log: an event of a closed list with fields of a closed list, each checked for its form; a JSON object a line.

A record of anything else, be it a library's or our own, is reduced to where it comes from; an exception to its class
and its place in the code or, for errors of this package (written by the rule of `medical.refusals`), its words. The
text of a log record, of a warning and of a foreign exception is never written: pydicom's repeat values of attributes,
pynetdicom's whole data sets. A line that cannot be written, because the disk is full, stops nothing.
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
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO, Unpack

from medical.privacy.log_fields import LEVELS, Event, Fields, forms, is_term
from medical.refusals import RefusedError

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
Listener = Callable[[Event, Mapping[str, Any]], None]
"""Is told each event with the fields of its line."""

_logger = logging.getLogger("medical.events")
_logger.addHandler(logging.NullHandler())  # else `logging` prints what nobody set up
_forms = forms(frozenset())
_listeners: list[Listener] = []


class _Line(dict[str, Any]):
    """What a line says; only `log` makes it, of fields that it has checked."""


def log(event: Event, **fields: Unpack[Fields]) -> None:
    """Logs an event; safe in every thread.

    A field that is not in the list or has not its form is written as "withheld": a log must not stop the work. If a
    listener fails the log says so, and the work goes on: a service that works and says so is better than none.
    """
    line = _checked(fields)
    _logger.log(LEVELS.get(event, logging.INFO), event.value, extra={"line": _Line({"event": event.value, **line})})
    if event is not Event.AUDIT_FAILED:
        for listener in tuple(_listeners):
            try:
                listener(event, line)
            except Exception as error:
                log(Event.AUDIT_FAILED, error=error)


@contextmanager
def told_to(listener: Listener) -> Iterator[None]:
    """Tells each event to a listener, too, as long as the context lasts: the audit trail."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class SafeFormatter(logging.Formatter):
    """One JSON object per record; nothing of the record's text, arguments, names or stack is in it."""

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line of a record."""
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, Any] = {"time": moment, "level": record.levelname if record.levelno % 10 == 0 else "OTHER"}
        own = getattr(record, "line", None)
        line |= own if isinstance(own, _Line) else {"event": Event.RECORD, "at": _place(record.pathname, record.lineno)}
        if isinstance(record.exc_info, tuple) and record.exc_info[1] is not None:
            line |= reduced(record.exc_info[1])
        return json.dumps(line)


def reduced(error: BaseException) -> dict[str, Any]:
    """Returns what may be written of an exception: its words or kind, where it was raised, the code of a refusal."""
    frames = traceback.extract_tb(error.__traceback__)[-3:]
    found: dict[str, Any] = {"error": words_of(error)}
    if frames:
        found["raised"] = " < ".join(_place(frame.filename, frame.lineno) for frame in reversed(frames))
    if isinstance(error, RefusedError):
        found["reason"] = error.refusal.reason.value
    return found


def words_of(error: BaseException) -> str:
    """Returns what people may be told of an error: our words, those of the system for its number, else its kind."""
    if type(error).__module__.startswith("medical."):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        return os.strerror(error.errno)
    return type(error).__name__


def set_up_logging(to: Path | TextIO | None, names: Iterable[str] = ()) -> None:
    """Sends everything that is logged or warned, or ends the process or a thread, through `SafeFormatter`.

    Replaces the handlers of the root logger; libraries that handle patient data lose theirs. It holds for the rest of
    the process: call it first in a command, once.

    Args:
        to: a file, appended to, made with mode 0600; or a stream; None: nowhere, where people read the terminal.
        names: of peers and destinations that a line may hold.

    Raises:
        OSError: the file cannot be written.
    """
    global _forms
    _forms = forms(frozenset(names))
    handler: logging.Handler = logging.NullHandler() if to is None or isinstance(to, Path) else _Stream(to)
    if isinstance(to, Path):
        to.touch(mode=0o600)
        handler = _File(to, encoding="ascii")
    handler.setFormatter(SafeFormatter())
    logging.basicConfig(handlers=[handler], level=logging.INFO, force=True)
    for name in LIBRARIES:
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
        logger.setLevel(logging.WARNING)
    warnings.showwarning = _warned
    sys.excepthook = _ended
    threading.excepthook = lambda ended: _failed(Event.THREAD_FAILED, ended.exc_value)


class _Quiet(logging.Handler):
    """When a line cannot be written, `logging` prints the record's text and arguments; this prints neither."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  logging's own name
        with suppress(OSError, ValueError):  # the disk of standard error may be the full one
            print("a log line could not be written", file=sys.__stderr__)

    def close(self) -> None:
        """Closes; what the disk no longer takes has been told by then."""
        with suppress(OSError, ValueError):
            super().close()


class _Stream(_Quiet, logging.StreamHandler[TextIO]):
    """Writes to a stream."""


class _File(_Quiet, logging.FileHandler):
    """Writes to a file."""


def _checked(fields: Mapping[str, Any]) -> dict[str, Any]:
    line: dict[str, Any] = {}
    for name, value in fields.items():
        if name == "error" and isinstance(value, BaseException):
            line |= reduced(value)
        elif name == "error":
            line[name] = value if is_term(value) else WITHHELD
        elif name == "source":
            line[name] = _sources(value)
        elif name in _forms:
            line[name] = value if _forms[name](value) else WITHHELD
    unlisted = len(fields.keys() - _forms.keys() - {"error"})
    return line | ({"unlisted": unlisted} if unlisted else {})


def _sources(value: object) -> str:
    """Sources of one study, as "PEER, folder": one that may not be written hides none of the others."""
    names = value.split(", ") if isinstance(value, str) else [value]
    return ", ".join(dict.fromkeys(str(one) if _forms["source"](one) else WITHHELD for one in names))


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
    if not issubclass(kind, KeyboardInterrupt):
        _failed(Event.FAILED, error)


def _failed(event: Event, error: BaseException | None) -> None:
    log(event, error=RuntimeError() if error is None else error)
