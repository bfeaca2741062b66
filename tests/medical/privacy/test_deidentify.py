"""Identifiers are planted everywhere; none of their bytes may be in what is written. The check shares no code."""

import csv
import re
import shutil
import subprocess
import time
from collections import Counter
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import generate_uid

from anomaly.errors import SettingError
from medical.privacy.burned_in import Risk, lines_of_text, said_risks
from medical.privacy.deidentify import Deidentifier
from medical.privacy.deidentify_files import RISK, WRITTEN, deidentify_files
from medical.privacy.leftovers import IdentifierLeftError
from medical.privacy.profile import Options
from tests.medical.phantoms import ct_series, enhanced_ct, projection, save

KEY = bytes(range(32))
NAME, FIRST = "Zebrowska", "Wilhelmina"
PLANTED = (NAME, FIRST, "PID77431X", "ACC9981237", "19511231", "Klinikum Nirgendwo", "SECRETPRIVATE", "SENDERAET")
LIMITS = {"AE": 16, "CS": 16, "SH": 16, "LO": 64, "PN": 64, "ST": 1024, "LT": 1024, "UT": 1024, "UC": 1024}

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def plant(ds):
    """Writes identifiers into every kind of place that a data set has."""
    ds.PatientName, ds.PatientID, ds.AccessionNumber = f"{NAME}^{FIRST}", "PID77431X", "ACC9981237"
    ds.PatientBirthDate, ds.InstitutionName, ds.StudyID = "19511231", "Klinikum Nirgendwo", "PID77431X"
    ds.StudyDescription = f"Thorax of {NAME}"
    ds.ProtocolName = "abc PID77431X def"
    ds.Manufacturer = f"{NAME} Ltd"
    ds.PatientComments = "fell, ACC9981237"
    ds.ReferringPhysicianName = f"Doctor^{NAME}"
    ds.add_new(0x00204000, "LT", f"image of {FIRST}")
    block = ds.private_block(0x0009, "SECRETPRIVATE", create=True)
    block.add_new(1, "LO", NAME)
    block.add_new(2, "SQ", [item(PatientName=f"{NAME}^{FIRST}")])
    ds.add_new(0x00270011, "UN", f"{NAME}".encode())
    ds.add_new(0x60004000, "LT", NAME)
    inner = item(PatientID="PID77431X", PersonName=NAME, InstitutionName="Klinikum Nirgendwo", StudyDate="19511231")
    inner.RequestAttributesSequence = [item(RequestedProcedureDescription=NAME, ScheduledProcedureStepID="ACC9981237")]
    ds.PerformedProtocolCodeSequence = [inner]
    ds.RequestAttributesSequence = [item(RequestedProcedureID="PID77431X")]
    ds.OtherPatientIDsSequence = [item(PatientID="PID77431X")]
    if hasattr(ds, "file_meta"):
        ds.file_meta.SourceApplicationEntityTitle = "SENDERAET"
        ds.file_meta.ImplementationVersionName = "SECRETPRIVATE"
        ds.preamble = NAME.encode().ljust(128, b"\0")
    return ds


def item(**attributes):
    made = Dataset()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def uids_of(ds):
    """Every UID that is not the standard's."""
    found = set()
    ds.walk(lambda _, e: found.add(str(e.value)) if e.VR == "UI" and "1.2.840.10008" not in str(e.value) else None)
    return found - {"", "None"}


def assert_absent(content, values=PLANTED):
    lower = content.lower()
    for value in values:
        assert value.lower().encode() not in lower, value


def deidentified(ds, key=KEY, **options):
    done = Deidentifier(key, Options(**options))(ds)
    return done, pydicom.dcmread(pydicom.filebase.DicomBytesIO(done.content))


@pytest.fixture
def ct():
    return ct_series((3, 24, 20))


def phantoms():
    return {"ct": ct_series((3, 24, 20))[0], "dx": projection(), "enhanced": enhanced_ct((3, 24, 20))}


@pytest.mark.parametrize("kind", ["ct", "dx", "enhanced"])
@pytest.mark.parametrize("options", [{}, {"modified_dates": True, "patient_characteristics": True}])
def test_no_planted_byte_is_left(kind, options):
    source = plant(phantoms()[kind])
    before, pixels = uids_of(source), source.PixelData
    done, result = deidentified(source, **options)
    assert_absent(done.content, (*PLANTED, *before))
    assert result.PixelData == pixels
    assert result.preamble == bytes(128)
    assert result.file_meta.MediaStorageSOPInstanceUID == result.SOPInstanceUID
    assert not any(element.tag.is_private for element in result.iterall())


