"""The source objects of a study as results need them: headers, patient and study, references; never pixels.

Text is decoded once and goes into the results as UTF-8 ("ISO_IR 192", PS3.3 C.12.1.1.2), so that names survive whatever
character sets the sources use. The libraries see copies without the patient: their warnings and errors repeat values.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medical.outcome import Analysed, Outcome
from medical.results.settings import ResultError

IDENTIFYING = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""Attributes of type 2 of the patient and study modules that every result takes over as they are."""

UTF8 = "ISO_IR 192"
SAME_DIRECTION = 1e-4
"""Direction cosines that differ by less are one orientation; what rounding in the scanner leaves."""


@dataclass(frozen=True)
class Sources:
    """Headers of a study.

    Attributes:
        analysed: SOP Instance UID -> header of the analysed objects, in their order.
        refused: (header, index in `outcome.unread`) of the objects not analysed with a readable header.
    """

    analysed: dict[str, Any]
    refused: tuple[tuple[Any, int], ...]

    @property
    def headers(self) -> list[Any]:
        """All headers, the analysed objects first, each object once."""
        refused = {str(header.SOPInstanceUID): header for header, _ in self.refused}
        return list({**self.analysed, **refused}.values())

    def of(self, analysed: Analysed) -> list[Any]:
        """Returns the headers of an analysed image or volume."""
        return [self.analysed[instance.uid] for instance in analysed.instances]


def read_sources(outcome: Outcome) -> Sources:
    """Reads the headers of all objects of a study that have one.

    Raises:
        ResultError: an analysed object cannot be read any more or is not of the study, or no object has a header that
            says whose study it is.
    """
    instances = {i.uid: i for analysed in outcome.analysed for i in analysed.instances}
    analysed = {}
    for number, (uid, instance) in enumerate(instances.items(), 1):
        header = read_header(instance.path)
        if header is None or str(header.get("SOPInstanceUID")) != uid or not _of_study(header, outcome.study):
            raise ResultError(
                f"analysed object {number} of {len(instances)} is gone, cannot be read or was exchanged since its "
                "analysis; results need its header: analyse the study again"
            )
        analysed[uid] = header
    refused = []
    for index, file in enumerate(outcome.unread):
        header = read_header(file.path, cautious=True) if file.study == outcome.study else None
        if header is not None and _of_study(header, outcome.study):
            refused.append((header, index))
    if not analysed and not refused:
        raise ResultError(
            "no object of the study has a header that can be read, so that no DICOM result can say whose it is; the "
            "study stays in the worklist as NOT_ANALYSED"
        )
    return Sources(analysed, tuple(refused))


def read_header(path: Path, *, cautious: bool = False) -> Any | None:
    """Returns all attributes but the pixels, text decoded; None where the file cannot be read.

    Args:
        path: a DICOM file.
        cautious: leaves out deflated files: of a refused one nobody knows how large it becomes.
    """
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    try:
        if cautious and read_file_meta_info(path).get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            return None
        header = dcmread(path, stop_before_pixels=True)
        header.decode()
        header.SpecificCharacterSet = UTF8
    except (OSError, InvalidDicomError, ValueError, TypeError, KeyError, AttributeError, LookupError, EOFError):
        return None
    return header


def _of_study(header: Any, study: str) -> bool:
    needed = ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")
    return all(header.get(name) for name in needed) and str(header.StudyInstanceUID) == study


def without_patient(header: Any) -> Any:
    """Returns a copy for the libraries: what identifies is empty, everything else is shared with the header."""
    from pydicom.dataset import Dataset

    made = Dataset()  # Dataset(header) would share the elements: a deletion would reach the header
    made.update(header)
    for name in IDENTIFYING:
        if name in made:
            del made[name]
        setattr(made, name, "")
    return made


def give_patient(result: Any, header: Any) -> None:
    """Writes patient and study of the source into a result (PS3.3 C.7.1, C.7.2), as they are, invalid values too."""
    carrier = without_patient(header)
    del carrier["SOPClassUID"]  # an assignment would reach the header
    carrier.SOPClassUID = result.SOPClassUID  # decides which modules are copied
    result.copy_patient_and_study_information(carrier)
    for name in IDENTIFYING:
        if name in header:
            result.add(header[name])


def one_orientation(headers: Sequence[Any]) -> list[Any]:
    """Returns copies for the libraries of single-frame slices, the orientation of the first on all of them.

    Raises:
        ResultError: the slices have several orientations.
    """
    first = [float(cosine) for cosine in headers[0].ImageOrientationPatient]
    made = []
    for header in headers:
        cosines = [float(cosine) for cosine in header.ImageOrientationPatient]
        if max(abs(a - b) for a, b in zip(first, cosines, strict=True)) > SAME_DIRECTION:
            raise ResultError("the slices of one map have several orientations; a map needs slices of one orientation")
        copy = without_patient(header)
        del copy["ImageOrientationPatient"]
        copy.ImageOrientationPatient = list(headers[0].ImageOrientationPatient)
        made.append(copy)
    return made
