"""Identifiers are planted in everything that can be logged; none may be in anything that is written."""

import io
import json
import logging
import subprocess
import sys
import threading
import warnings

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from anomaly.errors import ImageFileError
from medical.privacy.encryption import VaultError
from medical.privacy.logs import Event, SafeFormatter, log, set_up_logging
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


@pytest.fixture
def logged():
    """What is written between set-up and now; everything global is put back."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, warnings.showwarning, sys.excepthook, threading.excepthook
    stream = io.StringIO()
    set_up_logging(stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    root.handlers, warnings.showwarning, sys.excepthook, threading.excepthook = before[0], *before[2:]
    root.setLevel(before[1])


def assert_clean(lines):
    text = json.dumps(lines).lower()
    assert lines
    for what, value in PLANTED.items():
        assert value.lower() not in text, what
        assert value.split("^")[0].lower() not in text, what


def test_events_say_what_they_may(logged):
    log(Event.ANALYSED, study="0123456789abcdef", decision="NG", score=-1.5, p_value=0.01, objects=3, version="0.1.0")
    line = logged()[0]
    del line["time"]
    facts = {"study": "0123456789abcdef", "decision": "NG", "score": -1.5, "p_value": 0.01, "objects": 3}
    assert line == {"level": "INFO", "event": "analysed", **facts, "version": "0.1.0"}


def test_identifiers_in_every_field_are_withheld(logged):
    for value in PLANTED.values():
        fields = dict.fromkeys(("study", "file", "reason", "decision", "priority", "status", "model", "version"), value)
        log(Event.READ, **fields, objects=value, score=value)
        log(Event.READ, **{"patient_name": value, value: value})
    assert_clean(logged())
    assert {value for key, value in logged()[0].items() if key not in ("time", "level", "event")} == {"withheld"}
    assert logged()[1]["unlisted"] == 2


@settings(max_examples=60, deadline=None)
@given(st.text(min_size=1), st.text(min_size=1))
def test_no_text_of_a_foreign_record_is_written(name, text):
    def line(name, text):
        record = logging.LogRecord(name, logging.WARNING, text, 1, text + "%s", (text,), None, text, text)
        record.__dict__.update({"fields": {text: text}, "stack_info": text})
        found = json.loads(SafeFormatter().format(record))
        del found["time"]
        return found

    assert line("x" + name, text) == {"level": "WARNING", "event": "record", "at": "withheld"}


def test_loggers_of_libraries_and_of_our_own_code(logged):
    for name in ("pydicom", "pynetdicom.acse", "highdicom.seg", "medical.triage", "anomaly", "httpx", "made.up"):
        for value in PLANTED.values():
            logging.getLogger(name).error("value %s of " + value, value, extra={"patient": value})
    assert_clean(logged())
    assert logged()[0]["at"].startswith("test_logs.py:")


def test_debug_of_libraries_is_off_and_their_own_handlers_are_gone(logged):
    from pynetdicom import debug_logger

    debug_logger()
    set_up_logging(stream=io.StringIO())
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
        RuntimeError(PLANTED["id"]),
    ):
        try:
            try:
                raise raised
            except Exception as error:
                raise OSError(PLANTED["private"]) from error
        except OSError:
            log(Event.FAILED, study="0123456789abcdef")
        try:
            raise raised
        except Exception:
            logging.getLogger("pydicom").exception("%s", PLANTED["accession"])
    assert_clean(logged())
    assert {"OSError", "ValueError", "KeyError", "ImageFileError"} <= {line["error"] for line in logged()}
    assert all(line["raised"].startswith("test_logs.py:") for line in logged())


def test_errors_of_this_package_keep_their_code_and_words(logged):
    for error in (RefusedError(Reason.GANTRY_TILT, "tilted by 12 degrees"), VaultError("another key")):
        try:
            raise error
        except (RefusedError, VaultError):
            log(Event.FAILED)
    refused, vault = logged()
    assert (refused["reason"], refused["words"]) == ("GANTRY_TILT", "GANTRY_TILT: tilted by 12 degrees")
    assert vault["words"] == "another key"


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
    assert logged()[0]["error"] == "ValueError"


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
