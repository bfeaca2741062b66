"""DICOM associations as SCU: C-STORE, C-FIND, C-GET and requests for storage commitment (PS3.4 annexes B, C and J)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medical.pacs.commitment import Reports
from medical.pacs.contexts import IMAGES, SYNTAXES, UNCOMPRESSED
from medical.pacs.errors import PeerError

if TYPE_CHECKING:
    import ssl

    from pydicom.dataset import Dataset
    from pynetdicom.association import Association
    from pynetdicom.events import Event
    from pynetdicom.presentation import PresentationContext

PENDING, SUCCESS = (0xFF00, 0xFF01), 0x0000
WARNINGS = range(0xB000, 0xC000)
CONNECT_SECONDS = 10.0
_MOST_CONTEXTS = 128


@dataclass(frozen=True)
class Remote:
    """An application entity that associations are requested of.

    Attributes:
        calling: our AE title.
        ae_title: its AE title.
        host: IP address or name.
        port: TCP port.
        tls: settings of an encrypted association; None for a plain one.
        seconds: longest wait for an answer.
    """

    calling: str
    ae_title: str
    host: str
    port: int
    tls: "ssl.SSLContext | None" = None
    seconds: float = 60.0

    @contextmanager
    def association(
        self, contexts: "Sequence[PresentationContext]", handlers: Sequence[Any] = (), roles: Sequence[Any] = ()
    ) -> "Iterator[Association]":
        """Gives an association, released afterwards.

        Raises:
            PeerError: the peer cannot be reached or does not accept.
        """
        from pynetdicom import AE, _config

        _config.LOG_HANDLER_LEVEL = "none"
        entity = AE(self.calling)
        entity.connection_timeout = CONNECT_SECONDS
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = self.seconds
        made = entity.associate(
            self.host,
            self.port,
            contexts=list(contexts)[:_MOST_CONTEXTS],
            ae_title=self.ae_title,
            ext_neg=list(roles),
            tls_args=None if self.tls is None else (self.tls, self.host),
            evt_handlers=list(handlers),
        )
        if not made.is_established:
            why = (
                "it rejected the association" if made.is_rejected else "no association: is it running, is TLS the same?"
            )
            raise PeerError(f"{self.ae_title} at {self.host}:{self.port}: {why}")
        try:
            yield made
        finally:
            if made.is_established:
                made.release()
            else:
                made.abort()
            made.join(CONNECT_SECONDS)
            if made.dul.socket is not None:
                made.dul.socket.close()  # pynetdicom leaves it open if the peer went first


def store(remote: Remote, files: Sequence[tuple[Path, str, str]]) -> None:
    """Sends files by C-STORE.

    Args:
        remote: where to.
        files: file, SOP Class UID and Transfer Syntax UID of each.

    Raises:
        PeerError: a file was not accepted; those before it were.
    """
    from pydicom import dcmread

    with remote.association(_contexts_of(files)) as association:
        offered = {(str(c.abstract_syntax), str(c.transfer_syntax[0])) for c in association.accepted_contexts}
        for file, sop_class, syntax in files:
            if (sop_class, syntax) in offered:
                answer = _answered(lambda what=file: association.send_c_store(what))  # streams from the disk
            elif syntax in UNCOMPRESSED and any((sop_class, other) in offered for other in UNCOMPRESSED):
                answer = _answered(lambda what=file: association.send_c_store(dcmread(what)))  # encoded anew
            else:
                raise PeerError(f"{remote.ae_title} does not take objects of SOP class {sop_class} in {syntax}")
            status = _status_of(answer, remote, "C-STORE")
            if status != SUCCESS and status not in WARNINGS:
                raise PeerError(f"{remote.ae_title} refused an object with status {status:04X}")


def commit(remote: Remote, objects: Mapping[str, str], reports: Reports) -> frozenset[str]:
    """Asks a peer to commit to storing objects (PS3.4 annex J); returns the SOP Instance UIDs that it commits to.

    Args:
        remote: the peer.
        objects: SOP Instance UID -> SOP Class UID.
        reports: where its report arrives that comes on another association.

    Raises:
        PeerError: it does not take the request, or no report came in time.
    """
    from pydicom.dataset import Dataset
    from pydicom.uid import generate_uid
    from pynetdicom import build_context, evt
    from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance

    def reported(event: "Event") -> tuple[int, None]:
        reports.received(event.event_information)
        return SUCCESS, None

    request = Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = [_referenced(uid, sop_class) for uid, sop_class in objects.items()]
    transaction = str(request.TransactionUID)
    reports.expect(transaction)
    try:
        model, instance = StorageCommitmentPushModel, StorageCommitmentPushModelInstance
        with remote.association([build_context(model)], [(evt.EVT_N_EVENT_REPORT, reported)]) as association:
            answer = _answered(lambda: association.send_n_action(request, 1, model, instance)[0])
            status = _status_of(answer, remote, "the request for storage commitment")
            if status != SUCCESS:
                raise PeerError(
                    f"{remote.ae_title} refused the request for storage commitment with status {status:04X}"
                )
            report = reports.wait(transaction, remote.seconds)
    finally:
        late = reports.wait(transaction, 0)
    if report is None and late is None:
        raise PeerError(f"{remote.ae_title} sent no report of the storage commitment within {remote.seconds:g} s")
    found = report or late
    assert found is not None
    return found.held & objects.keys()


def find(remote: Remote, queries: "Sequence[Dataset]") -> "Iterator[list[Dataset]]":
    """Asks queries of the Study Root model (PS3.4 C.4.1) on one association; yields the answers to each.

    Raises:
        PeerError: the peer refuses a query or ends the association.
    """
    from pynetdicom import build_context
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind as Model

    with remote.association([build_context(Model)]) as association:
        for query in queries:
            yield list(_answers(association, query, Model, remote))


def stored(remote: Remote, objects: Sequence[tuple[str, str, str]]) -> frozenset[str]:
    """Returns which objects a peer finds by C-FIND at IMAGE level.

    Args:
        remote: the peer.
        objects: study, series and SOP Instance UID of each.

    Raises:
        PeerError: as `find`.
    """
    queries = [
        dataset(QueryRetrieveLevel="IMAGE", StudyInstanceUID=study, SeriesInstanceUID=series, SOPInstanceUID=uid)
        for study, series, uid in objects
    ]
    found = [str(one.get("SOPInstanceUID", "")) for answers in find(remote, queries) for one in answers]
    return frozenset(found) & {uid for _, _, uid in objects}


def get(
    remote: Remote, queries: "Sequence[Dataset]", handle: "Callable[[Event], int]"
) -> "Iterator[tuple[Dataset, str | None]]":
    """Retrieves objects by C-GET (PS3.4 C.4.3) on one association; yields each query when it is answered.

    With it comes why not all was sent that it asks for, in words; None where it was.

    Args:
        remote: the peer.
        queries: UIDs of what is wanted.
        handle: takes each C-STORE of the peer and returns its status.

    Raises:
        PeerError: the peer does not take the query, or is gone.
    """
    from pynetdicom import build_context, build_role, evt
    from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelGet as Model

    contexts = [build_context(Model), *(build_context(uid, list(SYNTAXES)) for uid in IMAGES)]
    roles = [build_role(uid, scp_role=True) for uid in IMAGES]
    with remote.association(contexts, [(evt.EVT_C_STORE, handle)], roles) as association:
        for query in queries:
            problem = None
            for status in _get_statuses(association, query, Model, remote):
                if status not in (*PENDING, SUCCESS):
                    problem = f"{remote.ae_title} answered the C-GET with status {status:04X}"
            yield query, problem


def dataset(**attributes: str) -> "Dataset":
    """Returns a data set of these attributes."""
    from pydicom.dataset import Dataset

    made = Dataset()
    for keyword, value in attributes.items():
        setattr(made, keyword, value)
    return made


def _answers(association: "Association", query: "Dataset", model: str, remote: Remote) -> "Iterator[Dataset]":
    try:
        for answer, identifier in association.send_c_find(query, model):
            status = _status_of(answer, remote, "C-FIND")
            if status in PENDING and identifier is not None:
                yield identifier
            elif status != SUCCESS:
                raise PeerError(f"{remote.ae_title} answered the C-FIND with status {status:04X}")
    except (RuntimeError, ValueError):
        raise PeerError(f"{remote.ae_title} does not take the C-FIND") from None


def _get_statuses(association: "Association", query: "Dataset", model: str, remote: Remote) -> Iterator[int]:
    try:
        for answer, _ in association.send_c_get(query, model):
            yield _status_of(answer, remote, "C-GET")
    except (RuntimeError, ValueError):
        raise PeerError(f"{remote.ae_title} does not take the C-GET") from None


def _referenced(uid: str, sop_class: str) -> "Dataset":
    return dataset(ReferencedSOPClassUID=sop_class, ReferencedSOPInstanceUID=uid)


def _contexts_of(files: Sequence[tuple[Path, str, str]]) -> "list[PresentationContext]":
    """One context per SOP class and transfer syntax; the default transfer syntax in a context of its own."""
    from pynetdicom import build_context

    wanted = {(sop_class, syntax) for _, sop_class, syntax in files}
    wanted |= {(sop_class, other) for sop_class, syntax in wanted if syntax in UNCOMPRESSED for other in UNCOMPRESSED}
    return [build_context(sop_class, syntax) for sop_class, syntax in sorted(wanted)]


def _answered(ask: Callable[[], Any]) -> "Dataset":
    """Calls pynetdicom, which raises when the association ends under its hands."""
    from pydicom.dataset import Dataset

    try:
        answer = ask()
    except (RuntimeError, ValueError, AttributeError):
        return Dataset()
    assert isinstance(answer, Dataset)
    return answer


def _status_of(answer: "Dataset", remote: Remote, what: str) -> int:
    """An empty status is no success: the peer said nothing, or went away."""
    if "Status" not in answer:
        raise PeerError(f"{remote.ae_title} did not answer {what}: it is gone, or does not know our AE title")
    return int(answer.Status)
