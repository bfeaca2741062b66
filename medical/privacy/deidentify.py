"""De-identification of one DICOM object (PS3.15 Annex E), and the check that nothing that was removed is still there.

Pseudonyms, UIDs and moved dates come from a keyed hash: with the same key the same patient, study and object get the
same ones, in every run and on every machine; without the key nobody can make them again.
"""

import hashlib
import hmac
import io
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence
from pydicom.uid import UID

from medical.privacy.keys import derived
from medical.privacy.leftovers import REMOVED, Leftovers, identifiers_in
from medical.privacy.profile import STRUCTURED, TABLE, Options, Profile
from medical.pseudonyms import Pseudonyms

_EARLIEST, _DAYS = 30, 3650
"""Dates are moved back by so many days, at least and at most more."""
_DUMMIES: dict[str, Any] = {
    "DA": "19000101",
    "TM": "000000",
    "DT": "19000101000000",
    "AS": "000Y",
    "DS": "0",
    "IS": "0",
    "UR": "http://removed.invalid",
    **dict.fromkeys(("AE", "CS", "LO", "LT", "PN", "SH", "ST", "UC", "UT"), REMOVED),
    **dict.fromkeys(("FD", "FL", "SS", "US", "SL", "UL", "SV", "UV"), 0),
}


@dataclass(frozen=True)
class Deidentified:
    """One object after de-identification.

    Attributes:
        content: the file.
        patient: pseudonym of the patient.
        study: pseudonym of the study.
        instance: pseudonym of the object.
        removed: how many attributes were removed or emptied.
        replaced: how many got another value.
    """

    content: bytes
    patient: str
    study: str
    instance: str
    removed: int
    replaced: int


class Deidentifier:
    """De-identifies objects with one key and one set of options."""

    def __init__(self, key: bytes, options: Options) -> None:
        """Derives its own key; pseudonyms here are others than in logs and worklists, so that they cannot be joined."""
        own = derived(key, "de-identification")
        self._key, self._options = own, options
        self._names, self._profile = Pseudonyms(own), Profile(options)

    def __call__(self, source: FileDataset) -> Deidentified:
        """Returns the de-identified object; `source` is changed and must not be used again.

        Args:
            source: a whole object with its file meta information.

        Raises:
            IdentifierLeftError: an identifier was still there afterwards, so the object must not be given away.
        """
        leftovers = Leftovers(identifiers_in(source, frozenset(self._profile.kept), kept_uids=self._options.uids))
        patient = self._patient(source)
        work = _Work(self._profile, self._key, patient)
        study = self._names.of(f"study|{source.get('StudyInstanceUID', '')}")
        instance = self._names.of(f"object|{source.get('SOPInstanceUID', '')}")
        structured = "ContentSequence" in source
        work.clean(source)
        if not self._options.uids:
            work.map_uids(source)
        work.replaced += leftovers.replace(source)
        self._sign(source, patient, structured=structured)
        content = _encoded(source)
        leftovers.require_absence(content)
        return Deidentified(content, patient, study, instance, work.removed, work.replaced)

    def _patient(self, source: Dataset) -> str:
        """An object without a Patient ID belongs to a patient of its own study."""
        identifier, issuer = str(source.get("PatientID", "")), str(source.get("IssuerOfPatientID", ""))
        unknown = not identifier.strip()
        return self._names.of(
            f"study|{source.get('StudyInstanceUID', '')}" if unknown else f"patient|{issuer}|{identifier}"
        )

    def _sign(self, target: Dataset, patient: str, *, structured: bool) -> None:
        """Says what was done (PS3.15 E.1.1, PS3.3 C.12.1.1.1 and C.7.1.1)."""
        target.PatientName = target.PatientID = patient
        target.PatientIdentityRemoved = "YES"
        target.DeidentificationMethod = ["PS3.15 Annex E, anomaly-suite", f"dicom-anonymizer table {TABLE[-5:]}"]
        codes = (*self._options.codes(), *((STRUCTURED,) if structured else ()))
        target.DeidentificationMethodCodeSequence = Sequence([_code(*code) for code in codes])
        target.LongitudinalTemporalInformationModified = "MODIFIED" if self._options.modified_dates else "REMOVED"


class _Work:
    """One object while it is worked on."""

    def __init__(self, profile: Profile, key: bytes, patient: str) -> None:
        self._profile, self._key = profile, key
        number = int.from_bytes(hmac.digest(key, f"days|{patient}".encode(), "sha256")[:8], "big")
        self._days = timedelta(days=_EARLIEST + number % _DAYS)
        self.removed = self.replaced = 0

    def clean(self, dataset: Dataset) -> None:
        """Treats every attribute of a data set and of the items in it."""
        for tag in list(dataset.keys()):
            element = dataset[tag]
            action = self._profile.action(element.tag, element.VR)
            if action == "items" or (action == "keep" and element.VR == "SQ"):
                for item in element.value if element.VR == "SQ" else ():
                    self.clean(item)
            elif action == "remove":
                del dataset[tag]
                self.removed += 1
            elif action in ("empty", "dummy", "shift") and not element.is_empty:
                self._replace(element, action)
            if element.keyword == "PatientAge" and action == "keep":
                element.value = _capped(str(element.value))

    def _replace(self, element: DataElement, action: str) -> None:
        if action == "empty":
            element.value = Sequence() if element.VR == "SQ" else None
            self.removed += 1
            return
        if action == "shift":
            element.value = _each(element.value, lambda value: self._moved(str(value), element.VR))
        elif element.VR == "SQ":
            for item in element.value:
                for inner in item:
                    self._replace(inner, "dummy") if inner.VR not in ("UI",) else None
        else:
            element.value = _DUMMIES.get(element.VR)
        self.replaced += 1

    def _moved(self, value: str, vr: str) -> str:
        """A time of day stays; a date of no known form becomes the dummy."""
        if vr == "TM" or not value:
            return value
        try:
            day = date(int(value[:4]), int(value[4:6]), int(value[6:8]))
            return f"{day - self._days:%Y%m%d}{value[8:] if vr == 'DT' else ''}"
        except (ValueError, OverflowError):
            return str(_DUMMIES[vr])

    def map_uids(self, dataset: Dataset) -> None:
        """Maps every UID that is not one of the standard's, wherever it stands."""
        for element in dataset:
            if element.VR == "SQ":
                for item in element.value:
                    self.map_uids(item)
            elif element.VR == "UI" and not element.is_empty and element.keyword not in self._profile.kept:
                element.value = _each(element.value, lambda value: self._uid(str(value)))

    def _uid(self, uid: str) -> str:
        """UUID-derived form of PS3.5 B.2; a UID of the standard, such as of a SOP class, stays."""
        if not uid or UID(uid).name != uid:
            return uid
        return f"2.25.{int.from_bytes(hmac.digest(self._key, f'uid|{uid}'.encode(), hashlib.sha256)[:16], 'big')}"


def _encoded(target: FileDataset) -> bytes:
    """A new preamble and new file meta information: the old ones may name the sender."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = target.file_meta.TransferSyntaxUID
    target.file_meta, target.preamble = meta, bytes(128)
    stream = io.BytesIO()
    target.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _each(value: Any, change: Callable[[Any], str]) -> Any:
    return [change(one) for one in value] if isinstance(value, MultiValue | list) else change(value)


def _capped(age: str) -> str:
    """Ages above 90 years are so rare that they identify (45 CFR 164.514(b)(2)(i)(C))."""
    return "090Y" if age.endswith("Y") and age[:-1].isdigit() and int(age[:-1]) > 90 else age


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, "DCM", meaning
    return code
