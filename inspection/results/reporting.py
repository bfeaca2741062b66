"""What a line reports to: stores results so that nothing is lost, keeps pictures, has receivers told."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType

from anomaly.errors import AnomalyError
from inspection.parts import Inspected
from inspection.results.delivery import Delivery
from inspection.results.outbox import Outbox
from inspection.results.pictures import Look, PictureError, PictureFolder
from inspection.results.publisher import Publisher, make_publisher, secret
from inspection.results.records import Picture, Run
from inspection.results.retention import Retention
from inspection.results.settings import ResultsSettings
from inspection.results.store import ResultsStore

CLOSE_SECONDS = 10.0
RETENTION_SECONDS = 600.0


@dataclass(frozen=True, kw_only=True)
class Problem:
    """Something that people should see to. Results are stored all the same.

    Attributes:
        where: the receiver, or "pictures".
        what: what is wrong, in words.
        since: since when, with a time zone.
        waiting: how many messages wait for the receiver; 0 for pictures.
    """

    where: str
    what: str
    since: datetime
    waiting: int = 0


class Reporter:
    """Reports results. Use it in a `with` statement, or close it.

    Attributes:
        run: the run that is reported.
        store: where the results lie; open as long as the reporter is.
    """

    def __init__(
        self,
        store: ResultsStore,
        run: Run,
        settings: ResultsSettings,
        pictures: PictureFolder,
        deliveries: list[Delivery],
    ) -> None:
        """Keeps all; `open` makes one."""
        self.run = run
        self.store = store
        self._settings = settings
        self._pictures = pictures
        self._outbox = Outbox(store.database)
        self._deliveries = deliveries
        self._retention = Retention(store.database, pictures, settings.pictures)
        self._problems: dict[str, Problem] = {}
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, name="retention of pictures", daemon=True)

    @classmethod
    def open(
        cls,
        settings: ResultsSettings,
        folder: Path,
        run: Run,
        *,
        look: Look | None = None,
        publishers: Sequence[Publisher] | None = None,
    ) -> "Reporter":
        """Opens the store, begins the run, and begins to deliver what earlier runs have left.

        A receiver that is away is no error here: it is among the `problems`.

        Args:
            settings: section `[results]` of the recipe.
            folder: of the recipe; relative paths are relative to it.
            run: what is run, e.g. `Run.now(recipe=..., model=...)`.
            look: how heatmaps are drawn; None only where the settings ask for none.
            publishers: receivers instead of those of the settings, e.g. a `MemoryPublisher`.

        Raises:
            StoreError: the store cannot be opened or written.
            SettingError: a secret is not in the environment, or pictures cannot be written.
            MissingExtraError: psycopg is not installed.
        """
        receivers = publishers
        if receivers is None:
            receivers = [make_publisher(publisher, folder) for publisher in settings.publishers]
        pictures = PictureFolder(settings.pictures, folder, look)
        store = open_store(settings, folder, create=True)
        try:
            store.start(run, [publisher.address for publisher in receivers])
            outbox = Outbox(store.database)
            reporter = cls(store, run, settings, pictures, [Delivery(outbox, publisher) for publisher in receivers])
            reporter._begin()
        except BaseException:
            store.close()
            raise
        return reporter

    def __enter__(self) -> "Reporter":
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes it."""
        self.close()

    def report(self, inspected: Sequence[Inspected]) -> None:
        """Stores results with their pictures; they are on the disk when this returns. May be called by several threads.

        Reporting the same again changes nothing. A picture that cannot be written is among the `problems`.

        Raises:
            PartConflictError: a part id came again with another result; all others are stored.
            StoreError: the results cannot be stored; none is, the call may be repeated.
        """
        pictures = {one.result.part: self._write_pictures(one) for one in inspected}
        self.store.write(self.run.id, [one.result for one in inspected], pictures)
        for delivery in self._deliveries:
            delivery.wake()

    def problems(self) -> list[Problem]:
        """Returns what people should see to now; for a live view.

        Raises:
            StoreError: the store cannot be read.
        """
        found = []
        for delivery in self._deliveries:
            waiting = self._outbox.waiting(delivery.receiver)
            if problem := delivery.problem:
                found.append(Problem(where=delivery.receiver, what=problem[0], since=problem[1], waiting=waiting))
            long = waiting > self._settings.alarm_messages
            what = f"{waiting:,} messages wait, more than {self._settings.alarm_messages:,}; all of them are kept"
            self._note(f"long {delivery.receiver}", what if long else "", delivery.receiver, waiting)
        with self._lock:
            return [*found, *self._problems.values()]

    def close(self, limit_seconds: float = CLOSE_SECONDS) -> None:
        """Ends the run and delivers what still waits; what is left after the limit is delivered by the next start.

        Raises:
            StoreError: the end of the run cannot be written; everything that was reported is stored.
        """
        if self._closing.is_set():
            return
        self._closing.set()
        try:
            self.store.end(self.run.id)
        finally:
            deadline = time.monotonic() + limit_seconds
            for delivery in self._deliveries:
                delivery.close(deadline)
            self._keeper.join(limit_seconds)
            self.store.close()

    def _begin(self) -> None:
        own = {delivery.receiver for delivery in self._deliveries}
        for receiver in self._outbox.receivers():
            if receiver not in own:
                self._note_forgotten(receiver)
        for delivery in self._deliveries:
            delivery.start()
        self._keeper.start()

    def _note_forgotten(self, receiver: str) -> None:
        """Messages for a receiver that no recipe names any more must not be forgotten silently."""
        with self._outbox.claim(receiver) as nobody_else:
            if nobody_else():
                waiting = self._outbox.waiting(receiver)
                what = (
                    f"{waiting:,} messages wait for a receiver that is not in this recipe; add it again to deliver them"
                )
                self._note(f"forgotten {receiver}", what, receiver, waiting)

    def _write_pictures(self, inspected: Inspected) -> list[Picture]:
        try:
            written = self._pictures.write(self.run.id, inspected)
        except PictureError as error:
            self._note("pictures", str(error), "pictures")
            return error.written
        if written:
            self._note("pictures", "", "pictures")
        return written

    def _keep(self) -> None:
        """Applies the retention now and then, beside the line."""
        while True:
            try:
                self._note("retention", self._retention.apply(), "pictures")
            except (AnomalyError, OSError) as error:
                self._note("retention", str(error), "pictures")
            if self._closing.wait(RETENTION_SECONDS):
                return

    def _note(self, key: str, what: str, where: str, waiting: int = 0) -> None:
        """Keeps a problem with the time when it began; "" ends it."""
        with self._lock:
            before = self._problems.pop(key, None)
            if what:
                since = before.since if before else datetime.now(UTC)
                self._problems[key] = Problem(where=where, what=what, since=since, waiting=waiting)


def open_store(settings: ResultsSettings, folder: Path, *, create: bool = False) -> ResultsStore:
    """Opens the store that a recipe names.

    Args:
        settings: section `[results]` of the recipe.
        folder: of the recipe.
        create: whether it is made where it is missing.

    Raises:
        StoreError: it cannot be opened.
        SettingError: the password is not in the environment.
        MissingExtraError: psycopg is not installed.
    """
    database = settings.database if "://" in settings.database else folder.absolute() / settings.database
    return ResultsStore.open(database, password=secret(settings.database_password_env), create=create)
