"""The table of detectors: protocols of the sets, figures by hand, rows that are measured once."""

import csv
import subprocess

import cv2
import numpy as np
import pytest

from anomaly.catalog import DETECTORS
from anomaly.errors import UnknownNameError
from anomaly.images import read_mask
from benchmarks import detectors
from benchmarks.detector_sets import SETS, box_hits, open_protocol, within_strata
from benchmarks.running import rows as running_rows
from benchmarks.running import work
from benchmarks.running.parts import Part
from benchmarks.tables import ResultFile

SHORTCUTS = ("mean grey", "mean gradient", "file size", "image width")
COMMON = {"limit": 6, "seed": 0, "epochs": 1, "held_out": 0.0}


def test_pairs_of_different_strata_do_not_count():
    scores, labels = [0.1, 0.9, 0.4, 0.3, 0.2, 5.0], [0, 1, 0, 1, 1, 1]
    strata = ["a", "a", "b", "b", "b", "c"]  # a: 1 of 1 pair in order; b: 0 of 2; c: no normal
    assert within_strata(scores, labels, strata) == pytest.approx(1 / 3)
    assert within_strata([1.0, 2.0], [0, 1], ["a", "b"]) is None


def test_a_peak_in_its_own_box_and_in_the_others():
    maps, masks = np.zeros((3, 4, 4)), np.zeros((3, 4, 4), dtype=bool)
    maps[0, 1, 1] = maps[1, 1, 1] = maps[2, 3, 3] = 1
    masks[0, :2, :2] = masks[1, 2:, 2:] = masks[2, 2:, 2:] = True
    # own: image 0 and 2; crossed: peak 0 in boxes 1, 2: no, no; peak 1 in 0, 2: yes, no; peak 2 in 0, 1: no, yes
    assert box_hits(list(maps), list(masks)) == (pytest.approx(2 / 3), pytest.approx(2 / 6))


