"""What a study holds beside images never was to be analysed; an image that was missed is never mistaken for that."""

import json
import re
from contextlib import closing

import pydicom
import pytest
from pydicom.filebase import DicomFileLike

from medical.pseudonyms import Pseudonyms
from medical.reading.classes import SOP_CLASSES
from medical.refusals import Reason, RefusedError
from medical.results import ResultSettings, write_results
from medical.serving import analyser
from medical.triage import Triage
from tests.medical.conftest import KEY
from tests.medical.phantoms import projection
from tests.medical.studies import CHEST, add_others, other, write_chests

MANY = ("88.11", "88.59", "11.1", "104.1", "481.3", "481.5", "9.1.1", "66", "66.1", "66.4", "30", "88.34")


@pytest.fixture
def judged(chest_model, decoder, studies_in):
    """Judges the studies in a folder; returns the outcome of its one study."""

    def judge(folder):
        (found,) = Triage(chest_model[0], decoder, Pseudonyms(KEY), keep_maps=True).outcomes(studies_in(folder))
        return found

    return judge


def changed(path, **values):
    made = pydicom.dcmread(path)
    for name, value in values.items():
        setattr(made, name, value)
    made.save_as(path)


def test_a_study_of_which_every_image_was_analysed_is_analysed(judged, tmp_path):
    add_others(write_chests(tmp_path, range(1)), 0, *MANY)
    found = judged(tmp_path)
    assert (found.status, found.refused, found.objects, found.images) == ("ANALYSED", (), 1 + len(MANY), 1)
    kinds = {one.kind: one.refusal.reason for one in found.others}
    assert len(kinds) == len(MANY)
    assert {kinds["Segmentation"], kinds["Parametric Map"]} == {Reason.RESULT}
    assert {kinds["Basic Text SR"], kinds["RT Structure Set"], kinds["12-lead ECG"]} == {Reason.NO_IMAGE}


@pytest.mark.parametrize("tail", ["999.1", "128", "12.1", "13.1.3", "481.1", "4.2"])
def test_an_image_that_is_not_read_and_an_unknown_class_make_it_partly_analysed(judged, tmp_path, tail):
    add_others(write_chests(tmp_path, range(1)), 0, "88.11", tail)
    found = judged(tmp_path)
    assert (found.status, [one.refusal.reason for one in found.refused]) == ("PARTLY_ANALYSED", [Reason.SOP_CLASS])
    assert len(found.others) == 1


def test_an_image_outside_of_the_contract_or_damaged_makes_it_partly_analysed(judged, tmp_path):
    write_chests(tmp_path, range(1))
    add_others(tmp_path, 0, "88.11")
    for name, values in (("hand", {"BodyPartExamined": "HAND"}), ("cut", {})):
        made = pydicom.dcmread(tmp_path / "0.dcm")
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        made.save_as(tmp_path / f"{name}.dcm")
        changed(tmp_path / f"{name}.dcm", **values)
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "cut.dcm").read_bytes()[:-200])
    found = judged(tmp_path)
    assert found.status == "PARTLY_ANALYSED"
    assert {one.refusal.reason for one in found.refused} == {Reason.BODY_PART, Reason.TRUNCATED}
    assert [one.kind for one in found.others] == ["Basic Text SR"]


def test_what_only_says_that_it_is_a_report_is_not_believed(judged, tmp_path):
    """Pixels in an object without pixels; a class that the file meta information does not confirm."""
    write_chests(tmp_path, range(1))
    image = pydicom.dcmread(tmp_path / "0.dcm")
    for number, in_meta in enumerate((True, False)):
        made = other("88.11", 0)
        made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{number}"
        if in_meta:
            made.Rows, made.Columns, made.PixelData = image.Rows, image.Columns, image.PixelData
        else:
            made.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
        made.save_as(tmp_path / f"sr{number}.dcm")
    found = judged(tmp_path)
    assert found.status == "PARTLY_ANALYSED"
    assert [one.refusal.reason for one in found.refused] == [Reason.HEADER] * 2