def test_a_name_in_any_text_attribute_of_the_dictionary_is_found(ct):
    """Whether the table lists it or not: pydicom's dictionary has some two thousand."""
    source, count = plant(ct[0]), 0
    for tag, (vr, *_) in DicomDictionary.items():
        if vr in LIMITS and tag >> 16 > 8 and tag not in source:
            source.add_new(tag, vr, f"{NAME} {FIRST}"[: LIMITS[vr]])
            count += 1
    assert count > 1000
    assert_absent(deidentified(source)[0].content)


@settings(max_examples=25, deadline=None)
@given(
    family=st.text("abcdefghijklmnopqrstuvwxyz", min_size=6, max_size=12),
    identifier=st.text("ABCDEFGHIJ0123456789-", min_size=6, max_size=14).filter(lambda text: text.strip("-")),
)
def test_any_name_and_identifier(family, identifier):
    source = ct_series((2, 8, 8))[0]
    source.PatientName, source.PatientID = f"qx{family}^Anna", f"QX{identifier}"
    source.SeriesDescription = source.Manufacturer = source.SoftwareVersions = f"of qx{family}, QX{identifier}."
    source.DerivationDescription = f"QX{identifier}/qx{family}"
    assert_absent(deidentified(source)[0].content, (f"qx{family}", f"QX{identifier}"))


def test_an_identifier_within_a_longer_word_keeps_the_object_from_being_written(ct):
    source = plant(ct[0])
    source.Manufacturer = f"x{NAME}y"
    with pytest.raises(IdentifierLeftError, match="still held an identifier") as caught:
        deidentified(source)
    assert NAME not in str(caught.value)


def test_an_identifier_in_the_pixels_bytes_keeps_the_object_from_being_written(ct):
    source = plant(ct[0])
    text = f"{NAME}^{FIRST} ".encode()
    source.PixelData = text + source.PixelData[len(text) :]
    with pytest.raises(IdentifierLeftError):
        deidentified(source)


