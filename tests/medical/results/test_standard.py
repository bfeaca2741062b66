"""Every kind of object, of every kind of source, is without errors for dciodvfy, and highdicom reads it back."""

import highdicom as hd
import numpy as np
import pydicom
import pytest

from medical.results import Kind, ResultError, ResultSettings, checker_installed, standard_errors, write_results
from medical.results.parametric_map import quantised
from tests.medical.phantoms import ct_series, enhanced_ct, projection
from tests.medical.results import cases

MARKS = ResultSettings(with_heatmaps=True)
MR = "1.2.840.10008.5.1.4.1.1.4"


def mr_series():
    made = ct_series(seed="mr")
    for one in made:
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = MR
        one.Modality = "MR"
        for name in ("RescaleIntercept", "RescaleSlope", "RescaleType", "KVP", "GantryDetectorTilt"):
            delattr(one, name)
        del one.WindowCenter, one.WindowWidth
    return made


def without(made, *names):
    for name in names:
        delattr(made, name)
    return made


SOURCES = {
    "CT axial": lambda to: cases.outcome(cases.volume(ct_series(), to)),
    "CT oblique": lambda to: cases.outcome(cases.volume(ct_series(orientation="oblique"), to, "oblique")),
    "CT slices": lambda to: cases.outcome(
        *[cases.image(one, to / str(i), score=1 + i / 10) for i, one in enumerate(ct_series())]
    ),
    "enhanced CT": lambda to: cases.outcome(cases.volume([enhanced_ct(shuffled=True)], to)),
    "enhanced CT, one frame": lambda to: cases.outcome(cases.image(enhanced_ct(), to, frame=3)),
    "CT without slice thickness": lambda to: cases.outcome(
        cases.volume([without(one, "SliceThickness") for one in ct_series()], to)
    ),
    "MR": lambda to: cases.outcome(cases.volume(mr_series(), to)),
    "DX": lambda to: cases.outcome(cases.image(projection(), to)),
    "DX of a hand": lambda to: cases.outcome(cases.image(projection(body_part="HAND", laterality="R"), to)),
    "CR": lambda to: cases.outcome(cases.image(projection(modality="CR"), to)),
    "CR, MONOCHROME1": lambda to: cases.outcome(cases.image(projection(modality="CR", photometric="MONOCHROME1"), to)),
    "CR with PixelSpacing": lambda to: cases.outcome(
        cases.image(projection(modality="CR", pixel_spacing=(0.3, 0.2), imager_pixel_spacing=None), to)
    ),
    "CR without what is optional": lambda to: cases.outcome(
        cases.image(
            without(
                projection(modality="CR", imager_pixel_spacing=None),
                *("PatientOrientation", "BodyPartExamined", "ViewPosition", "WindowCenter", "WindowWidth"),
                *("PatientAge", "SeriesDate", "SeriesTime", "AccessionNumber", "StudyID", "ReferringPhysicianName"),
            ),
            to,
        )
    ),
    "not analysed": lambda to: cases.not_analysed(cases.refused(ct_series(tilt=12), to)),
}
KINDS = {"CT axial": "seg pm sc ko sr", "DX": "seg sc ko sr", "not analysed": "sc sr", "MR": "seg pm sc ko sr"}


@pytest.mark.peer
@pytest.mark.parametrize("source", SOURCES)
def test_dciodvfy_finds_no_error(source, tmp_path):
    if not checker_installed():
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    found = SOURCES[source](tmp_path / "in")
    written = write_results(found, cases.ALGORITHM, tmp_path / "out", MARKS, cases.PSEUDONYMS)
    if source in KINDS:
        assert " ".join(one.kind for one in written) == KINDS[source]
    assert {one.kind: standard_errors(one.path) for one in written} == {one.kind: () for one in written}


@pytest.mark.peer
def test_the_check_can_fail_and_compact_maps_pass(tmp_path):
    if not checker_installed():
        pytest.skip("dciodvfy is not installed (Debian: dicom3tools)")
    found = cases.outcome(cases.volume(ct_series(), tmp_path / "in"))
    settings = ResultSettings(with_heatmaps=True, kinds=(Kind.PM,), compact_maps=True)
    (one,) = write_results(found, cases.ALGORITHM, tmp_path / "out", settings, cases.PSEUDONYMS)
    assert standard_errors(one.path) == ()
    broken = pydicom.dcmread(one.path)
    del broken.SharedFunctionalGroupsSequence
    broken.save_as(tmp_path / "broken.dcm")
    assert standard_errors(tmp_path / "broken.dcm")
    (tmp_path / "empty.dcm").write_bytes(b"")
    assert standard_errors(tmp_path / "empty.dcm")
    with pytest.raises(ResultError, match="judged nothing"):
        standard_errors(tmp_path / "missing.dcm")


