"""The part that analyses, when the disk is full, a file is damaged, or the analyser hands over nonsense."""

import threading
from types import SimpleNamespace

import pytest

from medical.pacs.analysing import Analysing
from medical.pacs.analysis import AnalysisResult, AnalysisStopped
from medical.pacs.database import Database
from medical.pacs.errors import QueueError, SpoolError
from medical.pacs.headers import read_header
from medical.pacs.overview import Overview
from medical.pacs.queue import Queue
from medical.pacs.settings import PacsSettings
from medical.pacs.spool import Spool
from tests.medical import phantoms


class Here:
    """Analyses within this process: writes one result, or does what it is told."""

    def __init__(self):
        self.fault, self.attempts = None, 0

    def run(self, files, out):
        self.attempts += 1
        if self.fault is not None:
            return self.fault(out)
        made = phantoms.save(phantoms.ct_series((1, 8, 8), seed="result"), out)
        return AnalysisResult("ANALYSED", tuple(made), f"{len(files)} objects")

    def close(self):
        pass


@pytest.fixture
def office(tmp_path, logged):
    settings = PacsSettings.model_validate(
        {
            "node": {"ae_title": "ANOMALY"},
            "peers": [{"ae_title": "PEER", "host": "127.0.0.1"}],
            "spool": {"folder": tmp_path / "spool"},
            "complete_after_seconds": 0.000001,
            "analysis": {"analyser": "a:b", "attempts": 2},
            "destinations": [{"type": "dicomweb", "name": "pacs", "url": "http://127.0.0.1:9"}],
            "retries": {"first_seconds": 0.000001, "longest_seconds": 0.000001},
        }
    )
    spool = Spool(settings.spool.folder, None)
    database = Database.open(spool.folder / "queue.sqlite", create=True)
    queue, process = Queue(database, spool.pseudonyms.of), Here()
    file = spool.new_file()
    phantoms.ct_series((1, 8, 8))[0].save_as(file, enforce_file_format=True)
    queue.received(
        read_header(file), "PEER", "a.dcm", lambda study: spool.place(spool.prepare(file, "a.dcm"), study, "a.dcm")
    )
    analysing = Analysing(settings, queue, spool, process)
    overview = Overview(database)
    yield SimpleNamespace(
        spool=spool, queue=queue, analysing=analysing, process=process, overview=overview, lines=logged
    )
    database.close()


def row(office):
    (found,) = office.overview.rows(finished=True)
    return found


def raising(error):
    def fault(_):
        raise error

    return fault


def test_a_study_becomes_results(office):
    assert office.analysing.step()
    assert (row(office).state, row(office).outcome, row(office).results) == ("analysed", "ANALYSED", 1)
    assert not office.analysing.step()
    events = [line["event"] for line in office.lines()]
    assert events == ["complete", "analysing", "analysed"]


def test_a_queue_that_cannot_be_written_is_waited_for(office, monkeypatch):
    """The attempt is neither counted nor forgotten."""
    with monkeypatch.context() as patch:
        patch.setattr(office.queue, "analysed", lambda *_: (_ for _ in ()).throw(QueueError("the disk is full")))
        with pytest.raises(QueueError):
            office.analysing.step()
    assert row(office).state == "analysing"
    assert office.analysing.step()
    assert (row(office).state, row(office).attempts) == ("analysed", 1)
    assert list(office.spool.incoming.iterdir()) == []


def test_a_spool_that_cannot_be_written_is_tried_for_ever(office):
    office.process.fault = raising(SpoolError("the disk is full"))
    for _ in range(5):
        office.analysing.step()
    assert row(office).state == "complete"
    assert "SPOOL_ROOM" in row(office).error
    office.process.fault = None
    office.analysing.step()
    assert (row(office).state, row(office).error) == ("analysed", "")


def test_a_damaged_object_is_failed_and_not_analysed(office):
    (stored,) = (office.spool.folder / "studies").rglob("*.dcm")
    stored.write_bytes(stored.read_bytes()[:-2] + b"\5\5")
    office.analysing.step()
    assert (row(office).state, office.process.attempts) == ("failed", 0)
    assert "SPOOL_DAMAGED" in row(office).error


@pytest.mark.parametrize("nonsense", ["text", "twice", "error"])
def test_nonsense_of_the_analyser_is_counted(office, nonsense):
    def fault(out):
        if nonsense == "error":
            raise KeyError("PLANTED")
        (file,) = phantoms.save(phantoms.ct_series((1, 8, 8), seed="result"), out)
        if nonsense == "text":
            file.write_text("no DICOM")
        return AnalysisResult("ANALYSED", (file, file) if nonsense == "twice" else (file,), "")

    office.process.fault = fault
    for _ in range(3):
        office.analysing.step()
    assert (row(office).state, office.process.attempts) == ("not_analysed", 2)
    assert "PLANTED" not in row(office).error


def test_a_stop_gives_the_study_back(office):
    office.process.fault = raising(AnalysisStopped())
    office.analysing.step()
    assert (row(office).state, row(office).attempts) == ("complete", 0)


def test_the_thread_outlives_trouble(office, monkeypatch):
    monkeypatch.setattr("medical.pacs.analysing.TROUBLE_SECONDS", 0.01)
    calls, stopping = [], threading.Event()

    def complete(_):
        calls.append(1)
        if len(calls) == 3:
            stopping.set()
        raise QueueError("the disk is full")

    monkeypatch.setattr(office.queue, "complete", complete)
    office.analysing.run(threading.Event(), stopping, threading.Event())
    assert [line["error"] for line in office.lines()] == ["the disk is full"] * 3
