"""What a watched folder has delivered and what of it is reported, in a SQLite file that survives a kill.

A file is known by path, size and time of its last change: the same name with other content is another part. Before a
part is handed over its row is written as open; once its result is durable the row is closed. After a kill an open row
says that the result may or may not be durable: whoever has the results is asked, otherwise the part comes again.
"""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from inspection.line.errors import SourceError

_LOCK_S = 1.0
_TABLE = """
CREATE TABLE IF NOT EXISTS files (
    path TEXT NOT NULL, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    part TEXT NOT NULL, captured TEXT NOT NULL, reported INTEGER NOT NULL,
    PRIMARY KEY (path, size, mtime_ns)
) WITHOUT ROWID
"""


class FileKey(NamedTuple):
    """What tells one delivered file from another.

    Attributes:
        path: relative to the watched folder, with "/".
        size: in bytes.
        mtime_ns: time of the last change in nanoseconds.
    """

    path: str
    size: int
    mtime_ns: int


class OpenFile(NamedTuple):
    """A file that was delivered, without knowing whether its result became durable.

    Attributes:
        key: the file.
        part: id that the part had.
        captured: when it was seen, ISO 8601.
    """

    key: FileKey
    part: str
    captured: str


class FileMemory:
    """The rows; every method may be called from any thread."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file.

        Raises:
            SourceError: it cannot be opened, or is no such file.
        """
        self._lock = Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_LOCK_S, check_same_thread=False, isolation_level=None)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise SourceError(
                f"{path}: cannot remember which files were inspected ({error}); make it writable, or remove it if it "
                "is broken: every file in the folder is then inspected again"
            ) from error

    def known(self) -> set[FileKey]:
        """Returns all files that were reported."""
        with self._lock:
            rows = self._db.execute("SELECT path, size, mtime_ns FROM files WHERE reported = 1")
            return {FileKey(*row) for row in rows}

    def opened(self) -> list[OpenFile]:
        """Returns the files that were delivered and not closed."""
        with self._lock:
            rows = self._db.execute("SELECT path, size, mtime_ns, part, captured FROM files WHERE reported = 0")
            return [OpenFile(FileKey(*row[:3]), row[3], row[4]) for row in rows]

    def open(self, file: OpenFile) -> None:
        """Writes that a file is about to be delivered.

        Raises:
            sqlite3.Error: it cannot be written.
        """
        with self._lock:
            self._db.execute("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?, ?, 0)", (*file.key, *file[1:]))

    def close(self, keys: Sequence[FileKey]) -> None:
        """Writes that the results of files are durable.

        Raises:
            sqlite3.Error: it cannot be written; nothing is.
        """
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.executemany("UPDATE files SET reported = 1 WHERE path = ? AND size = ? AND mtime_ns = ?", keys)
            except sqlite3.Error:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def shut(self) -> None:
        """Closes the file."""
        with self._lock:
            self._db.close()
