"""Opens the database of results: durable when a transaction commits, its tables checked, its errors in plain words.

SQLite runs in WAL mode with synchronous=FULL (https://sqlite.org/wal.html): readers never wait for the writer, a
commit is on the disk when it returns. A writer takes its lock at the beginning (BEGIN IMMEDIATE), so that it waits for
another one instead of failing half way.
"""

import importlib.util
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, select, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

from anomaly.errors import MissingExtraError, SettingError
from inspection.results.errors import StoreError
from inspection.results.tables import VERSION, meta, metadata

BUSY_SECONDS = 30.0
"""How long a writer waits for another one."""
_CREATE_LOCK = 0x616E6F6D616C79
_POSTGRESQL = {
    "connect_timeout": 10,
    "options": "-c synchronous_commit=on -c lock_timeout=30s",
    "keepalives_idle": 10,
    "tcp_user_timeout": 20_000,
}
_SQLITE_REASONS = {
    "SQLITE_BUSY": f"another program has locked it for more than {BUSY_SECONDS:.0f} s; close that one and try again",
    "SQLITE_LOCKED": "another connection has locked it; try again",
    "SQLITE_FULL": "the disk is full; make room and try again",
    "SQLITE_READONLY": "it, or its folder, cannot be written; give this user the right to write",
    "SQLITE_NOTADB": "it is no SQLite database; give the path of another file",
    "SQLITE_CORRUPT": "it is damaged; keep a copy, recover it with `sqlite3 FILE .recover`, or give another path",
    "SQLITE_CANTOPEN": "it cannot be opened; does its folder exist, and may this user write there?",
    "SQLITE_IOERR": "the disk failed or is full; check it and try again",
}
_POSTGRESQL_REASONS = {
    "53100": "the disk of the server is full; make room and try again",
    "53300": "the server has too many connections",
    "55P03": "another program has locked it for more than 30 s; try again",
    "25006": "the server takes no changes (read-only); connect to the primary",
    "42501": "this user may not do that; grant it the right to create and write tables",
}


class Database:
    """An open database.

    Attributes:
        place: the file, or the address without password, for messages.
        url: where it is.
    """

    def __init__(self, engine: Engine) -> None:
        """Keeps the engine."""
        self.url = engine.url
        self.place = (
            str(engine.url.database)
            if is_sqlite(engine.url)
            else engine.url.set(drivername="postgresql").render_as_string()
        )
        self._engine = engine

    @classmethod
    def open(cls, database: str | Path, *, password: str | None = None, create: bool = False) -> "Database":
        """Opens a database and checks its tables.

        Args:
            database: path of a SQLite file, or URL of a PostgreSQL database.
            password: of the PostgreSQL user.
            create: whether the file and the tables are made where they are missing.

        Raises:
            StoreError: it cannot be opened, holds other things, or is of a newer version.
            MissingExtraError: psycopg is not installed.
        """
        url = _url(str(database), password)
        if is_sqlite(url) and not create and not Path(str(url.database)).is_file():
            raise StoreError(f"{url.database}: there is no such file; give the database that a line has written")
        opened = cls(_engine(url))
        try:
            opened._check(create)
            if create and is_sqlite(url):
                opened._log_ahead()
        except BaseException:
            opened.close()
            raise
        return opened

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Gives a transaction that sees one state of the database.

        Raises:
            StoreError: it cannot be read.
        """
        with self._explained(), self._engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Gives a transaction that is on the disk when the `with` block ends; after an exception nothing is.

        Raises:
            StoreError: it cannot be written.
        """
        with self._explained(), self._engine.connect().execution_options(writes=True) as connection, connection.begin():
            yield connection

    @contextmanager
    def apart(self) -> Iterator[Connection]:
        """Gives a connection without a transaction, for locks that last as long as it does.

        Raises:
            StoreError: it cannot be used.
        """
        with self._explained(), self._engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def close(self) -> None:
        """Closes all connections."""
        self._engine.dispose()

    def _check(self, create: bool) -> None:
        """Makes the tables in one transaction, or finds them and their version."""
        with self.writing() if create else self.reading() as connection:
            if create and not is_sqlite(self.url):
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATE_LOCK})
            names = set(inspect(connection).get_table_names())
            if meta.name not in names:
                taken = sorted(names if is_sqlite(self.url) else names & set(metadata.tables))
                if taken or not create:
                    found = f"it has the tables {', '.join(taken[:5])}" if taken else "it is empty"
                    raise StoreError(f"{self.place}: this is no database of results ({found}); give another one")
                metadata.create_all(connection)
                connection.execute(meta.insert().values(version=VERSION))
                return
            version = connection.execute(select(meta.c.version)).scalar_one()
            if version > VERSION:
                raise StoreError(
                    f"{self.place}: its tables are of version {version}, this program knows up to {VERSION}; "
                    "update anomaly-suite"
                )

    def _log_ahead(self) -> None:
        """Switches the file, which is known to be one of ours, to WAL mode; it stays so.

        Nobody else may use the file at that moment, and SQLite does not always wait for that.
        """
        limit = time.monotonic() + BUSY_SECONDS
        connection = self._engine.raw_connection()
        try:
            while True:
                try:
                    connection.cursor().execute("PRAGMA journal_mode = WAL")
                    return
                except sqlite3.OperationalError as error:
                    if time.monotonic() > limit:
                        raise StoreError(f"{self.place}: it cannot be switched to WAL mode ({error})") from error
                time.sleep(0.05)
        finally:
            connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except DBAPIError as error:
            raise StoreError(f"{self.place}: {_reason(error)}") from error


def is_sqlite(url: URL) -> bool:
    """Whether the address is that of a SQLite file."""
    return url.get_backend_name() == "sqlite"


def _url(database: str, password: str | None) -> URL:
    if "://" not in database:
        return URL.create("sqlite", database=str(Path(database).absolute()))
    try:
        url = make_url(database)
    except ArgumentError as error:
        raise SettingError.of("the results", "database", "a path or a PostgreSQL URL", database) from error
    if url.drivername not in ("postgresql", "postgresql+psycopg"):
        raise SettingError.of("the results", "database", "a path or begin with postgresql://", url.drivername)
    if importlib.util.find_spec("psycopg") is None:
        raise MissingExtraError.of("psycopg", "postgresql", "results in PostgreSQL")
    return url.set(drivername="postgresql+psycopg", password=url.password if password is None else password)


def _engine(url: URL) -> Engine:
    if not is_sqlite(url):
        return create_engine(url, connect_args=_POSTGRESQL, pool_pre_ping=True)
    engine = create_engine(url, connect_args={"timeout": BUSY_SECONDS})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # SQLAlchemy's BEGIN is the only one
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _reason(error: DBAPIError) -> str:
    """Says in words what a driver reports."""
    name = str(getattr(error.orig, "sqlite_errorname", ""))
    for code, reason in _SQLITE_REASONS.items():
        if name == code or name.startswith(f"{code}_"):
            return f"{reason} ({error.orig})"
    reason = _POSTGRESQL_REASONS.get(str(getattr(error.orig, "sqlstate", "")), "")
    first = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else type(error.orig).__name__
    return f"{reason} ({first})" if reason else first