@pytest.fixture
def nih(tmp_path, monkeypatch):
    """A set in the layout of cxr_nih_256 with every case that its protocol tells apart."""
    root = tmp_path / "shared" / "data" / "medical" / "cxr_nih_256"
    rows = [
        ("learned.png", "No_findings", "1", "PA", ""),
        ("read_normal.png", "No_findings", "2", "AP", "Normal"),
        ("read_ill.png", "No_findings", "3", "AP", "Lung Opacity"),
        ("read_not_normal.png", "No_findings", "4", "PA", "No Lung Opacity / Not Normal"),
        ("patient_of_test.png", "No_findings", "10", "PA", ""),
        ("normal.png", "Pneumonia", "10", "PA", "Normal"),
        ("opacity.png", "Pneumonia", "11", "AP", "Lung Opacity"),
        ("unread.png", "Pneumonia", "12", "AP", ""),
        ("other.png", "Pneumonia", "13", "AP", "No Lung Opacity / Not Normal"),
    ]
    for name, folder, *_ in rows:
        (root / folder).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(root / folder / name), np.full((256, 256), 90, np.uint8))
    with (root / "manifest.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["img", "folder", "Patient ID", "View Position", "rsna_class"])
        writer.writerows(rows)
    with (root / "boxes.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["img", "label", "x", "y", "w", "h", "source"])
        writer.writerow(["opacity.png", "Pneumonia", 10.2, 20, 30, 40, "RSNA2018 stage_2 (matched)"])
        writer.writerow(["opacity.png", "Pneumonia", 200, 200, 10, 10, "NIH BBox_List_2017"])
    monkeypatch.setenv("ANOMALY_SHARED", str(tmp_path / "shared"))


def test_the_protocol_of_the_chest_x_rays(nih, tmp_path):
    protocol = open_protocol("cxr_nih_256", None, 0, tmp_path / "masks")
    assert sorted(path.name for path in protocol.images.train) == ["learned.png", "read_normal.png"]
    assert [(s.path.name, s.label) for s in protocol.images.test] == [("normal.png", 0), ("opacity.png", 1)]
    assert [protocol.strata[s.path] for s in protocol.images.test] == ["PA", "AP"]
    normal, opacity = protocol.images.test
    assert normal.mask is None
    mask = read_mask(opacity.mask, 256, 256)
    assert mask.sum() == 30 * 40  # the box of another source is not drawn
    assert mask[20:60, 10:40].all()
    assert protocol.images.input.channels == 3


@pytest.mark.shared
@pytest.mark.parametrize("name", SETS)
def test_every_set_of_the_table_can_be_opened(name, shared, tmp_path):
    images = open_protocol(name, None, 0, tmp_path).images
    assert {sample.label for sample in images.test} == {0, 1}
    assert not {path.name for path in images.train} & {sample.path.name for sample in images.test}
    if name == "cxr_nih_256":
        assert (len(images.train), len(images.test)) == (225, 86)
        assert sum(sample.mask is not None for sample in images.test) == 63


def test_every_detector_has_rows_and_peers_have_the_shared_backbone_only():
    found = detectors.jobs([Part("set")], [*DETECTORS, *detectors.PEERS], ("resnet18", "bundled"), **COMMON)
    assert {job.detector for job in found} == {*DETECTORS, *detectors.PEERS}
    assert [job.backbone for job in found if job.detector == "subspace"] == ["resnet18", "bundled"]
    assert {job.backbone for job in found if job.detector in detectors.PEERS} == {"resnet18"}
    with pytest.raises(UnknownNameError):
        detectors.jobs([Part("set")], ["no_detector"], ("bundled",), **COMMON)


def test_a_row_is_measured_in_processes_of_its_own_and_once(folder, tmp_path, monkeypatch):
    wanted = detectors.jobs([Part(str(folder))], ["subspace"], ["bundled"], **COMMON)
    file = ResultFile(tmp_path / "detectors.csv", detectors.KEY, detectors.VALUES)
    rows, failed = detectors.measure(file, wanted, threads=1, runs=2)
    assert failed == []
    assert [row["detector"] for row in rows] == ["subspace", *(work.SHORTCUT + n for n in SHORTCUTS)]
    fitted = rows[0]
    assert 0 <= float(fitted["image_auroc"]) <= 1
    assert 0 <= float(fitted["aupro_0.3"]) <= 1
    assert all(float(fitted[name]) > 0 for name in detectors.COSTS)
    assert fitted["image_auroc_strata"] == fitted["box_hits"] == ""

    monkeypatch.setattr(running_rows, "measured", lambda *_, **__: pytest.fail("measured again"))
    again = ResultFile(tmp_path / "detectors.csv", detectors.KEY, detectors.VALUES)
    assert detectors.measure(again, wanted, threads=1, runs=2) == (rows, [])
    lines = detectors.table(rows).splitlines()
    assert "within views" not in lines[0]
    assert "| shortcut: mean grey" in lines[3]
    assert "6 training images (order of seed 0), 3 normal and 3 anomalous" in detectors.split_lines(wanted)[0]


def test_a_row_that_fails_is_told_and_leaves_the_others(folder, tmp_path, monkeypatch):
    def pretend(task, arguments, threads):
        if arguments["detector"] == "memory_bank":
            raise subprocess.CalledProcessError(1, task)
        return dict.fromkeys(detectors.COSTS if task.endswith("fit") else detectors.QUALITY, 0.5)

    monkeypatch.setattr(work, "run_isolated", pretend)
    wanted = detectors.jobs([Part(str(folder))], ["memory_bank", "subspace"], ["bundled"], **COMMON)
    rows, failed = detectors.measure(ResultFile(None, detectors.KEY, detectors.VALUES), wanted, 1, 2)
    assert rows[0]["detector"] == "subspace"
    assert failed == ["metal: memory_bank (bundled) failed, see above"]


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.filterwarnings("ignore")
def test_a_peer_has_a_row(folder, shared):
    pytest.importorskip("anomalib")
    wanted = detectors.jobs([Part(str(folder))], ["anomalib:Padim"], ["resnet18"], **COMMON)
    rows, failed = detectors.measure(ResultFile(None, detectors.KEY, detectors.VALUES), wanted, 1, 2)
    assert failed == []
    assert float(rows[0]["file_mib"]) > 1
