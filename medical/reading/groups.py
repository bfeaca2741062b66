"""Functional groups of enhanced multi-frame objects (PS3.3 C.7.6.16): what holds for one frame, or for all of them.

Runs in the worker process.
"""

from pydicom.dataset import Dataset

from medical.reading.attributes import integer, items, numbers, values


def group(source: Dataset, name: str, frame: int) -> Dataset | None:
    """Returns the first item of a functional group of a 1-based frame: its own, else the shared one; else None."""
    frames = items(source, "PerFrameFunctionalGroupsSequence")
    own = items(frames[frame - 1], name) if 0 < frame <= len(frames) else []
    if own:
        return own[0]
    shared = items(source, "SharedFunctionalGroupsSequence")
    found = items(shared[0], name) if shared else []
    return found[0] if found else None


def plane(source: Dataset, frame: int) -> dict[str, object]:
    """Returns orientation (6), position (3), spacing of rows and columns (2), acquisition; None where not stated."""
    orientation = group(source, "PlaneOrientationSequence", frame)
    position = group(source, "PlanePositionSequence", frame)
    measures = group(source, "PixelMeasuresSequence", frame)
    content = group(source, "FrameContentSequence", frame)
    return {
        "orientation": numbers(orientation, "ImageOrientationPatient", 6) if orientation is not None else None,
        "position": numbers(position, "ImagePositionPatient", 3) if position is not None else None,
        "spacing": numbers(measures, "PixelSpacing", 2) if measures is not None else None,
        "acquisition": integer(content, "FrameAcquisitionNumber") if content is not None else None,
    }


def presentation(source: Dataset) -> str:
    """Returns Pixel Presentation of an enhanced object: "MONOCHROME" where nothing says otherwise."""
    found = [str(one).upper() for one in values(source, "PixelPresentation")]
    return found[0] if found else "MONOCHROME"
