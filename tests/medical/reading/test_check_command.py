"""anomaly triage check: the table, its files, the exit status, and no patient data anywhere."""

import csv
import json

import numpy as np
import pytest

from tests.medical import phantoms
from tests.medical.studies import add_others


@pytest.fixture
def folder(tmp_path):
    phantoms.save(phantoms.ct_series((3, 12, 14)), tmp_path / "in" / "ct")
    phantoms.save(phantoms.ct_series((4, 12, 14), tilt=20, seed="tilted"), tmp_path / "in" / "tilted")
    phantoms.save(phantoms.projection(seed="x-ray"), tmp_path / "in" / "dx")
    return tmp_path / "in"


def test_all_can_be_analysed(folder, call):
    status, out, err = call("triage", "check", folder)
    assert (status, "Traceback" in err) == (0, False)
    assert "8 objects: 8 can be analysed, 0 cannot" in out
    assert "3 x 12 x 14, 2.5 x 0.8 x 0.6 mm" in out
    assert "GANTRY_TILT: the slices are stacked 20.0 degrees off" in out
    assert "Digital X-Ray" in out


def test_refusals_set_the_status_and_files_say_the_same(folder, call, tmp_path):
    (folder / "notes.txt").write_text("hello, this is no DICOM file")
    cut = next((folder / "dx").iterdir())
    cut.write_bytes(cut.read_bytes()[:-100])
    status, out, _ = call("triage", "check", folder, "--json", tmp_path / "a.json", "--csv", tmp_path / "a.csv")
    assert status == 1
    assert "9 objects: 7 can be analysed, 2 cannot" in out
    content = json.loads((tmp_path / "a.json").read_text())
    assert "NOT FOR DIAGNOSTIC USE" in content["disclaimer"]
    by_file = {row["file"]: row for row in content["objects"]}
    assert by_file["notes.txt"]["code"] == "NOT_DICOM"
    assert by_file["dx/0001.dcm"]["code"] == "TRUNCATED"
    assert by_file["dx/0001.dcm"]["object"] == "Digital X-Ray, for presentation"
    assert by_file["ct/0001.dcm"]["decoder"] == "none"
    assert [row["code"] for row in content["series"]] == ["VOLUME", "GANTRY_TILT"]
    with (tmp_path / "a.csv").open(newline="") as table:
        assert [row["code"] for row in csv.DictReader(table)] == [row["code"] for row in content["objects"]]
    written = out + (tmp_path / "a.json").read_text() + (tmp_path / "a.csv").read_text()
    for planted in (*phantoms.PLANTED.values(), "PLANTED", "4711", phantoms.ROOT, str(folder)):
        assert planted not in written


def test_blank_slice_of_a_volume_can_be_analysed_a_blank_image_not(call, tmp_path):
    datasets = phantoms.ct_series((3, 12, 14))
    datasets[2].PixelData = bytes(len(datasets[2].PixelData))
    alone = phantoms.projection(values=np.full((20, 20), 0.5), seed="blank")
    phantoms.save([*datasets, alone], tmp_path)
    status, out, _ = call("triage", "check", tmp_path)
    assert status == 1
    assert "4 objects: 3 can be analysed, 1 cannot (1 PIXELS)" in out


def test_objects_that_are_no_images_are_listed_and_no_fault(folder, call, tmp_path):
    add_others(folder, 1, "88.59", "66.4")
    status, out, _ = call("triage", "check", folder, "--json", tmp_path / "a.json")
    assert status == 0
    assert "10 objects: 8 can be analysed, 0 cannot, 2 are no images" in out
    rows = {row["code"]: row for row in json.loads((tmp_path / "a.json").read_text())["objects"]}
    assert rows["NO_IMAGE"]["detail"] == "Key Object Selection objects are no images"
    assert rows["RESULT"]["object"] == "Segmentation"


def test_missing_path(call, tmp_path):
    status, _, err = call("triage", "check", tmp_path / "nothing")
    assert status == 2
    assert "there is nothing at" in err


def test_help_says_the_exit_status(call):
    status, out, _ = call("triage", "check", "--help")
    assert status == 0
    assert "Exit status: 0 all images can be analysed; 1 some cannot" in " ".join(out.split())