def test_a_report_that_cannot_be_read_belongs_to_no_study_and_is_said(decoder, tmp_path):
    from medical.reading import take_inventory

    add_others(write_chests(tmp_path, range(1)), 0, "88.11")
    (tmp_path / "0 88.11.dcm").write_bytes((tmp_path / "0 88.11.dcm").read_bytes()[:600])
    inventory = take_inventory([tmp_path], Pseudonyms(KEY), pixels=decoder)
    assert [one.study for one in inventory.refused] == [None]


def test_a_study_without_any_image_is_not_analysed_and_says_so(judged, tmp_path):
    add_others(tmp_path, 0, "88.11", "11.1")
    other("88.11", 0).save_as(tmp_path / "again.dcm")
    changed(tmp_path / "again.dcm", SOPInstanceUID="1.2.3.4")
    found = judged(tmp_path)
    assert (found.status, found.refusal.reason, found.images) == ("NOT_ANALYSED", Reason.NO_IMAGE, 0)
    assert (
        found.refusal.detail == "the study holds no image; it holds 2 x Basic Text SR, 1 x Grayscale Presentation State"
    )


def test_results_of_a_run_change_neither_the_study_nor_the_next_results(judged, chest_model, tmp_path):
    write_chests(tmp_path / "in", range(1), abnormal=True)
    settings, algorithm = ResultSettings(with_heatmaps=True), chest_model[0].algorithm()
    first = judged(tmp_path / "in")
    written = write_results(first, algorithm, tmp_path / "in", settings, Pseudonyms(KEY))
    add_others(tmp_path / "in", 0, "88.11")
    second = judged(tmp_path / "in")
    assert (second.status, second.refused) == ("ANALYSED", ())
    assert [one.refusal.reason for one in second.others].count(Reason.RESULT) == 2  # SEG and SC; not SR, KO and report
    assert len(second.others) == len(written) + 1
    again = write_results(second, algorithm, tmp_path / "again", settings, Pseudonyms(KEY))
    assert [one.uid for one in again] == [one.uid for one in written]
    for one, other_one in zip(written, again, strict=True):
        pixels = [getattr(pydicom.dcmread(path.path), "PixelData", b"") for path in (one, other_one)]
        assert pixels[0] == pixels[1]


def test_a_secondary_capture_is_ours_only_if_we_made_it(judged, chest_model, tmp_path):
    """An image that this suite de-identified, or of somebody who calls himself like us, stays an image."""
    write_chests(tmp_path / "in", range(1))
    written = write_results(
        judged(tmp_path / "in"), chest_model[0].algorithm(), tmp_path, ResultSettings(kinds=("sc",)), Pseudonyms(KEY)
    )
    made = pydicom.dcmread(written[0].path)
    made.ContributingEquipmentSequence[1].PurposeOfReferenceCodeSequence[0].CodeValue = "109104"  # de-identifying
    made.save_as(tmp_path / "in" / "sc.dcm")
    assert judged(tmp_path / "in").status == "PARTLY_ANALYSED"


def test_the_service_says_the_same(chest_model, tmp_path):
    add_others(write_chests(tmp_path / "in", range(1)), 0, "88.11", "66.4")
    with closing(analyser(str(chest_model[1]))) as served:
        whole = served.analyse(sorted((tmp_path / "in").iterdir()), tmp_path / "whole")
        image = served.analyse([tmp_path / "in" / "0.dcm"], tmp_path / "image")
        add_others(tmp_path / "in", 0, "128")
        partly = served.analyse(sorted((tmp_path / "in").iterdir()), tmp_path / "partly")
    assert (whole.outcome_status, image.outcome_status, partly.outcome_status) == (
        "ANALYSED", "ANALYSED", "PARTLY_ANALYSED",
    )  # fmt: skip
    uids = [[pydicom.dcmread(path).SOPInstanceUID for path in one.files_to_send] for one in (whole, image)]
    assert uids[0] == uids[1]


