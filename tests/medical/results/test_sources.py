"""Patients and studies survive; what is missing or foreign is handled; nothing leaks, nothing is left behind."""

import logging
import warnings
from dataclasses import replace

import numpy as np
import pydicom
import pytest

from anomaly.errors import SettingError
from medical.pseudonyms import Pseudonyms
from medical.refusals import Reason
from medical.results import Kind, ResultError, ResultSettings, write_results
from tests.medical.phantoms import PLANTED, ct_series, enhanced_ct, projection
from tests.medical.results import cases

MARKS = ResultSettings(with_heatmaps=True)


def written(found, folder, settings=MARKS, algorithm=cases.ALGORITHM):
    return write_results(found, algorithm, folder, settings, cases.PSEUDONYMS)


NAMES = {
    "ISO_IR 100": "Müller^Jörg",
    "ISO_IR 126": "Διονυσιος",
    "ISO_IR 144": "Жуков^Юлий",
    "ISO_IR 192": "Wang^XiaoDong=王^小東",
    ("", "ISO 2022 IR 87"): "Yamada^Tarou=山田^太郎=やまだ^たろう",
    ("", "ISO 2022 IR 149"): "Hong^Gildong=洪^吉洞=홍^길동",
}


@pytest.mark.parametrize("charset", NAMES, ids=str)
def test_names_survive_in_every_character_set(charset, tmp_path):
    made = projection()
    made.SpecificCharacterSet = list(charset) if isinstance(charset, tuple) else charset
    made.PatientName, made.OtherPatientNames = NAMES[charset], NAMES[charset]
    for one in written(cases.outcome(cases.image(made, tmp_path / "in")), tmp_path / "out"):
        read = pydicom.dcmread(one.path)
        assert read.SpecificCharacterSet == "ISO_IR 192"
        assert str(read.PatientName) == NAMES[charset]
        assert str(read.OtherPatientNames) == NAMES[charset]


def test_patient_and_study_are_copied_as_they_are(tmp_path):
    made = projection()
    made.IssuerOfPatientID, made.PatientComments, made.StudyDescription = "HOSPITAL", "a comment", "CHEST PA"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made.PatientSex = "N"  # not allowed by the standard, found in the wild
        made.PatientName = "Onlyone"
        made.PatientBirthDate = "1970"
    for one in written(cases.outcome(cases.image(made, tmp_path / "in")), tmp_path / "out"):
        read = pydicom.dcmread(one.path)
        for name in (*PLANTED, "PatientSex", "PatientAge", "StudyInstanceUID", "StudyDate", "StudyTime"):
            assert read[name].value == made[name].value, name
        assert (read.IssuerOfPatientID, read.StudyDescription) == ("HOSPITAL", "CHEST PA")
        assert read.SeriesInstanceUID != made.SeriesInstanceUID


def palette(made, frames=1):
    """Turns a projection into a colour-mapped secondary capture."""
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.Modality, made.ConversionType = "OT", "WSD"
    made.PhotometricInterpretation = "PALETTE COLOR"
    for name in ("WindowCenter", "WindowWidth", "ImagerPixelSpacing"):
        delattr(made, name)
    ramp = np.linspace(0, 65535, 256).astype("<u2")
    for colour, table in (("Red", ramp), ("Green", ramp[::-1]), ("Blue", ramp)):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        setattr(made, f"{colour}PaletteColorLookupTableData", table.tobytes())
    return made


def rgb(made):
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.Modality, made.ConversionType = "OT", "WSD"
    for name in ("WindowCenter", "WindowWidth", "ImagerPixelSpacing", "PatientOrientation"):
        delattr(made, name)
    made.SamplesPerPixel, made.PlanarConfiguration, made.PhotometricInterpretation = 3, 0, "RGB"
    made.PixelData = np.repeat(made.pixel_array_grey[..., None], 3, axis=2).tobytes()
    return made


