"""The durable queue, from the first object of a study to its results: each method is one transaction.

Delivery of the results is in `outgoing`, what people look at in `overview`. An object that was taken is in exactly one
study; a study is analysed until there is a result or `attempts` have ended without one; a crash between two
transactions is followed by `resume`, which begins again what was under way.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, exists, func, insert, select, update

from medical.pacs.database import Database
from medical.pacs.errors import AnalysisError
from medical.pacs.headers import Header
from medical.pacs.spool import Stored
from medical.pacs.states import Cause, Receipt, State
from medical.pacs.tables import deliveries, objects, pauses, results, revisions, studies

Clock = Callable[[], int]
Place = Callable[[str], None]
"""Called with the pseudonym of a study within the transaction: moves files there."""


def now_us() -> int:
    """Microseconds since 1970 UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True)
class Job:
    """A revision that is to be analysed.

    Attributes:
        revision: its row.
        study: pseudonym of the study.
        files: its objects.
        attempt: 1 for the first.
    """

    revision: int
    study: str
    files: tuple[Stored, ...]
    attempt: int


@dataclass(frozen=True)
class ResultFile:
    """An object that an analysis made.

    Attributes:
        header: its attributes.
        name: its file in the folder of the study.
    """

    header: Header
    name: str


class Queue:
    """Objects and studies up to their results."""

    def __init__(self, database: Database, name_of: Callable[[str], str], clock: Clock = now_us) -> None:
        """Keeps the database.

        Args:
            database: where the queue is.
            name_of: pseudonym of a UID.
            clock: the time.
        """
        self._database, self._name_of, self._clock = database, name_of, clock

    def received(self, header: Header, source: str, name: str, place: Place) -> Receipt:
        """Notes an object; a late one opens the next revision of its study.

        Args:
            header: of the object.
            source: calling AE title, "folder" or "dicomweb".
            name: its file in the folder of the study.
            place: moves the file; called only if it is NEW.

        Raises:
            QueueError: it could not be stored; neither was the object.
        """
        now = self._clock()
        with self._database.writing() as connection:
            if connection.execute(select(results.c.id).where(results.c.uid == header.uid)).first():
                return Receipt.OWN
            known = connection.execute(select(objects).where(objects.c.uid == header.uid)).first()
            if known is not None and known.digest != header.digest:
                return Receipt.OTHER
            if known is not None and (known.present or not self._lacks_files(connection, known.study)):
                return Receipt.SAME
            study = self._study(connection, header.study)
            number = self._open(connection, study, now)
            if known is None:
                values = {
                    "sop_class": header.sop_class,
                    "digest": header.digest,
                    "bytes": header.bytes,
                    "source": source,
                }
                connection.execute(
                    insert(objects).values(
                        study=study, revision=number, uid=header.uid, name=name, received_us=now, present=True, **values
                    )
                )
            else:  # its file was removed when the study was done
                connection.execute(
                    update(objects).where(objects.c.id == known.id).values(present=True, received_us=now)
                )
            place(self._name_of(header.study))
        return Receipt.NEW

    def known(self, uids: Iterable[str]) -> set[str]:
        """Returns those SOP Instance UIDs that need not be fetched: objects that are here, and own results."""
        wanted, found = list(uids), set()
        with self._database.reading() as connection:
            for start in range(0, len(wanted), 500):
                some = wanted[start : start + 500]
                found |= set(connection.execute(select(objects.c.uid).where(objects.c.uid.in_(some))).scalars())
                found |= set(connection.execute(select(results.c.uid).where(results.c.uid.in_(some))).scalars())
        return found

    def waiting(self) -> int:
        """Returns how many studies have no result yet and wait for one."""
        states = (State.RECEIVING, State.COMPLETE, State.ANALYSING)
        with self._database.reading() as connection:
            query = select(func.count()).select_from(revisions).where(revisions.c.state.in_(states))
            return int(connection.execute(query).scalar_one())

    def is_open(self, study_uid: str) -> bool:
        """Whether a study is being received."""
        query = select(revisions.c.id).join(studies).where(studies.c.uid == study_uid)
        with self._database.reading() as connection:
            return connection.execute(query.where(revisions.c.state == State.RECEIVING)).first() is not None

    def complete(self, timeout_us: int) -> dict[str, list[str]]:
        """Ends the receiving of studies for which nothing has come for so long.

        Returns:
            Their pseudonyms, and who sent the objects of each.
        """
        now = self._clock()
        with self._database.writing() as connection:
            quiet = (revisions.c.state == State.RECEIVING) & (revisions.c.last_us <= now - timeout_us)
            found = connection.execute(select(revisions.c.id, studies).join(studies).where(quiet)).all()
            for row in found:
                removed = select(objects.c.id).where(objects.c.study == row[1], ~objects.c.present)
                if connection.execute(removed).first():
                    words = "earlier objects were removed when the study was done; send the whole study again"
                    self._end(connection, row[0], State.NOT_ANALYSED, Cause.OBJECTS_REMOVED, words)
                else:
                    connection.execute(_at(row[0]).values(state=State.COMPLETE, changed_us=now))
            senders = {
                row.pseudonym: select(objects.c.source).where(objects.c.study == row[1]).distinct() for row in found
            }
            return {name: sorted(connection.execute(query).scalars()) for name, query in senders.items()}

    def claim(self) -> Job | None:
        """Begins an attempt to analyse the study that waits longest; None if none waits."""
        now = self._clock()
        ready = (revisions.c.state == State.COMPLETE) & (revisions.c.next_us <= now)
        query = select(revisions, studies.c.pseudonym).join(studies).where(ready)
        with self._database.writing() as connection:
            row = connection.execute(query.order_by(revisions.c.last_us, revisions.c.id).limit(1)).first()
            if row is None:
                return None
            attempt = row.attempts + 1
            connection.execute(_at(row.id).values(state=State.ANALYSING, attempts=attempt, changed_us=now))
            held = select(objects).where(objects.c.study == row.study, objects.c.revision <= row.number)
            files = connection.execute(held.order_by(objects.c.id)).all()
        stored = tuple(Stored(row.pseudonym, one.name, one.digest) for one in files)
        return Job(row.id, row.pseudonym, stored, attempt)

    def analysed(
        self,
        job: Job,
        outcome: str,
        summary: str,
        made: Sequence[ResultFile],
        destinations: Iterable[str],
        place: Place,
    ) -> bool:
        """Stores the results of an analysis, from now on to be delivered; False if the revision was superseded.

        Raises:
            AnalysisError: a result has the UID of another object.
            QueueError: nothing could be stored.
        """
        now = self._clock()
        with self._database.writing() as connection:
            if self._state(connection, job.revision) != State.ANALYSING:
                return False
            fresh = [one for one in made if not self._made_before(connection, job.revision, one.header)]
            for one in fresh:
                row = insert(results).values(revision=job.revision, name=one.name, **_columns(one.header))
                key = connection.execute(row).inserted_primary_key
                assert key is not None
                for destination in destinations:
                    connection.execute(insert(deliveries).values(result=key[0], destination=destination))
            values = {"outcome": outcome, "summary": summary, "cause": None, "detail": None, "changed_us": now}
            connection.execute(_at(job.revision).values(state=State.ANALYSED, **values))
            settle(connection, job.revision, now)
            place(job.study)
        return True

    def not_analysed(self, job: Job, cause: Cause, detail: str, attempts: int, pause_us: int) -> State:
        """Notes an attempt without a result; after the last one the revision is not_analysed. Returns its state."""
        now = self._clock()
        with self._database.writing() as connection:
            state = self._state(connection, job.revision)
            if state != State.ANALYSING:
                return state
            if job.attempt >= attempts:
                return self._end(connection, job.revision, State.NOT_ANALYSED, cause, detail)
            values = {"cause": cause, "detail": detail, "next_us": now + pause_us, "changed_us": now}
            connection.execute(_at(job.revision).values(state=State.COMPLETE, **values))
        return State.COMPLETE

    def failed(self, revision: int, cause: Cause, detail: str) -> None:
        """Notes that only a person can help."""
        with self._database.writing() as connection:
            self._end(connection, revision, State.FAILED, cause, detail)

    def put_back(self, job: Job) -> None:
        """Undoes `claim`, when the service stops."""
        with self._database.writing() as connection:
            mine = _at(job.revision).where(revisions.c.state == State.ANALYSING)
            connection.execute(mine.values(state=State.COMPLETE, attempts=job.attempt - 1, changed_us=self._clock()))

    def resume(self, attempts: int) -> int:
        """Begins again what a crash left under way; an attempt that it ended counts. Returns how many studies.

        The timeouts of studies that are being received begin anew: nothing could come while nobody listened.
        """
        with self._database.writing() as connection:
            receiving = update(revisions).where(revisions.c.state == State.RECEIVING)
            connection.execute(receiving.values(last_us=self._clock()))
            query = select(revisions.c.id, revisions.c.attempts).where(revisions.c.state == State.ANALYSING)
            found = connection.execute(query).all()
            for row in found:
                if row.attempts >= attempts:
                    words = "the service ended during each attempt"
                    self._end(connection, row.id, State.NOT_ANALYSED, Cause.ANALYSER_ENDED, words)
                else:
                    connection.execute(_at(row.id).values(state=State.COMPLETE, changed_us=self._clock()))
        return len(found)

    def _study(self, connection: Connection, uid: str) -> int:
        row = connection.execute(select(studies.c.id).where(studies.c.uid == uid)).first()
        if row is not None:
            return int(row.id)
        key = connection.execute(insert(studies).values(uid=uid, pseudonym=self._name_of(uid))).inserted_primary_key
        assert key is not None
        return int(key[0])

    def _lacks_files(self, connection: Connection, study: int) -> bool:
        """Whether a study needs objects again that were removed: not while it is done, else it would be done twice."""
        query = select(revisions.c.state).where(revisions.c.study == study).order_by(revisions.c.number.desc()).limit(1)
        return connection.execute(query).scalar_one() in (State.RECEIVING, State.NOT_ANALYSED)

    def _open(self, connection: Connection, study: int, now: int) -> int:
        """Returns the number of the revision that takes an object now."""
        query = select(revisions).where(revisions.c.study == study).order_by(revisions.c.number.desc()).limit(1)
        last = connection.execute(query).first()
        if last is not None and last.state == State.RECEIVING:
            connection.execute(_at(last.id).values(last_us=now))
            return int(last.number)
        if last is not None and last.state in (State.COMPLETE, State.ANALYSING):
            connection.execute(_at(last.id).values(state=State.SUPERSEDED, changed_us=now))
        number = 1 if last is None else int(last.number) + 1
        values = {"opened_us": now, "last_us": now, "changed_us": now}
        connection.execute(insert(revisions).values(study=study, number=number, state=State.RECEIVING, **values))
        return number

    def _state(self, connection: Connection, revision: int) -> State:
        return State(connection.execute(select(revisions.c.state).where(revisions.c.id == revision)).scalar_one())

    def _end(self, connection: Connection, revision: int, state: State, cause: Cause, detail: str) -> State:
        connection.execute(_at(revision).values(state=state, cause=cause, detail=detail, changed_us=self._clock()))
        return state

    def _made_before(self, connection: Connection, revision: int, header: Header) -> bool:
        """Whether an earlier revision made the same object, which then becomes one of this revision."""
        if connection.execute(select(objects.c.id).where(objects.c.uid == header.uid)).first():
            raise AnalysisError(
                Cause.ANALYSER_RESULT, "a result has the SOP Instance UID of an object that was received"
            )
        row = connection.execute(select(results).where(results.c.uid == header.uid)).first()
        if row is None:
            return False
        if row.digest != header.digest:
            raise AnalysisError(Cause.ANALYSER_RESULT, "two different results have the same SOP Instance UID")
        connection.execute(update(results).where(results.c.id == row.id).values(revision=revision))
        if not connection.execute(select(results.c.id).where(results.c.revision == row.revision)).first():
            undone = _at(row.revision).where(revisions.c.state.in_((State.ANALYSED, State.DELIVERING)))
            connection.execute(undone.values(state=State.SUPERSEDED))
        return True


def settle(connection: Connection, revision: int, now: int) -> bool:
    """Makes a revision delivered if all of its results are verified everywhere; returns whether it is."""
    mine = deliveries.c.result.in_(select(results.c.id).where(results.c.revision == revision))
    if connection.execute(select(exists().where(mine, deliveries.c.verified_us.is_(None)))).scalar_one():
        return False
    connection.execute(_at(revision).values(state=State.DELIVERED, changed_us=now))
    connection.execute(pauses.delete().where(pauses.c.revision == revision))
    return True


def _at(revision: int):  # type: ignore[no-untyped-def]  # noqa: ANN202 - a statement of SQLAlchemy
    return update(revisions).where(revisions.c.id == revision)


def _columns(header: Header) -> dict[str, str]:
    return {
        "study_uid": header.study,
        "series_uid": header.series,
        "uid": header.uid,
        "sop_class": header.sop_class,
        "transfer_syntax": header.transfer_syntax,
        "digest": header.digest,
    }
