"""A DICOMweb server that does not give everything keeps nothing else waiting."""

import threading
from types import SimpleNamespace

import pytest

from medical.pacs.database import Database
from medical.pacs.errors import PeerError
from medical.pacs.intake import Intake
from medical.pacs.overview import Overview
from medical.pacs.polling import Polling
from medical.pacs.queue import Queue
from medical.pacs.settings import SpoolSettings, WebIntake
from medical.pacs.spool import Spool
from tests.medical import phantoms


class Server:
    """Three studies of two slices; what is asked of it that it lacks fails."""

    def __init__(self):
        made = [one for number in range(3) for one in phantoms.ct_series((2, 8, 8), seed=str(number))]
        self.objects = {str(one.SOPInstanceUID): one for one in made}
        self.lacks = set()

    def studies(self, query):
        found = dict.fromkeys(str(one.StudyInstanceUID) for one in self.objects.values())
        return [{"0020000D": {"Value": [uid]}, "00201208": {"Value": [2]}} for uid in found]

    def instances(self, study):
        self._give(study)
        tags = {"0020000E": "SeriesInstanceUID", "00080018": "SOPInstanceUID", "00080016": "SOPClassUID"}
        found = [one for one in self.objects.values() if one.StudyInstanceUID == study]
        return [{tag: {"Value": [str(one[name].value)]} for tag, name in tags.items()} for one in found]

    def fetch(self, study, series, uid, target):
        self._give(uid)
        self.objects[uid].save_as(target, enforce_file_format=True)

    def _give(self, uid):
        if uid in self.lacks:
            raise PeerError("WADO-RS was answered with HTTP status 500")


@pytest.fixture
def polled(tmp_path, logged, monkeypatch):
    server = Server()
    monkeypatch.setattr("medical.pacs.polling.WebPeer", lambda settings: server)
    spool = Spool(tmp_path / "spool", None)
    database = Database.open(spool.folder / "queue.sqlite", create=True)
    queue = Queue(database, spool.pseudonyms.of)
    intake = Intake(spool, queue, SpoolSettings(folder=spool.folder, free_gigabytes=0), lambda: None)
    polling = Polling(WebIntake(url="http://127.0.0.1:9", query={"Modality": "CT"}), intake, queue, spool)

    def failures():
        return [line for line in logged() if line["event"] == "dicomweb failed"]

    yield SimpleNamespace(
        server=server,
        ask=lambda: polling.ask(threading.Event()),
        objects=lambda: [row.objects for row in Overview(database).rows()],
        failures=failures,
        incoming=spool.incoming,
    )
    database.close()


def test_an_object_that_does_not_come_is_asked_for_again_and_nothing_waits_for_it(polled):
    first = next(iter(polled.server.objects))
    polled.server.lacks = {first}
    assert (polled.ask(), polled.ask()) == (5, 0)
    assert sorted(polled.objects()) == [1, 2, 2]
    assert len(polled.failures()) == 2
    assert list(polled.incoming.iterdir()) == []
    polled.server.lacks = set()
    assert (polled.ask(), polled.ask()) == (1, 0)
    assert polled.objects() == [2, 2, 2]


def test_a_study_that_cannot_be_looked_into_stops_no_other(polled):
    first = next(iter(polled.server.objects.values()))
    polled.server.lacks = {str(first.StudyInstanceUID)}
    assert polled.ask() == 4
    assert len(polled.failures()) == 1


def test_a_server_that_gives_nothing_is_said_once_in_a_round(polled):
    polled.server.lacks = set(polled.server.objects)
    assert (polled.ask(), len(polled.failures())) == (0, 1)
    assert (polled.ask(), len(polled.failures())) == (0, 2)
