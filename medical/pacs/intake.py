"""The one way in: whatever brings an object, it is checked, made durable and noted in the queue, or refused.

When `take` returns, the file is on the disk (fsync of file and folder) and its row committed: only then does a C-STORE
answer success, and only then does a drop folder lose its file. What is refused, no study counts (see `contexts`).
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path

from medical.pacs.contexts import IMAGES, SYNTAXES
from medical.pacs.errors import ObjectError, QueueError, SpoolError
from medical.pacs.headers import SOP_CLASS, Header, read_header
from medical.pacs.queue import Queue
from medical.pacs.settings import GIGABYTE, MEGABYTE, SpoolSettings
from medical.pacs.spool import Spool
from medical.pacs.states import Receipt, Said
from medical.privacy.log_fields import Event
from medical.privacy.logs import log, words_of

OUT_OF_RESOURCES, OTHER_CONTENT, MISMATCH = 0xA700, 0xC111, 0xA900
_ALLOWED = frozenset(SYNTAXES)
_LOOK_SECONDS = 1.0


class Intake:
    """Takes objects; safe to share between threads."""

    def __init__(self, spool: Spool, queue: Queue, limits: SpoolSettings, completed: Callable[[], object]) -> None:
        """Keeps its parts; `completed` is called after each object, so that the service looks at the queue."""
        self._spool, self._queue, self._limits = spool, queue, limits
        self._completed, self._lock = completed, threading.Lock()
        self._looked, self._waiting = 0.0, 0

    @property
    def max_bytes(self) -> int:
        """Largest object that is taken."""
        return int(self._limits.max_object_megabytes * MEGABYTE)

    def take(self, file: Path, source: str, *, uid: str | None = None) -> Receipt:
        """Takes an object.

        Args:
            file: in the folder `incoming` of the spool; it is gone afterwards, taken or not.
            source: calling AE title, "folder" or "dicomweb".
            uid: SOP Instance UID that the sender gave beside the object, which must be that of the object.

        Raises:
            ObjectError: it was not taken; nothing of it is kept.
        """
        try:
            self._roomy()
            if file.stat().st_size > self.max_bytes:
                raise ObjectError(OUT_OF_RESOURCES, Said.SIZE)
            header = read_header(file, _ALLOWED)
            if header.sop_class not in IMAGES:
                raise ObjectError(SOP_CLASS, "its SOP class is none of an image")
            if uid is not None and uid != header.uid:
                raise ObjectError(MISMATCH, "command and data set name different objects")
            if not self.wants(header.study):
                raise ObjectError(OUT_OF_RESOURCES, "more than max_waiting_studies wait for their analysis", later=True)
            return self._store(file, header, source)
        except (QueueError, SpoolError, OSError) as error:
            words = f"the object could not be stored: {words_of(error)}"
            raise ObjectError(OUT_OF_RESOURCES, words, later=True) from None
        finally:
            file.unlink(missing_ok=True)

    def wants(self, study_uid: str) -> bool:
        """Whether objects of a study are taken: if the queue is not too long, or if the study has begun to come."""
        with self._lock:
            if time.monotonic() - self._looked > _LOOK_SECONDS:
                self._looked, self._waiting = time.monotonic(), self._queue.waiting()
            full = self._waiting > self._limits.max_waiting_studies
        return not full or self._queue.is_open(study_uid)

    def roomy(self) -> bool:
        """Whether the disk has room."""
        try:
            self._roomy()
        except ObjectError:
            return False
        return True

    def _store(self, file: Path, header: Header, source: str) -> Receipt:
        name = f"{self._spool.pseudonyms.of(header.uid)}.dcm"
        prepared = self._spool.prepare(file, name)
        try:
            receipt = self._queue.received(header, source, name, lambda study: self._spool.place(prepared, study, name))
        finally:
            prepared.unlink(missing_ok=True)
        study = self._spool.pseudonyms.of(header.study)
        if receipt is Receipt.OTHER:
            raise ObjectError(OTHER_CONTENT, "another object with this SOP Instance UID was stored; it was kept")
        log(Event.OBJECT, study=study, source=source, status=receipt)
        self._completed()
        return receipt

    def _roomy(self) -> None:
        if self._spool.free_bytes() < self._limits.free_gigabytes * GIGABYTE:
            raise ObjectError(OUT_OF_RESOURCES, "the disk has less room than free_gigabytes", later=True)
