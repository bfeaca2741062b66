"""The last look at a de-identified object: are the identifiers of its source still somewhere?

No table knows every place: names stand in names of protocols, and numbers of patients in comments.
"""

import re
from collections.abc import Iterator

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import UID

from anomaly.errors import AnomalyError

REMOVED = "REMOVED"
LEAST = 4
"""A value with fewer characters is not looked for: it would be found everywhere by chance."""
_IDENTIFYING = {
    *("PatientID", "OtherPatientIDs", "IssuerOfPatientID", "PatientBirthDate", "PatientAddress", "AccessionNumber"),
    *("PatientTelephoneNumbers", "MedicalRecordLocator", "StudyID", "AdmissionID", "RequestedProcedureID"),
    *("PerformedProcedureStepID", "ScheduledProcedureStepID", "InstitutionName", "InstitutionAddress", "StationName"),
    *("InstitutionalDepartmentName", "DeviceSerialNumber", "RequestingService"),
}
_NOBODY = {"19000101", "ANONYMOUS", "ANONYMIZED", "ANONYMISED", "ANON", "NONE", "UNKNOWN", "NULL", REMOVED}
_TEXT = ("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT")
_UIDS = r"[0-9][0-9.]{6,}[0-9]"
"""What may be a UID; a set of them is looked up, since an object may hold thousands."""


class IdentifierLeftError(AnomalyError):
    """An identifier was still in an object after its de-identification; nothing was written."""


def identifiers_in(source: Dataset, kept: frozenset[str] = frozenset(), *, kept_uids: bool = False) -> frozenset[str]:
    """Returns what must not occur in the result, in lower case: of the patient, the visit, people, places and devices.

    Names are looked for in their parts too; values of fewer than four characters are left out.

    Args:
        source: before de-identification.
        kept: keywords of attributes that are kept on purpose.
        kept_uids: whether UIDs are kept on purpose.
    """
    found: set[str] = set()
    for element in _leaves(source):
        uid = element.VR == "UI" and not kept_uids
        if element.keyword in kept or not (uid or element.VR == "PN" or element.keyword in _IDENTIFYING):
            continue
        for value in element.value if element.VM > 1 else [element.value]:
            parts = str(value).replace("=", "^").split("^") if element.VR == "PN" else [str(value)]
            found |= {part.strip(" \0").lower() for part in parts if _to_be_sought(part.strip(" \0"), element.VR)}
    return frozenset(found)


def _to_be_sought(text: str, vr: str) -> bool:
    if vr == "UI":
        return len(text) >= 2 * LEAST and UID(text).name == text
    return len(text) >= LEAST and text.upper() not in _NOBODY and any(character.isalnum() for character in text)


class Leftovers:
    """Looks for the identifiers of one object."""

    def __init__(self, identifiers: frozenset[str]) -> None:
        """Takes what `identifiers_in` found."""
        self._uids = {one for one in identifiers if "." in one and re.fullmatch(_UIDS, one)}
        self._others = sorted(identifiers - self._uids, key=len, reverse=True)
        words = "|".join(map(re.escape, self._others))
        self._words = re.compile(rf"(?<![^\W_])(?:{words})(?![^\W_])") if words else None

    def replace(self, dataset: Dataset) -> int:
        """Replaces every text in which an identifier stands as a word; returns how many.

        A code string holds a term of the standard, such as HEAD, which may be part of a name by chance: it is
        replaced only for what is long.
        """
        count = 0
        for element in _leaves(dataset):
            least = 2 * LEAST if element.VR == "CS" else LEAST
            if element.VR in _TEXT and any(len(one) >= least for one in self._found(str(element.value).lower())):
                element.value = REMOVED
                count += 1
        return count

    def require_absence(self, content: bytes) -> None:
        """Looks into the bytes of the file, whatever they are.

        Raises:
            IdentifierLeftError: an identifier of eight characters or more is there.
        """
        lower = content.lower()
        long = (one.encode("utf-8", "ignore") for one in self._others if len(one) >= 2 * LEAST)
        numbers = (found[0].decode() for found in re.finditer(_UIDS.encode(), content)) if self._uids else ()
        if any(one in lower for one in long) or not self._uids.isdisjoint(numbers):
            raise IdentifierLeftError("the bytes of the file still held an identifier; it was not written")

    def _found(self, text: str) -> Iterator[str]:
        if self._words is not None:
            yield from self._words.findall(text)
        yield from self._uids.intersection(re.findall(_UIDS, text))


def _leaves(dataset: Dataset) -> Iterator[DataElement]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _leaves(item)
        elif not element.is_empty:
            yield element
