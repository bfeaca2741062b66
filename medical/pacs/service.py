"""The service: starts its parts, lets them work, stops them. Everything that matters is in the queue and the spool.

It ends on SIGTERM or SIGINT: nothing more is taken, an analysis under way is given up and begun again at the next
start, a delivery under way ends or is repeated. A kill at any moment loses nothing either.
"""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import FrameType

from filelock import FileLock, Timeout

from anomaly.errors import AnomalyError, SettingError
from medical.pacs.analysing import Analysing
from medical.pacs.analysis import AnalysisProcess
from medical.pacs.auditing import Auditor
from medical.pacs.commitment import Reports
from medical.pacs.database import Database
from medical.pacs.delivery import Delivery, carrier_of
from medical.pacs.folder import DropFolder
from medical.pacs.intake import Intake
from medical.pacs.outgoing import Outgoing
from medical.pacs.overview import Overview
from medical.pacs.polling import Polling
from medical.pacs.queue import Queue
from medical.pacs.scp import StoreScp
from medical.pacs.settings import PacsSettings
from medical.pacs.spool import Spool
from medical.pacs.states import Said
from medical.privacy.files import whole_file
from medical.privacy.log_fields import Event
from medical.privacy.logs import log, set_up_logging, told_to
from medical.pseudonyms import key_from

QUEUE_FILE, HEARTBEAT_FILE = "queue.sqlite", "heartbeat.json"
LOOK_SECONDS, HEARTBEAT_SECONDS, TIDY_SECONDS, STOP_SECONDS = 0.2, 5.0, 60.0, 20.0


@dataclass
class _Signals:
    """What wakes the parts."""

    stopping: threading.Event = field(default_factory=threading.Event)
    received: threading.Event = field(default_factory=threading.Event)
    analysed: list[threading.Event] = field(default_factory=list)

    def set_all(self) -> None:
        for event in (self.stopping, self.received, *self.analysed):
            event.set()


class _All(threading.Event):
    """Sets several events: each delivery clears its own."""

    def __init__(self, events: list[threading.Event]) -> None:
        super().__init__()
        self._events = events

    def set(self) -> None:
        for event in self._events:
            event.set()


