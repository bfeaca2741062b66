"""What every source is, and how parts get their names."""

import re
from collections.abc import Generator, Sequence
from datetime import UTC, datetime
from itertools import chain, count
from pathlib import PurePath
from threading import Event
from typing import Protocol

from anomaly.errors import SettingError
from inspection.parts import Part


class Source(Protocol):
    """Where parts come from. The line asks one thread for parts and another one to remember what was reported."""

    name: str
    """For people, e.g. the folder or the camera."""

    def parts(self, stop: Event) -> Generator[Part, None, None]:
        """Yields parts as they come, until there are no more or `stop` is set.

        What was seen but cannot be read is a part with a problem, never skipped. The generator frees the source when it
        is closed. An error means that no further part can be had.
        """
        ...

    def reported(self, parts: Sequence[Part]) -> None:
        """Remembers that the results of `parts` are durable; a source that can repeat parts never repeats these."""
        ...

    def close(self) -> None:
        """Frees what is left once nothing more is asked and nothing more is reported."""
        ...


class Forgetful:
    """Base of sources that cannot repeat a part, or repeat all of them in every run."""

    def reported(self, parts: Sequence[Part]) -> None:
        """Remembers nothing."""

    def close(self) -> None:
        """Has nothing left to free."""


class Serial:
    """Names parts by the serial number in their file name; the same serial again in a run gets "#2", "#3", ..."""

    def __init__(self, pattern: str = "") -> None:
        r"""Stores the pattern.

        Args:
            pattern: regular expression that is searched in the file name; its first group, or the whole match, is the
                serial number, e.g. r"SN(\d+)". "" takes the path relative to the folder.

        Raises:
            SettingError: no regular expression.
        """
        try:
            self._pattern = re.compile(pattern) if pattern else None
        except re.error as error:
            raise SettingError.of(
                "Source", "pattern of the serial number", f"a regular expression ({error})", pattern
            ) from None
        self._given: set[str] = set()

    def of(self, path: PurePath) -> tuple[str, str]:
        """Returns the id of the part in the file `path`, and what is wrong with its name ("" if nothing is)."""
        serial, problem = path.as_posix(), ""
        if self._pattern is not None:
            match = self._pattern.search(path.name)
            found = match and next((group for group in match.groups() if group), match.group())
            if found:
                serial = found
            else:
                problem = f"has no serial number: {path.name!r} does not match {self._pattern.pattern!r}"
        numbered = (f"{serial}#{repeat}" for repeat in count(2))
        part = next(name for name in chain([serial], numbered) if name not in self._given)
        self._given.add(part)
        return part, problem

    def take_back(self, part: str) -> None:
        """Forgets an id that was given to nothing."""
        self._given.discard(part)


class FrameIds:
    """Names frames by the start of the run and a counter, so that two runs never give the same id."""

    def __init__(self) -> None:
        """Starts at 1."""
        self._run = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
        self._count = 0

    def next(self) -> str:
        """Returns the id of the next frame, e.g. "20261122T210500-000001"."""
        self._count += 1
        return f"{self._run}-{self._count:06d}"
