"""Chest X-rays in DICOM files -> grey pictures of 16 bits, by the reader of the radiology room (`medical.reading`).

Values are those that the stored bits can express, spread over 0..65535 and brighter for higher, whatever the
photometric interpretation says; no window of the header is applied. Nothing is turned, flipped or cut, so boxes in
pixels of the file stay where they are.

The authors of VinDr-CXR removed every attribute but those about pixels, age and sex (vindr-cxr/PHI-De-Identification on
GitHub), the SOP class and all UIDs among them; the reader refuses such an object. What is missing is filled in, in a
temporary copy: the class of the file meta information, and UIDs made from the name of the file.
"""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import ImageFileError

if TYPE_CHECKING:
    from medical.objects import Instance, RefusedFile
    from medical.reading import PixelReader

SUFFIXES = (".dcm", ".dicom")
HIGHEST = 65535
PREFIX = "DICOM "
"""Begins the name of every text of `Picture.about`."""
AGE = f"{PREFIX}age"


class Picture(NamedTuple):
    """What a DICOM file shows, and what its header says of the acquisition.

    Attributes:
        pixels: (H, W) uint16.
        about: view, sex, age in years and scanner, as text, where the header states them; names begin with `PREFIX`.
    """

    pixels: NDArray[np.uint16]
    about: dict[str, str]


def read_dicom(path: Path, reader: "PixelReader") -> Picture:
    """Reads one X-ray.

    Args:
        path: the file.
        reader: decodes; threads may share it.

    Raises:
        ImageFileError: the reader refuses it, with the code of the refusal; or it is no single grey picture.
    """
    from medical.refusals import RefusedError

    with TemporaryDirectory(prefix="anomaly-dicom-") as folder:
        instance = _instance(path, Path(folder), reader)
        try:
            image = reader.image(instance)
        except RefusedError as error:
            raise ImageFileError(path, f"is refused by the DICOM reader: {error.refusal}") from None
    if instance.frames != 1 or image.values.ndim != 2 or image.unit != "stored":
        what = f"{instance.frames} frame(s), shape {image.values.shape}, unit {image.unit}"
        raise ImageFileError(path, f"is no single grey picture such as an X-ray: {what}")
    return Picture(np.rint(image.values * HIGHEST).astype(np.uint16), _about(instance))


def _instance(path: Path, folder: Path, reader: "PixelReader") -> "Instance":
    from medical.objects import Instance
    from medical.refusals import Reason

    found = _looked_at(path, reader)
    if not isinstance(found, Instance) and found.refusal.reason == Reason.HEADER:
        copy = _completed(path, folder)
        found = found if copy is None else _looked_at(copy, reader)
    if isinstance(found, Instance):
        return found
    raise ImageFileError(path, f"is refused by the DICOM reader: {found.refusal}")


def _looked_at(path: Path, reader: "PixelReader") -> "Instance | RefusedFile":
    from medical.pseudonyms import Pseudonyms
    from medical.reading import take_inventory

    with take_inventory([path], Pseudonyms(bytes(32)), pixels=reader) as inventory:
        return inventory.files[0].found


def _completed(path: Path, folder: Path) -> Path | None:
    """Writes a copy with SOP class and UIDs; None where the data set has its class, so that something else is wrong."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.uid import generate_uid

    try:
        dataset = dcmread(path)
    except (InvalidDicomError, OSError, ValueError, EOFError):
        return None
    sop_class = dataset.file_meta.get("MediaStorageSOPClassUID")
    if "SOPClassUID" in dataset or not sop_class:
        return None
    if "MediaStorageSOPInstanceUID" in dataset.file_meta:
        del dataset.file_meta["MediaStorageSOPInstanceUID"]  # an MD5, which must not even be looked at: it is no UID
    uids = {name: generate_uid(entropy_srcs=[path.stem, name]) for name in ("Study", "Series", "SOP")}
    dataset.SOPClassUID = sop_class
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids["Study"], uids["Series"]
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uids["SOP"]
    target = folder / "completed.dcm"
    dataset.save_as(target)
    return target


def _about(instance: "Instance") -> dict[str, str]:
    from medical.objects import UNKNOWN

    known = {"view": instance.view, "sex": instance.sex, "scanner": instance.scanner}
    found = {f"{PREFIX}{name}": value for name, value in known.items() if value and value != UNKNOWN}
    if instance.age is not None:
        found[AGE] = f"{instance.age:g}"
    return found
