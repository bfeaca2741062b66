"""Results appended to files: a message has arrived when the line is on the disk (fsync).

A program that was killed while it wrote may leave half a line behind. What was on that line was never acknowledged and
comes again, so the half line is cut off when the file is opened next.
"""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from inspection.results.errors import DeliveryError
from inspection.results.messages import Message, ResultMessage

COLUMNS = (
    *(name for name in ResultMessage.model_fields if name not in ("version", "defects", "milliseconds", "pictures")),
    "defects",
    "worst_severity",
    "largest_mm2",
    "raw",
    "overlay",
    "inspect_ms",
)
"""Columns of the CSV file; all defects of a part are in its JSON message and in the store."""
_BLOCK = 65536


class JsonlPublisher:
    """Appends one message per line.

    Attributes:
        address: names the receiver across restarts.
    """

    beginning = b'{"version":1,"id":"'
    """What a file of this kind begins with."""
    header = b""

    def __init__(self, path: Path) -> None:
        """Keeps the path."""
        self.address = f"jsonl:{path.as_posix()}"
        self._path = path
        self._stream: BinaryIO | None = None

    def open(self) -> None:
        """Opens the file and cuts off half a line; writes the header of a new one.

        Raises:
            DeliveryError: it cannot be written, or is another kind of file.
        """
        self.close()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._stream = self._path.open("a+b", buffering=0)
            self._begin(self._stream)
        except OSError as error:
            self.close()
            raise DeliveryError(f"{self._path} cannot be written: {error.strerror}") from error
        except DeliveryError:
            self.close()
            raise

    def deliver(self, messages: Sequence[Message]) -> None:
        """Appends messages and returns when they are on the disk.

        Raises:
            DeliveryError: they cannot be written; what was written of them is cut off again.
        """
        assert self._stream is not None
        end = self._stream.seek(0, os.SEEK_END)
        lines = b"".join(self.line(message) for message in messages)
        try:
            written = self._stream.write(lines)
            if written != len(lines):
                raise OSError(0, "the disk is full")
            os.fsync(self._stream.fileno())
        except OSError as error:
            self._stream.truncate(end)
            raise DeliveryError(f"{self._path} cannot be written: {error.strerror}") from error

    def check(self) -> None:
        """Raises DeliveryError if the file was moved or deleted: what comes next belongs into a new one."""
        assert self._stream is not None
        try:
            same = os.path.samestat(self._path.stat(), os.fstat(self._stream.fileno()))
        except OSError:
            same = False
        if not same:
            raise DeliveryError(f"{self._path} was moved or deleted")

    def close(self) -> None:
        """Closes the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def line(self, message: Message) -> bytes:
        """Returns a message as a line."""
        return message.body() + b"\n"

    def _begin(self, stream: BinaryIO) -> None:
        stream.seek(0)
        found = stream.read(len(self.beginning))
        if found != self.beginning[: len(found)]:
            raise DeliveryError(
                f"{self._path} holds something else; it should begin with {self.beginning!r}. Move it away"
            )
        end = _end_of_last_line(stream)
        stream.truncate(end)
        if not end:
            stream.write(self.header)
        os.fsync(stream.fileno())


class CsvPublisher(JsonlPublisher):
    """Appends one row per part, after a header.

    Line breaks and other control characters within a field are written as in JSON (backslash n), so that a row is a
    line; a field that a spreadsheet would take for a formula begins with an apostrophe.
    """

    beginning = header = (",".join(COLUMNS) + "\r\n").encode()

    def __init__(self, path: Path) -> None:
        """Keeps the path."""
        super().__init__(path)
        self.address = f"csv:{path.as_posix()}"

    def line(self, message: Message) -> bytes:
        """Returns a message as a row."""
        content = message.content
        values = content.model_dump(include=set(COLUMNS)) | {
            "defects": len(content.defects),
            "worst_severity": content.defects[0].severity if content.defects else "",
            "largest_mm2": max((defect.area_mm2 for defect in content.defects), default=""),
            "raw": content.pictures.get("raw", ""),
            "overlay": content.pictures.get("overlay", ""),
            "inspect_ms": content.milliseconds.get("inspect", ""),
        }
        row = io.StringIO()
        csv.writer(row).writerow([cell(values[name]) for name in COLUMNS])
        return row.getvalue().encode()


def cell(value: object) -> object:
    """Returns a value as a cell of a CSV file: text on one line that no spreadsheet takes for a formula."""
    if not isinstance(value, str):
        return value
    shown = "".join(letter if letter.isprintable() else f"\\u{ord(letter):04x}" for letter in value)
    return f"'{shown}" if shown.startswith(("=", "+", "-", "@")) else shown


def _end_of_last_line(stream: BinaryIO) -> int:
    """Where the last complete line ends."""
    end = stream.seek(0, os.SEEK_END)
    while end:
        begin = max(0, end - _BLOCK)
        stream.seek(begin)
        found = stream.read(end - begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
