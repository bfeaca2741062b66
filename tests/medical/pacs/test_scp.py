"""The server against clients that misuse it: too much, half, nonsense. It lives on and keeps nothing of theirs."""

import socket
import tempfile
import time

import pytest
from pynetdicom import AE, _config
from pynetdicom.sop_class import CTImageStorage, Verification

from medical.pacs.commitment import Reports
from medical.pacs.database import Database
from medical.pacs.intake import Intake
from medical.pacs.overview import Overview
from medical.pacs.queue import Queue
from medical.pacs.scp import StoreScp
from medical.pacs.settings import PacsSettings
from medical.pacs.spool import Spool
from tests.medical import phantoms


@pytest.fixture
def server(tmp_path, monkeypatch, logged):
    for name in ("LOG_HANDLER_LEVEL", "STORE_RECV_CHUNKED_DATASET", "STORE_SEND_CHUNKED_DATASET"):
        monkeypatch.setattr(_config, name, getattr(_config, name))
    monkeypatch.setattr(tempfile, "tempdir", tempfile.tempdir)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = PacsSettings.model_validate(
        {
            "node": {"ae_title": "ANOMALY", "port": port},
            "peers": [{"ae_title": "SENDER", "host": "127.0.0.1"}],
            "spool": {"folder": tmp_path / "spool", "free_gigabytes": 0.0, "max_object_megabytes": 0.2},
            "analysis": {"analyser": "a:b"},
            "destinations": [
                {"type": "dicom", "name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 1, "verify": "find"}
            ],
        }
    )
    spool = Spool(settings.spool.folder, None)
    database = Database.open(spool.folder / "queue.sqlite", create=True)
    intake = Intake(spool, Queue(database, spool.pseudonyms.of), settings.spool, lambda: None)
    started = StoreScp(settings, intake, Reports())
    assert started.start(str(spool.incoming)) == port
    yield port, spool, Overview(database), logged
    started.stop()
    database.close()


def connect(port, title="SENDER"):
    entity = AE(title)
    entity.add_requested_context(CTImageStorage, "1.2.840.10008.1.2.1")
    entity.add_requested_context(Verification)
    return entity.associate("127.0.0.1", port, ae_title="ANOMALY")


def until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_object_that_grows_too_large_is_cut_off(server):
    port, spool, overview, lines = server
    client = connect(port)
    answer = client.send_c_store(phantoms.ct_series((1, 600, 600))[0])  # 0.72 MB
    assert "Status" not in answer or answer.Status == 0xA700
    client.abort()
    until(lambda: list(spool.incoming.iterdir()) == [])
    assert any("larger than max_object_megabytes" in line.get("error", "") for line in lines())
    assert overview.rows() == []
    again = connect(port)
    assert again.send_c_store(phantoms.ct_series((1, 16, 16))[0]).Status == 0x0000
    again.release()
    assert overview.rows()[0].objects == 1


def test_a_destination_may_connect_but_not_send(server):
    port, _, overview, _ = server
    client = connect(port, "PACS")
    assert client.send_c_echo().Status == 0x0000
    assert client.send_c_store(phantoms.ct_series((1, 16, 16))[0]).Status == 0x0124
    client.release()
    assert overview.rows() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nonsense_and_half_an_object_leave_nothing(server):
    port, spool, overview, _ = server
    for nonsense in (b"GET / HTTP/1.1\r\n\r\n", b"\x01\x00\xff\xff\xff\xff" + b"\0" * 100, b""):
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(nonsense)
    client = connect(port)
    client.dul.socket.socket.sendall(b"\x04\x00\x00\x00\x00\x10half of something")
    client.abort()
    until(lambda: list(spool.incoming.iterdir()) == [])
    well = connect(port)
    assert well.send_c_echo().Status == 0x0000
    well.release()
    assert overview.rows() == []
