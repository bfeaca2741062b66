"""Results on their way out: what each destination has not been verified to hold yet.

A result that was sent is not delivered: STOW-RS may answer 200 and store nothing, a C-STORE may answer an empty status.
It is delivered when the destination said afterwards, asked on its own, that it holds the object.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import insert, select, update

from medical.pacs.database import Database
from medical.pacs.queue import Clock, now_us, settle
from medical.pacs.spool import Stored
from medical.pacs.states import Cause, State
from medical.pacs.tables import deliveries, pauses, results, revisions, studies


@dataclass(frozen=True)
class Item:
    """One result that a destination has not been verified to hold.

    Attributes:
        result: its row.
        study: Study Instance UID.
        series: Series Instance UID.
        uid: SOP Instance UID.
        sop_class: SOP Class UID.
        transfer_syntax: of its file.
        offered: whether it was sent, or was about to be; the destination may hold it.
        file: its file.
    """

    result: int
    study: str
    series: str
    uid: str
    sop_class: str
    transfer_syntax: str
    offered: bool
    file: Stored


@dataclass(frozen=True)
class Parcel:
    """Results of one revision for one destination.

    Attributes:
        revision: its row.
        study: pseudonym of the study.
        items: at least one.
        attempts: attempts that failed before.
    """

    revision: int
    study: str
    items: tuple[Item, ...]
    attempts: int


class Outgoing:
    """The part of the queue that concerns delivery; each method is one transaction."""

    def __init__(self, database: Database, clock: Clock = now_us) -> None:
        """Keeps the database."""
        self._database, self._clock = database, clock

    def next(self, destination: str) -> Parcel | None:
        """Returns what is to be delivered next, of the revision that waits longest and whose pause is over."""
        now = self._clock()
        open_ = (deliveries.c.destination == destination) & deliveries.c.verified_us.is_(None)
        paused = (pauses.c.revision == revisions.c.id) & (pauses.c.destination == destination)
        with self._database.writing() as connection:
            query = select(revisions.c.id, revisions.c.state, studies.c.pseudonym, pauses.c.attempts).distinct()
            query = query.select_from(revisions).join(studies).join(results).join(deliveries).outerjoin(pauses, paused)
            ready = revisions.c.state.in_((State.ANALYSED, State.DELIVERING)) & open_
            ready &= pauses.c.next_us.is_(None) | (pauses.c.next_us <= now)
            row = connection.execute(
                query.where(ready).order_by(revisions.c.changed_us, revisions.c.id).limit(1)
            ).first()
            if row is None:
                return None
            if row.state == State.ANALYSED:
                begun = {"state": State.DELIVERING, "changed_us": now}
                connection.execute(update(revisions).where(revisions.c.id == row.id).values(**begun))
            found = select(results, deliveries.c.offered_us).join(deliveries).where(results.c.revision == row.id, open_)
            items = tuple(
                Item(
                    result=one.id,
                    study=one.study_uid,
                    series=one.series_uid,
                    uid=one.uid,
                    sop_class=one.sop_class,
                    transfer_syntax=one.transfer_syntax,
                    offered=one.offered_us is not None,
                    file=Stored(row.pseudonym, one.name, one.digest),
                )
                for one in connection.execute(found.order_by(results.c.id))
            )
        return Parcel(row.id, row.pseudonym, items, row.attempts or 0)

    def offered(self, destination: str, items: Iterable[Item]) -> None:
        """Notes that results are about to be sent, so that after a crash the destination is asked before."""
        with self._database.writing() as connection:
            mine = (deliveries.c.destination == destination) & deliveries.c.result.in_([item.result for item in items])
            connection.execute(update(deliveries).where(mine).values(offered_us=self._clock()))

    def verified(self, destination: str, parcel: Parcel, items: Iterable[Item]) -> bool:
        """Notes what a destination was found to hold; returns whether the revision is delivered everywhere now."""
        now, keys = self._clock(), [item.result for item in items]
        with self._database.writing() as connection:
            mine = (deliveries.c.destination == destination) & deliveries.c.result.in_(keys)
            connection.execute(update(deliveries).where(mine).values(verified_us=now))
            return settle(connection, parcel.revision, now)

    def failed(self, destination: str, parcel: Parcel, error: str, pause_us: int) -> None:
        """Notes an attempt that failed, and when the next one may begin."""
        with self._database.writing() as connection:
            mine = (pauses.c.revision == parcel.revision) & (pauses.c.destination == destination)
            connection.execute(pauses.delete().where(mine))
            values = {"attempts": parcel.attempts + 1, "next_us": self._clock() + pause_us, "error": error}
            connection.execute(insert(pauses).values(revision=parcel.revision, destination=destination, **values))

    def damaged(self, parcel: Parcel, detail: str) -> None:
        """Notes that the files of results are not what they were; only a person can help."""
        values = {"state": State.FAILED, "cause": Cause.SPOOL_DAMAGED, "detail": detail, "changed_us": self._clock()}
        with self._database.writing() as connection:
            connection.execute(update(revisions).where(revisions.c.id == parcel.revision).values(**values))
