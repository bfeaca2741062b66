"""Databases of the frontends: durable when a transaction commits, their tables checked, their errors in plain words.

SQLite runs in WAL mode with synchronous=FULL (https://sqlite.org/wal.html): readers never wait for the writer, a
commit is on the disk when it returns. A writer takes its lock at the beginning (BEGIN IMMEDIATE), so that it waits for
another one instead of failing half way.
"""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import Connection, Engine, MetaData, Table, create_engine, event, inspect, select
from sqlalchemy.engine import URL
from sqlalchemy.exc import DBAPIError

from anomaly.errors import AnomalyError

BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""
_REASONS = {
    "SQLITE_BUSY": f"another program has locked it for more than {BUSY_SECONDS:.0f} s; close that one and try again",
    "SQLITE_LOCKED": "another connection has locked it; try again",
    "SQLITE_FULL": "the disk is full; make room and try again",
    "SQLITE_READONLY": "it, or its folder, cannot be written; give this user the right to write",
    "SQLITE_NOTADB": "it is no SQLite database; give the path of another file",
    "SQLITE_CORRUPT": "it is damaged; keep a copy, recover it with `sqlite3 FILE .recover`, or give another path",
    "SQLITE_CANTOPEN": "it cannot be opened; does its folder exist, and may this user write there?",
    "SQLITE_IOERR": "the disk failed or is full; check it and try again",
}


class Schema(NamedTuple):
    """The tables of one kind of database.

    Attributes:
        what: the kind, e.g. "database of results".
        tables: all of them.
        meta: the one that marks the kind, with a row that holds the version.
        version: of the tables; a newer one is refused.
    """

    what: str
    tables: MetaData
    meta: Table
    version: int


class Database:
    """An open database.

    Attributes:
        place: the file, or the address without password, for messages.
        engine: its connections.
    """

    def __init__(self, engine: Engine, place: str, failure: type[AnomalyError]) -> None:
        """Keeps all three; `failure` is raised for whatever goes wrong."""
        self.engine, self.place, self._failure = engine, place, failure

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Gives a transaction that sees one state of the database.

        Raises:
            AnomalyError: it cannot be read; of the class that was given.
        """
        with self.explained(), self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Gives a transaction that is on the disk when the `with` block ends; after an exception nothing is.

        Raises:
            AnomalyError: it cannot be written; of the class that was given.
        """
        with self.explained(), self.engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Turns errors of the driver into ours; statement and parameters, which SQLAlchemy would show, stay out."""
        try:
            yield
        except DBAPIError as error:
            raise self._failure(f"{self.place}: {self.reason(error)}") from None

    def reason(self, error: DBAPIError) -> str:
        """Says in words what the driver reports."""
        name = str(getattr(error.orig, "sqlite_errorname", ""))
        told = str(error.orig).strip().partition("\n")[0] or type(error.orig).__name__
        known = [words for code, words in _REASONS.items() if name == code or name.startswith(f"{code}_")]
        return f"{known[0]} ({told})" if known else told

    def check(self, connection: Connection, schema: Schema, names: set[str], *, create: bool) -> None:
        """Makes the tables, or finds them and their version.

        Args:
            connection: a transaction; one that writes if `create`.
            schema: the tables.
            names: tables that were found.
            create: whether they are made where there is none.

        Raises:
            AnomalyError: it holds other things, or is of a newer version; of the class that was given.
        """
        if schema.meta.name not in names:
            if names or not create:
                found = f"it has the tables {', '.join(sorted(names)[:5])}" if names else "it is empty"
                raise self._failure(f"{self.place}: this is no {schema.what} ({found}); give another one")
            schema.tables.create_all(connection)
            connection.execute(schema.meta.insert().values(version=schema.version))
            return
        version = connection.execute(select(schema.meta.c.version)).scalar_one()
        if version > schema.version:
            raise self._failure(
                f"{self.place}: its tables are of version {version}, this program knows up to {schema.version}; "
                "update anomaly-suite"
            )

    def log_ahead(self) -> None:
        """Switches a SQLite file, which is known to be one of ours, to WAL mode; it stays so.

        Nobody else may use the file at that moment, and SQLite does not always wait for that.

        Raises:
            AnomalyError: somebody else uses it all the time; of the class that was given.
        """
        limit = time.monotonic() + BUSY_SECONDS
        connection = self.engine.raw_connection()
        try:
            while True:
                try:
                    connection.cursor().execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.OperationalError as error:
                    if time.monotonic() > limit:
                        raise self._failure(f"{self.place}: it cannot be switched to WAL mode ({error})") from error
                time.sleep(0.05)
        finally:
            connection.close()


def table_names(connection: Connection) -> set[str]:
    """Returns the names of all tables."""
    return set(inspect(connection).get_table_names())


def sqlite_engine(file: Path) -> Engine:
    """Returns an engine for a SQLite file that works as the module says."""
    engine = create_engine(URL.create("sqlite", database=str(file)), connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN is the only one
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
