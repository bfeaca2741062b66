"""Whatever is done to a trail is found; several processes share one; no identifier gets in."""

import json
import stat
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import SettingError
from medical.privacy.audit import NOTHING, AuditError, AuditTrail, verify
from medical.privacy.audit_messages import AuditEvent, AuditOutcome, AuditRole, AuditType, Participant, Subject

KEY = bytes(range(32))
NODE = Participant("anomaly triage serve", AuditRole.APPLICATION, address="127.0.0.1")
PEER = Participant("ORTHANC", AuditRole.SOURCE, requestor=True, address="pacs.example")
STUDY = Subject("study", "0123456789abcdef", {"1.2.840.10008.5.1.4.1.1.2": 300})


def made(folder, records=5, key=KEY):
    trail = AuditTrail(folder / "audit.jsonl", "room 3", key)
    for _ in range(records):
        trail.record(AuditEvent.INSTANCES_TRANSFERRED, [NODE, PEER], [STUDY])
    return folder / "audit.jsonl"


def lines(path):
    return path.read_bytes().splitlines(keepends=True)


def faults(path, key=KEY, **more):
    return [words for _, words in verify(path, key, **more).faults]


@pytest.mark.parametrize("key", [None, KEY])
def test_a_whole_trail(tmp_path, key):
    found = verify(made(tmp_path, key=key), key)
    assert (found.records, found.faults, found.keyed) == (5, (), key is not None)
    assert stat.S_IMODE((tmp_path / "audit.jsonl").stat().st_mode) == 0o600


def test_an_empty_trail(tmp_path):
    (tmp_path / "audit.jsonl").touch()
    assert verify(tmp_path / "audit.jsonl", KEY).hash == NOTHING


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_changed_byte_is_found(tmp_path_factory, data):
    path = made(tmp_path_factory.mktemp("trail"), 3)
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
    path.write_bytes(content)
    assert faults(path)


@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize(
    "order",
    [
        [1, 2, 3, 4],
        [0, 2, 3, 4],
        [0, 1, 2, 4],
        [0, 1, 2, 3],
        [0],
        [],
        [0, 1, 1, 2, 3, 4],
        [1, 0, 2, 3, 4],
        [0, 1, 2, 4, 3],
    ],
)
def test_removed_repeated_moved_and_cut_off_records_are_found(tmp_path, order, key):
    path = made(tmp_path, key=key)
    records = lines(path)
    path.write_bytes(b"".join(records[index] for index in order))
    assert faults(path, key)


def test_the_fault_is_named_at_its_line_and_only_there(tmp_path):
    path = made(tmp_path)
    records = lines(path)
    path.write_bytes(b"".join([*records[:2], *records[3:]]))
    assert [line for line, _ in verify(path, KEY).faults] == [3]
    path.write_bytes(b"".join([*records[:2], records[2].replace(b"ORTHANC", b"SOMEONE"), *records[3:]]))
    assert verify(path, KEY).faults == ((3, "changed, or made with another key"),)


def test_a_record_made_without_the_key_is_found(tmp_path):
    path, foreign = made(tmp_path), tmp_path / "foreign"
    foreign.mkdir()
    for key in (None, bytes(32)):
        path.write_bytes(b"".join(lines(path)[:5]) + lines(made(foreign, 6, key))[-1])
        assert len(faults(path)) == 1


def test_records_cut_off_with_a_head_of_then_need_a_noted_hash(tmp_path):
    """The limit that the documentation states, and its remedy."""
    path, head = made(tmp_path, 2), tmp_path / "audit.jsonl.head"
    earlier = path.read_bytes(), head.read_bytes()
    made(tmp_path, 2)
    noted = verify(path, KEY).hash
    path.write_bytes(earlier[0])
    head.write_bytes(earlier[1])
    assert faults(path) == []
    assert "noted hash is not in the trail" in faults(path, noted=noted)[0]


def test_a_removed_head_is_found_and_stops_further_records(tmp_path):
    path = made(tmp_path)
    (tmp_path / "audit.jsonl.head").unlink()
    assert "head of the trail is missing" in faults(path)[0]
    with pytest.raises(AuditError, match="head of the audit trail is missing"):
        made(tmp_path, 1)


def test_nothing_is_appended_to_a_trail_that_was_cut(tmp_path):
    path = made(tmp_path)
    path.write_bytes(b"".join(lines(path)[:3]))
    with pytest.raises(AuditError, match="was cut"):
        made(tmp_path, 1)
    assert len(lines(path)) == 3


