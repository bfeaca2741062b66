"""Runs in a network namespace of its own (see test_peer.py): the service beside a real Orthanc and dcmtk."""

import json
import re
import subprocess
from pathlib import Path

import pytest
from pydicom import dcmread

from tests.medical import phantoms
from tests.medical.pacs.peers import (
    DICOM_PORT,
    OUR_PORT,
    PROXY_PORT,
    TO_WEB,
    WEB,
    Orthanc,
    Proxy,
    Service,
    reachable,
    storescu,
    until,
)
from tests.medical.studies import write_chests

SLICES = 3


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    orthanc = Orthanc(tmp_path_factory.mktemp("orthanc"))
    orthanc.start()
    yield orthanc
    orthanc.stop()
    orthanc.web.close()


@pytest.fixture
def orthanc(running):
    if running.process is None:
        running.start()
    running.empty()
    return running


@pytest.fixture
def service(tmp_path):
    made = []

    def start(**changes):
        made.append(Service(tmp_path / f"service{len(made)}", **changes))
        made[-1].start()
        return made[-1]

    yield start
    for one in made:
        one.stop()


@pytest.fixture
def study(tmp_path):
    return phantoms.save(phantoms.ct_series((SLICES, 16, 16)), tmp_path / "study")


def uids_of(files):
    return sorted(str(dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in files)


def findscu(uid):
    keys = ["-k", "QueryRetrieveLevel=IMAGE", "-k", f"SOPInstanceUID={uid}", "-k", "StudyInstanceUID"]
    command = ["findscu", "-S", "-aec", "ORTHANC", *keys, "127.0.0.1", str(DICOM_PORT)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def assert_all_came_back_once(orthanc, service, sent, results):
    """Orthanc holds exactly what was sent to it and the results, each of which it stored once."""
    made = service.result_uids()
    assert len(made) == results
    assert orthanc.uids() == sorted([*sent, *made])
    assert {row.state for row in service.rows()} <= {"delivered", "superseded"}


def test_study_from_orthanc_is_analysed_and_the_results_are_found_by_qido_and_c_find(orthanc, service, study, call):
    started = service(analyser=', writer = "highdicom"')
    for file in study[:2]:
        orthanc.add(file)
    assert orthanc.send().status_code == 200
    started.wait_for("delivered")
    assert_all_came_back_once(orthanc, started, uids_of(study[:2]), results=1)
    (made,) = started.result_uids()
    answer = findscu(made)
    assert made in answer.stdout + answer.stderr
    # what comes back to us is known and not analysed again; a late object makes a new revision
    orthanc.add(study[2])
    assert orthanc.send().status_code == 200
    started.wait_for("delivered", 2)
    assert [row.objects for row in started.rows()] == [2, 3]
    assert_all_came_back_once(orthanc, started, uids_of(study), results=2)
    status, shown, _ = call("triage", "queue", "--config", started.config, "--all", "--json")
    assert (status, json.loads(shown)["counts"]["delivered"]) == (0, 2)
    started.stop()
    trail = started.folder / "spool" / "audit.jsonl"
    status, said, _ = call("triage", "audit", "verify", trail)
    assert status == 0
    assert "Whole: 6 records" in said, said  # start, 2 x (a study came, results went), stop


def test_killed_while_receiving_analysing_and_delivering(orthanc, service, study):
    """SIGKILL at the worst moments: nothing lost, nothing twice."""
    proxy = Proxy(1)
    started = service(wait=4, port=PROXY_PORT, analyser=", results = 3, seconds = 0.5")
    assert storescu(study[:2]).returncode == 0
    started.kill()
    assert storescu(study[2:]).returncode != 0
    assert [row.state for row in started.rows()] == ["receiving"]
    started.start()
    assert storescu(study).returncode == 0  # a sender that knows no better sends all again
    until(started.marks)
    started.kill()
    assert [(row.state, row.objects) for row in started.rows()] == [("analysing", SLICES)]
    started.start()
    # Orthanc stores the second result, and its answer never arrives
    assert proxy.kept.wait(60)
    started.kill()
    assert [(row.state, row.waiting) for row in started.rows()] == [("delivering", {"pacs": 3})]
    assert len(orthanc.uids()) == 2
    before = orthanc.changes()
    proxy.answers = 10**6
    started.start()
    started.wait_for("delivered")
    proxy.close()
    assert len(started.marks()) == 2
    assert_all_came_back_once(orthanc, started, [], results=3)
    assert orthanc.changes() == before + 1


def test_orthanc_down_for_a_while(orthanc, service, study, call):
    orthanc.stop()
    started = service(verify="find")
    assert storescu(study).returncode == 0
    until(lambda: len(started.events("delivery failed")) >= 2)
    _, shown, _ = call("triage", "queue", "--config", started.config, "--json")
    assert "is it running" in json.loads(shown)["studies"][0]["error"]
    assert not reachable(DICOM_PORT)
    orthanc.start()
    started.wait_for("delivered")
    assert_all_came_back_once(orthanc, started, [], results=1)


def test_who_is_not_allowed_is_refused(orthanc, service, study):
    started = service(sender="127.0.0.9")
    assert storescu(study).returncode != 0  # the right title from the wrong host
    assert storescu(study, title="STRANGER").returncode != 0
    assert storescu(study, title="ORTHANC", called="OTHER").returncode != 0
    assert started.rows() == []
    assert "calling AE title" in started.events("refused")[0]["error"]
    echo = ["echoscu", "-aet", "ORTHANC", "-aec", "ANOMALY", "127.0.0.1", str(OUR_PORT)]
    assert subprocess.run(echo, capture_output=True).returncode == 0
    assert storescu(study, title="ORTHANC").returncode == 0
    # another object with the UID of one that is there; no image; an object larger than allowed
    other = dcmread(study[0])
    other.SeriesDescription = "changed"
    other.save_as(study[0].with_name("other.dcm"))
    storescu([study[0].with_name("other.dcm")], title="ORTHANC")
    assert started.events("object refused")[-1]["status"] == "C111"
    assert started.rows()[0].objects == SLICES


def test_tls_works_and_plain_is_refused(orthanc, service, study, tmp_path):
    for name in ("anomaly", "sender", "stranger"):
        certificate(tmp_path, name)
    (tmp_path / "ca.pem").write_bytes((tmp_path / "anomaly.pem").read_bytes() + (tmp_path / "sender.pem").read_bytes())
    files = "\n".join(
        f'{key} = "{tmp_path / name}"'
        for key, name in (("certificate", "anomaly.pem"), ("key", "anomaly.key"), ("ca", "ca.pem"))
    )
    started = service(tls=f"[node.tls]\n{files}", verify="find")  # its report would come in the clear

    def options(name):
        return ["+tls", str(tmp_path / f"{name}.key"), str(tmp_path / f"{name}.pem"), "+cf", str(tmp_path / "ca.pem")]

    assert storescu(study).returncode != 0
    assert storescu(study, options=options("stranger")).returncode != 0
    assert started.rows() == []
    assert storescu(study, options=options("sender")).returncode == 0
    started.wait_for("delivered")


def certificate(folder, name):
    where = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")]
    names = ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *names, *where]
    subprocess.run(command, check=True, capture_output=True)


def test_dicomweb_intake_stow_and_a_key(orthanc, service, study):
    """In by QIDO-RS and WADO-RS, out by STOW-RS, everything in the spool encrypted."""
    for file in study:
        orthanc.add(file)
    web = f'[web]\nurl = "{WEB}"\nquery = {{ ModalitiesInStudy = "CT", StudyDate = "20250305" }}\nevery_seconds = 0.3\n'
    started = service(extra=web, key="ab" * 32, destination=TO_WEB)
    started.wait_for("delivered")
    assert_all_came_back_once(orthanc, started, uids_of(study), results=1)
    stored = list((started.folder / "spool" / "studies").rglob("*.dcm"))
    assert len(stored) == SLICES + 1
    assert all(file.read_bytes().startswith(b"ANOMVLT") for file in stored)
    assert len(started.rows()) == 1


@pytest.mark.parametrize("source", [WEB, f"ORTHANC@127.0.0.1:{DICOM_PORT}"])
def test_pull_goes_on_where_it_was(orthanc, study, tmp_path, source, call):
    for file in study[:2]:
        orthanc.add(file)
    out = tmp_path / "pulled"
    first = call("triage", "pull", source, "--date", "20250101-20251231", "--modality", "CT", "--out", out, "--json")
    assert first[0] == 0, first[2]
    assert json.loads(first[1]) == {"studies": 1, "fetched": 2, "present": 0, "problems": {}}
    orthanc.add(study[2])
    (tmp_path / "list.txt").write_text("PLANTEDACC\nOTHER\n")
    second = call("triage", "pull", source, "--accessions", tmp_path / "list.txt", "--out", out, "--json")
    assert json.loads(second[1]) == {"studies": 1, "fetched": 1, "present": 2, "problems": {}}
    files = sorted(out.rglob("*.dcm"))
    assert uids_of(files) == uids_of(study)
    assert all(re.fullmatch(r"[0-9a-f]{16}\.dcm", file.name) and not file.stat().st_mode & 0o077 for file in files)
    for file in files:
        original = next(one for one in map(dcmread, study) if one.SOPInstanceUID == dcmread(file).SOPInstanceUID)
        assert dcmread(file).PixelData == original.PixelData
    none = call("triage", "pull", source, "--date", "20260101", "--out", tmp_path / "none", "--json")
    assert json.loads(none[1])["studies"] == 0


def test_no_planted_identifier_is_written_anywhere(service, study, tmp_path, call):
    """Logs, database, names of files, errors; for what goes well, is refused, and fails."""
    (tmp_path / "drop").mkdir()
    folder = f'[folder]\npath = "{tmp_path / "drop"}"\nsettle_seconds = 0\nevery_seconds = 0.1\n'
    started = service(extra=folder, analyser=', fault = "error"', key="ab" * 32)
    assert storescu(study[:2]).returncode == 0
    (tmp_path / "drop" / "PLANTED^PHANTOM.dcm").write_bytes(study[2].read_bytes())
    (tmp_path / "drop" / "damaged").write_bytes(study[2].read_bytes()[:150])
    broken = dcmread(study[0])
    with pytest.warns(UserWarning, match="Invalid value for VR UI"):
        broken.StudyInstanceUID = "PLANTED-4711"
    broken.save_as(tmp_path / "broken.dcm")
    storescu([tmp_path / "broken.dcm"])
    started.wait_for("not_analysed")
    until(lambda: (tmp_path / "drop" / "refused" / "damaged.reason.txt").exists())
    until(lambda: started.rows()[0].objects == SLICES)
    status, *shown = call("triage", "queue", "--config", started.config, "--all")
    assert status == 1
    assert len(started.marks()) == 3
    call("triage", "queue", "--config", started.config, "--retry", started.rows()[0].study)
    until(lambda: len(started.marks()) > 3)
    started.stop()
    written = [started.log.read_bytes(), *(text.encode() for text in shown)]
    for file in (started.folder / "spool").rglob("*"):
        written.append(str(file).encode())
        if file.is_file():
            written.append(file.read_bytes())
    for value in (*phantoms.PLANTED.values(), "PHANTOM", "20250305"):
        assert not any(value.encode() in text for text in written), value
    logged = started.log.read_text()
    assert not any(uid in logged for uid in uids_of(study)), "not even UIDs"
    assert "Traceback" not in logged


def test_driver_has_no_way_out():
    """The namespace holds only the loopback: nothing that is planted here can leave the machine."""
    assert Path("/sys/class/net").exists()
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    assert len(links.splitlines()) == 1


def test_a_real_model_judges_studies_and_its_results_reach_the_pacs(orthanc, service, chest_model, tmp_path):
    """The whole way: storescu -> service -> fitted model -> report, summary, key objects in Orthanc."""
    started = service(model=chest_model[1])
    ill = write_chests(tmp_path / "ill", range(700, 701), abnormal=True) / "700.dcm"
    hand = write_chests(tmp_path / "hand", range(701, 702), BodyPartExamined="HAND") / "701.dcm"
    assert storescu([ill, hand]).returncode == 0
    started.wait_for("delivered", 2, 120)  # the model and its libraries are loaded first
    found = {}
    for file in (ill, hand):
        found[file.stem] = orthanc.modalities(str(dcmread(file).StudyInstanceUID))
    assert found == {
        "700": ["KO", "OT", "SR"],
        "701": ["OT", "SR"],
    }
    statuses = sorted(line["outcome"] for line in started.events("analysed"))
    assert statuses == ["ANALYSED", "NOT_ANALYSED"]
