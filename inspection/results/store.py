"""The results of a line in a database: durable when `write` returns, read back exactly, shared by several processes."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, select
from sqlalchemy.dialects import postgresql, sqlite

from anomaly.calibration import Decision
from anomaly.errors import SettingError
from inspection.parts import PartResult
from inspection.results import tables
from inspection.results.database import Database, is_sqlite
from inspection.results.errors import PartConflictError, StoreError
from inspection.results.records import (
    Picture,
    Run,
    StoredResult,
    Verdict,
    defect_of,
    defect_rows,
    microseconds,
    picture_of,
    picture_row,
    result_of,
    result_row,
    verdict_of,
)

PAGE = 500
"""Results read or looked up together."""


class ResultsStore:
    """An open store. Several threads and processes may write and read; use it in a `with` statement, or close it."""

    def __init__(self, database: Database) -> None:
        """Keeps the database; `open` makes one."""
        self.database = database
        self._runs: dict[str, int] = {}

    @classmethod
    def open(cls, database: str | Path, *, password: str | None = None, create: bool = False) -> "ResultsStore":
        """Opens the results of a line.

        Args:
            database: path of a SQLite file, or URL of a PostgreSQL database (postgresql://user@host/name).
            password: of the PostgreSQL user.
            create: whether the file and the tables are made where they are missing.

        Raises:
            StoreError: it cannot be opened, is no database of results, or is of a newer version.
            MissingExtraError: psycopg is not installed.
        """
        return cls(Database.open(database, password=password, create=create))

    def __enter__(self) -> "ResultsStore":
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the database."""
        self.close()

    def close(self) -> None:
        """Closes all connections."""
        self.database.close()

    def start(self, run: Run, receivers: Collection[str] = ()) -> None:
        """Stores a run and the receivers of its results. Starting the same run again changes nothing.

        Args:
            run: the run.
            receivers: addresses of those to whom each of its results has to be delivered.

        Raises:
            StoreError: it cannot be written, or there is another run of this id.
        """
        row = {
            "name": run.id,
            "recipe": run.recipe,
            "model": run.model,
            "version": run.version,
            "started": run.started.isoformat(),
        }
        with self.database.writing() as connection:
            connection.execute(self._insert(tables.runs), row)
            found = connection.execute(select(tables.runs).where(tables.runs.c.name == run.id)).mappings().one()
            if any(found[name] != value for name, value in row.items()):
                raise StoreError(f"{self.database.place}: there is another run {run.id!r}; give this one another id")
            waiting = [{"receiver": receiver, "run": found["id"], "delivered": 0} for receiver in receivers]
            if waiting:
                connection.execute(self._insert(tables.outbox), waiting)
        self._runs[run.id] = found["id"]

    def end(self, run: str) -> None:
        """Notes that a run has ended properly.

        Raises:
            StoreError: it cannot be written, or the run is not known.
        """
        with self.database.writing() as connection:
            ended = tables.runs.update().where(tables.runs.c.id == self._run(connection, run))
            connection.execute(ended, {"ended": datetime.now(UTC).isoformat()})

    def write(
        self, run: str, results: Sequence[PartResult], pictures: Mapping[str, Sequence[Picture]] | None = None
    ) -> None:
        """Stores results; they are on the disk when this returns. Writing the same again changes nothing.

        All results of the call are stored in one transaction, together with their place in the outbox.

        Args:
            run: id of a run that was started.
            results: what became of the parts.
            pictures: part id -> pictures of it that are on disk.

        Raises:
            PartConflictError: a part id came again with another result; all others are stored.
            StoreError: it cannot be written; nothing is stored, the call may be repeated.
        """
        latest: dict[str, PartResult] = {}
        conflicts = [r.part for r in results if latest.setdefault(r.part, r) != r]
        with self.database.writing() as connection:
            number = self._run(connection, run, lock=True)
            columns = tables.results.c
            insert = self._insert(tables.results).returning(columns.id, columns.part)
            rows = [result_row(number, result) for result in latest.values()]
            new = {row.part: row.id for row in connection.execute(insert, rows)} if rows else {}
            found = [row for part, id in new.items() for row in defect_rows(id, latest[part].defects)]
            if found:
                connection.execute(tables.defects.insert(), found)
            self._add_pictures(connection, new, pictures or {})
            old = [part for part in latest if part not in new]
            for k in range(0, len(old), PAGE):
                stored = read_results(connection, (columns.run == number) & columns.part.in_(old[k : k + PAGE]))
                conflicts += [s.result.part for s in stored if s.result != latest[s.result.part]]
        if conflicts:
            raise PartConflictError(run, sorted(set(conflicts)))

    def results(
        self,
        *,
        run: str | None = None,
        part: str | None = None,
        recipe: str | None = None,
        model: str | None = None,
        decision: Decision | Collection[Decision] | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
    ) -> Iterator[StoredResult]:
        """Iterates the stored results in the order of writing; memory does not grow with their number.

        Results that are written meanwhile may or may not be among them.

        Args:
            run: only of this run.
            part: only of this part, in any run.
            recipe: only of this recipe (sha256).
            model: only of this model (sha256).
            decision: only of this decision, or one of these.
            since: only captured then or later, with a time zone.
            until: only captured before, with a time zone.
            limit: at most so many.

        Raises:
            StoreError: it cannot be read.
            SettingError: a time has no zone, or `limit` is negative.
        """
        _check(since, until, limit)
        columns = tables.results.c
        wanted: list[ColumnElement[bool]] = [
            column == value
            for column, value in (
                (tables.runs.c.name, run),
                (columns.part, part),
                (columns.recipe, recipe),
                (columns.model, model),
            )
            if value is not None
        ]
        if decision is not None:
            chosen = (decision,) if isinstance(decision, str) else tuple(decision)
            wanted.append(columns.decision.in_([Decision(one).value for one in chosen]))
        if since is not None:
            wanted.append(columns.captured_us >= microseconds(since))
        if until is not None:
            wanted.append(columns.captured_us < microseconds(until))
        return self._pages(wanted, limit)

    def add_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Stores what people say of parts; adding the same verdict again changes nothing.

        Raises:
            StoreError: a part is not in the store, or it cannot be written; nothing of the call was stored.
        """
        with self.database.writing() as connection:
            rows = [
                {
                    "result": self._result(connection, verdict),
                    "verdict": verdict.verdict.value,
                    "who": verdict.who,
                    "given": verdict.given.isoformat(),
                    "given_us": microseconds(verdict.given),
                }
                for verdict in verdicts
            ]
            if rows:
                connection.execute(self._insert(tables.verdicts), rows)

    def runs(self) -> list[Run]:
        """Returns all runs, in the order in which they were started.

        Raises:
            StoreError: it cannot be read.
        """
        with self.database.reading() as connection:
            rows = connection.execute(select(tables.runs).order_by(tables.runs.c.id)).mappings().all()
        return [
            Run(
                id=row["name"],
                recipe=row["recipe"],
                model=row["model"],
                started=datetime.fromisoformat(row["started"]),
                version=row["version"],
            )
            for row in rows
        ]

    def _pages(self, wanted: list[ColumnElement[bool]], limit: int | None) -> Iterator[StoredResult]:
        """Reads page by page, each in its own transaction: a slow reader never keeps the log of SQLite long."""
        last, left = 0, limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            with self.database.reading() as connection:
                page = read_results(connection, *wanted, tables.results.c.id > last, limit=size)
            yield from page
            if len(page) < size:
                return
            last = page[-1].id
            left = None if left is None else left - size

    def _insert(self, table: Table) -> Any:
        """An INSERT that leaves out rows that are there already."""
        insert = sqlite.insert if is_sqlite(self.database.url) else postgresql.insert
        return insert(table).on_conflict_do_nothing()

    def _run(self, connection: Connection, run: str, *, lock: bool = False) -> int:
        """The number of a run; locked, so that the ids of its results grow in the order in which they are committed."""
        known = self._runs.get(run)
        if known is not None and is_sqlite(self.database.url):
            return known
        query = select(tables.runs.c.id).where(tables.runs.c.name == run)
        number = connection.execute(query.with_for_update() if lock else query).scalar_one_or_none()
        if number is None:
            raise StoreError(f"{self.database.place}: there is no run {run!r}; start it before results are written")
        self._runs[run] = number
        return int(number)

    def _result(self, connection: Connection, verdict: Verdict) -> int:
        columns = tables.results.c
        query = select(columns.id).where(
            columns.run == self._run(connection, verdict.run), columns.part == verdict.part
        )
        number = connection.execute(query).scalar_one_or_none()
        if number is None:
            raise StoreError(
                f"{self.database.place}: run {verdict.run!r} has no part {verdict.part!r}; no verdict was stored"
            )
        return int(number)

    def _add_pictures(
        self, connection: Connection, new: Mapping[str, int], pictures: Mapping[str, Sequence[Picture]]
    ) -> None:
        rows = [picture_row(id, picture) for part, id in new.items() for picture in pictures.get(part, ())]
        if rows:
            connection.execute(tables.pictures.insert(), rows)


def read_results(connection: Connection, *wanted: ColumnElement[bool], limit: int | None = None) -> list[StoredResult]:
    """Reads the results that meet all conditions, with all that belongs to them, in the order of writing."""
    query = select(tables.results, tables.runs.c.name.label("run_name")).join(tables.runs).where(*wanted)
    rows = connection.execute(query.order_by(tables.results.c.id).limit(limit)).mappings().all()
    ids = [row["id"] for row in rows]
    defects, pictures, verdicts = (_children(connection, table, ids) for table in _CHILDREN)
    return [
        StoredResult(
            id=row["id"],
            run=row["run_name"],
            result=result_of(dict(row), [defect_of(defect) for defect in defects[row["id"]]]),
            pictures=tuple(picture_of(picture) for picture in pictures[row["id"]]),
            verdicts=tuple(verdict_of(verdict, row["run_name"], row["part"]) for verdict in verdicts[row["id"]]),
        )
        for row in rows
    ]


_CHILDREN = {tables.defects: "position", tables.pictures: "kind", tables.verdicts: "given_us"}
"""Tables whose rows belong to a result -> the column that orders them."""


def _children(connection: Connection, table: Table, ids: Sequence[int]) -> dict[int, list[Any]]:
    found: dict[int, list[Any]] = defaultdict(list)
    if ids:
        query = select(table).where(table.c.result.in_(ids)).order_by(table.c.result, table.c[_CHILDREN[table]])
        for row in connection.execute(query).mappings():
            found[row["result"]].append(row)
    return found


def _check(since: datetime | None, until: datetime | None, limit: int | None) -> None:
    for name, time in (("since", since), ("until", until)):
        if time is not None and time.tzinfo is None:
            raise SettingError.of("results", name, "a time with its zone", time)
    if limit is not None and limit < 0:
        raise SettingError.of("results", "limit", "0 or more", limit)
