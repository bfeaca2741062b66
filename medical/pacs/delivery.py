"""Delivers results to one destination until it is verified to hold them; for ever, with growing pauses."""

import secrets
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from medical.pacs.associations import Remote, commit, store, stored
from medical.pacs.commitment import Reports
from medical.pacs.errors import DamagedError, DeliveryError
from medical.pacs.outgoing import Item, Outgoing, Parcel
from medical.pacs.settings import Destination, DicomDestination, Node, Retries, WebDestination
from medical.pacs.spool import Spool
from medical.privacy.log_fields import Event
from medical.privacy.logs import log, words_of

IDLE_SECONDS = 1.0
_MOST_DOUBLINGS = 30


class Carrier(Protocol):
    """The way to a destination."""

    def send(self, files: Sequence[Path], items: Sequence[Item]) -> None:
        """Sends results; raises PeerError at the first that was not accepted."""
        ...

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """Asks which of the results the destination holds; raises PeerError if it does not say."""
        ...


class DicomCarrier:
    """C-STORE, verified by storage commitment or C-FIND."""

    def __init__(self, settings: DicomDestination, node: Node, reports: Reports) -> None:
        """Keeps the settings.

        Raises:
            SettingError: the files of [node.tls] cannot be used.
        """
        from medical.pacs.scp import client_context

        tls = client_context(node) if settings.tls else None
        where = (settings.ae_title, settings.host, settings.port)
        self._remote = Remote(node.ae_title, *where, tls=tls, seconds=settings.timeout_seconds)
        self._verify, self._reports = settings.verify, reports

    def send(self, files: Sequence[Path], items: Sequence[Item]) -> None:
        """Sends results on one association."""
        rows = [(file, item.sop_class, item.transfer_syntax) for file, item in zip(files, items, strict=True)]
        store(self._remote, rows)

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """Asks by storage commitment or C-FIND."""
        if self._verify == "find":
            return stored(self._remote, [(item.study, item.series, item.uid) for item in items])
        return commit(self._remote, {item.uid: item.sop_class for item in items}, self._reports)


class WebCarrier:
    """STOW-RS, verified by QIDO-RS."""

    def __init__(self, settings: WebDestination) -> None:
        """Keeps the settings.

        Raises:
            SettingError: an environment variable of `headers_env` is not set.
        """
        from medical.pacs.web import WebPeer

        self._peer = WebPeer(settings)

    def send(self, files: Sequence[Path], items: Sequence[Item]) -> None:
        """Sends results one by one."""
        for file in files:
            self._peer.store(file)

    def holds(self, items: Sequence[Item]) -> frozenset[str]:
        """Asks by QIDO-RS."""
        return self._peer.stored([(item.study, item.series, item.uid) for item in items])


def carrier_of(settings: Destination, node: Node, reports: Reports) -> Carrier:
    """Returns the way to a destination.

    Raises:
        SettingError: see the carriers.
    """
    return DicomCarrier(settings, node, reports) if settings.type == "dicom" else WebCarrier(settings)


class Delivery:
    """Serves one destination."""

    def __init__(self, name: str, carrier: Carrier, outgoing: Outgoing, spool: Spool, retries: Retries) -> None:
        """Keeps its parts."""
        self._name, self._carrier, self._outgoing = name, carrier, outgoing
        self._spool, self._retries = spool, retries

    def run(self, news: threading.Event, stopping: threading.Event) -> None:
        """Delivers until the service stops; `news` is set when there may be something new."""
        while not stopping.is_set():
            news.clear()
            try:
                busy = self.step()
            except Exception as error:  # e.g. the disk of the queue is full: the deliveries must outlive that
                log(Event.WARNING, destination=self._name, error=error)
                busy = False
            if not busy:
                news.wait(IDLE_SECONDS)

    def step(self) -> bool:
        """Makes one attempt to deliver one parcel; False if there is none."""
        parcel = self._outgoing.next(self._name)
        if parcel is None:
            return False
        try:
            self._attempt(parcel)
        except DamagedError as error:
            self._outgoing.damaged(parcel, str(error))
            log(Event.FAILED, study=parcel.study, destination=self._name, error=error)
        except Exception as error:  # nothing may end the deliveries; the results stay
            pause = self._pause(parcel.attempts)
            self._outgoing.failed(self._name, parcel, words_of(error)[:300], int(pause * 1e6))
            log(
                Event.DELIVERY_FAILED,
                study=parcel.study,
                destination=self._name,
                attempt=parcel.attempts + 1,
                seconds=round(pause, 1),
                error=error,
            )
        return True

    def _attempt(self, parcel: Parcel) -> None:
        """Asks for what was offered before, sends the rest, asks for that: nothing is sent twice that is there."""
        offered = [item for item in parcel.items if item.offered]
        held = self._carrier.holds(offered) if offered else frozenset()
        self._verified(parcel, held)
        rest = [item for item in parcel.items if item.uid not in held]
        if not rest:
            return
        with self._spool.lent([item.file for item in rest]) as files:
            self._outgoing.offered(self._name, rest)
            self._carrier.send(files, rest)
        held = self._carrier.holds(rest)
        self._verified(parcel, held)
        missing = len(rest) - len(held)
        if missing:
            raise DeliveryError(
                f"{missing} of {len(rest)} results were accepted, but the destination does not hold them"
            )

    def _verified(self, parcel: Parcel, held: frozenset[str]) -> None:
        items = [item for item in parcel.items if item.uid in held]
        if items:
            everywhere = self._outgoing.verified(self._name, parcel, items)
            log(Event.VERIFIED, study=parcel.study, destination=self._name, count=len(items))
            if everywhere:
                log(Event.DELIVERED, study=parcel.study)

    def _pause(self, failures: int) -> float:
        doubled: float = self._retries.first_seconds * 2 ** min(failures, _MOST_DOUBLINGS)
        jitter = 0.2 * secrets.randbelow(1001) / 1000
        return min(self._retries.longest_seconds, doubled) * (1 + jitter)