def page(files):
    (one,) = [one for one in files if one.kind == Kind.SC]
    return pydicom.dcmread(one.path).pixel_array


def test_a_palette_source(tmp_path):
    made = palette(projection(bits=8))
    files = written(cases.outcome(cases.image(made, tmp_path / "in")), tmp_path / "out", ResultSettings())
    view = page(files)[76:572, 24:520].reshape(-1, 3).astype(int)
    coloured = np.abs(view[:, 0] - view[:, 1]) > 60
    assert coloured.mean() > 0.3, "the picture shows the colours of the palette"


def test_an_rgb_source(tmp_path):
    made = projection(bits=8)
    made.__dict__["pixel_array_grey"] = np.frombuffer(made.PixelData, np.uint8).reshape(64, 48)
    made = rgb(made)
    files = written(cases.outcome(cases.image(made, tmp_path / "in")), tmp_path / "out")
    assert [one.kind for one in files] == ["seg", "sc", "ko", "sr"]


def test_frames_without_a_place_become_an_object_each(tmp_path):
    made = enhanced_ct()
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"  # ultrasound
    made.Modality = "US"
    for name in ("FrameOfReferenceUID", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        delattr(made, name)
    analysed = [cases.image(made, tmp_path / "in", frame=n) for n in (2, 7)]
    files = written(cases.outcome(*analysed), tmp_path / "out")
    assert [one.kind for one in files] == ["seg", "seg", "sc", "ko", "sr"]
    for one, frame in zip(files[:2], (2, 7), strict=True):
        group = pydicom.dcmread(one.path).PerFrameFunctionalGroupsSequence[0]
        (source,) = group.DerivationImageSequence[0].SourceImageSequence
        assert (source.ReferencedFrameNumber, source.ReferencedSOPClassUID) == (frame, made.SOPClassUID)


def test_a_second_run_writes_the_same_identifiers(tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    first = written(cases.outcome(analysed), tmp_path / "a")
    again = written(cases.outcome(replace(analysed, score=1.2500001)), tmp_path / "b")
    assert [(one.uid, one.path.name) for one in first] == [(one.uid, one.path.name) for one in again]
    series = [[pydicom.dcmread(one.path).SeriesInstanceUID for one in files] for files in (first, again)]
    assert series[0] == series[1]
    assert len({one.uid for one in first} | set(series[0])) == 10
    for one in first:
        assert one.uid.startswith("2.25.")
        assert pydicom.uid.UID(one.uid).is_valid


def test_whatever_changes_a_result_changes_its_identifier(tmp_path):
    slices = ct_series()
    one, two = (cases.image(made, tmp_path / str(i)) for i, made in enumerate(slices[:2]))
    tilted = cases.refused(slices[2], tmp_path / "t")
    runs = [
        (cases.outcome(one), MARKS, cases.ALGORITHM),
        (cases.outcome(one), ResultSettings(), cases.ALGORITHM),
        (cases.outcome(one, two), MARKS, cases.ALGORITHM),
        (cases.outcome(one, refused=tilted), MARKS, cases.ALGORITHM),
        (cases.outcome(one), MARKS, replace(cases.ALGORITHM, model="cd" * 32)),
        (cases.outcome(one), MARKS, replace(cases.ALGORITHM, version="0.2.0")),
        (cases.outcome(one), MARKS, replace(cases.ALGORITHM, settings={"REVIEW above": "0.5"})),
    ]
    uids = [written(found, tmp_path / "out", how, what)[-1].uid for found, how, what in runs]
    assert len(set(uids)) == len(runs)


PLANTED_WORDS = [*PLANTED.values(), "PLANTED", "PHANTOM", "20250305", "19700102"]


def leaks(text):
    return [word for word in PLANTED_WORDS if word in text]


def test_names_of_files_logs_and_warnings_tell_nothing(tmp_path, caplog, recwarn):
    caplog.set_level(logging.DEBUG)
    made = ct_series()
    made[0].PatientName = made[1].PatientName = "PLANTED"  # highdicom warns of one-component names and repeats them
    files = written(cases.outcome(cases.volume(made, tmp_path / "in")), tmp_path / "out")
    names = " ".join(one.path.name for one in files)
    identifiers = [made[0].StudyInstanceUID, made[0].SOPInstanceUID, *(one.uid for one in files)]
    for text in (names, caplog.text, " ".join(str(w.message) for w in recwarn)):
        assert not leaks(text)
        assert not [uid for uid in identifiers if uid in text]


def test_errors_of_libraries_are_told_without_their_values(tmp_path, monkeypatch):
    def fails(*_args, **_kwargs):
        raise ValueError("PLANTED-4711 is wrong")

    monkeypatch.setattr("highdicom.sr.Comprehensive3DSR", fails)
    found = cases.outcome(cases.image(projection(), tmp_path / "in"))
    with pytest.raises(
        ResultError, match=r"the report cannot be built .*: ValueError at test_sources.py:\d+"
    ) as caught:
        written(found, tmp_path / "out")
    assert not leaks(str(caught.value))
    assert caught.value.__suppress_context__
    assert not list((tmp_path / "out").iterdir()), "all files or none"


def test_sources_that_are_gone_or_exchanged(tmp_path):
    analysed = cases.image(projection(), tmp_path / "in")
    path = analysed.instances[0].path
    other = projection(seed="another")
    other.save_as(path, enforce_file_format=True)
    for step in ("exchanged", "gone"):
        with pytest.raises(
            ResultError, match="analysed object 1 of 1 is gone, cannot be read or was exchanged"
        ) as caught:
            written(cases.outcome(analysed), tmp_path / "out")
        assert not leaks(str(caught.value)), step
        assert str(path) not in str(caught.value)
        path.unlink(missing_ok=True)


def test_a_study_without_any_header_gets_no_result(tmp_path):
    files = cases.refused(projection(), tmp_path / "in", Reason.DAMAGED, "cut off")
    files[0].path.write_bytes(b"nothing")
    with pytest.raises(ResultError, match="no object of the study has a header"):
        written(cases.not_analysed(files), tmp_path / "out")


def test_refused_objects_that_are_no_images(tmp_path):
    seen = projection()
    (other,) = cases.refused(projection(), tmp_path / "b", Reason.SOP_CLASS, "a report")
    document = pydicom.dcmread(other.path)
    for name in ("Rows", "Columns", "PixelData"):
        delattr(document, name)
    document.SOPClassUID, document.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.88.11", "1.2.3.4.5"
    document.save_as(other.path)
    found = cases.outcome(cases.image(seen, tmp_path / "a"), refused=(other,))
    files = written(found, tmp_path / "out")
    assert "SOP_CLASS" in str(pydicom.dcmread(files[-1].path))


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "out").write_bytes(b"")
    found = cases.outcome(cases.image(projection(), tmp_path / "in"))
    with pytest.raises(ResultError, match=r"cannot be written to its folder: (File exists|Not a directory)"):
        written(found, tmp_path / "out")


def test_settings_and_algorithm_are_checked(tmp_path):
    for kinds in ((), ("sr", "pdf")):
        with pytest.raises(SettingError, match="kinds of ResultSettings must be some of sr, seg, pm, sc, ko"):
            ResultSettings(kinds=kinds)
    found = cases.outcome(cases.image(projection(), tmp_path / "in"))
    with pytest.raises(ResultError, match="the name of the algorithm must have 1 to 64 characters"):
        written(found, tmp_path / "out", algorithm=replace(cases.ALGORITHM, name="x" * 65))


def test_file_names_depend_on_the_key(tmp_path):
    found = cases.outcome(cases.image(projection(), tmp_path / "in"))
    names = [
        write_results(found, cases.ALGORITHM, tmp_path / "out", ResultSettings(), Pseudonyms(key))[0].path.name
        for key in (bytes(32), b"k" * 32)
    ]
    assert names[0] != names[1]
