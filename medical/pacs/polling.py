"""DICOMweb intake: asks a server for studies by QIDO-RS and fetches what is not here yet by WADO-RS."""

import threading
from datetime import date, timedelta

from medical.pacs.contexts import IMAGES
from medical.pacs.errors import ObjectError, PeerError
from medical.pacs.intake import Intake
from medical.pacs.queue import Queue
from medical.pacs.settings import WebIntake
from medical.pacs.spool import Spool
from medical.pacs.web import COUNT, INSTANCE, SERIES, SOP_CLASS, STUDY, WebPeer, value
from medical.privacy.log_fields import Event
from medical.privacy.logs import log


class Polling:
    """Asks one server again and again."""

    def __init__(self, settings: WebIntake, intake: Intake, queue: Queue, spool: Spool) -> None:
        """Keeps its parts.

        Raises:
            SettingError: an environment variable of `headers_env` is not set.
        """
        self._settings, self._intake, self._queue = settings, intake, queue
        self._spool, self._peer = spool, WebPeer(settings)
        self._seen: dict[str, str] = {}
        self._told = False

    def run(self, stopping: threading.Event) -> None:
        """Asks until the service stops."""
        while not stopping.is_set():
            try:
                self.ask(stopping)
            except Exception as error:  # what servers answer may be anything
                log(Event.DICOMWEB_FAILED, error=error)
            stopping.wait(self._settings.every_seconds)

    def ask(self, stopping: threading.Event) -> int:
        """Fetches what is new; returns how many objects were taken.

        A study is looked into again when its number of objects has changed, or when something of it did not come. What
        does not come stops nothing else; the log says so once in a round, as a server that is gone fails each time.

        Raises:
            PeerError: the server cannot be asked for studies.
            QueueError: the queue cannot be read.
        """
        taken, self._told = 0, False
        for found in self._peer.studies(query_of(self._settings.query)):
            study, count = value(found, STUDY), value(found, COUNT)
            if (count and self._seen.get(study) == count) or not self._intake.wants(study):
                continue
            try:
                fetched, whole = self._study(study, stopping)
            except PeerError as error:
                self._tell(study, error)
                continue
            taken += fetched
            if whole:
                self._seen[study] = count
        return taken

    def _tell(self, study: str, error: PeerError) -> None:
        if not self._told:
            log(Event.DICOMWEB_FAILED, study=self._spool.pseudonyms.of(study), error=error)
        self._told = True

    def _study(self, study: str, stopping: threading.Event) -> tuple[int, bool]:
        """Returns how many objects of a study were taken, and whether nothing is left to be fetched."""
        images = [one for one in self._peer.instances(study) if value(one, SOP_CLASS) in IMAGES]
        known = self._queue.known(value(one, INSTANCE) for one in images)
        taken, whole = 0, True
        for one in images:
            if value(one, INSTANCE) in known:
                continue
            if stopping.is_set() or not self._intake.roomy():
                return taken, False
            file = self._spool.new_file()
            try:
                self._peer.fetch(study, value(one, SERIES), value(one, INSTANCE), file)
                self._intake.take(file, "dicomweb", uid=value(one, INSTANCE))
                taken += 1
            except ObjectError as error:
                log(Event.OBJECT_REFUSED, source="dicomweb", error=error)
                if error.later:
                    return taken, False
            except PeerError as error:
                self._tell(study, error)
                whole = False
            finally:
                file.unlink(missing_ok=True)
        return taken, whole


def query_of(query: dict[str, str]) -> dict[str, str]:
    """Returns the attributes of a query, with "today" and "yesterday" as dates (PS3.4 C.2.2.2.5)."""
    today = date.today()
    ranges = {"today": f"{today:%Y%m%d}", "yesterday": f"{today - timedelta(days=1):%Y%m%d}-{today:%Y%m%d}"}
    return {name: ranges.get(text, text) if name == "StudyDate" else text for name, text in query.items()}