def read(written, kind):
    (one,) = [one for one in written if one.kind == kind]
    return one.path


def test_maps_are_read_back_equal(tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    found = cases.outcome(analysed)
    written = write_results(found, cases.ALGORITHM, tmp_path / "out", MARKS, cases.PSEUDONYMS)
    made = hd.imread(read(written, Kind.PM))
    values = made.get_frames(dtype=np.float32, apply_real_world_transform=False)
    np.testing.assert_array_equal(values, analysed.map)
    made = hd.seg.segread(read(written, Kind.SEG))
    uids = [instance.uid for instance in analysed.instances]
    marked = made.get_pixels_by_source_instance(uids, combine_segments=True, ignore_spatial_locations=False)
    np.testing.assert_array_equal(marked.astype(bool), analysed.map > analysed.contour)
    assert int(made.NumberOfFrames) < len(uids), "empty frames are left out"


def test_compact_maps_lead_back_to_the_values(tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    settings = ResultSettings(with_heatmaps=True, kinds=(Kind.PM,), compact_maps=True)
    written = write_results(cases.outcome(analysed), cases.ALGORITHM, tmp_path / "out", settings, cases.PSEUDONYMS)
    made = hd.imread(read(written, Kind.PM))
    step = float(analysed.map.max() - analysed.map.min()) / 255
    values = made.get_frames(apply_real_world_transform=True)
    assert np.abs(values - analysed.map).max() <= 0.5 * step + 1e-5
    flat = np.full((2, 3, 3), 7.5, np.float32)
    levels, low, step = quantised(flat)
    np.testing.assert_array_equal(low + step * levels, flat)


def test_fractions_of_projections_cut_at_half_are_the_contour(tmp_path):
    analysed = cases.image(projection(modality="CR"), tmp_path / "in")
    written = write_results(cases.outcome(analysed), cases.ALGORITHM, tmp_path / "out", MARKS, cases.PSEUDONYMS)
    made = hd.seg.segread(read(written, Kind.SEG))
    assert (made.SegmentationType, made.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    fraction = made.pixel_array / int(made.MaximumFractionalValue)
    np.testing.assert_array_equal(fraction >= 0.5, analysed.map > analysed.contour)
    strength = 0.5 + 0.5 * np.clip((analysed.map - 1.0) / (2.0 - 1.0), 0, 1)  # contour 1, scale to 2
    inside = analysed.map > analysed.contour
    assert np.abs(fraction - strength)[inside].max() <= 0.5 / 255 + 1e-6
    assert (fraction[~inside] == 0).all()


def test_no_region_no_segmentation(tmp_path):
    flat = np.zeros((64, 48), np.float32)
    found = cases.outcome(cases.image(projection(), tmp_path / "in", values=flat))
    written = write_results(found, cases.ALGORITHM, tmp_path / "out", MARKS, cases.PSEUDONYMS)
    assert [one.kind for one in written] == ["sc", "ko", "sr"]


def test_nothing_marks_regions_by_default(tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    written = write_results(
        cases.outcome(analysed), cases.ALGORITHM, tmp_path / "a", ResultSettings(), cases.PSEUDONYMS
    )
    assert [one.kind for one in written] == ["sc", "ko", "sr"]
    bare = cases.outcome(cases.bare(analysed))
    same = write_results(bare, cases.ALGORITHM, tmp_path / "b", ResultSettings(), cases.PSEUDONYMS)
    pages = [pydicom.dcmread(read(some, Kind.SC)).PixelData for some in (written, same)]
    assert pages[0] == pages[1], "the picture must not depend on the map"
    selection = pydicom.dcmread(read(written, Kind.KO))
    images = [item for item in selection.ContentSequence if item.ValueType == "IMAGE"]
    assert len(images) == len(analysed.instances), "a flagged volume is listed whole"


def test_heatmaps_pick_out_slices(tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    written = write_results(cases.outcome(analysed), cases.ALGORITHM, tmp_path / "a", MARKS, cases.PSEUDONYMS)
    selection = pydicom.dcmread(read(written, Kind.KO))
    named = {
        i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in selection.ContentSequence if i.ValueType == "IMAGE"
    }
    above = (analysed.map > analysed.contour).any(axis=(1, 2))
    assert named == {instance.uid for instance, marked in zip(analysed.instances, above, strict=True) if marked}
    assert 0 < len(named) < len(analysed.instances)