def test_what_was_done_is_said(ct):
    result = deidentified(plant(ct[0]))[1]
    assert result.PatientIdentityRemoved == "YES"
    assert result.LongitudinalTemporalInformationModified == "REMOVED"
    assert [code.CodeValue for code in result.DeidentificationMethodCodeSequence] == ["113100"]
    everything = {"modified_dates": True, "patient_characteristics": True, "device_identity": True, "uids": True}
    result = deidentified(plant(ct[1]), **everything)[1]
    codes = [code.CodeValue for code in result.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107", "113108", "113109", "113110"]
    assert result.LongitudinalTemporalInformationModified == "MODIFIED"


def test_codes_have_the_meanings_of_the_standard():
    from pydicom.sr.codedict import codes

    known = {one.value: one.meaning for one in (getattr(codes.DCM, name) for name in codes.DCM.dir())}
    for value, meaning in Options(True, True, True, True).codes()[1:]:
        assert known[value] == meaning


def test_a_study_stays_a_study_and_the_key_decides(ct):
    first, second, third = (deidentified(plant(source))[1] for source in ct)
    assert first.StudyInstanceUID == second.StudyInstanceUID == third.StudyInstanceUID
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert len({one.SOPInstanceUID for one in (first, second, third)}) == 3
    again, other = ct_series((3, 24, 20))[0], ct_series((3, 24, 20))[0]
    assert deidentified(plant(again))[1].SOPInstanceUID == first.SOPInstanceUID
    changed = deidentified(plant(other), bytes(32))[1]
    assert changed.PatientID != first.PatientID
    assert not uids_of(changed) & uids_of(first)


def test_references_between_objects_stay_right(ct):
    referring, referred = plant(ct[0]), plant(ct[1])
    referring.SourceImageSequence = [
        item(ReferencedSOPClassUID=referred.SOPClassUID, ReferencedSOPInstanceUID=referred.SOPInstanceUID)
    ]
    one, other = deidentified(referring)[1], deidentified(referred)[1]
    assert one.SourceImageSequence[0].ReferencedSOPInstanceUID == other.SOPInstanceUID
    assert one.SourceImageSequence[0].ReferencedSOPClassUID == other.SOPClassUID


def test_moved_dates_keep_intervals_and_times_and_the_day_of_birth_is_gone(ct):
    days = []
    for source, stated in zip(ct, ("20240131", "20240301", "20250301"), strict=True):
        source = plant(source)
        source.StudyDate, source.StudyTime, source.AcquisitionDateTime = stated, "101112", f"{stated}101112.5+0100"
        result = deidentified(source, modified_dates=True)[1]
        days.append(date.fromisoformat(result.StudyDate))
        assert (date.fromisoformat(stated) - days[-1]).days >= 30
        assert result.StudyTime == "101112"
        assert result.AcquisitionDateTime == f"{result.StudyDate}101112.5+0100"
        assert not result.PatientBirthDate
    assert [(day - days[0]).days for day in days] == [0, 30, 395]


def test_dates_are_removed_without_the_option(ct):
    source = plant(ct[0])
    source.StudyDate = source.SeriesDate = source.AcquisitionDate = "20240131"
    done, result = deidentified(source)
    assert not result.StudyDate
    assert_absent(done.content, ("20240131",))


def test_characteristics_and_devices_are_kept_only_on_request(ct):
    for source, options, wanted in (
        (ct[0], {}, (None, None, "REMOVED")),
        (ct[1], {"patient_characteristics": True, "device_identity": True}, ("F", "090Y", "SERIAL-1")),
    ):
        source = plant(source)
        source.PatientSex, source.PatientAge, source.DeviceSerialNumber = "F", "093Y", "SERIAL-1"
        result = deidentified(source, **options)[1]
        found = tuple(result.get(name) or None for name in ("PatientSex", "PatientAge", "DeviceSerialNumber"))
        assert found == wanted


def test_structured_content_keeps_its_shape_and_loses_its_texts(ct):
    source = plant(ct[0])
    source.ContentSequence = [
        item(ValueType="PNAME", PersonName=NAME),
        item(ValueType="TEXT", TextValue=f"{FIRST} is ill"),
        item(ValueType="UIDREF", UID=source.StudyInstanceUID),
        item(ValueType="CONTAINER", ContentSequence=Sequence([item(ValueType="DATE", Date="19511231")])),
    ]
    done, result = deidentified(source)
    assert_absent(done.content)
    assert [one.ValueType for one in result.ContentSequence] == ["PNAME", "TEXT", "UIDREF", "CONTAINER"]
    assert result.StudyInstanceUID == result.ContentSequence[2].UID
    assert "113104" in [code.CodeValue for code in result.DeidentificationMethodCodeSequence]


def test_unknown_patients_of_different_studies_are_different(ct):
    ct[0].PatientID = ct[1].PatientID = ""
    ct[1].StudyInstanceUID = generate_uid()
    assert deidentified(ct[0])[0].patient != deidentified(ct[1])[0].patient


def drawn(shape, size, thickness=1):
    import cv2

    mask = np.zeros(shape, np.uint8)
    cv2.putText(mask, "DOE JANE 1951", (10, shape[0] // 2), cv2.FONT_HERSHEY_SIMPLEX, size, 255, thickness)
    return mask / 255


@pytest.mark.parametrize("grey", [1000, -200])
def test_text_in_pixels_is_found_and_a_noisy_body_is_no_text(grey):
    rows, columns = np.mgrid[:256, :400]
    body = 800 * np.exp(-(((rows - 128) / 90) ** 2) - ((columns - 200) / 140) ** 2)
    picture = (body + np.random.default_rng(0).normal(0, 25, body.shape)).astype(np.float32)
    assert lines_of_text(picture) == 0
    for size in (0.5, 0.8):
        letters = drawn(picture.shape, size)
        shown = (picture * (1 - letters) + grey * letters).astype(np.float32)
        assert lines_of_text(shown) > 0
        assert lines_of_text(np.stack([picture, shown, picture], -1)) > 0
    assert lines_of_text(np.zeros((20, 20), np.float32)) == 0


def test_what_the_header_says_is_a_risk():
    assert said_risks(item(BurnedInAnnotation="YES", Modality="CT")) == {Risk.SAID}
    assert said_risks(item(BurnedInAnnotation="NO", Modality="US")) == {Risk.CAPTURED}
    assert said_risks(item(ImageType=["DERIVED", "SECONDARY", "SCREEN SAVE"])) == {Risk.CAPTURED}
    assert said_risks(item(RecognizableVisualFeatures="YES")) == {Risk.FACE_SAID}
    assert said_risks(item(Modality="CT", ImageType=["ORIGINAL", "PRIMARY", "AXIAL"])) == set()


def test_the_command(tmp_path, call, ct):
    burned = projection()
    burned.BurnedInAnnotation = "YES"
    save([*map(plant, ct), plant(burned)], tmp_path / NAME)
    (tmp_path / NAME / f"{FIRST}.txt").write_text("no DICOM")
    key = tmp_path / "key"
    key.touch(0o600)
    key.write_text(KEY.hex())
    arguments = ("triage", "deidentify", tmp_path / NAME, "--out", tmp_path / "out", "--key-file", key)
    status, out, err = call(*arguments)
    assert (status, "3 of 5 files written" in out) == (1, True)
    assert_absent((out + err).replace(str(tmp_path), "").encode())
    files = sorted((tmp_path / "out").rglob("*"))
    assert_absent(" ".join(str(path.relative_to(tmp_path)) for path in files).encode())
    for path in files:
        if path.is_file():
            assert_absent(path.read_bytes())
    rows = list(csv.DictReader((tmp_path / "out" / "deidentified.csv").read_text().splitlines()))
    assert Counter(row["status"] for row in rows) == {WRITTEN: 3, RISK: 1, "REFUSED": 1}
    assert len({row["study"] for row in rows if row["status"] == WRITTEN}) == 1
    assert re.fullmatch("[0-9a-f]{16}", next(row["patient"] for row in rows if row["patient"]))
    assert "4 of 5 files written" in call(*arguments, "--accept-burned-in-risk")[1]


def test_the_result_never_lies_in_what_is_read(tmp_path):
    with pytest.raises(SettingError, match="must not lie"):
        deidentify_files([tmp_path], tmp_path / "out", KEY, Options())


def errors(path):
    """Errors of dciodvfy."""
    done = subprocess.run(["dciodvfy", "-new", path], capture_output=True, text=True, check=False)
    return sum(line.startswith("Error") for line in (done.stdout + done.stderr).splitlines())


@pytest.mark.peer
@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dciodvfy (Debian dicom3tools) is not installed")
@pytest.mark.parametrize("kind", ["ct", "dx", "enhanced"])
def test_dciodvfy_finds_no_more_errors_than_before(tmp_path, kind):
    source = phantoms()[kind]
    before = errors(save(source, tmp_path)[0])
    for options in ({}, {"modified_dates": True, "patient_characteristics": True, "device_identity": True}):
        done = deidentified(phantoms()[kind], **options)[0]
        (tmp_path / "after.dcm").write_bytes(done.content)
        assert errors(tmp_path / "after.dcm") <= before


@pytest.mark.shared
@pytest.mark.slow
def test_the_shared_files(shared, tmp_path):
    """Written: no identifier, no more errors than before. With text burned in: not written."""
    folder = shared / "data" / "dicom"
    names = [
        *("pydicom-tests/test_files__CT_small.dcm", "pydicom-tests/test_files__reportsi.dcm", "highdicom/dx_image.dcm"),
        *("highdicom/sr_document.dcm", "dcm_qa_ct/In__GE__14.dcm", "pydicom-data/emri_small.dcm"),
        *("pydicom-tests/test_files__MR_small_RLE.dcm", "highdicom/seg_image_ct_binary.dcm"),
    ]
    text = [f"pydicom-tests/test_files__examples_{kind}_color.dcm" for kind in ("ybr",)]
    text += ["pydicom-tests/test_files__examples_palette.dcm", "pydicom-data/gdcm-US-ALOKA-16.dcm"]
    results = deidentify_files([folder / name for name in names + text], tmp_path / "out", KEY, Options())
    assert [result.status for result in results] == [WRITTEN] * len(names) + [RISK] * len(text)
    assert "TEXT_FOUND" in results[-1].reason
    for name, result in zip(names, results, strict=False):
        target = tmp_path / "out" / result.patient / result.study / f"{result.object}.dcm"
        assert_absent(target.read_bytes(), identifiers(pydicom.dcmread(folder / name)))
        if shutil.which("dciodvfy"):
            assert errors(target) <= errors(folder / name), name


def identifiers(ds):
    """Read anew, without our code: names, numbers and places of seven characters or more, and UIDs."""
    names = ("PatientName", "PatientID", "AccessionNumber", "InstitutionName", "ReferringPhysicianName", "StudyID")
    said = {str(ds.get(name, "")) for name in names} | {Path(str(ds.get("PatientBirthDate", ""))).name}
    parts = {part for value in said for part in re.split(r"[\^=]", value)} | uids_of(ds)
    return [part for part in parts if len(part) >= 7 and part != "REMOVED"]


def test_thousands_of_references_are_looked_for_quickly(ct):
    """A set is looked up; a search for each of them in each text would take minutes."""
    source = plant(ct[0])
    uids = [f"1.2.826.0.1.3680043.8.498.{number}" for number in range(10**9, 10**9 + 3000)]
    source.SourceImageSequence = [item(ReferencedSOPInstanceUID=uid, CodeMeaning="axial " * 5) for uid in uids]
    source.Manufacturer = f"made by {uids[7]}"
    begun = time.process_time()
    done = deidentified(source)[0]
    assert time.process_time() - begun < 10
    assert_absent(done.content, [*PLANTED, *uids[::100], uids[7]])
