"""Identifiers are planted in everything that can be logged; none may be in anything that is written."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings

import pydicom
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from anomaly.calibration import Decision
from anomaly.errors import ImageFileError, SettingError
from medical.pacs.errors import PeerError
from medical.pacs.states import Cause, Receipt, Said, State
from medical.privacy.encryption import VaultError
from medical.privacy.log_fields import Event, Fields
from medical.privacy.logs import SafeFormatter, log, set_up_logging, told_to
from medical.refusals import Reason, RefusedError

PLANTED = {
    "name": "Zebrowska^Wilhelmina",
    "family": "Zebrowska",
    "id": "PID-77431-X",
    "accession": "ACC9981237",
    "birth": "19511231",
    "institution": "Klinikum Nirgendwo",
    "text": "patient fell from a ladder",
    "private": "SECRET-PRIVATE-9",
    "uid": "1.2.826.0.1.3680043.8.498.77431776",
    "file": "zebrowska_wilhelmina_1951.dcm",
}


def assert_clean(lines):
    text = json.dumps(lines).lower()
    assert lines
    for what, value in PLANTED.items():
        assert value.lower() not in text, what
        assert value.split("^")[0].lower() not in text, what


STUDY = "0123456789abcdef"


def test_events_say_what_they_may(logged):
    log(Event.ANALYSED, study=STUDY, outcome="ANALYSED", decision=Decision.NG, score=-1.5, p_value=0.01)
    line = logged()[0]
    del line["time"]
    facts = {"study": STUDY, "outcome": "ANALYSED", "decision": "NG", "score": -1.5, "p_value": 0.01}
    assert line == {"level": "INFO", "event": "analysed", **facts}
    log(Event.OBJECT, study=STUDY, source="PEER, folder", status=Receipt.NEW, state=State.RECEIVING)
    log(Event.OBJECT_REFUSED, peer="SENDER", status="C111", error=PeerError("another object is there"))
    log(Event.REFUSED, address="2001:db8::7", port=11112, error=Said.HOST)
    log(Event.NO_RESULT, cause=Cause.ANALYSER_TIMEOUT, destination="pacs", attempt=3, seconds=0.5, count=2, removed=1)
    assert "withheld" not in json.dumps(logged())
    assert [line["level"] for line in logged()] == ["INFO", "INFO", "WARNING", "WARNING", "WARNING"]
    assert logged()[3]["error"] == "the host is not allowed"


def test_identifiers_in_every_field_are_withheld(logged):
    for value in PLANTED.values():
        log(Event.WARNING, **dict.fromkeys(Fields.__annotations__, value))
        log(Event.WARNING, **{"patient_name": value, value: value})
    assert_clean(logged())
    line = {name: value for name, value in logged()[0].items() if name not in ("time", "level", "event")}
    assert line == dict.fromkeys(Fields.__annotations__, "withheld")
    assert logged()[1]["unlisted"] == 2


def test_texts_that_only_look_right_are_withheld(logged):
    """The names of peers are a closed list, too: an AE title could be anything of 16 characters."""
    log(Event.WARNING, peer="STRANGER", source="STRANGER", address="fe80::1%Zebrowska", status="C11", outcome="OK")
    log(Event.WARNING, study=STUDY.upper(), model="a" * 65, error="the host is not allowed", reason="GANTRY_TILT")
    assert [line[name] for line in logged() for name in line if name in Fields.__annotations__] == ["withheld"] * 9


def test_a_source_that_is_not_known_hides_no_other(logged):
    """E.g. a peer that was taken out of the settings after it had sent a part of the study."""
    log(Event.COMPLETE, study=STUDY, source="PEER, STRANGER, folder, PLANTED^NAME")
    assert logged()[0]["source"] == "PEER, withheld, folder"


def test_a_listener_is_told_what_the_line_says(logged):
    heard = []
    with told_to(lambda event, fields: heard.append((event, dict(fields)))):
        log(Event.COMPLETE, study=STUDY, source="PLANTED^NAME")
    log(Event.STOPPED)
    assert heard == [(Event.COMPLETE, {"study": STUDY, "source": "withheld"})]


def test_a_listener_that_fails_stops_nothing(logged):
    def fails(event, fields):
        raise OSError(28, PLANTED["name"])

    with told_to(fails):
        log(Event.COMPLETE, study=STUDY)
    assert [line["event"] for line in logged()] == ["complete", "audit failed"]
    assert logged()[1]["error"] == "No space left on device"


def test_a_listener_does_not_depend_on_whether_anything_is_logged(logged):
    heard = []
    set_up_logging(None)
    logging.getLogger().setLevel(logging.CRITICAL)
    with told_to(lambda event, fields: heard.append(event)):
        log(Event.COMPLETE, study=STUDY)
    assert heard == [Event.COMPLETE]
    assert logged() == []


class FullDisk(io.StringIO):
    def write(self, text):
        raise OSError(28, PLANTED["name"])


def test_a_full_disk_stops_nothing(logged, monkeypatch):
    """As when standard error is a file on a disk that is full: neither the line nor the note of it can be written."""
    heard = []
    set_up_logging(FullDisk())
    monkeypatch.setattr(sys, "__stderr__", FullDisk())
    with told_to(lambda event, fields: heard.append(event)):
        log(Event.WARNING, study=STUDY)
        logging.getLogger("pynetdicom").error("of a library")
        log(Event.STOPPED)
    assert heard == [Event.WARNING, Event.STOPPED]


def test_lines_of_many_threads_are_whole(logged):
    def many():
        for _ in range(200):
            log(Event.OBJECT, study=STUDY, count=1)

    threads = [threading.Thread(target=many) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(logged()) == 1600
    assert {line["study"] for line in logged()} == {STUDY}


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_no_text_of_a_foreign_record_is_written(name, text):
    def line(name, text):
        record = logging.LogRecord(name, logging.WARNING, text, 1, text + "%s", (text,), None, text, text)
        record.__dict__.update({"line": {text: text}, "stack_info": text})
        found = json.loads(SafeFormatter().format(record))
        del found["time"]
        return found

    assert line(name, text) == line("medical.events", text) == {"level": "WARNING", "event": "record", "at": "withheld"}


def test_loggers_of_libraries_and_of_our_own_code(logged):
    for name in ("pydicom", "pynetdicom.acse", "highdicom.seg", "medical.triage", "anomaly", "httpx", "made.up"):
        for value in PLANTED.values():
            logging.getLogger(name).error("value %s of " + value, value, extra={"patient": value})
    assert_clean(logged())
    assert logged()[0]["at"].startswith("test_logs.py:")


def test_debug_of_libraries_is_off_and_their_own_handlers_are_gone(logged):
    from pynetdicom import debug_logger

    debug_logger()
    set_up_logging(io.StringIO())
    logger = logging.getLogger("pynetdicom")
    assert logger.handlers == []
    assert not logger.isEnabledFor(logging.INFO)


def test_exceptions_are_reduced(logged, tmp_path):
    (tmp_path / PLANTED["file"]).mkdir()
    for raised in (
        ValueError(PLANTED["name"]),
        KeyError(PLANTED["uid"]),
        FileNotFoundError(2, PLANTED["text"], PLANTED["file"]),
        ImageFileError(PLANTED["file"], PLANTED["name"]),
        SettingError(PLANTED["family"]),
        RuntimeError(PLANTED["id"]),
    ):
        try:
            try:
                raise raised
            except Exception as error:
                raise OSError(PLANTED["private"]) from error
        except OSError as error:
            log(Event.FAILED, study=STUDY, error=error)
        try:
            raise raised
        except Exception:
            logging.getLogger("pydicom").exception("%s", PLANTED["accession"])
    assert_clean(logged())
    kinds = {"OSError", "ValueError", "KeyError", "ImageFileError", "SettingError", "No such file or directory"}
    assert kinds <= {line["error"] for line in logged()}
    assert all(line["raised"].startswith("test_logs.py:") for line in logged())


def test_errors_of_this_package_keep_their_code_and_words(logged):
    for error in (RefusedError(Reason.GANTRY_TILT, "tilted by 12 degrees"), VaultError("another key")):
        try:
            raise error
        except (RefusedError, VaultError) as caught:
            log(Event.FAILED, error=caught)
    refused, vault = logged()
    assert (refused["reason"], refused["error"]) == ("GANTRY_TILT", "GANTRY_TILT: tilted by 12 degrees")
    assert vault["error"] == "another key"


def test_pydicom_s_own_warnings_are_reduced(logged, tmp_path):
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.file_meta.MediaStorageSOPClassUID = ds.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ds.PatientBirthDate = f"{PLANTED['family']} {PLANTED['birth']}"
        ds.InstitutionName = PLANTED["institution"] * 9
        ds.SOPInstanceUID = PLANTED["id"]
        ds.PatientAge = PLANTED["text"]
        ds.SpecificCharacterSet = PLANTED["private"]
        ds.PatientName = PLANTED["name"]
        pydicom.dcmwrite(tmp_path / PLANTED["file"], ds, enforce_file_format=True)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning, before = __import__("medical.privacy.logs").privacy.logs._warned, warnings.showwarning
        str(pydicom.dcmread(tmp_path / PLANTED["file"]))
        warnings.showwarning = before
    assert_clean(logged())
    assert any(line["at"].startswith("valuerep.py:") for line in logged())


def test_what_ends_a_thread_is_reduced(logged):
    def fails():
        raise ValueError(PLANTED["name"])

    thread = threading.Thread(target=fails, name=PLANTED["name"])
    thread.start()
    thread.join()
    assert_clean(logged())
    assert (logged()[0]["event"], logged()[0]["error"]) == ("thread failed", "ValueError")


PROCESS = """
import logging, sys, warnings
from pathlib import Path
from medical.privacy.logs import set_up_logging
set_up_logging(Path(sys.argv[1]))
planted = sys.argv[2:]
for value in planted:
    warnings.warn(value)
    logging.getLogger(value).warning(value)
    logging.getLogger("pydicom").error("%d", value)
logging.getLogger().handlers[0].stream.close()
logging.warning("%s", planted[0])
set_up_logging(Path(sys.argv[1]))
raise RuntimeError(" ".join(planted))
"""


def test_a_whole_process_writes_no_identifier_anywhere(tmp_path):
    command = [sys.executable, "-c", PROCESS, str(tmp_path / "log"), *PLANTED.values()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert_clean([*lines, done.stdout, done.stderr])
    assert lines[-1]["error"] == "RuntimeError"
    assert (tmp_path / "log").stat().st_mode & 0o777 == 0o600
