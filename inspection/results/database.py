"""Opens the database of results: SQLite, as `anomaly.database` says, or PostgreSQL."""

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError

import anomaly.database
from anomaly.database import Schema, sqlite_engine, table_names
from anomaly.errors import MissingExtraError, SettingError
from inspection.results.errors import StoreError
from inspection.results.tables import VERSION, meta, metadata

_SCHEMA = Schema("database of results", metadata, meta, VERSION)
_CREATE_LOCK = 0x616E6F6D616C79
_POSTGRESQL = {
    "connect_timeout": 10,
    "options": "-c synchronous_commit=on -c lock_timeout=30s",
    "keepalives_idle": 10,
    "tcp_user_timeout": 20_000,
}
_POSTGRESQL_REASONS = {
    "53100": "the disk of the server is full; make room and try again",
    "53300": "the server has too many connections",
    "55P03": "another program has locked it for more than 30 s; try again",
    "25006": "the server takes no changes (read-only); connect to the primary",
    "42501": "this user may not do that; grant it the right to create and write tables",
}


class Database(anomaly.database.Database):
    """An open database; whatever goes wrong is a `StoreError`.

    Attributes:
        url: where it is.
    """

    def __init__(self, engine: Engine) -> None:
        """Keeps the engine."""
        self.url = engine.url
        place = self.url.set(drivername="postgresql").render_as_string()
        super().__init__(engine, str(self.url.database) if is_sqlite(self.url) else place, StoreError)

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
                opened.log_ahead()
        except BaseException:
            opened.close()
            raise
        return opened

    @contextmanager
    def apart(self) -> Iterator[Connection]:
        """Gives a connection without a transaction, for locks that last as long as it does.

        Raises:
            StoreError: it cannot be used.
        """
        with self.explained(), self.engine.connect() as connection:
            yield connection.execution_options(isolation_level="AUTOCOMMIT")

    def reason(self, error: DBAPIError) -> str:
        """Says in words what the driver reports."""
        words = _POSTGRESQL_REASONS.get(str(getattr(error.orig, "sqlstate", "")), "")
        told = super().reason(error)
        return f"{words} ({told})" if words else told

    def _check(self, create: bool) -> None:
        """Makes the tables in one transaction, or finds them and their version."""
        with self.writing() if create else self.reading() as connection:
            if create and not is_sqlite(self.url):
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _CREATE_LOCK})
            names = table_names(connection)  # a PostgreSQL database may be shared with others
            mine = names if is_sqlite(self.url) else names & set(metadata.tables)
            self.check(connection, _SCHEMA, mine, create=create)


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
    if is_sqlite(url):
        return sqlite_engine(Path(str(url.database)))
    return create_engine(url, connect_args=_POSTGRESQL, pool_pre_ping=True)
