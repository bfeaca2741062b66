"""The transactional outbox: which results each receiver has not acknowledged yet.

It is part of the transaction that stores a result (see `tables`), so that there is no moment at which a result is
stored and its message forgotten, or sent and not stored. Source: the pattern "transactional outbox", Richardson,
Microservices Patterns, 2018, section 3.3.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from filelock import FileLock, Timeout
from sqlalchemy import ColumnElement, Select, func, select, text

from inspection.results.database import Database, is_sqlite
from inspection.results.records import StoredResult
from inspection.results.store import read_results
from inspection.results.tables import outbox, results, runs

_BEHIND: ColumnElement[bool] = (results.c.run == outbox.c.run) & (results.c.id > outbox.c.delivered)


class Outbox:
    """What waits for receivers in a database."""

    def __init__(self, database: Database) -> None:
        """Keeps the database."""
        self._database = database

    def waiting(self, receiver: str) -> int:
        """Returns how many results a receiver has not acknowledged.

        Raises:
            StoreError: the database cannot be read.
        """
        query = select(func.count()).select_from(outbox).join(results, _BEHIND).where(outbox.c.receiver == receiver)
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def receivers(self) -> list[str]:
        """Returns the receivers for whom something waits.

        Raises:
            StoreError: the database cannot be read.
        """
        query = select(outbox.c.receiver).where(_something_behind()).distinct().order_by(outbox.c.receiver)
        with self._database.reading() as connection:
            return list(connection.execute(query).scalars())

    def following(self, receiver: str, limit: int) -> list[StoredResult]:
        """Returns the results to be delivered next, in order, all of one run: of the oldest that is not delivered.

        Raises:
            StoreError: the database cannot be read.
        """
        oldest = select(outbox).where(outbox.c.receiver == receiver, _something_behind()).order_by(outbox.c.run)
        with self._database.reading() as connection:
            row = connection.execute(oldest.limit(1)).one_or_none()
            if row is None:
                return []
            behind = (results.c.run == row.run) & (results.c.id > row.delivered)
            return read_results(connection, behind, limit=limit)

    def acknowledged(self, receiver: str, delivered: Sequence[StoredResult]) -> None:
        """Notes that a receiver has the first results of those that `following` returned.

        Raises:
            StoreError: the database cannot be written.
        """
        if not delivered:
            return
        last = delivered[-1]
        run = select(runs.c.id).where(runs.c.name == last.run).scalar_subquery()
        here = (outbox.c.receiver == receiver) & (outbox.c.run == run)
        with self._database.writing() as connection:
            connection.execute(outbox.update().where(here).values(delivered=last.id))

    def tidy(self, receiver: str) -> None:
        """Forgets the runs that have ended and are delivered, so that the outbox stays short over years.

        Raises:
            StoreError: the database cannot be written.
        """
        ended = select(runs.c.id).where(runs.c.ended.is_not(None))
        done = (outbox.c.receiver == receiver) & outbox.c.run.in_(ended) & ~_something_behind()
        with self._database.writing() as connection:
            connection.execute(outbox.delete().where(done))

    @contextmanager
    def claim(self, receiver: str) -> Iterator[Callable[[], bool]]:
        """Claims the right to deliver to a receiver, which one process at a time can have.

        The right ends with the process that has it, however that ends.

        Returns:
            Whether this process has the right; to be asked again before each delivery.

        Raises:
            StoreError: the database cannot be used; also from within the `with` block, when the right was lost.
        """
        digest = hashlib.sha256(receiver.encode("utf-8", "surrogatepass")).digest()
        claimed = self._claim_file if is_sqlite(self._database.url) else self._claim_session
        with claimed(digest) as holds:
            yield holds

    @contextmanager
    def _claim_file(self, digest: bytes) -> Iterator[Callable[[], bool]]:
        """By a lock on a file beside that of SQLite, which the operating system releases."""
        lock = FileLock(f"{self._database.url.database}.{digest.hex()[:12]}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            yield lambda: False
            return
        try:
            yield lambda: True
        finally:
            lock.release()

    @contextmanager
    def _claim_session(self, digest: bytes) -> Iterator[Callable[[], bool]]:
        """By an advisory lock of PostgreSQL, which lasts as long as its connection."""
        key = {"key": int.from_bytes(digest[:8], "big", signed=True)}
        with self._database.apart() as connection:
            mine = bool(connection.execute(text("SELECT pg_try_advisory_lock(:key)"), key).scalar_one())
            try:
                yield lambda: mine and bool(connection.execute(text("SELECT true")).scalar_one())
            finally:
                if mine and not connection.invalidated:
                    connection.execute(text("SELECT pg_advisory_unlock(:key)"), key)


def _something_behind() -> ColumnElement[bool]:
    behind: Select[tuple[int]] = select(results.c.id).where(_BEHIND).correlate(outbox)
    return behind.exists()
