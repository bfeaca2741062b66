"""Audit messages with the structure of PS3.15 section A.5.1, as JSON; pseudonyms in the place of identifiers.

The names of elements are those of the schema; codes are of PS3.16 CID 400 (events), 401 (types) and 402 (roles).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, IntEnum
from typing import Any, Literal

from anomaly.errors import SettingError

Code = tuple[str, str]


class AuditEvent(Enum):
    """Event ID (PS3.16 CID 400) and what was done: Create, Read, Update, Delete or Execute (PS3.15 A.5.3)."""

    APPLICATION_ACTIVITY = ("110100", "Application Activity", "E")
    AUDIT_LOG_USED = ("110101", "Audit Log Used", "R")
    BEGIN_TRANSFERRING = ("110102", "Begin Transferring DICOM Instances", "E")
    INSTANCES_ACCESSED = ("110103", "DICOM Instances Accessed", "R")
    INSTANCES_TRANSFERRED = ("110104", "DICOM Instances Transferred", "C")
    STUDY_DELETED = ("110105", "DICOM Study Deleted", "D")
    EXPORT = ("110106", "Export", "R")
    IMPORT = ("110107", "Import", "C")
    NETWORK_ENTRY = ("110108", "Network Entry", "E")
    QUERY = ("110112", "Query", "E")
    SECURITY_ALERT = ("110113", "Security Alert", "E")
    USER_AUTHENTICATION = ("110114", "User Authentication", "E")


class AuditType(Enum):
    """Event type code (PS3.16 CID 401)."""

    APPLICATION_START = ("110120", "Application Start")
    APPLICATION_STOP = ("110121", "Application Stop")
    LOGIN = ("110122", "Login")
    LOGOUT = ("110123", "Logout")
    NODE_AUTHENTICATION = ("110126", "Node Authentication")
    SECURITY_CONFIGURATION = ("110129", "Security Configuration")
    SOFTWARE_CONFIGURATION = ("110131", "Software Configuration")
    USE_OF_RESTRICTED_FUNCTION = ("110132", "Use of Restricted Function")
    AUDIT_RECORDING_STOPPED = ("110133", "Audit Recording Stopped")
    AUDIT_RECORDING_STARTED = ("110134", "Audit Recording Started")


class AuditRole(Enum):
    """Role of a participant (PS3.16 CID 402)."""

    APPLICATION = ("110150", "Application")
    LAUNCHER = ("110151", "Application Launcher")
    DESTINATION_MEDIA = ("110154", "Destination Media")
    SOURCE_MEDIA = ("110155", "Source Media")
    DESTINATION = ("110152", "Destination Role ID")
    SOURCE = ("110153", "Source Role ID")


class AuditOutcome(IntEnum):
    """Event outcome indicator."""

    SUCCESS = 0
    MINOR_FAILURE = 4
    SERIOUS_FAILURE = 8
    MAJOR_FAILURE = 12


_USER = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _.:@/-]{0,63}")
_ADDRESS = re.compile(r"[A-Za-z0-9_.:%-]{1,255}")
_DIGITS = re.compile("[0-9a-f]{16}|[0-9a-f]{64}")
_UID = re.compile(r"[0-9.]{1,64}")


@dataclass(frozen=True)
class Participant:
    """Who took part: a process, a peer or a user; never a patient.

    Attributes:
        user: AE title, name of the command or of the account, 1 to 64 plain characters.
        role: what it did.
        requestor: whether it asked for the event.
        address: IP address or name of its machine; empty where it has none.
    """

    user: str
    role: AuditRole
    requestor: bool = False
    address: str = ""

    def __post_init__(self) -> None:
        """Refuses text that could hold more than a name of a machine or account."""
        if not _USER.fullmatch(self.user):
            raise SettingError("user of Participant must be 1 to 64 letters, digits and any of: space _ . : @ / -")
        if self.address and not _ADDRESS.fullmatch(self.address):
            raise SettingError("address of Participant must be an IP address or the name of a machine")

    def element(self) -> dict[str, Any]:
        """Returns the element ActiveParticipant."""
        found: dict[str, Any] = {
            "UserID": self.user,
            "UserIsRequestor": self.requestor,
            "RoleIDCode": _code(self.role.value),
        }
        if self.address:
            number = bool(re.fullmatch(r"[0-9.]+|[0-9a-fA-F:%]*:[0-9a-fA-F:.%\w]*", self.address))
            found |= {"NetworkAccessPointTypeCode": 2 if number else 1, "NetworkAccessPointID": self.address}
        return found


@dataclass(frozen=True)
class Subject:
    """What the event was about.

    Attributes:
        kind: of the object.
        pseudonym: 16 hexadecimal digits of `medical.pseudonyms`, or the sha256 of a model.
        sop_classes: SOP Class UID -> number of instances, where known; UIDs of classes tell nothing of a patient.
    """

    kind: Literal["patient", "study", "model", "query"]
    pseudonym: str
    sop_classes: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuses what is no pseudonym; the value is not repeated, for it may be an identifier."""
        if not _DIGITS.fullmatch(self.pseudonym):
            raise SettingError("pseudonym of Subject must be 16 or 64 hexadecimal digits, never the identifier itself")
        if not all(_UID.fullmatch(uid) for uid in self.sop_classes):
            raise SettingError("sop_classes of Subject must be UIDs")

    def element(self) -> dict[str, Any]:
        """Returns the element ParticipantObjectIdentification (PS3.15 A.5.1, table A.5.2-1)."""
        kind, role, code = _SUBJECTS[self.kind]
        found: dict[str, Any] = {
            "ParticipantObjectID": self.pseudonym,
            "ParticipantObjectTypeCode": kind,
            "ParticipantObjectTypeCodeRole": role,
            "ParticipantObjectIDTypeCode": _code(code[:2], code[2]),
            "ParticipantObjectSensitivity": "sha256 of the file" if self.kind == "model" else "pseudonym, keyed hash",
        }
        if self.sop_classes:
            classes = [{"UID": uid, "NumberOfInstances": number} for uid, number in sorted(self.sop_classes.items())]
            found["ParticipantObjectDescription"] = {"SOPClass": classes}
        return found


