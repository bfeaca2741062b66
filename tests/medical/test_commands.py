"""The commands as users call them: fit, run, results, evaluation; nothing of a patient in anything that is written."""

import csv
import json
from contextlib import closing

import pydicom
import pytest

from medical.results import checker_installed, standard_errors
from medical.serving import analyser
from tests.medical.phantoms import PLANTED
from tests.medical.studies import anomaly, write_chests


@pytest.fixture(scope="module")
def incoming(tmp_path_factory):
    folder = tmp_path_factory.mktemp("incoming")
    write_chests(folder / "normal", range(300, 303))
    write_chests(folder / "ill", range(400, 402), abnormal=True)
    write_chests(folder / "hand", range(500, 501), BodyPartExamined="HAND")
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"?" * 40)
    return folder


@pytest.fixture(scope="module")
def run(chest_model, incoming, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "worklist"
    return out, anomaly("triage", "run", chest_model[1], incoming, "--out", out, "--dicom", "--with-heatmaps")


def test_fit_says_what_the_model_may_be_asked_about(call, tmp_path, logged):
    write_chests(tmp_path / "normals", range(12))
    model = tmp_path / "chest.safetensors"
    status, out, err = call(
        "triage", "fit", tmp_path / "normals", "-o", model, "--detector", "subspace", "--size", "64x48"
    )
    assert status == 0, err
    assert "body part: CHEST" in out
    assert "view: PA" in out
    assert "NOT FOR DIAGNOSTIC USE" in out
    assert "3 normals held out of the fit, one score per patient" in out
    assert model.is_file()
    assert "PLANTED" not in out + err


def test_fit_learns_from_pictures(call, tmp_path, logged):
    import cv2

    from tests.medical.studies import chest

    rows = []
    for seed in range(8):
        cv2.imwrite(str(tmp_path / f"{seed}.png"), (chest(seed) * 255).astype("uint8"))
        rows.append([f"{seed}.png", f"patient {seed // 2}", "PA", "F", 40 + seed])
    with (tmp_path / "manifest.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["file", "patient", "view", "sex", "age"], *rows])
    arguments = ("triage", "fit", tmp_path / "manifest.csv", "-o", tmp_path / "m.safetensors", "--detector", "subspace")
    status, out, err = call(*arguments, "--modality", "dx", "--body-part", "chest", "--size", "64x48")
    assert status == 0, err
    assert "modality: DX" in out
    assert "1 normals held out of the fit, one score per patient" in out  # one of four patients, not of eight pictures
    status, _, err = call(*arguments)
    assert status == 2
    assert "--modality and --body-part" in err


def test_a_run_sorts_refuses_and_says_so(run):
    out, (status, said, err) = run
    assert status == 1, err  # something was not analysed
    assert "6 studies: 2 flagged, 1 not analysed" in said
    assert "1 x BODY_PART" in err
    rows = json.loads((out / "worklist.json").read_text())["studies"]
    assert [row["priority"] for row in rows] == ["HIGH", "HIGH", "ROUTINE", "ROUTINE", "ROUTINE", "ROUTINE"]
    assert [row["state"] for row in rows[:2]] == ["strong", "strong"]
    (hand,) = [row for row in rows if row["status"] == "NOT_ANALYSED"]
    assert hand["reasons"][0].startswith("BODY_PART")
    assert (out / "worklist.html").read_text().count("data:image/") >= 2  # a thumbnail of each flagged study


def test_files_of_no_study_are_in_the_worklist(run):
    out, _ = run
    found = json.loads((out / "worklist.json").read_text())["files_of_no_study"]
    assert found["files"] == 1  # broken.dcm
    assert "1 file belongs to no readable study" in (out / "worklist.html").read_text()


def test_a_folder_without_files_is_no_quiet_morning(call, chest_model, tmp_path, logged):
    (tmp_path / "in").mkdir()
    status, _, err = call("triage", "run", chest_model[1], tmp_path / "in", "--out", tmp_path / "out")
    assert status == 2
    assert "no file" in err
    assert not list((tmp_path / "out").glob("worklist*"))


def test_a_worklist_that_cannot_be_written_is_not_done(call, chest_model, incoming, tmp_path, logged):
    (tmp_path / "worklist.html").mkdir()
    status, _, err = call("triage", "run", chest_model[1], incoming / "ill", "--out", tmp_path)
    assert status == 2
    assert "Is a directory" in err
    assert "may you write" in err
    assert "Traceback" not in err
    assert not (tmp_path / "worklist.csv").exists()


def test_results_are_dicom_objects_of_the_same_studies(run, incoming):
    out, _ = run
    written = [pydicom.dcmread(path) for path in sorted((out / "dicom").glob("*.dcm"))]
    studies = {pydicom.dcmread(path).StudyInstanceUID for path in incoming.rglob("[0-9]*.dcm")}
    assert {made.StudyInstanceUID for made in written} == studies
    assert {made.Modality for made in written} >= {"SR", "OT", "KO"}
    assert all("NOT FOR DIAGNOSTIC USE" in made.SeriesDescription for made in written)
    if checker_installed():
        assert [standard_errors(path) for path in (out / "dicom").glob("*.dcm") if standard_errors(path)] == []


def test_nothing_that_is_written_names_a_patient(run):
    out, (_, said, err) = run
    for path in (path for path in out.rglob("*") if path.is_file() and path.parent.name != "dicom"):
        content = path.read_bytes().decode("utf-8", "replace")
        assert [value for value in (*PLANTED.values(), "PLANTED") if value in content] == [], path.name
    names = " ".join(path.name for path in out.rglob("*"))
    assert "PLANTED" not in said + err + names
    assert not any(study in names for study in (row["study_instance_uid"] for row in json.loads(
        (out / "worklist.json").read_text())["studies"]))  # fmt: skip


def test_log_and_audit_trail_of_a_run(call, run):
    out, _ = run
    events = [json.loads(line)["event"] for line in (out / "run.log").read_text().splitlines()]
    assert events[0] == "started"
    assert events[-1] == "stopped"
    assert events.count("analysed") == 5
    assert events.count("not analysed") == 1
    status, said, _ = call("triage", "audit", "verify", out / "audit.jsonl")
    assert status == 0, said
    assert said.startswith("Whole: 14 records")  # start, six studies accessed, six exported, stop


def test_the_sites_priorities_can_be_given(call, chest_model, incoming, tmp_path, logged):
    study = pydicom.dcmread(incoming / "normal" / "300.dcm").StudyInstanceUID
    (tmp_path / "site.csv").write_text(f"study,priority\n{study},stat\n")
    status, _, err = call(
        "triage",
        "run",
        chest_model[1],
        incoming / "normal",
        "--out",
        tmp_path / "out",
        "--priorities",
        tmp_path / "site.csv",
    )
    assert status == 0, err
    first = json.loads((tmp_path / "out" / "worklist.json").read_text())["studies"][0]
    assert (first["study_instance_uid"], first["priority"], first["raised"]) == (study, "STAT", False)
    (tmp_path / "site.csv").write_text(f"study,priority\n{study},soon\n")
    status, _, err = call(
        "triage", "run", chest_model[1], incoming, "--out", tmp_path / "x", "--priorities", tmp_path / "site.csv"
    )
    assert status == 2
    assert "STAT, HIGH, ROUTINE, MEDIUM, LOW" in err


def test_priorities_are_never_lost_silently(call, chest_model, incoming, tmp_path, logged):
    study = pydicom.dcmread(incoming / "normal" / "300.dcm").StudyInstanceUID
    said = ("triage", "run", chest_model[1], incoming / "normal", "--out", tmp_path / "out", "--priorities")
    (tmp_path / "site.csv").write_text(f"study,priority\n {study} , stat \n1.2.3,HIGH\n")
    status, _, err = call(*said, tmp_path / "site.csv")
    assert status == 0, err
    assert "1 priorities are of studies that are not in the worklist" in err
    first = json.loads((tmp_path / "out" / "worklist.json").read_text())["studies"][0]
    assert (first["study_instance_uid"], first["priority"]) == (study, "STAT")
    (tmp_path / "site.csv").write_text(f"study,priority\n{study},STAT\n{study},LOW\n")
    status, _, err = call(*said, tmp_path / "site.csv")
    assert status == 2
    assert "more than once" in err


def test_a_plain_model_cannot_be_run(call, tmp_path, incoming, chest_model, logged):
    from dataclasses import replace

    from anomaly.artifact import load, save

    save(tmp_path / "plain.safetensors", replace(load(chest_model[1]), extensions={}))
    status, _, err = call("triage", "run", tmp_path / "plain.safetensors", incoming, "--out", tmp_path / "out")
    assert status == 2
    assert "anomaly triage fit" in err


def test_the_service_analyses_a_study_and_repeats_itself(chest_model, incoming, tmp_path):
    with closing(analyser(str(chest_model[1]))) as served:
        check_service(served, incoming, tmp_path)


def check_service(served, incoming, tmp_path):
    path = incoming / "ill" / "400.dcm"
    first, second = (served.analyse([path], tmp_path / name) for name in ("one", "two"))
    assert first.outcome_status == "ANALYSED"
    assert first.summary == "flagged, 1 analysed"
    uids = [[pydicom.dcmread(file).SOPInstanceUID for file in found.files_to_send] for found in (first, second)]
    assert uids[0] == uids[1]
    refused = served.analyse([incoming / "hand" / "500.dcm"], tmp_path / "hand")
    assert refused.outcome_status == "NOT_ANALYSED"
    assert refused.summary.startswith("BODY_PART")
    assert refused.files_to_send