def test_the_service_loses_no_object_that_cannot_be_read(chest_model, tmp_path):
    """It gives the objects of one study: what does not say of which study it is, is of that one."""
    folder = write_chests(tmp_path / "in", range(1))
    (folder / "cut.dcm").write_bytes((folder / "0.dcm").read_bytes()[:600])
    with closing(analyser(str(chest_model[1]))) as served:
        partly = served.analyse(sorted(folder.iterdir()), tmp_path / "partly")
        with pytest.raises(RefusedError, match="TRUNCATED"):
            served.analyse([folder / "cut.dcm"], tmp_path / "none")
    assert (partly.outcome_status, partly.summary) == ("PARTLY_ANALYSED", "not flagged, 1 analysed")
    assert partly.files_to_send


def test_a_video_stays_with_its_study(judged, tmp_path):
    write_chests(tmp_path, range(1))
    made = projection(CHEST, seed="chest 0")
    made.PatientID = "PLANTED-0"
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.4.102"
    made.PixelData = pydicom.encaps.encapsulate([b"\0\0\0\x18ftypmp42" * 20])
    made["PixelData"].is_undefined_length = True
    made.save_as(tmp_path / "clip.dcm", enforce_file_format=True)
    found = judged(tmp_path)
    assert (found.status, [one.refusal.reason for one in found.refused]) == (
        "PARTLY_ANALYSED", [Reason.TRANSFER_SYNTAX],
    )  # fmt: skip


def test_a_class_that_one_place_alone_states_makes_no_report(decoder, tmp_path):
    """The file meta information of a data set that cannot be read; a data set without file meta information."""
    from medical.reading import take_inventory

    write_chests(tmp_path, range(1))
    made = pydicom.dcmread(tmp_path / "0.dcm")
    made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    made.save_as(tmp_path / "cut.dcm")
    (tmp_path / "cut.dcm").write_bytes((tmp_path / "cut.dcm").read_bytes()[:603])
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID
    with (tmp_path / "bare.dcm").open("wb") as file:
        target = DicomFileLike(file)
        target.is_implicit_VR, target.is_little_endian = False, True
        pydicom.filewriter.write_dataset(target, made)
    inventory = take_inventory([tmp_path], Pseudonyms(KEY), pixels=decoder)
    assert {one.refusal.reason for one in inventory.refused} == {Reason.TRUNCATED, Reason.TRANSFER_SYNTAX}


def test_the_run_says_how_many_of_which_kind(chest_model, call, tmp_path, logged):
    add_others(write_chests(tmp_path / "in", range(2)), 0, "88.11", "66.4")
    status, said, err = call("triage", "run", chest_model[1], tmp_path / "in", "--out", tmp_path / "out")
    assert status == 0, err
    assert "2 studies: 0 flagged, 0 not analysed" in said
    assert "2 object(s) are no images" in err
    assert "Basic Text SR" in err
    document = json.loads((tmp_path / "out" / "worklist.json").read_text())
    kinds = {row["objects"]: row["no_images"] for row in document["studies"]}
    assert kinds == {1: {}, 3: {"Basic Text SR": 1, "Segmentation": 1}}
    assert document["counts"]["partly_analysed"] == 0
    assert [row["not_analysed"] for row in document["studies"]] == [0, 0]


def test_every_class_is_of_one_kind():
    kinds = {uid: known.kind for uid, known in SOP_CLASSES.items()}
    assert {kinds[uid] for uid, known in SOP_CLASSES.items() if known.use is not None} == {"image"}
    names = [known.name for known in SOP_CLASSES.values()]
    assert len(set(names)) == len(names)
    others = {pydicom.uid.UID(uid).name for uid, kind in kinds.items() if kind != "image"}
    assert not [name for name in others if re.search(r"\b(Image|Video|Photography)\b", name)]
    images = {pydicom.uid.UID(uid).name for uid, kind in kinds.items() if kind == "image"}
    assert not [
        name for name in images if re.search(r"\b(SR|State|Waveform|Encapsulated|Plan|Protocol|Record)\b", name)
    ]