class Service:
    """One service with one spool folder."""

    def __init__(self, settings: PacsSettings) -> None:
        """Keeps the settings; `run` does the rest."""
        self._settings, self._signals = settings, _Signals()
        self._asked = False

    def stop(self) -> None:
        """Asks `run` to end. A plain flag: it is set within a signal handler, where no lock may be taken."""
        self._asked = True

    def run(self) -> None:
        """Serves until `stop` is called or SIGTERM or SIGINT comes. The log goes to standard error.

        Raises:
            SettingError: a setting cannot be used: port taken, unknown host, missing secret, another service running.
            QueueError: the queue cannot be opened.
            SpoolError: the spool cannot be used.
        """
        set_up_logging(sys.stderr, _names(self._settings))
        key = key_from(self._settings.spool.key_file)
        spool = Spool(self._settings.spool.folder, key)
        lock = FileLock(spool.folder / "service.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise SettingError(f"another service uses the spool folder {spool.folder}") from None
        try:
            auditor = Auditor(spool.folder, self._settings.node.ae_title, key)
            with told_to(auditor.heard), closing(Database.open(spool.folder / QUEUE_FILE, create=True)) as database:
                self._serve(spool, database)
        finally:
            lock.release()

    def _serve(self, spool: Spool, database: Database) -> None:
        settings, signals = self._settings, self._signals
        queue, overview = Queue(database, spool.pseudonyms.of), Overview(database)
        spool.begin()
        orphans, resumed = spool.sweep(overview.files()), queue.resume(settings.analysis.attempts)
        intake = Intake(spool, queue, settings.spool, signals.received.set)
        reports = Reports()
        scp = StoreScp(settings, intake, reports)
        threads = [*self._deliveries(spool, database, reports), *self._intakes(spool, queue, intake)]
        process = AnalysisProcess(settings.analysis, signals.stopping)
        analysing = Analysing(settings, queue, spool, process)
        arguments = (signals.received, signals.stopping, _All(signals.analysed))
        threads.append(threading.Thread(target=analysing.run, args=arguments, name="analysis"))
        port = scp.start(str(spool.incoming))
        self._greet(spool, port, orphans, resumed)
        for thread in threads:
            thread.start()
        with _stopped_by_signals(self):
            try:
                self._look_after(spool, overview)
            finally:
                signals.set_all()
                scp.stop()
                for thread in threads:
                    thread.join(STOP_SECONDS)
                process.close()
                (spool.folder / HEARTBEAT_FILE).unlink(missing_ok=True)
                log(Event.STOPPED)

    def _deliveries(self, spool: Spool, database: Database, reports: Reports) -> list[threading.Thread]:
        settings, threads = self._settings, []
        for destination in settings.destinations:
            news = threading.Event()
            self._signals.analysed.append(news)
            carrier = carrier_of(destination, settings.node, reports)
            outgoing = Outgoing(database)
            delivery = Delivery(destination.name, carrier, outgoing, spool, settings.retries)
            arguments = (news, self._signals.stopping)
            name = f"deliver to {destination.name}"
            threads.append(threading.Thread(target=delivery.run, args=arguments, name=name, daemon=True))
        return threads

    def _intakes(self, spool: Spool, queue: Queue, intake: Intake) -> list[threading.Thread]:
        settings, stopping = self._settings, self._signals.stopping
        runs = []
        if settings.folder is not None:
            runs.append(DropFolder(settings.folder, intake, spool).run)
        if settings.web is not None:
            runs.append(Polling(settings.web, intake, queue, spool).run)
        return [threading.Thread(target=run, args=(stopping,), daemon=True) for run in runs]

    def _greet(self, spool: Spool, port: int, orphans: int, resumed: int) -> None:
        node = self._settings.node
        log(Event.STARTED, address=node.address, port=port, status=Said.RESEARCH_USE)
        if resumed or orphans:
            log(Event.RESUMED, count=resumed, removed=orphans)
        if not spool.encrypted:
            log(Event.WARNING, error=Said.UNENCRYPTED_SPOOL)
        if not node.loopback and node.tls is None:
            log(Event.WARNING, error=Said.UNENCRYPTED_NODE)

    def _look_after(self, spool: Spool, overview: Overview) -> None:
        """Writes the heartbeat and removes old files until the service stops."""
        beat, tidy = 0.0, 0.0
        while not self._asked:
            now = time.monotonic()
            try:
                if now >= beat:
                    beat = now + HEARTBEAT_SECONDS
                    self._beat(spool, overview)
                if now >= tidy:
                    tidy = now + TIDY_SECONDS
                    self._tidy(spool, overview)
            except (AnomalyError, OSError) as error:
                log(Event.WARNING, error=error)
            time.sleep(LOOK_SECONDS)

    def _tidy(self, spool: Spool, overview: Overview) -> None:
        removed = overview.remove_done(int(self._settings.spool.keep_hours * 3600e6), spool.remove)
        if removed:
            log(Event.FILES_REMOVED, count=removed)

    def _beat(self, spool: Spool, overview: Overview) -> None:
        beat = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "process": os.getpid(),
            "free_bytes": spool.free_bytes(),
            "studies": overview.counts(),
        }
        with whole_file(spool.folder / HEARTBEAT_FILE) as opened:
            opened.write(json.dumps(beat).encode())


def _names(settings: PacsSettings) -> Iterator[str]:
    """What the log may call peers and destinations."""
    yield from (peer.ae_title for peer in settings.peers)
    for destination in settings.destinations:
        yield destination.name
        if destination.type == "dicom":
            yield destination.ae_title


@contextmanager
def _stopped_by_signals(service: Service) -> Iterator[None]:
    """Makes SIGTERM and SIGINT stop a service, where it runs in the main thread."""

    def received(_number: int, _frame: FrameType | None) -> None:
        service.stop()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, received) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
