"""What reports and key object selections say, read back through highdicom."""

from dataclasses import replace

import highdicom as hd
import pydicom
import pytest

from anomaly.calibration import Decision
from medical.refusals import Reason
from medical.results import Kind, ResultError, ResultSettings, write_results
from medical.results.codes import PRIVATE, REASONS
from tests.medical.phantoms import ct_series, enhanced_ct, projection
from tests.medical.results import cases

MARKS = ResultSettings(with_heatmaps=True)


def written(found, folder, settings=MARKS, algorithm=cases.ALGORITHM):
    made = write_results(found, algorithm, folder, settings, cases.PSEUDONYMS)
    return {one.kind: one for one in made}


def measured(group):
    return {item.name.value: item.value for item in group.get_measurements()}


def evaluated(group):
    return {item.name.value: item.value.value for item in group.get_qualitative_evaluations()}


def comments(group):
    return [i.TextValue for i in group[0].ContentSequence if i.ValueType == "TEXT" and i.name.value == "121106"]


def groups(one):
    return {group.tracking_identifier: group for group in hd.sr.srread(one.path).content.get_image_measurement_groups()}


def test_the_report_of_a_volume(tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    made = written(cases.outcome(analysed), tmp_path / "out")
    read = hd.sr.srread(made[Kind.SR].path)
    assert isinstance(read, hd.sr.Comprehensive3DSR)
    assert (read.CompletionFlag, read.VerificationFlag, read.PreliminaryFlag) == (
        "COMPLETE",
        "UNVERIFIED",
        "PRELIMINARY",
    )
    found = groups(made[Kind.SR])
    assert set(found) == {"study", "volume 1"}
    assert measured(found["study"]) == {"SCORE": 1.25, "P_VALUE": 0.004, "THRESHOLD": 0.91}
    expected = {"STATUS": "ANALYSED", "DECISION": "FLAGGED"}
    assert {name: value for name, value in evaluated(found["study"]).items() if name in expected} == expected
    assert measured(found["volume 1"]) == {"SCORE": 1.25, "P_VALUE": 0.004}
    assert "NOT FOR DIAGNOSTIC USE" in " ".join(comments(found["study"]))
    uids = [image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in found["volume 1"].source_images]
    assert uids == [instance.uid for instance in analysed.instances]
    (region,) = read.content.get_volumetric_roi_measurement_groups()
    volume = float((analysed.map > analysed.contour).sum()) * 2.5 * 0.8 * 0.6
    assert measured(region)["118565006"] == pytest.approx(volume)
    assert measured(region)["MAP_MAXIMUM"] == float(analysed.map.max())
    (segment,) = hd.seg.segread(made[Kind.SEG].path).SegmentSequence
    referenced = region.referenced_segment[0].ReferencedSOPSequence[0]
    assert referenced.ReferencedSOPInstanceUID == made[Kind.SEG].uid
    assert region.tracking_uid == segment.TrackingUID


def test_the_report_names_all_other_results(tmp_path):
    made = written(cases.outcome(cases.volume(ct_series(), tmp_path / "in")), tmp_path / "out")
    assert set(made) == set(Kind)
    read = pydicom.dcmread(made[Kind.SR].path)
    (evidence,) = read.CurrentRequestedProcedureEvidenceSequence
    named = {
        str(one.ReferencedSOPInstanceUID): str(one.ReferencedSOPClassUID)
        for series in evidence.ReferencedSeriesSequence
        for one in series.ReferencedSOPSequence
    }
    for kind in set(Kind) - {Kind.SR}:
        assert named.pop(made[kind].uid) == made[kind].sop_class
    assert len(named) == 8  # the slices


def test_the_algorithm_and_its_equipment_are_in_every_object(tmp_path):
    made = written(cases.outcome(cases.volume(ct_series(), tmp_path / "in")), tmp_path / "out")
    series = set()
    for one in made.values():
        read = pydicom.dcmread(one.path)
        assert "NOT FOR DIAGNOSTIC USE" in read.SeriesDescription
        (own,) = [e for e in read.ContributingEquipmentSequence if e.Manufacturer == "anomaly-suite"]
        assert own.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
        assert own.DeviceSerialNumber == cases.ALGORITHM.model
        assert own.ManufacturerModelName == cases.ALGORITHM.name
        assert read.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == PRIVATE
        series.add(read.SeriesInstanceUID)
    assert len(series) == 5
    texts = [i.TextValue for i in groups(made[Kind.SR])["study"][0].ContentSequence if i.ValueType == "TEXT"]
    for word in (cases.ALGORITHM.name, "0.1.0", "REVIEW above: 0.91", f"model: {cases.ALGORITHM.model}"):
        assert word in texts


def test_images_and_their_regions(tmp_path):
    made = projection(pixel_spacing=(0.2, 0.15))
    analysed = cases.image(made, tmp_path / "in")
    found = written(cases.outcome(analysed), tmp_path / "out")
    (region,) = hd.sr.srread(found[Kind.SR].path).content.get_planar_roi_measurement_groups()
    area = float((analysed.map > analysed.contour).sum()) * 0.2 * 0.15
    assert measured(region)["42798000"] == pytest.approx(area)
    at_detector = cases.image(projection(), tmp_path / "imager")  # its spacing is not that in the patient
    found = written(cases.outcome(at_detector), tmp_path / "out2")
    (region,) = hd.sr.srread(found[Kind.SR].path).content.get_planar_roi_measurement_groups()
    assert set(measured(region)) == {"MAP_MAXIMUM"}


def test_a_partly_analysed_study(tmp_path):
    slices = ct_series()
    seen = cases.image(slices[0], tmp_path / "a")
    out = cases.refused(slices[1:4], tmp_path / "b")
    other = cases.refused(slices[4], tmp_path / "c", Reason.OUT_OF_DISTRIBUTION, "a photograph")
    gone = (replace(out[0], path=tmp_path / "gone.dcm"), *out[1:])
    made = written(cases.outcome(seen, refused=gone + other), tmp_path / "out")
    assert pydicom.dcmread(made[Kind.SR].path).CompletionFlag == "PARTIAL"
    found = groups(made[Kind.SR])
    assert evaluated(found["study"])["STATUS"] == "PARTLY_ANALYSED"
    tilted = found["not analysed: GANTRY_TILT"]
    assert evaluated(tilted) == {"STATUS": "NOT_ANALYSED", "REASON": "GANTRY_TILT"}
    assert comments(tilted) == ["3 objects: tilted by 12.0 degrees; none is allowed"]
    assert len(tilted.source_images) == 2, "those that can still be read"
    assert evaluated(found["not analysed: OUT_OF_DISTRIBUTION"])["REASON"] == "OUT_OF_DISTRIBUTION"


def test_a_study_that_was_not_analysed_says_why(tmp_path):
    files = cases.refused(ct_series(tilt=12), tmp_path / "in")
    made = written(cases.not_analysed(files), tmp_path / "out")
    assert list(made) == [Kind.SC, Kind.SR]
    read = pydicom.dcmread(made[Kind.SR].path)
    assert read.CompletionFlag == "PARTIAL"
    study = groups(made[Kind.SR])["study"]
    assert measured(study) == {}, "no score, and no threshold that could be taken for one"
    said = evaluated(study)
    assert (said["STATUS"], said["REASON"], "DECISION" in said) == ("NOT_ANALYSED", "GANTRY_TILT", False)
    assert "tilted by 12.0 degrees; none is allowed" in comments(study)
    assert read.PatientName == "PLANTED^PHANTOM"


@pytest.mark.parametrize(("decision", "code"), [(Decision.OK, "NOT_FLAGGED"), (Decision.NG, "FLAGGED_STRONGLY")])
def test_decisions(decision, code, tmp_path):
    analysed = cases.image(projection(), tmp_path / "in")
    made = written(cases.outcome(analysed, decision=decision), tmp_path / "out", ResultSettings())
    study = groups(made[Kind.SR])["study"]
    assert evaluated(study)["DECISION"] == code
    (said,) = [e.value.meaning for e in study.get_qualitative_evaluations() if e.name.value == "DECISION"]
    assert ("not mean" in said) == (decision is Decision.OK)
    assert (Kind.KO in made) == (decision is not Decision.OK)


def key_images(one):
    read = hd.ko.KeyObjectSelectionDocument.from_dataset(pydicom.dcmread(one.path))
    assert read.ConceptNameCodeSequence[0].CodeValue == "113000"
    references = [i.ReferencedSOPSequence[0] for i in read.ContentSequence if i.ValueType == "IMAGE"]
    return [(r.ReferencedSOPInstanceUID, r.get("ReferencedFrameNumber")) for r in references]


def test_key_objects_are_the_images_above_the_threshold(tmp_path):
    slices = ct_series()
    scores = [0.2, 1.5, 0.95, 0.91]
    analysed = [
        cases.image(one, tmp_path / str(i), score=s) for i, (one, s) in enumerate(zip(slices, scores, strict=False))
    ]
    made = written(cases.outcome(*analysed), tmp_path / "out", ResultSettings())
    assert [uid for uid, _ in key_images(made[Kind.KO])] == [analysed[1].instances[0].uid, analysed[2].instances[0].uid]
    silent = replace(cases.ALGORITHM, settings={})
    made = written(cases.outcome(*analysed), tmp_path / "out2", ResultSettings(), silent)
    assert [uid for uid, _ in key_images(made[Kind.KO])] == [analysed[1].instances[0].uid], "the highest"
    assert set(measured(groups(made[Kind.SR])["study"])) == {"SCORE", "P_VALUE"}


def test_frames_of_a_multi_frame_object_are_named(tmp_path):
    made = enhanced_ct()
    analysed = [cases.image(made, tmp_path / "in", frame=n) for n in (2, 5)]
    found = written(cases.outcome(*analysed), tmp_path / "out")
    ((uid, frames),) = key_images(found[Kind.KO])
    assert (uid, list(frames)) == (made.SOPInstanceUID, [2, 5])
    image = groups(found[Kind.SR])["image 2"].source_images[0].ReferencedSOPSequence[0]
    assert image.ReferencedFrameNumber == 5


def test_a_threshold_that_is_no_number(tmp_path):
    found = cases.outcome(cases.image(projection(), tmp_path / "in"))
    wrong = replace(cases.ALGORITHM, settings={"REVIEW above": "high"})
    with pytest.raises(ResultError, match="must be a number; got 'high'"):
        written(found, tmp_path / "out", ResultSettings(), wrong)
    assert not list((tmp_path / "out").glob("*"))


def test_every_reason_has_words_that_fit_a_code():
    assert set(REASONS) == set(Reason)
    assert all(0 < len(words) <= 64 for words in REASONS.values())
