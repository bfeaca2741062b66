"""The queue for people: what is where, for how long and why; trying again; removing files of studies that are done."""

from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass

from sqlalchemy import ColumnElement, Connection, func, select, update

from anomaly.errors import SettingError
from medical.pacs.database import Database
from medical.pacs.queue import Clock, now_us
from medical.pacs.states import FINISHED, State
from medical.pacs.tables import deliveries, objects, pauses, results, revisions, studies


@dataclass(frozen=True)
class Row:
    """One revision of a study.

    Attributes:
        study: pseudonym.
        revision: 1, 2, ...
        state: see `State`.
        objects: number of its objects.
        age_seconds: since the first object of the revision came.
        attempts: attempts to analyse it.
        outcome: status that the analyser gave; "" before.
        summary: words of the analyser; "" before.
        results: number of its results.
        waiting: destination -> number of results that are not verified there.
        error: last error: of the analysis, or of the deliveries; "" where there is none.
    """

    study: str
    revision: int
    state: str
    objects: int
    age_seconds: float
    attempts: int
    outcome: str
    summary: str
    results: int
    waiting: dict[str, int]
    error: str

    def as_json(self) -> dict[str, object]:
        """Returns the row for machines."""
        return asdict(self)


class Overview:
    """Looks at the queue of a service, which may run or not."""

    def __init__(self, database: Database, clock: Clock = now_us) -> None:
        """Keeps the database."""
        self._database, self._clock = database, clock

    def rows(self, *, finished: bool = False) -> list[Row]:
        """Returns the revisions that are not finished, or all; the oldest first. Not analysed ones are always there."""
        wanted: ColumnElement[bool] = revisions.c.state.not_in((State.DELIVERED, State.SUPERSEDED))
        query = select(revisions, studies.c.pseudonym).join(studies).order_by(revisions.c.opened_us, revisions.c.id)
        with self._database.reading() as connection:
            found = connection.execute(query if finished else query.where(wanted)).all()
            return [self._row(connection, row) for row in found]

    def counts(self) -> dict[str, int]:
        """Returns how many revisions are in each state."""
        query = select(revisions.c.state, func.count()).group_by(revisions.c.state)
        with self._database.reading() as connection:
            found = {row[0]: int(row[1]) for row in connection.execute(query)}
        return {state.value: found.get(state.value, 0) for state in State}

    def retry(self, study: str | None) -> int:
        """Tries again what is not analysed, failed or waits for the end of a pause; returns how many revisions.

        Args:
            study: pseudonym; None for all.

        Raises:
            SettingError: no such study.
        """
        now, done = self._clock(), 0
        query = select(revisions, studies.c.pseudonym).join(studies).order_by(revisions.c.number)
        with self._database.writing() as connection:
            latest = {row.study: row for row in connection.execute(query)}
            chosen = [row for row in connection.execute(query) if study in (None, row.pseudonym)]
            if study is not None and not chosen:
                raise SettingError(f"the queue holds no study {study!r}; see: anomaly triage queue --all")
            for row in chosen:
                values = self._again(connection, row, is_latest=latest[row.study].id == row.id)
                if values is not None:
                    mine = update(revisions).where(revisions.c.id == row.id)
                    connection.execute(mine.values(next_us=0, changed_us=now, **values))
                    connection.execute(update(pauses).where(pauses.c.revision == row.id).values(next_us=0))
                    done += 1
        return done

    def remove_done(self, older_us: int, remove: Callable[[str], None]) -> int:
        """Removes the files of studies of which every revision has been finished for so long; returns how many.

        Rows stay, so that an object that comes again is known.
        """
        limit, held = self._clock() - older_us, select(objects.c.study).where(objects.c.present)
        busy = revisions.c.state.not_in(FINISHED) | (revisions.c.changed_us > limit)
        query = select(studies).where(studies.c.id.in_(held))
        query = query.where(studies.c.id.not_in(select(revisions.c.study).where(busy)))
        with self._database.writing() as connection:
            found = connection.execute(query).all()
            for row in found:
                connection.execute(update(objects).where(objects.c.study == row.id).values(present=False))
                remove(row.pseudonym)
        return len(found)

    def files(self) -> set[tuple[str, str]]:
        """Returns (pseudonym of the study, name) of all files that must stay."""
        held = select(studies.c.pseudonym, objects.c.name).join(objects).where(objects.c.present)
        made = select(studies.c.pseudonym, results.c.name).select_from(studies).join(revisions).join(results)
        present = select(objects.c.study).where(objects.c.present)
        with self._database.reading() as connection:
            kept = connection.execute(made.where(studies.c.id.in_(present))).all()
            return {(row[0], row[1]) for row in [*connection.execute(held), *kept]}

    def _row(self, connection: Connection, row) -> Row:  # type: ignore[no-untyped-def]  # noqa: ANN001 - a row
        held = select(func.count()).select_from(objects)
        held = held.where(objects.c.study == row.study, objects.c.revision <= row.number)
        made = select(func.count()).select_from(results).where(results.c.revision == row.id)
        open_ = select(deliveries.c.destination).join(results).where(results.c.revision == row.id)
        open_ = open_.where(deliveries.c.verified_us.is_(None))
        told = select(pauses.c.destination, pauses.c.error).where(pauses.c.revision == row.id)
        errors = [f"{one.destination}: {one.error}" for one in connection.execute(told)]
        if row.cause:
            errors.insert(0, f"{row.cause}: {row.detail}")
        return Row(
            study=row.pseudonym,
            revision=row.number,
            state=row.state,
            objects=connection.execute(held).scalar_one(),
            age_seconds=round((self._clock() - row.opened_us) / 1e6, 1),
            attempts=row.attempts,
            outcome=row.outcome or "",
            summary=row.summary or "",
            results=connection.execute(made).scalar_one(),
            waiting=dict(Counter(connection.execute(open_).scalars())),
            error="; ".join(errors),
        )

    def _again(self, connection: Connection, row, *, is_latest: bool) -> dict[str, object] | None:  # type: ignore[no-untyped-def]  # noqa: ANN001 - a row
        """Returns the new values of a revision; None if there is nothing to try again."""
        made = connection.execute(select(results.c.id).where(results.c.revision == row.id)).first() is not None
        if row.state in (State.NOT_ANALYSED, State.FAILED) and not made:
            gone = select(objects.c.id).where(objects.c.study == row.study, ~objects.c.present)
            if not is_latest or connection.execute(gone).first():
                return None
            return {"state": State.COMPLETE, "attempts": 0, "cause": None, "detail": None}
        if row.state == State.FAILED:
            return {"state": State.DELIVERING, "cause": None, "detail": None}
        return {} if row.state in (State.COMPLETE, State.DELIVERING) else None
