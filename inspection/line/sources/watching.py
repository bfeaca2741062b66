"""A folder into which a camera or another program writes image files.

The folder is polled, so it may lie on a network share. A file is read once its size and time of change have stood
still and it can be decoded; one that cannot be decoded is given time, because some programs pause while they write,
and then becomes a part with a problem. The surest way to hand over a file is to write it under another name (starting
with a dot, or ending in .tmp) and to rename it.
"""

import logging
import os
import sqlite3
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from threading import Event, Lock

from anomaly.errors import DatasetError, SettingError
from anomaly.images import IMAGE_SUFFIXES
from inspection.line.sources.base import Serial
from inspection.line.sources.files import FileContent
from inspection.line.sources.memory import FileKey, FileMemory, OpenFile
from inspection.parts import Part

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WatchTimes:
    """How patiently a folder is watched, in seconds.

    Attributes:
        poll: pause between two looks at the folder; at least as long as four looks take.
        settle: for how long size and time of change must stand still before a file is read.
        give_up: for how long a file that cannot be decoded must stand still before it counts as unreadable.
    """

    poll: float = 0.2
    settle: float = 0.4
    give_up: float = 10.0

    def __post_init__(self) -> None:
        """Refuses times that make no sense."""
        if self.poll <= 0:
            raise SettingError.of("WatchTimes", "poll", "above 0", self.poll)
        if not 0 <= self.settle <= self.give_up:
            raise SettingError.of(
                "WatchTimes", "settle and give_up", "0 <= settle <= give_up", (self.settle, self.give_up)
            )


@dataclass
class _Candidate:
    key: FileKey
    since: float
    tried: float


class WatchedFolder:
    """Yields every image file that is in a folder or comes into it, each once, over restarts too."""

    def __init__(
        self,
        folder: Path,
        memory: Path,
        serial: Serial,
        was_reported: Callable[[OpenFile], bool] = lambda file: False,
        times: WatchTimes | None = None,
    ) -> None:
        """Opens the memory of what was inspected.

        Args:
            folder: is watched with all its subfolders; files by `IMAGE_SUFFIXES`, what starts with a dot is skipped.
            memory: file that remembers what was inspected; one for each folder, on a local disk.
            serial: how parts are named.
            was_reported: asked when the first part is wanted, whether there is a durable result of a file that was
                under way when the line was killed. By default nobody knows, and such a file is inspected again.
            times: how patiently it is watched.

        Raises:
            DatasetError: no such folder.
            SourceError: the memory cannot be opened.
        """
        if not folder.is_dir():
            raise DatasetError(f"{folder} is no folder that can be watched; check the path")
        self.name = str(folder)
        self._folder, self._serial, self._times = folder, serial, times or WatchTimes()
        self._memory = FileMemory(memory)
        self._was_reported = was_reported
        self._known: set[FileKey] = set()
        self._candidates: dict[str, _Candidate] = {}
        self._delivered: dict[str, FileKey] = {}
        self._lock = Lock()

    def parts(self, stop: Event) -> Generator[Part, None, None]:
        """Yields parts, oldest file first, until `stop` is set. A folder that is gone for a while is waited for."""
        self._memory.close([file.key for file in self._memory.opened() if self._was_reported(file)])
        self._known = self._memory.known()
        while not stop.is_set():
            begun = time.monotonic()
            for key in self._settled():
                if stop.is_set():
                    return
                part = self._read(key)
                if part is not None:
                    yield part
            stop.wait(max(self._times.poll, 4 * (time.monotonic() - begun)))

    def reported(self, parts: Sequence[Part]) -> None:
        """Remembers that the results of `parts` are durable."""
        with self._lock:
            keys = [self._delivered[part.id] for part in parts]
            self._memory.close(keys)
            for part in parts:
                del self._delivered[part.id]

    def close(self) -> None:
        """Closes the memory."""
        self._memory.shut()

    def _settled(self) -> list[FileKey]:
        """Looks at the folder once; returns the files whose size and time of change have stood still."""
        now, found = time.monotonic(), {key.path: key for key in _scan(self._folder)}
        for path in self._candidates.keys() - found.keys():
            del self._candidates[path]  # renamed, or taken away before it was complete
        for key in found.values():
            if key in self._known:
                continue
            candidate = self._candidates.get(key.path)
            if candidate is None or candidate.key != key:
                self._candidates[key.path] = _Candidate(key, now, now)
        ready = [c.key for c in self._candidates.values() if now >= c.tried + self._times.settle]
        return sorted(ready, key=lambda key: (key.mtime_ns, key.path))

    def _read(self, key: FileKey) -> Part | None:
        """Reads a file that has stood still; None if it is not complete after all."""
        candidate, path = self._candidates[key.path], self._folder / key.path
        content = FileContent.read(path)
        now = _key(self._folder, path)
        if now is not None and now != key:
            return None  # it was written on while it was read; the next look finds it changed
        candidate.tried = time.monotonic()
        if now is not None and content.problem and candidate.tried < candidate.since + self._times.give_up:
            return None
        part = content.as_part(PurePath(key.path), self._serial)
        try:
            self._memory.open(OpenFile(key, part.id, part.captured.isoformat()))
        except sqlite3.OperationalError as error:  # disk full, locked: the file stays in the folder and comes later
            _log.warning("%s waits: what was inspected cannot be remembered (%s)", path, error)
            self._serial.take_back(part.id)
            return None
        del self._candidates[key.path]
        with self._lock:
            self._known.add(key)
            self._delivered[part.id] = key
        return part


def _scan(folder: Path) -> Iterator[FileKey]:
    """Yields the image files below a folder; what disappears while it looks is left out."""
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and name.lower().endswith(IMAGE_SUFFIXES):
                key = _key(folder, Path(place, name))
                if key is not None:
                    yield key


def _key(folder: Path, path: Path) -> FileKey | None:
    try:
        facts = path.stat()
    except FileNotFoundError:
        return None
    return FileKey(path.relative_to(folder).as_posix(), facts.st_size, facts.st_mtime_ns)
