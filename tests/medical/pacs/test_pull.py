"""A PACS that does not give every object: the others are copied, and the study is said to be incomplete."""

from types import SimpleNamespace

import pytest
from pynetdicom import AE, _config, evt
from pynetdicom.sop_class import CTImageStorage, StudyRootQueryRetrieveInformationModelGet

from medical.pacs.associations import Remote
from medical.pacs.errors import PeerError
from medical.pacs.pull import DicomSource, Found, Query, WebSource, pull
from tests.medical import phantoms

QUERY = Query(dates="20250305")


@pytest.fixture
def slices():
    return phantoms.ct_series((3, 8, 8))


@pytest.fixture
def lacking(slices, monkeypatch):
    """A PACS for C-GET that lacks the first of three slices; its answers to C-FIND are given here."""
    monkeypatch.setattr(_config, "LOG_HANDLER_LEVEL", "none")
    held = {one.SOPInstanceUID: one for one in slices[1:]}

    def give(event):
        uid = event.identifier.SOPInstanceUID
        yield 1
        if uid in held:
            yield 0xFF00, held[uid]
        else:
            yield 0xA702, None

    entity = AE("PACS")
    entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
    entity.add_supported_context(CTImageStorage, scu_role=True, scp_role=True)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_GET, give)])
    yield DicomSource(Remote("ANOMALY", "PACS", "127.0.0.1", server.server_address[1], seconds=10))
    server.shutdown()


def found(slices):
    return [Found(str(one.StudyInstanceUID), str(one.SeriesInstanceUID), str(one.SOPInstanceUID)) for one in slices]


def pulled(source, slices, out, monkeypatch):
    monkeypatch.setattr(source, "studies", lambda query: [str(slices[0].StudyInstanceUID)])
    monkeypatch.setattr(source, "objects", lambda study: found(slices))
    done = pull(source, QUERY, out, bytes(32))
    assert not list(out.rglob("*.part"))
    return done, len(list(out.rglob("*.dcm")))


def test_by_c_get(lacking, slices, tmp_path, monkeypatch):
    done, files = pulled(lacking, slices, tmp_path, monkeypatch)
    assert (done.fetched, files) == (2, 2)
    assert list(done.problems.values()) == ["1 of 3 objects did not come: PACS answered the C-GET with status A702"]


def test_by_wado(slices, tmp_path, monkeypatch):
    def fetch(study, series, uid, target):
        if uid == slices[0].SOPInstanceUID:
            raise PeerError("WADO-RS was answered with HTTP status 500")
        next(one for one in slices if one.SOPInstanceUID == uid).save_as(target, enforce_file_format=True)

    done, files = pulled(WebSource(SimpleNamespace(fetch=fetch)), slices, tmp_path, monkeypatch)
    assert (done.fetched, files) == (2, 2)
    assert list(done.problems.values()) == ["1 of 3 objects did not come: WADO-RS was answered with HTTP status 500"]
