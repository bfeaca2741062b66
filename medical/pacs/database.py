"""Opens the database of the queue: durable when a transaction commits, its errors in plain words.

SQLite in WAL mode with synchronous=FULL (https://sqlite.org/wal.html): a commit is on the disk when it returns. A
writer takes its lock at the beginning (BEGIN IMMEDIATE), so that it waits for another one instead of failing half way.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from medical.pacs.errors import QueueError
from medical.pacs.tables import VERSION, meta, metadata

BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""
_REASONS = {
    "SQLITE_BUSY": f"another program has locked it for more than {BUSY_SECONDS:.0f} s; close that one and try again",
    "SQLITE_FULL": "the disk is full; make room and try again",
    "SQLITE_READONLY": "it, or its folder, cannot be written; give this user the right to write",
    "SQLITE_NOTADB": "it is no SQLite database; give another spool folder",
    "SQLITE_CORRUPT": "it is damaged; keep a copy and recover it with `sqlite3 FILE .recover`",
    "SQLITE_CANTOPEN": "it cannot be opened; does its folder exist, and may this user write there?",
    "SQLITE_IOERR": "the disk failed or is full; check it and try again",
}


class Database:
    """An open database of one spool folder."""

    def __init__(self, engine: Engine, place: Path) -> None:
        """Keeps the engine."""
        self._engine, self._place = engine, place

    @classmethod
    def open(cls, file: Path, *, create: bool = False) -> "Database":
        """Opens a database and checks its tables.

        Args:
            file: the SQLite file.
            create: whether it is made where it is missing, with mode 0600.

        Raises:
            QueueError: it cannot be opened, holds other things, or is of a newer version.
        """
        if create:
            _make_private(file)
        elif not file.is_file():
            raise QueueError(f"{file}: there is no such file; has the service run with these settings?")
        engine = create_engine(URL.create("sqlite", database=str(file)), connect_args={"timeout": BUSY_SECONDS})
        event.listen(engine, "connect", _prepare)
        event.listen(engine, "begin", _begin)
        opened = cls(engine, file)
        try:
            opened._check(create)
        except BaseException:
            opened.close()
            raise
        return opened

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Gives a transaction that sees one state of the database.

        Raises:
            QueueError: it cannot be read.
        """
        with self._explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Gives a transaction that is on the disk when the `with` block ends; after an exception nothing is.

        Raises:
            QueueError: it cannot be written.
        """
        with self._explained(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def _check(self, create: bool) -> None:
        with self.writing() if create else self.reading() as connection:
            names = set(inspect(connection).get_table_names())
            if meta.name not in names:
                if names or not create:
                    raise QueueError(f"{self._place}: this is no queue of the PACS service; give another spool folder")
                metadata.create_all(connection)
                connection.execute(meta.insert().values(version=VERSION))
                return
            version = connection.execute(select(meta.c.version)).scalar_one()
            if version > VERSION:
                raise QueueError(
                    f"{self._place}: its tables are of version {version}, this program knows up to {VERSION}; "
                    "update anomaly-suite"
                )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Repeats neither statement nor parameters, which SQLAlchemy would show."""
        try:
            yield
        except DBAPIError as error:
            name = str(getattr(error.orig, "sqlite_errorname", type(error.orig).__name__))
            known = next((words for code, words in _REASONS.items() if name.startswith(code)), "it cannot be used")
            raise QueueError(f"{self._place}: {known} ({name})") from None


def _make_private(file: Path) -> None:
    """SQLite gives its further files (WAL, shared memory) the mode of the first."""
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise QueueError(f"{file}: it cannot be made ({type(error).__name__}); may this user write there?") from None


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN is the only one
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
