"""Header of one object -> what an `Instance` holds; everything is checked before a pixel is decoded.

Runs in the worker process; its results are plain JSON values. The data set's UIDs count, those of the file meta
information do not. Sections of PS3.3 are named where a rule comes from one.
"""

from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset

from medical.reading.attributes import integer, items, known, numbers, text, uid, valid_uid, values
from medical.reading.classes import SECONDARY_CAPTURE, SOP_CLASSES, TRANSFER_SYNTAXES
from medical.reading.describing import acquired_at, age_of, body_part, laterality, scanner, spacing, view
from medical.reading.encapsulated import count_fragments
from medical.reading.groups import plane, presentation
from medical.reading.limits import Limits
from medical.reading.opening import UNDEFINED, Opened, open_object
from medical.refusals import Reason, RefusedError
from medical.vocabulary import MODALITIES, OURS, PROCESSING_EQUIPMENT

PHOTOMETRIC = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    "PALETTE COLOR": 1,
    "RGB": 3,
    "YBR_FULL": 3,
    "YBR_FULL_422": 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
}
"""Photometric Interpretation (C.7.6.3.1.2) and its Samples per Pixel."""
_KNOWN_PHOTOMETRIC = ("ARGB", "CMYK", "HSV", "XYB", "YBR_PARTIAL_420", "YBR_PARTIAL_422")
"""What else the standard has, or had: words that may be repeated."""
_UIDS = (("SOPInstanceUID", "uid"), ("SeriesInstanceUID", "series"), ("StudyInstanceUID", "study"))
_PRIORITIES = ("STAT", "HIGH", "ROUTINE", "MEDIUM", "LOW")


def read_header(path: Path, limits: Limits) -> tuple[Opened, dict[str, Any]]:
    """Opens an object and checks its header.

    Args:
        path: the file.
        limits: of size.

    Returns:
        The opened file, which the caller closes, and {"instance": fields of `Instance` without the path, "planes": one
        for each frame of an enhanced object, else None, "patient": issuer and identifier}.

    Raises:
        RefusedError: with an attribute `about`: what is known of the object, and of its study and patient.
    """
    about: dict[str, Any] = {}
    opened = None
    try:
        opened = open_object(path, limits, about)
        return opened, _checked(opened, limits, about)
    except RefusedError as error:
        if opened is not None:
            opened.close()
        error.about = about  # type: ignore[attr-defined]
        raise
    except BaseException:
        if opened is not None:
            opened.close()
        raise


def _checked(opened: Opened, limits: Limits, about: dict[str, Any]) -> dict[str, Any]:
    header = opened.header
    about |= {"rows": integer(header, "Rows"), "columns": integer(header, "Columns")}
    about["frames"] = _frames(header)
    uids = _checked_uids(header)
    if about["sop_class"] == SECONDARY_CAPTURE and _is_ours(header):
        raise RefusedError(Reason.RESULT, "a summary that this suite wrote")
    if opened.pixels is None:
        raise RefusedError(Reason.NO_PIXELS, "the object has no pixels")
    if opened.pixels.keyword != "PixelData":
        raise RefusedError(Reason.PHOTOMETRIC, "the pixels are floating-point numbers; integers are read")
    form = _checked_form(header, about["sop_class"])
    _check_size(form, limits)
    _check_length(opened, form)
    instance = uids | form | _description(header, opened, about["sop_class"])
    enhanced = SOP_CLASSES[about["sop_class"]].use == "multiframe volume"
    planes = [plane(header, frame) for frame in range(1, form["frames"] + 1)] if enhanced else None
    instance |= _place(header, planes)
    return {"instance": instance, "planes": planes, "patient": about["patient"]}


def _is_ours(header: Dataset) -> bool:
    """Whether this suite made the object, and did not only handle it, as it does in a de-identification."""
    made = [
        item
        for item in items(header, "ContributingEquipmentSequence")
        for purpose in items(item, "PurposeOfReferenceCodeSequence")
        if text(item, "Manufacturer") == OURS.upper() and text(purpose, "CodeValue") == PROCESSING_EQUIPMENT
    ]
    return bool(made) and text(header, "Manufacturer") == OURS.upper()


def _frames(header: Dataset) -> int | None:
    return integer(header, "NumberOfFrames") if values(header, "NumberOfFrames") or "NumberOfFrames" in header else 1


def _checked_uids(header: Dataset) -> dict[str, str]:
    found = {}
    for name, field in _UIDS:
        found[field] = uid(header, name)
        if not valid_uid(found[field]):
            what = "is missing" if not values(header, name) else "is no UID after PS3.5 section 9.1"
            raise RefusedError(Reason.HEADER, f"{name} {what}")
    return found


