"""`anomaly triage explain` as users call it: what it lists, what it refuses, what it must say, what it must not."""

import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pydicom
import pytest

from tests.medical.phantoms import PLANTED
from tests.medical.studies import anomaly, write_chests

pytestmark = pytest.mark.slow

NOTICE = "NOT FOR DIAGNOSTIC USE"


@pytest.fixture(scope="module")
def incoming(tmp_path_factory):
    folder = tmp_path_factory.mktemp("PLANTEDfolder")
    write_chests(folder / "ill", range(400, 402), abnormal=True)
    write_chests(folder / "normal", range(300, 301))
    write_chests(folder / "hand", range(500, 501), BodyPartExamined="HAND")
    (folder / "broken.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"?" * 40)
    return folder


@pytest.fixture(scope="module")
def explained(chest_model, incoming, tmp_path_factory):
    out = tmp_path_factory.mktemp("explained") / "why"
    normals = write_chests(tmp_path_factory.mktemp("normals"), range(30, 36))
    asked = ["--normals", normals, "--methods", "gradcam", "--out", out, "--most", 1]
    return out, anomaly("triage", "explain", chest_model[1], incoming, *asked)


@pytest.fixture(scope="module")
def text_of_pdf(explained):
    if shutil.which("pdftotext") is None:
        pytest.skip("no pdftotext (poppler-utils) on the PATH")
    done = subprocess.run(["pdftotext", explained[0] / "report.pdf", "-"], capture_output=True, text=True, check=True)
    return done.stdout


def test_flagged_studies_are_explained_and_refused_ones_are_listed(explained):
    out, (status, said, err) = explained
    assert status == 1, err
    assert (
        "3 studies scored: 2 strongly flagged (NG), 1 not flagged; 1 explained, 2 files or objects could not be used"
        in said
    )
    assert "1 x BODY_PART" in err
    assert NOTICE in said
    found = json.loads((out / "report.json").read_text())
    (part,) = found["parts"]
    assert re.fullmatch(r"[0-9a-f]{16}", part["name"])
    assert part["score"] == max(image["score"] for image in found["images"])
    assert part["score_of_the_picture"] == pytest.approx(part["score"], rel=1e-4)
    assert [one["method"] for one in part["explanations"]] == ["gradcam", "anomaly_map", "edges", "random"]
    assert NOTICE in found["notice"]
    assert found["failed"][0]["reason"].startswith("BODY_PART")
    assert found["failed"][1]["name"] == "files of no readable study"
    assert "1 flagged study is listed but not explained" in " ".join(found["summary"])


def test_the_page_says_what_must_be_said_and_no_more(explained):
    html = (explained[0] / "report.html").read_text()
    assert html.index(NOTICE) < html.index("<main>")
    assert "not where disease is" in html
    assert "does not mean normal" in html
    assert "Strongly flagged (NG)" in html
    assert ">OK<" not in html
    assert "normal parts" not in html
    assert "is not shown" in html  # the content of other patients
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert "ninth of the part" not in html  # patients do not lie alike


def test_every_page_of_the_pdf_says_it(text_of_pdf):
    pages = text_of_pdf.rstrip("\f").split("\f")
    assert len(pages) >= 3
    assert all(NOTICE in page for page in pages)


@pytest.mark.peer
@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_in_a_browser_without_a_network(explained, tmp_path, browse, width):
    shot = tmp_path / "shot.png"
    browse((explained[0] / "report.html").as_uri(), f"--screenshot={shot}", f"--window-size={width},2400")
    pixels = cv2.imread(str(shot)).astype(int)
    assert pixels.shape[1] == width
    band = pixels[:30, : width - 20]
    assert band.min() < 40  # the dark band of the notice,
    assert (band.min(axis=2) > 200).mean() > 0.01  # with its words
    assert (np.ptp(pixels, axis=2) > 80).mean() > 0.005  # the maps are there, in colour


def test_figures_say_it(explained):
    drawn = sorted((explained[0] / "figures").glob("*.svg"))
    assert drawn
    for path in drawn:
        assert (explained[0] / "figures" / f"{path.stem}.png").is_file()
        svg = path.read_text()
        assert f"<!-- Research use only. {NOTICE}. Not a medical device. -->" in svg


def test_nothing_that_is_written_names_a_patient(explained, incoming, text_of_pdf):
    out, (_, said, err) = explained
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in incoming.rglob("[0-9]*.dcm")]
    names = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "StudyDate", "PatientID")
    planted = {str(header.get(name)) for header in headers for name in names if header.get(name)}
    planted |= {*PLANTED.values(), "PLANTED", str(incoming), "400.dcm", "hand/"}
    written = {path.name: path.read_bytes().decode("utf-8", "replace") for path in out.rglob("*") if path.is_file()}
    written |= {
        "pdf": text_of_pdf,
        "said": said + err,
        "names": " ".join(str(p.relative_to(out)) for p in out.rglob("*")),
    }
    assert len(written) > 8
    studies = written.pop("studies.csv")  # which alone says which study is which
    assert "PLANTED" not in studies
    assert {line.split(",")[1] for line in studies.split()[1:]} == {str(h.StudyInstanceUID) for h in headers}
    for name, content in written.items():
        assert [value for value in planted if value in content] == [], name
    info = subprocess.run(["pdfinfo", out / "report.pdf"], capture_output=True, text=True, check=True).stdout
    assert "PLANTED" not in info


def test_only_its_owner_can_read_it(explained):
    assert [path.name for path in explained[0].rglob("*") if path.stat().st_mode & 0o077] == []


def test_log_and_audit_trail(call, explained):
    out, _ = explained
    events = [json.loads(line)["event"] for line in (out / "run.log").read_text().splitlines()]
    assert (events[0], events[-1], events.count("analysed")) == ("started", "stopped", 3)
    assert "anomaly triage explain" in (out / "audit.jsonl").read_text()
    status, said, _ = call("triage", "audit", "verify", out / "audit.jsonl")
    assert status == 0, said


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--methods", "cam"], "unknown method 'cam'"),
        (["--normals", "EMPTY"], "names no study that can be read"),
    ],
)
def test_what_cannot_be_done_is_refused(call, chest_model, incoming, tmp_path, more, words, logged):
    (tmp_path / "EMPTY").mkdir()
    more = [str(tmp_path / "EMPTY") if word == "EMPTY" else word for word in more]
    status, _, err = call("triage", "explain", chest_model[1], incoming / "normal", "--out", tmp_path / "out", *more)
    assert status == 2
    assert words in err
    assert not (tmp_path / "out" / "report.html").exists()


def test_a_foreign_folder_is_refused_and_left_as_it_was(call, chest_model, incoming, tmp_path, logged):
    (tmp_path / "worklist.json").write_text("{}")
    status, _, err = call("triage", "explain", chest_model[1], incoming / "normal", "--out", tmp_path)
    assert status == 2
    assert "worklist.json" in err
    assert [path.name for path in tmp_path.iterdir()] == ["worklist.json"]


def test_nothing_flagged_is_said_and_is_not_called_normal(call, chest_model, incoming, tmp_path, logged):
    # a second run into the folder goes on with its audit trail and replaces the report; the study keeps its name
    names = set()
    for _ in range(2):
        status, said, err = call("triage", "explain", chest_model[1], incoming / "normal", "--out", tmp_path)
        assert status == 0, err
        names.add((tmp_path / "studies.csv").read_text())
    assert len(names) == 1
    assert "1 study scored: 1 not flagged; 0 explained" in said
    html = (tmp_path / "report.html").read_text()
    assert "nothing to explain" in html
    assert "does not mean normal" in html
