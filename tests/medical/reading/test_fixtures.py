"""The 135 public DICOM files, each with its code: judged by header and standard, typed after a run of the reader."""

import csv
import shutil
import subprocess
import time
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest

from medical.reading import PixelReader, take_inventory
from medical.refusals import Reason, RefusedError

# what is not named here can be analysed
EXPECTED = {
    Reason.TRUNCATED: """
        pydicom-tests/test_files__MR_truncated.dcm
        pydicom-tests/test_files__rtplan_truncated.dcm
        pydicom-data/emri_small_jpeg_2k_lossless_too_short.dcm
    """,
    Reason.DAMAGED: """
        pydicom-tests/test_files__JPEG2000-embedded-sequence-delimiter.dcm
    """,  # its codestream declares 3722445056 columns
    Reason.NOT_DICOM: """
        pydicom-tests/test_files__no_meta.dcm
    """,  # begins with a stray byte before a data set
    Reason.TRANSFER_SYNTAX: """
        pydicom-tests/test_files__meta_missing_tsyntax.dcm
        pydicom-tests/test_files__rtstruct.dcm
    """,
    Reason.HEADER: """
        pydicom-tests/test_files__JPEGLSNearLossless_16.dcm
        pydicom-data/HTJ2KLossless_08_RGB.dcm
        pydicom-data/HTJ2K_08_RGB.dcm
        pydicom-data/JLSL_RGB_ILV1.dcm
        pydicom-data/bad_sequence.dcm
        pydicom-tests/test_files__empty_charset_LEI.dcm
        pydicom-tests/charset_files__chrSQEncoding.dcm
        pydicom-tests/charset_files__chrSQEncoding1.dcm
    """,  # four without UIDs of study and series, one with an invalid UID, three without SOP Class UID
    Reason.NO_PIXELS: """
        pydicom-tests/charset_files__chrJapMulti.dcm
        pydicom-tests/charset_files__chrJapMultiExplicitIR6.dcm
        pydicom-tests/charset_files__chrKoreanMulti.dcm
    """,
    Reason.PHOTOMETRIC: """
        pydicom-data/eCT_Supplemental.dcm
    """,  # perfusion: some grey values stand for colours
    Reason.NO_IMAGE: """
        pydicom-tests/test_files__badVR.dcm
        pydicom-tests/test_files__rtplan.dcm
        pydicom-tests/test_files__rtdose.dcm
        pydicom-tests/test_files__reportsi.dcm
        robyoung-dicom-test-files/data__dcmqi__sr-example__sr.dcm
    """,  # and highdicom's SR
    Reason.RESULT: """
        pydicom-tests/test_files__liver_1frame.dcm
        pydicom-data/parametric_map_float.dcm
        robyoung-dicom-test-files/data__dcmqi__segmentations__liver.dcm
    """,  # and highdicom's segmentations
    Reason.SOP_CLASS: """
        pydicom-tests/test_files__dicomdirtests__DICOMDIR
        pydicom-tests/test_files__no_meta_group_length.dcm
    """,  # an RT Image, and highdicom's microscopy
}
SAME_OBJECT = """
    highdicom/ct_image.dcm pydicom-data/emri_small.dcm pydicom-data/JPEG-LL.dcm pydicom-tests/test_files__MR_small.dcm
    pydicom-tests/test_files__SC_rgb_small_odd_jpeg.dcm
    torchxrayvision/tests__1.2.276.0.7230010.3.1.4.8323329.6904.1517875201.850819.dcm
"""
SIGNED_TABLE = "pydicom-data/mlut_18.dcm"  # highdicom 0.28.2 maps negative stored values to the last entry
RED_GREEN_BLUE = {"RGB", "YBR_FULL", "YBR_FULL_422", "PALETTE COLOR"}


def expected_of(file):
    kinds = {"seg_": Reason.RESULT, "sr_": Reason.NO_IMAGE, "sm_annotations": Reason.NO_IMAGE, "sm_": Reason.SOP_CLASS}
    for begin, reason in kinds.items():
        if file.startswith(f"highdicom/{begin}"):
            return reason
    return next((reason for reason, files in EXPECTED.items() if file in files.split()), None)


@pytest.fixture(scope="module")
def folder(shared):
    found = shared / "data" / "dicom"
    if not (found / "fixtures.csv").exists():
        pytest.skip(f"no DICOM files at {found}")
    return found


@pytest.fixture(scope="module")
def files(folder):
    with (folder / "fixtures.csv").open(newline="") as table:
        return [row["file"] for row in csv.DictReader(table)]