_SUBJECTS = {
    "patient": (1, 1, ("2", "Patient Number", "RFC-3881")),
    "study": (2, 3, ("110180", "Study Instance UID", "DCM")),
    "model": (2, 4, ("12", "URI", "RFC-3881")),
    "query": (2, 24, ("10", "Search Criteria", "RFC-3881")),
}


def audit_message(
    event: AuditEvent,
    outcome: AuditOutcome,
    source: str,
    participants: Sequence[Participant],
    subjects: Sequence[Subject],
    kind: AuditType | None,
) -> dict[str, Any]:
    """Returns an AuditMessage.

    Args:
        event: what happened.
        outcome: how it ended.
        source: Audit Source ID, the name of this installation.
        participants: at least one.
        subjects: any number.
        kind: event type code, where the event has one.

    Raises:
        SettingError: there is no participant.
    """
    if not participants:
        raise SettingError("an audit message needs at least one participant (PS3.15 A.5.1)")
    code, meaning, action = event.value
    identification: dict[str, Any] = {
        "EventActionCode": action,
        "EventDateTime": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "EventOutcomeIndicator": int(outcome),
        "EventID": _code((code, meaning)),
    }
    if kind is not None:
        identification["EventTypeCode"] = _code(kind.value)
    return {
        "EventIdentification": identification,
        "ActiveParticipant": [participant.element() for participant in participants],
        "AuditSourceIdentification": {"AuditSourceID": source, "AuditSourceTypeCode": 4},
        "ParticipantObjectIdentification": [subject.element() for subject in subjects],
    }


def _code(code: Code, system: str = "DCM") -> dict[str, str]:
    return {"csd-code": code[0], "codeSystemName": system, "originalText": code[1]}
