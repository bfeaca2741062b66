"""The command from model file to HTML, PDF, JSON and figures; the page in a real browser, the PDF through poppler."""

import json
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from anomaly.artifact import load, save
from anomaly.cli import app
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.fitting import Plan, fit_files
from anomaly.images import infer_input, list_images
from anomaly.images.synthetic import write_dataset
from explain.cli import explain_command
from explain.writer import About, ReportWriter, Unused, refuse_foreign

pytestmark = pytest.mark.slow

app.command("explain")(explain_command)


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A small data set of brushed plates, and a model of its normal ones."""
    folder = tmp_path_factory.mktemp("explain")
    write_dataset(folder / "set", "brushed_metal", 40, 2, 4, (64, 96), seed=0)
    paths = list_images([folder / "set/train/good"])
    artifact = fit_files(SubspaceDetector(input=infer_input(paths)), paths, Plan(fraction=0.5), [])
    save(folder / "plates.safetensors", artifact)
    return folder


@pytest.fixture(scope="session")
def report(data):
    """The report on the test images of the set; a broken file lies among them."""
    (data / "set/test/broken.png").write_bytes(b"no image")
    arguments = ["explain", data / "plates.safetensors", data / "set/test", "--normals", data / "set/train/good"]
    arguments += ["--masks", data / "set/ground_truth", "--methods", "gradcam,residual"]
    done = CliRunner().invoke(app, [str(a) for a in [*arguments, "--out", data / "why", "--most", "2"]])
    assert done.exit_code == 1, done.output  # one file could not be used
    assert "broken.png" in done.output
    return data / "why"


def test_json_holds_all_figures(report):
    found = json.loads((report / "report.json").read_text())
    assert found["headline"].endswith("explained, 1 file or object could not be used")
    assert len(found["images"]) == 6
    assert [image["score"] for image in found["images"]] == sorted((i["score"] for i in found["images"]), reverse=True)
    assert re.fullmatch(r"[0-9a-f]{64}", found["model"]["model sha256"])
    for part in found["parts"]:
        assert part["decision"] != "OK"
        methods = [one["method"] for one in part["explanations"]]
        assert methods == ["gradcam", "anomaly_map", "edges", "random"]  # the controls are always there
        assert "reconstructs images" in part["refused"]["residual"]
        assert part["twin"]["kind"] == "nearest normal patches"
        assert part["nearest"]["name"].endswith(".png")
        assert all(one["localised"].keys() == {"pointing", "iou", "energy"} for one in part["explanations"])
        assert (report / part["figure"]).is_file()
    assert found["parts"][0]["explanations"][0]["stability"] is not None
    assert set(found["localisation"]["gradcam"]) == {"pointing", "iou", "energy"}


def test_page_is_self_contained(report):
    html = (report / "report.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert not re.search(r'(?:src|href)="(?!data:|#)', html)
    assert "of the anomaly; removing as much at random" in html
    assert "Could not be used" in html
    assert "model sha256" in html


def test_figures_are_pictures(report):
    found = json.loads((report / "report.json").read_text())
    for part in found["parts"]:
        png = (report / part["figure"]).with_suffix(".png")
        pixels = cv2.imread(str(png))
        assert min(pixels.shape[:2]) > 200
        assert pixels.std() > 10
        assert (report / part["figure"]).read_text().startswith("<?xml")


@pytest.mark.peer
def test_page_opens_in_a_browser_without_a_network(report, tmp_path, browse):
    shot = tmp_path / "shot.png"
    browse((report / "report.html").as_uri(), f"--screenshot={shot}", "--window-size=1200,3000")
    pixels = cv2.imread(str(shot))
    assert pixels.shape == (3000, 1200, 3)
    assert pixels.std() > 10
    saturation = np.ptp(pixels.astype(int), axis=2)
    assert (saturation > 80).mean() > 0.005  # the maps are there, in colour


@pytest.mark.peer
def test_pdf_has_a_page_for_each_part(report, tmp_path):
    if shutil.which("pdftoppm") is None:
        pytest.skip("no pdftoppm (poppler-utils) on the PATH")
    subprocess.run(["pdftoppm", "-r", "40", "-png", report / "report.pdf", tmp_path / "page"], check=True, timeout=120)
    pages = [cv2.imread(str(path)) for path in sorted(tmp_path.glob("page*.png"))]
    parts = json.loads((report / "report.json").read_text())["parts"]
    assert len(pages) >= len(parts) + 2  # a summary, the parts, the provenance
    assert all(page.shape[0] > page.shape[1] and page.std() > 5 for page in pages)
    words = subprocess.run(["pdftotext", report / "report.pdf", "-"], capture_output=True, text=True, check=True).stdout
    words = words.replace("\u00a0", " ")
    assert "Removing the strongest 4 %" in words
    assert "image 1 of" in words


def test_a_second_run_replaces_the_first_and_nothing_else(report, data):
    (report / "notes.txt").write_text("mine")
    arguments = ["explain", data / "plates.safetensors", data / "set/test/good", "--out", report]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    (report / "notes.txt").unlink()
    assert "notes.txt" in str(done.exception)
    assert (report / "report.html").is_file()


def test_a_foreign_folder_is_refused_before_any_work(data, tmp_path, monkeypatch):
    (tmp_path / "notes.txt").write_text("mine")
    monkeypatch.setattr("explain.run.FileExplainer.judged", lambda *_: pytest.fail("it went to work"))
    arguments = ["explain", data / "plates.safetensors", data / "set/test/good", "--out", tmp_path]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert "notes.txt" in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_after_a_kill_the_next_run_takes_the_folder(data, tmp_path):
    artifact = load(data / "plates.safetensors")
    about = About("plates", {}, artifact.calibration, ())
    ReportWriter(tmp_path, about, [], []).__enter__()  # and no end: as if killed after its first figure
    (tmp_path / "figures" / "part.png").write_bytes(b"")
    assert json.loads((tmp_path / "report.json").read_text())["interrupted"]
    assert refuse_foreign(tmp_path) >= {tmp_path / "figures" / "part.png"}
    with ReportWriter(tmp_path, about, [], []):
        pass
    assert not (tmp_path / "figures" / "part.png").exists()
    assert json.loads((tmp_path / "report.json").read_text())["interrupted"] == ""


def test_nothing_flagged_is_said_plainly(data, tmp_path):
    paths = list_images([data / "set/train/good"])[:2]
    done = CliRunner().invoke(
        app, ["explain", str(data / "plates.safetensors"), *map(str, paths), "--out", str(tmp_path)]
    )
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["parts"] == []
    assert "nothing to explain" in found["summary"][0]


def test_when_nothing_could_be_judged_no_word_of_nothing_flagged(data, tmp_path):
    about = About("plates", {}, load(data / "plates.safetensors").calibration, ())
    with ReportWriter(tmp_path, about, [], []) as writer:
        writer.failures = [Unused("some", "damaged", 40), Unused("others", "not readable", 7)]
    found = json.loads((tmp_path / "report.json").read_text())
    assert found["summary"] == ["No image could be judged: nothing is known of them."]
    assert found["headline"] == "0 images scored: none; 0 explained, 47 files or objects could not be used"
    assert "No image was flagged" not in (tmp_path / "report.html").read_text()


def test_unknown_method_is_refused_before_any_work(data, tmp_path):
    arguments = ["explain", data / "plates.safetensors", data / "set/test", "--out", tmp_path / "x", "--methods", "cam"]
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert "unknown method 'cam'" in str(done.exception)
    assert not (tmp_path / "x").exists()
