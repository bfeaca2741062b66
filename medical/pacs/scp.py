"""C-STORE and C-ECHO as SCP (PS3.4 annexes A and B, PS3.7 9.1), and the reports of storage commitments (annex J.3.3).

An object streams from the network into a file of the spool; it is never in memory as a whole. Who may send is checked
three times: the host before a byte is read, AE title and host together before the association is accepted, and by
certificates where TLS is set.
"""

import socket
import socketserver
import ssl
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.errors import SettingError
from medical.pacs.commitment import Reports
from medical.pacs.contexts import storage_contexts
from medical.pacs.errors import ObjectError
from medical.pacs.intake import Intake
from medical.pacs.settings import Node, PacsSettings
from medical.pacs.states import Said
from medical.privacy.log_fields import Event as Logged
from medical.privacy.logs import log

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pynetdicom.events import Event

SUCCESS, FAILURE, NOT_AUTHORISED = 0x0000, 0xC001, 0x0124
META_BYTES = 1 << 16
"""Room for the file meta information beside the largest object."""
HANDSHAKE_SECONDS = 10.0
_CALLING = (1, 1, 3)  # rejected permanently, by the user, calling AE title not recognised


class StoreScp:
    """The server."""

    def __init__(self, settings: PacsSettings, intake: Intake, reports: Reports) -> None:
        """Looks up the hosts of the peers; `start` begins to listen.

        Destinations may connect too, for their reports, but not send objects unless they are peers.

        Raises:
            SettingError: a host is not known.
        """
        self._node, self._intake, self._reports = settings.node, intake, reports
        reporters = [one for one in settings.destinations if one.type == "dicom"]
        self._senders = {(peer.ae_title, address) for peer in settings.peers for address in addresses_of(peer.host)}
        self._allowed = self._senders | {
            (one.ae_title, address) for one in reporters for address in addresses_of(one.host)
        }
        self._hosts = {address for _, address in self._allowed}
        self._server: Any = None

    def start(self, incoming: str) -> int:
        """Listens; returns the port.

        Args:
            incoming: folder in which objects are written while they come.

        Raises:
            SettingError: address or port cannot be used, or the certificates.
        """
        from pynetdicom import AE, _config, evt
        from pynetdicom.sop_class import StorageCommitmentPushModel, Verification

        _config.LOG_HANDLER_LEVEL = "none"
        _config.STORE_RECV_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET = True
        tempfile.tempdir = incoming  # where pynetdicom writes what comes
        entity = AE(self._node.ae_title)
        entity.require_called_aet = True
        entity.maximum_associations = self._node.associations
        entity.network_timeout = entity.dimse_timeout = 60.0
        entity.supported_contexts = storage_contexts()
        entity.add_supported_context(Verification)
        entity.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
        handlers = [
            (evt.EVT_REQUESTED, self._requested),
            (evt.EVT_REJECTED, self._rejected),
            (evt.EVT_C_STORE, self._stored),
            (evt.EVT_N_EVENT_REPORT, self._reported),
            (evt.EVT_PDU_RECV, self._growing),
            (evt.EVT_CONN_CLOSE, self._closed),
        ]
        context = None if self._node.tls is None else server_context(self._node)
        try:
            self._server = entity.make_server(
                (self._node.address, self._node.port),
                ssl_context=context,
                evt_handlers=handlers,
                server_class=_server_class(),
            )
        except OSError as error:
            where = f"{self._node.address}:{self._node.port}"
            raise SettingError(f"cannot listen on {where}: {error.strerror}; is another program there?") from None
        self._server.admitted, self._server.turned_away = self._admitted, self._refused
        self._server.start()
        return int(self._server.server_address[1])

    def stop(self) -> None:
        """Listens no more and ends the associations; objects that were answered are stored."""
        if self._server is not None:
            socketserver.BaseServer.shutdown(self._server)  # that of pynetdicom wants to have started it
            self._server.server_close()
            for association in self._server.active_associations:
                association.abort()

    def _admitted(self, host: str) -> bool:
        return _plain(host) in self._hosts

    def _refused(self, host: str, why: Said) -> None:
        log(Logged.REFUSED, address=_plain(host), error=why)

    def _requested(self, event: "Event") -> None:
        """Rejects an AE title that does not come from its host (PS3.8 9.3.4)."""
        if _caller(event) not in self._allowed:
            event.assoc.acse.send_reject(*_CALLING)
            self._refused(event.assoc.requestor.address, Said.TITLE)
            event.assoc.kill()

    def _rejected(self, event: "Event") -> None:
        self._refused(event.assoc.requestor.address, Said.ASSOCIATION)

    def _growing(self, event: "Event") -> None:
        """Ends an association that sends more than the largest object, before it fills the disk."""
        file = _arriving(event)
        if file is not None and file.tell() > self._intake.max_bytes + META_BYTES:
            self._refused(event.assoc.requestor.address, Said.SIZE)
            Path(file.name).unlink(missing_ok=True)
            event.assoc.abort()

    def _closed(self, event: "Event") -> None:
        """Removes what an association left that ended in the middle of an object."""
        file = _arriving(event)
        if file is not None:
            file.close()
            Path(file.name).unlink(missing_ok=True)

    def _stored(self, event: "Event") -> "int | Dataset":
        """Answers a C-STORE: success when the object is durable (PS3.4 B.2.3)."""
        request, peer = event.request, _caller(event)[0]
        request._dataset_file.close()
        try:
            if _caller(event) not in self._senders:
                raise ObjectError(NOT_AUTHORISED, "this AE title may not send objects")
            self._intake.take(event.dataset_path, peer, uid=str(request.AffectedSOPInstanceUID))
        except ObjectError as error:
            log(Logged.OBJECT_REFUSED, peer=peer, status=f"{error.status:04X}", error=error)
            return _status(error.status, str(error))
        except Exception as error:  # the association lives on; the sender keeps the object
            log(Logged.OBJECT_REFUSED, peer=peer, status=f"{FAILURE:04X}", error=error)
            return FAILURE
        return SUCCESS

    def _reported(self, event: "Event") -> tuple[int, None]:
        self._reports.received(event.event_information)
        return SUCCESS, None