def test_a_process_that_died_before_the_head_was_written_left_a_good_record(tmp_path):
    path, head = made(tmp_path, 3), tmp_path / "audit.jsonl.head"
    before = head.read_bytes()
    made(tmp_path, 1)
    head.write_bytes(before)
    made(tmp_path, 1)
    assert (verify(path, KEY).records, faults(path)) == (5, [])


def test_a_line_cut_off_by_a_crash_is_kept_and_reported_and_the_trail_goes_on(tmp_path):
    path = made(tmp_path, 2)
    with path.open("ab") as file:
        file.write(lines(path)[0][:70])
    made(tmp_path, 2)
    found = verify(path, KEY)
    assert (found.records, found.faults) == (4, ((3, "no record: cut off or overwritten"),))


def test_hostile_lines_are_faults_not_crashes(tmp_path):
    path = made(tmp_path, 1)
    for line in (
        b"[" * 100_000,
        b"\xff\xfe",
        b"[]",
        b"null",
        b'["number","keyed","previous","AuditMessage","hash"]',
        b"",
    ):
        path.write_bytes(lines(path)[0] + line + b"\n")
        assert faults(path) == ["no record: cut off or overwritten"]


def test_several_processes_share_a_trail(tmp_path):
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from medical.privacy.audit import AuditTrail\n"
        "from medical.privacy.audit_messages import AuditEvent, AuditRole, Participant\n"
        "trail = AuditTrail(Path(sys.argv[1]), 'room 3', bytes(range(32)))\n"
        "for _ in range(15): trail.record(AuditEvent.QUERY, [Participant('A', AuditRole.SOURCE)])\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "audit.jsonl")]
    running = [subprocess.Popen(command) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    found = verify(tmp_path / "audit.jsonl", KEY)
    assert (found.records, found.faults) == (45, ())


def test_the_message_has_the_structure_of_the_standard(tmp_path):
    trail = AuditTrail(tmp_path / "a", "room 3")
    trail.record(
        AuditEvent.APPLICATION_ACTIVITY, [NODE], outcome=AuditOutcome.MINOR_FAILURE, kind=AuditType.APPLICATION_START
    )
    message = json.loads((tmp_path / "a").read_text())["AuditMessage"]
    event = message["EventIdentification"]
    assert event["EventID"] == {
        "csd-code": "110100",
        "codeSystemName": "DCM",
        "originalText": "Application Activity",
    }
    assert event["EventTypeCode"]["csd-code"] == "110120"
    assert (event["EventActionCode"], event["EventOutcomeIndicator"]) == ("E", 4)
    assert message["ActiveParticipant"][0]["NetworkAccessPointTypeCode"] == 2
    assert PEER.element()["NetworkAccessPointTypeCode"] == 1
    assert STUDY.element()["ParticipantObjectDescription"]["SOPClass"][0]["NumberOfInstances"] == 300
    assert message["AuditSourceIdentification"] == {"AuditSourceID": "room 3", "AuditSourceTypeCode": 4}


def test_codes_are_those_of_pydicom_s_dictionary():
    from pydicom.sr.codedict import codes

    known = {concept.value: concept.meaning for concept in (getattr(codes.DCM, name) for name in codes.DCM.dir())}
    for member in (*AuditEvent, *AuditType, *AuditRole):
        code, meaning = member.value[:2]
        assert known[code] == meaning


def test_identifiers_are_refused_and_not_repeated():
    for kind in ("patient", "study"):
        with pytest.raises(SettingError) as caught:
            Subject(kind, "DOE^JANE")
        assert "DOE" not in str(caught.value)
    with pytest.raises(SettingError) as caught:
        Participant("DOE^JANE", AuditRole.SOURCE)
    assert "DOE" not in str(caught.value)


def test_the_command(tmp_path, call):
    path = made(tmp_path)
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(KEY.hex())
    status, out, _ = call("triage", "audit", "verify", path, "--key-file", key)
    assert (status, "5 records" in out) == (0, True)
    path.write_bytes(path.read_bytes().replace(b"ORTHANC", b"SOMEONE", 1))
    status, out, _ = call("triage", "audit", "verify", path, "--key-file", key)
    assert (status, "line 1: changed" in out) == (3, True)
    status, _, err = call("triage", "audit", "verify", path)
    assert (status, "was made with a key" in err) == (2, True)
