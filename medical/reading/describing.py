"""What a header says of the patient's age, the view, the scanner and the distance of pixels; never a guess.

Runs in the worker process. Sections are those of PS3.3.
"""

from datetime import date, datetime
from typing import Any

from pydicom.dataset import Dataset

from medical.objects import UNKNOWN
from medical.reading.attributes import items, known, numbers, text, uid
from medical.reading.classes import PROJECTION_CLASSES
from medical.reading.groups import group

_VIEWS = {
    "399348003": "AP",
    "R-10206": "AP",
    "272479007": "PA",
    "R-10214": "PA",
    "399173006": "LL",
    "R-10236": "LL",
    "399198007": "RL",
    "R-10232": "RL",
    "399162004": "CC",
    "R-10242": "CC",
    "399368009": "MLO",
    "R-10226": "MLO",
}
"""Codes of views (PS3.16 CID 4010 and 4014; SNOMED CT and the older SRT) as View Position says them."""
_DAYS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


def body_part(header: Dataset) -> str:
    """Returns Body Part Examined, or the meaning of the Anatomic Region, of the first frame in enhanced objects."""
    if (found := known(header, "BodyPartExamined")) != UNKNOWN:
        return found
    anatomy = group(header, "FrameAnatomySequence", 1)
    for source in (header, anatomy):
        regions = items(source, "AnatomicRegionSequence") if source is not None else []
        if regions:
            return known(regions[0], "CodeMeaning")
    return UNKNOWN


def view(header: Dataset) -> str:
    """Returns View Position, or what the View Code says (C.8.4.5, C.8.11.5)."""
    if (found := known(header, "ViewPosition")) != UNKNOWN:
        return found
    codes = items(header, "ViewCodeSequence")
    return _VIEWS.get(text(codes[0], "CodeValue"), UNKNOWN) if codes else UNKNOWN


def laterality(header: Dataset) -> str:
    """Returns Image Laterality, Laterality or Frame Laterality: L, R, B or U."""
    for name in ("ImageLaterality", "Laterality"):
        if (found := known(header, name, ("L", "R", "B", "U"))) != UNKNOWN:
            return found
    anatomy = group(header, "FrameAnatomySequence", 1)
    return known(anatomy, "FrameLaterality", ("L", "R", "B", "U")) if anatomy is not None else UNKNOWN


def scanner(header: Dataset) -> str:
    """Returns manufacturer and model name."""
    return f"{text(header, 'Manufacturer')} {text(header, 'ManufacturerModelName')}".strip() or UNKNOWN


def age_of(header: Dataset) -> float | None:
    """Returns years from Patient's Age (PS3.5 6.2, AS), or between the dates of birth and study; None where unknown."""
    stated = text(header, "PatientAge")
    if stated[:-1].isdigit() and stated[-1] in _DAYS:
        return int(stated[:-1]) * _DAYS[stated[-1]]
    born, studied = _date(text(header, "PatientBirthDate")), _date(text(header, "StudyDate"))
    if born is None or studied is None or studied < born:
        return None
    return (studied - born).days / 365.25


def acquired_at(header: Dataset) -> str | None:
    """Returns study date and time, ISO 8601 without offset; only the date where the time is missing."""
    day, time = _date(text(header, "StudyDate")), text(header, "StudyTime").split(".")[0].replace(":", "")
    if day is None:
        return None
    try:
        clock = datetime.strptime(time.ljust(6, "0"), "%H%M%S").time() if time.isdigit() else None
    except ValueError:
        clock = None
    return datetime.combine(day, clock).isoformat() if clock is not None else day.isoformat()


def _date(stated: str) -> date | None:
    digits = stated.replace(".", "")  # ACR-NEMA wrote 1997.04.24
    try:
        return datetime.strptime(digits, "%Y%m%d").date() if len(digits) == 8 else None
    except ValueError:
        return None


def spacing(header: Dataset) -> list[Any] | None:
    """Returns mm between rows, between columns, and the attribute they come from; None where nothing states them.

    In projection X-ray, Pixel Spacing that equals Imager Pixel Spacing and names no calibration is the one at the
    detector (10.7.1.3).
    """
    stated = {name: numbers(header, name, 2) for name in ("PixelSpacing", "ImagerPixelSpacing")}
    stated["NominalScannedPixelSpacing"] = numbers(header, "NominalScannedPixelSpacing", 2)
    usable = {name: lengths for name, lengths in stated.items() if lengths is not None and min(lengths) > 0}
    projection = uid(header, "SOPClassUID") in PROJECTION_CLASSES
    if projection and not _calibrated(header) and usable.get("PixelSpacing") == usable.get("ImagerPixelSpacing"):
        usable.pop("PixelSpacing", None)
    for name, lengths in usable.items():
        return [*lengths, name]
    return None


def _calibrated(header: Dataset) -> bool:
    """Whether Pixel Spacing is stated to be calibrated to the patient."""
    return text(header, "PixelSpacingCalibrationType") in ("GEOMETRY", "FIDUCIAL")
