"""A second run into the same folder: no study lies there twice, nothing goes away without a word."""

import json

import pydicom
import pytest

from medical.pseudonyms import KEY_FILE, KEY_VARIABLE
from tests.medical.studies import write_chests

A, B = "ab" * 32, "cd" * 32


@pytest.fixture
def run(chest_model, call, tmp_path, monkeypatch, logged):
    """Runs with or without a key; returns status, output and errors."""

    def ran(studies, *options, key=None):
        monkeypatch.delenv(KEY_VARIABLE, raising=False)
        if key is not None:
            monkeypatch.setenv(KEY_VARIABLE, key)
        return call("triage", "run", chest_model[1], studies, "--out", tmp_path / "out", *options)

    return ran


def content(tmp_path):
    return {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}


def results(tmp_path):
    """Study -> kinds of its results."""
    found = {}
    for path in sorted((tmp_path / "out" / "dicom").iterdir()):
        found.setdefault(str(pydicom.dcmread(path).StudyInstanceUID), []).append(path.name.split("-")[1])
    return found


def test_without_a_key_of_the_site_a_folder_keeps_its_own(run, call, tmp_path):
    write_chests(tmp_path / "in", range(2), abnormal=True)
    assert run(tmp_path / "in", "--dicom")[0] == 0
    names, rows = {path.name for path in content(tmp_path)}, (tmp_path / "out" / "worklist.json").read_text()
    assert (tmp_path / "out" / KEY_FILE).stat().st_mode & 0o777 == 0o600
    status, _, err = run(tmp_path / "in", "--dicom")
    assert (status, "replaced" in err, "are left in" in err) == (0, False, False), err
    assert {path.name for path in content(tmp_path)} == names
    again = json.loads((tmp_path / "out" / "worklist.json").read_text())["studies"]
    assert [row["pseudonym"] for row in again] == [row["pseudonym"] for row in json.loads(rows)["studies"]]
    assert call("triage", "audit", "verify", tmp_path / "out" / "audit.jsonl")[0] == 0


@pytest.mark.parametrize("options", [("--dicom",), ()], ids=["dicom", "worklist"])
@pytest.mark.parametrize(("first", "others"), [(A, (B, None)), (None, (A,))], ids=["of the site", "of the folder"])
def test_another_key_is_refused_before_anything_is_changed(run, tmp_path, first, others, options):
    write_chests(tmp_path / "in", range(1))
    assert run(tmp_path / "in", *options, key=first)[0] == 0
    if options:
        (tmp_path / "out" / "worklist.json").unlink()  # as after a run that was stopped
    before = content(tmp_path)
    for other in others:
        status, _, err = run(tmp_path / "in", *options, key=other)
        assert status == 2
        said = " ".join(err.split())
        assert "named with another key" in said
        assert ("pseudonyms.key" if first is None else "--key-file or ANOMALY_MEDICAL_KEY") in said
        assert content(tmp_path) == before
    assert run(tmp_path / "in", *options, key=first)[0] == 0


def test_explanations_with_another_key_are_refused_before_anything_is_changed(
    call, chest_model, tmp_path, monkeypatch, logged
):
    write_chests(tmp_path / "in", range(1))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    asked = ["triage", "explain", chest_model[1], tmp_path / "in", "--out", tmp_path / "out"]
    assert call(*asked)[0] == 0
    before = content(tmp_path)
    monkeypatch.setenv(KEY_VARIABLE, A)
    status, _, err = call(*asked)
    assert (status, "named with another key" in " ".join(err.split())) == (2, True), err
    assert content(tmp_path) == before


def test_a_report_that_cannot_be_written_is_logged(call, chest_model, tmp_path, monkeypatch, logged):
    write_chests(tmp_path / "in", range(1), abnormal=True)
    monkeypatch.setenv(KEY_VARIABLE, A)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("explain.writer.ReportWriter.add", full)
    asked = ["triage", "explain", chest_model[1], tmp_path / "in", "--methods", "gradcam", "--top", 1]
    status, _, err = call(*asked, "--out", tmp_path / "out")
    assert (status, "No space left" in err) == (2, True), err
    lines = map(json.loads, (tmp_path / "out" / "run.log").read_text().splitlines())
    assert [line["error"] for line in lines if line["event"] == "failed"] == ["No space left on device"]


def test_results_with_other_settings_take_the_place_of_the_older_ones(run, tmp_path):
    write_chests(tmp_path / "in", range(1), abnormal=True)
    run(tmp_path / "in", "--dicom", "--with-heatmaps", key=A)
    assert list(results(tmp_path).values()) == [["ko", "sc", "seg", "sr"]]
    status, _, err = run(tmp_path / "in", "--dicom", key=A)
    assert status == 0
    assert "4 DICOM results of earlier runs were replaced" in err
    assert list(results(tmp_path).values()) == [["ko", "sc", "sr"]]
    assert '"replaced"' in (tmp_path / "out" / "run.log").read_text()


def test_results_of_other_studies_stay_and_are_said(run, tmp_path):
    write_chests(tmp_path / "one", range(1))
    write_chests(tmp_path / "two", range(1, 2))
    run(tmp_path / "one", "--dicom", key=A)
    (tmp_path / "out" / "dicom" / "note.dcm").write_bytes(b"of somebody else")
    status, _, err = run(tmp_path / "two", "--dicom", key=A)
    assert status == 0
    assert "2 DICOM results of earlier runs are left in" in " ".join(err.split())
    (tmp_path / "out" / "dicom" / "note.dcm").unlink()
    assert sorted(results(tmp_path).values()) == [["sc", "sr"]] * 2
