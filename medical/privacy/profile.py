"""What becomes of each attribute: PS3.15 table E.1-1 as dicom-anonymizer holds it (edition 2026c), and options.

Where the table leaves a choice (X/Z, X/D, ...) the value is replaced and the attribute stays, so that no object loses
an attribute that it needs. The table names attributes; beyond it this profile also removes what it does not know:
private and unknown attributes and values of unknown form; free text is replaced. Options keep what
the table's columns of them mark with K, here without the free text of those columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.tag import BaseTag, Tag

Action = Literal["remove", "empty", "dummy", "uid", "items", "shift", "keep"]
"""Remove the attribute; leave it without a value; give it a dummy value; map its UIDs; treat the items of a sequence
like the data set; move a date by the patient's days; keep it."""

TABLE = "dicomfields_2026c"
PROFILE = ("113100", "Basic Application Confidentiality Profile")
STRUCTURED = ("113104", "Clean Structured Content Option")
_ACTIONS: dict[str, Action] = {
    "delete": "remove",
    "empty": "empty",
    "delete_or_empty": "empty",
    "replace": "dummy",
    "empty_or_replace": "dummy",
    "delete_or_replace": "dummy",
    "delete_or_empty_or_replace": "dummy",
    "replace_UID": "uid",
    "delete_or_empty_or_replace_UID": "items",
}
_CHARACTERISTICS = (
    "PatientSex",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "EthnicGroup",
    "SmokingStatus",
    "PregnancyStatus",
    "PatientSexNeutered",
)
_DEVICE = (
    "DeviceSerialNumber",
    "DeviceUID",
    "StationName",
    "DetectorID",
    "GantryID",
    "GeneratorID",
    "PlateID",
    "CassetteID",
    "XRayDetectorID",
    "XRaySourceID",
)
_FREE_TEXT = ("LT", "ST", "UC", "UR", "UT")
_TEXT_KEPT = ("LongCodeValue", "URNCodeValue")
_DATES = ("DA", "DT", "TM")
_BULK_GROUPS = (0x0028, 0x0062, 0x7FE0)
"""Groups whose binary attributes are pixels, look-up tables and palettes."""
_OVERLAYS = 0x6000
"""Group of overlays, which may hold text as pixels; the table removes their data, without which the rest is invalid."""


@dataclass(frozen=True)
class Options:
    """Options of the profile (PS3.15 E.3); without one, the attributes are treated by the basic profile.

    Attributes:
        modified_dates: move dates, by a number of days that is the same for all of a patient, instead of removing
            them (Retain Longitudinal Temporal Information with Modified Dates). Times of day are kept.
        patient_characteristics: keep sex, age, size, weight and the like; ages above 90 years become 90.
        device_identity: keep serial numbers and names of devices.
        uids: keep UIDs; whoever has the originals can find them again.
    """

    modified_dates: bool = False
    patient_characteristics: bool = False
    device_identity: bool = False
    uids: bool = False

    def codes(self) -> tuple[tuple[str, str], ...]:
        """Returns the codes of what is applied to every object (PS3.16 CID 7050)."""
        chosen = {
            ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"): self.modified_dates,
            ("113108", "Retain Patient Characteristics Option"): self.patient_characteristics,
            ("113109", "Retain Device Identity Option"): self.device_identity,
            ("113110", "Retain UIDs Option"): self.uids,
        }
        return (PROFILE, *(code for code, wanted in chosen.items() if wanted))


class Profile:
    """Says what becomes of an attribute.

    Attributes:
        kept: keywords of the attributes that the options keep.
    """

    def __init__(self, options: Options) -> None:
        """Loads the table."""
        self._options = options
        self._table, self._masked = _table()
        self.kept = {
            *(_CHARACTERISTICS if options.patient_characteristics else ()),
            *(_DEVICE if options.device_identity else ()),
        }

    def action(self, tag: BaseTag, vr: str) -> Action:
        """Returns what becomes of a public or private attribute with this value representation."""
        if tag.is_private or tag.element == 0:
            return "remove"
        keyword = keyword_for_tag(tag)
        listed = self._listed(tag)
        if (not keyword and listed is None) or tag.group & 0xFF00 == _OVERLAYS:
            return "remove"
        if keyword in self.kept:
            return "keep"
        if keyword == "ContentSequence":
            return "items"
        if vr == "UI":
            return "uid" if listed is None or listed in ("uid", "dummy", "items") else listed
        if vr in _DATES:
            return self._date(tag, listed)
        return listed or _unlisted(tag, vr, keyword)

    def _date(self, tag: BaseTag, listed: Action | None) -> Action:
        """Dates of the patient himself, such as of birth, are never kept, not even moved."""
        if self._options.modified_dates and tag.group != 0x0010:
            return "shift"
        return listed or "dummy"

    def _listed(self, tag: BaseTag) -> Action | None:
        exact = self._table.get((tag.group, tag.element))
        if exact is not None:
            return exact
        masked = (group == tag.group & mask and low == tag.element & least for group, low, mask, least in self._masked)
        return "remove" if any(masked) else None


def _unlisted(tag: BaseTag, vr: str, keyword: str) -> Action:
    if vr == "SQ":
        return "items"
    if vr == "PN" or (vr in _FREE_TEXT and keyword not in _TEXT_KEPT):
        return "dummy"
    return "remove" if vr in ("OB", "UN") and tag.group not in _BULK_GROUPS else "keep"


@cache
def _table() -> tuple[dict[tuple[int, int], Action], tuple[tuple[int, int, int, int], ...]]:
    """Exact tags -> action, and (group, element, mask of group, mask of element) of repeating groups, all removed."""
    from dicomanonymizer.simpledicomanonymizer import initialize_actions  # type: ignore[import-untyped]

    rules: dict[tuple[int, ...], Callable[..., None]] = initialize_actions(TABLE)
    exact: dict[tuple[int, int], Action] = {}
    for tag, function in rules.items():
        if len(tag) == 2:
            action = _ACTIONS[function.__name__]
            exact[tag[0], tag[1]] = "uid" if action == "items" and _vr(Tag(tag)) == "UI" else action
    return exact, tuple((tag[0], tag[1], tag[2], tag[3]) for tag in rules if len(tag) == 4)


def _vr(tag: BaseTag) -> str:
    return str(dictionary_VR(tag)) if keyword_for_tag(tag) else ""
