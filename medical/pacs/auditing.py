"""The audit trail of the service: what PS3.15 section A.5.3 wants to be recorded of what the log tells.

Application Activity at start and stop, DICOM Instances Transferred per study that came in and per delivery that was
verified, Security Alert (Node Authentication) for everybody who was turned away.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medical.privacy.audit import AuditTrail
from medical.privacy.audit_messages import AuditEvent, AuditOutcome, AuditRole, AuditType, Participant, Subject
from medical.privacy.log_fields import Event

AUDIT_FILE = "audit.jsonl"


class Auditor:
    """Records what it hears of the log."""

    def __init__(self, folder: Path, ae_title: str, key: bytes | None) -> None:
        """Opens the trail in the spool folder."""
        self._trail, self._us = AuditTrail(folder / AUDIT_FILE, ae_title, key), ae_title

    def heard(self, event: Event, fields: Mapping[str, Any]) -> None:
        """Records an event of the log, if the standard wants it.

        Raises:
            AuditError: the trail was cut.
            SettingError: a name cannot stand in a trail.
            OSError: it cannot be written.
        """
        if event in (Event.STARTED, Event.STOPPED):
            kind = AuditType.APPLICATION_START if event is Event.STARTED else AuditType.APPLICATION_STOP
            us = Participant(self._us, AuditRole.APPLICATION)
            self._trail.record(AuditEvent.APPLICATION_ACTIVITY, [us], kind=kind)
        elif event is Event.REFUSED:
            stranger = Participant("unknown", AuditRole.SOURCE, requestor=True, address=fields.get("address", ""))
            who = [stranger, Participant(self._us, AuditRole.DESTINATION)]
            failure, kind = AuditOutcome.MINOR_FAILURE, AuditType.NODE_AUTHENTICATION
            self._trail.record(AuditEvent.SECURITY_ALERT, who, outcome=failure, kind=kind)
        elif event is Event.COMPLETE:
            sources = fields.get("source", "unknown").split(", ")
            self._transferred([*sources], [self._us], fields)
        elif event is Event.VERIFIED:
            self._transferred([self._us], [fields.get("destination", "unknown")], fields)

    def _transferred(self, sources: Sequence[str], targets: Sequence[str], fields: Mapping[str, Any]) -> None:
        who = [Participant(one, AuditRole.SOURCE, requestor=True) for one in sources]
        who += [Participant(one, AuditRole.DESTINATION) for one in targets]
        study = Subject("study", fields.get("study", ""))
        self._trail.record(AuditEvent.INSTANCES_TRANSFERRED, who, [study])