@pytest.mark.shared
def test_every_file_has_its_code(folder, files, pixels, pseudonyms):
    found = {}
    for file in files:
        (entry,) = take_inventory([folder / file], pseudonyms, pixels=pixels).files
        refusal = getattr(entry.found, "refusal", None)
        if refusal is None:
            try:
                pixels.check(entry.found)
            except RefusedError as error:
                refusal = error.refusal
        found[file] = None if refusal is None else refusal.reason
    assert len(found) == 135
    assert found == {file: expected_of(file) for file in files}
    assert sum(code is None for code in found.values()) == 83


@pytest.mark.shared
def test_values_are_those_of_highdicom(folder, files, pixels, pseudonyms):
    compared = 0
    for file in files:
        if expected_of(file) is not None or "charset" in file or "GE__0" in file or file == SIGNED_TABLE:
            continue
        (entry,) = take_inventory([folder / file], pseudonyms, pixels=pixels).files
        image = pixels.image(entry.found, entry.found.frames)
        try:
            reference = _by_highdicom(folder / file, entry.found)
        except (ValueError, AttributeError, NotImplementedError, RuntimeError, KeyError):
            continue
        compared += 1
        if image.unit == "HU":
            assert np.array_equal(image.values[image.valid], reference[image.valid])
        elif image.values.ndim == 3:
            assert np.abs(image.values * np.iinfo(reference.dtype).max - reference).max() <= 4  # lossy: decoders differ
        else:
            scale = np.polyfit(reference.ravel(), image.values.ravel(), 1)
            assert scale[0] > 0, file
            assert np.allclose(np.polyval(scale, reference), image.values, atol=1e-5)
    assert compared > 35


def _by_highdicom(path, instance):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        read = highdicom.imread(path)
        kind = np.uint8 if instance.photometric in RED_GREEN_BLUE - {"PALETTE COLOR"} else np.float64
        kind = np.uint16 if instance.photometric == "PALETTE COLOR" else kind
        return read.get_frame(instance.frames, apply_real_world_transform=False, dtype=kind)


@pytest.mark.shared
def test_modality_table_of_signed_values(folder, pixels, pseudonyms):
    (entry,) = take_inventory([folder / SIGNED_TABLE], pseudonyms, pixels=pixels).files
    stored = pydicom.dcmread(folder / SIGNED_TABLE).pixel_array
    linear = (stored.astype(float) + 2048) / 4095  # what this table says, entry by entry
    assert np.allclose(pixels.image(entry.found).values, linear, atol=2e-4)


@pytest.mark.shared
def test_jpeg_of_twelve_bits_as_dcmtk_decodes_it(folder, pixels, pseudonyms, tmp_path):
    if shutil.which("dcmdjpeg") is None:
        pytest.skip("dcmdjpeg of dcmtk is not installed")
    file = folder / "pydicom-tests" / "test_files__JPGExtended.dcm"
    subprocess.run(["dcmdjpeg", file, tmp_path / "native.dcm"], check=True)
    reference = pydicom.dcmread(tmp_path / "native.dcm").pixel_array
    (entry,) = take_inventory([file], pseudonyms, pixels=pixels).files
    image = pixels.image(entry.found)
    assert "imagecodecs" in image.decoder
    assert np.array_equal((image.values * 4095).round(), reference)


@pytest.mark.shared
def test_head_of_the_tilted_scanner(folder, pixels, pseudonyms):
    inventory = take_inventory([folder / "dcm_qa_ct"], pseudonyms, pixels=pixels)
    (study,) = inventory.studies
    (series,) = study.series
    assert len(series.instances) == 28
    assert not inventory.refused
    assert series.irregular.reason == Reason.GANTRY_TILT
    assert "18.5 degrees" in series.irregular.detail
    assert "gaps also differ" in series.irregular.detail
    with pytest.raises(RefusedError, match="GANTRY_TILT"):
        pixels.volume(series)


@pytest.mark.shared
def test_whole_folder_within_time_and_memory(folder, pseudonyms):
    begun = time.monotonic()
    with PixelReader() as reader:
        inventory = take_inventory([folder], pseudonyms, pixels=reader)
        for entry in inventory.files:
            if not hasattr(entry.found, "refusal"):
                try:
                    reader.check(entry.found)
                except RefusedError:
                    continue
        status = Path(f"/proc/{reader.worker.pid}/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 1024
    assert len(inventory.files) == 136  # and fixtures.csv itself
    taken = [entry.name for entry in inventory.files if not hasattr(entry.found, "refusal")]
    twice = [entry for entry in inventory.files if _reason(entry) == Reason.DUPLICATE_OBJECT]
    assert len(twice) == 11
    assert set(SAME_OBJECT.split()) & set(taken)
    assert peak < 1000
    assert time.monotonic() - begun < 60


def _reason(entry):
    refusal = getattr(entry.found, "refusal", None)
    return None if refusal is None else refusal.reason