def _caller(event: "Event") -> tuple[str, str]:
    """AE title and IP address of who requested the association."""
    requestor = event.assoc.requestor
    return str(requestor.primitive.calling_ae_title).strip(), _plain(requestor.address)


def _arriving(event: "Event") -> Any:
    """The file of an object that has not come completely; pynetdicom has no other way to it."""
    return getattr(event.assoc.dimse.message, "_data_set_file", None)


def addresses_of(host: str) -> set[str]:
    """Returns the IP addresses of a host.

    Raises:
        SettingError: it is not known.
    """
    try:
        return {_plain(str(found[4][0])) for found in socket.getaddrinfo(host, None)}
    except OSError:
        raise SettingError(f"the host {host!r} of a peer is not known; give its IP address") from None


def server_context(node: Node) -> ssl.SSLContext:
    """Returns the TLS settings of a server that asks its clients for their certificates.

    Raises:
        SettingError: certificate, key or CA cannot be read.
    """
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), node)


def client_context(node: Node) -> ssl.SSLContext:
    """Returns the TLS settings of a client; the name or address of the peer must be in its certificate.

    Raises:
        SettingError: as `server_context`.
    """
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), node)


def _loaded(context: ssl.SSLContext, node: Node) -> ssl.SSLContext:
    assert node.tls is not None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(node.tls.certificate, node.tls.key)
        context.load_verify_locations(node.tls.ca)
    except (OSError, ssl.SSLError) as error:
        kind = type(error).__name__
        raise SettingError(
            f"the files of [node.tls] cannot be used ({kind}); they must be PEM and belong together"
        ) from None
    return context


def _status(status: int, words: str) -> "Dataset":
    from pydicom.dataset import Dataset

    answer = Dataset()
    answer.Status, answer.ErrorComment = status, words[:64]
    return answer


def _plain(address: str) -> str:
    """An IPv4 address that an IPv6 socket shows is the IPv4 address."""
    return address.removeprefix("::ffff:")


def _server_class() -> type:
    from pynetdicom.transport import ThreadedAssociationServer

    class AdmittingServer(ThreadedAssociationServer):
        """Closes connections of unknown hosts unread; a slow TLS handshake does not hold up others for long."""

        def start(self) -> None:
            """Serves in a thread."""
            threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True).start()

        def get_request(self) -> tuple[socket.socket, Any]:
            client, address = self.socket.accept()
            try:
                if not self.admitted(address[0]):
                    raise ConnectionRefusedError(Said.HOST)
                if self.ssl_context is None:
                    return client, address
                client.settimeout(HANDSHAKE_SECONDS)
                client = self.ssl_context.wrap_socket(client, server_side=True)
                client.settimeout(None)
            except OSError as error:
                client.close()
                refused = isinstance(error, ConnectionRefusedError)
                self.turned_away(address[0], Said.HOST if refused else Said.HANDSHAKE)
                raise
            return client, address

        def handle_error(self, request: object, client_address: Any) -> None:
            """Prints no traceback, which might show what was sent."""
            self.turned_away(client_address[0], Said.CONNECTION)

    return AdmittingServer