def _checked_form(header: Dataset, sop_class: str) -> dict[str, Any]:
    """Attributes of the Image Pixel module (C.7.6.3) that say how pixels lie in memory."""
    names = ("Rows", "Columns", "SamplesPerPixel", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation")
    found = {name: integer(header, name) for name in names}
    if missing := [name for name, value in found.items() if value is None]:
        raise RefusedError(Reason.HEADER, f"missing or no number: {', '.join(missing)}")
    photometric = text(header, "PhotometricInterpretation")
    if photometric not in PHOTOMETRIC:
        named = photometric if photometric in _KNOWN_PHOTOMETRIC else "something else"
        raise RefusedError(
            Reason.PHOTOMETRIC,
            f"Photometric Interpretation is {named if photometric else 'missing'}; read are {', '.join(PHOTOMETRIC)}",
        )
    _check_presentation(header, photometric)
    rows, columns, samples, allocated, stored, high, signed = (int(value or 0) for value in found.values())
    frames = _frames(header)
    wrong = {
        "Rows": rows < 1,
        "Columns": columns < 1,
        f"Samples per Pixel of {photometric}": samples != PHOTOMETRIC[photometric],
        "Bits Allocated, 8 or 16": allocated not in (8, 16),
        "Bits Stored, at most Bits Allocated": not 1 < stored <= allocated,
        "High Bit, one less than Bits Stored": high != stored - 1,
        "Pixel Representation, 0 or 1": signed not in (0, 1),
        "Planar Configuration, 0 or 1": samples > 1 and integer(header, "PlanarConfiguration") not in (0, 1),
        "Number of Frames": frames is None or frames < 1,
        "Number of Frames of a single-frame class": SOP_CLASSES[sop_class].use in ("image", "slice") and frames != 1,
    }
    if bad := [name for name, is_wrong in wrong.items() if is_wrong]:
        raise RefusedError(Reason.HEADER, f"values that are not allowed: {'; '.join(bad)}")
    return {"rows": rows, "columns": columns, "frames": frames, "bits": stored, "photometric": photometric}


def _check_presentation(header: Dataset, photometric: str) -> None:
    """Refuses what does not say whether brighter is higher, and colours over grey values (C.11.6, C.8.16.2)."""
    shape = text(header, "PresentationLUTShape")
    if {("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")} & {(photometric, shape)}:
        raise RefusedError(
            Reason.PHOTOMETRIC,
            f"Presentation LUT Shape {shape} contradicts {photometric}: is brighter higher or lower?",
        )
    if presentation(header) not in ("MONOCHROME", "TRUE_COLOR"):
        raise RefusedError(Reason.PHOTOMETRIC, "some grey values stand for colours of a supplemental palette")


def _check_size(form: dict[str, Any], limits: Limits) -> None:
    samples = form["rows"] * form["columns"] * PHOTOMETRIC[form["photometric"]]
    size = samples * form["frames"] * (1 if form["bits"] <= 8 else 2)
    if samples > limits.frame_samples or size > limits.object_bytes:
        raise RefusedError(
            Reason.TOO_LARGE,
            f"{form['frames']} frame(s) of {form['rows']} x {form['columns']} pixels; allowed are "
            f"{limits.frame_samples} samples per frame and {limits.object_bytes >> 20} MiB per object",
        )


def _check_length(opened: Opened, form: dict[str, Any]) -> None:
    """Whether the pixels are all there, as far as that can be told without decoding (PS3.5 section 8)."""
    assert opened.pixels is not None
    pixels = opened.pixels
    if TRANSFER_SYNTAXES[opened.transfer_syntax].codestream is not None:
        if pixels.length != UNDEFINED:
            raise RefusedError(Reason.DAMAGED, "compressed pixels must have undefined length (PS3.5 A.4)")
        if (fragments := count_fragments(opened.buffer, pixels.start)) < form["frames"]:
            raise RefusedError(Reason.DAMAGED, f"{fragments} compressed fragments for {form['frames']} frames")
        return
    samples = 2 if form["photometric"] == "YBR_FULL_422" else PHOTOMETRIC[form["photometric"]]
    allocated = integer(opened.header, "BitsAllocated") or 0
    expected = form["rows"] * form["columns"] * samples * form["frames"] * allocated // 8
    if pixels.length == UNDEFINED:
        raise RefusedError(Reason.DAMAGED, "native pixels must have a defined length")
    there = min(pixels.length, pixels.available)
    if there < expected or pixels.available < pixels.length:
        raise RefusedError(Reason.TRUNCATED, f"{there} of {max(expected, pixels.length)} bytes of pixels are there")


def _description(header: Dataset, opened: Opened, sop_class: str) -> dict[str, Any]:
    return {
        "sop_class": sop_class,
        "transfer_syntax": opened.transfer_syntax,
        "modality": known(header, "Modality", MODALITIES),
        "body_part": body_part(header),
        "view": view(header),
        "laterality": laterality(header),
        "sex": known(header, "PatientSex", ("M", "F", "O")),
        "age": age_of(header),
        "scanner": scanner(header),
        "priority": known(header, "RequestedProcedurePriority", _PRIORITIES),
        "acquired": acquired_at(header),
        "image_type": [str(one).strip().upper()[:64] for one in values(header, "ImageType")[:16]],
        "frame_of_reference": _frame_of_reference(header),
        "acquisition": integer(header, "AcquisitionNumber"),
        "number": integer(header, "InstanceNumber"),
    }


def _frame_of_reference(header: Dataset) -> str | None:
    found = uid(header, "FrameOfReferenceUID")
    if values(header, "FrameOfReferenceUID") and not valid_uid(found):
        raise RefusedError(Reason.HEADER, "FrameOfReferenceUID is no UID after PS3.5 section 9.1")
    return found or None


def _place(header: Dataset, planes: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Spacing, orientation and position: of the object, or of the first frame of an enhanced one."""
    if planes is None:
        return {
            "spacing": spacing(header),
            "orientation": numbers(header, "ImageOrientationPatient", 6),
            "position": numbers(header, "ImagePositionPatient", 3),
        }
    first = planes[0]
    lengths = first["spacing"]
    stated = lengths is not None and min(lengths) > 0
    return {
        "spacing": [*lengths, "PixelSpacing"] if stated else None,
        "orientation": first["orientation"],
        "position": first["position"],
    }
