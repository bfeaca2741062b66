"""A run of triage: each outcome is logged, audited and written as it comes; its maps are let go at once."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType

import numpy as np
from jaxtyping import UInt8

from medical.model import TriageModel
from medical.outcome import Outcome
from medical.privacy.audit import AuditTrail
from medical.privacy.audit_messages import AuditEvent, AuditOutcome, AuditRole, AuditType, Participant, Subject
from medical.privacy.log_fields import Event
from medical.privacy.logs import log, words_of
from medical.pseudonyms import Pseudonyms
from medical.results import ResultSettings, marked_pictures, write_results
from medical.run_folder import DICOM, results_of

AUDIT, SOURCE = "audit.jsonl", "anomaly triage"


@dataclass
class Run:
    """What a run has made so far. A context: its beginning and its end are audited.

    Attributes:
        out: its folder, which exists; gets audit.jsonl and dicom/.
        model: the model.
        pseudonyms: make names of files.
        key: of the site, for the audit trail; None where it has none.
        dicom: whether results are written as DICOM.
        with_heatmaps: whether regions are marked.
        outcomes: in the order of arrival, without their maps.
        pictures: Study Instance UID -> marked pictures of flagged studies, with heatmaps only.
        written: DICOM results that this run wrote.
        replaced: number of DICOM results of earlier runs that they took the place of.
        failed: what could not be written of which study, and why; the study is in the worklist all the same.
        command: name of the program in the audit trail.
    """

    out: Path
    model: TriageModel
    pseudonyms: Pseudonyms
    key: bytes | None
    dicom: bool
    with_heatmaps: bool
    outcomes: list[Outcome] = field(default_factory=list)
    pictures: dict[str, list[UInt8[np.ndarray, "h w 3"]]] = field(default_factory=dict)
    written: set[Path] = field(default_factory=set)
    replaced: int = 0
    failed: list[str] = field(default_factory=list)
    command: str = "anomaly triage run"

    def __enter__(self) -> "Run":
        """Begins the audit trail of the run, or goes on with it."""
        self._trail = AuditTrail(self.out / AUDIT, SOURCE, self.key)
        self._activity(AuditType.APPLICATION_START, AuditOutcome.SUCCESS)
        log(Event.STARTED, model=self.model.digest)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends it; a run that was stopped by an error says so."""
        ended = AuditOutcome.SUCCESS if kind is None else AuditOutcome.SERIOUS_FAILURE
        try:
            self._activity(AuditType.APPLICATION_STOP, ended)
        except Exception as wrong:  # the worklist is written
            self.failed.append(f"end of the run: audit trail: {words_of(wrong)}")
            log(Event.FAILED, error=wrong)
        log(Event.STOPPED, count=len(self.outcomes))

    @property
    def _program(self) -> Participant:
        return Participant(self.command, AuditRole.APPLICATION, requestor=True)

    def add(self, outcome: Outcome) -> None:
        """Takes the outcome of a study and writes its results."""
        analysed = outcome.refusal is None
        self.outcomes.append(replace(outcome, analysed=tuple(replace(one, map=None) for one in outcome.analysed)))
        ended = AuditOutcome.SUCCESS if analysed else AuditOutcome.MINOR_FAILURE
        with self._going_on(outcome, "audit trail"):
            subjects = [Subject("study", outcome.pseudonym, _classes(outcome)), Subject("model", self.model.digest)]
            self._trail.record(AuditEvent.INSTANCES_ACCESSED, [self._program], subjects, outcome=ended)
        if outcome.refusal is None:
            assert outcome.score is not None
            assert outcome.p_value is not None
            assert outcome.decision is not None
            log(
                Event.ANALYSED, study=outcome.pseudonym, outcome=outcome.status, decision=outcome.decision,
                score=outcome.score, p_value=outcome.p_value, priority=outcome.priority,
            )  # fmt: skip
        else:
            log(Event.NOT_ANALYSED, study=outcome.pseudonym, reason=outcome.refusal.reason)
        if self.with_heatmaps and outcome.flagged:
            with self._going_on(outcome, "marked pictures"):
                self.pictures[outcome.study] = marked_pictures(outcome)
        if self.dicom:
            with self._going_on(outcome, "DICOM results"):
                self._write(outcome)

    def _write(self, outcome: Outcome) -> None:
        settings = ResultSettings(with_heatmaps=self.with_heatmaps)
        written = write_results(outcome, self.model.algorithm(), self.out / DICOM, settings, self.pseudonyms)
        self.written |= {one.path for one in written}
        self._replace(outcome)
        log(Event.WRITTEN, study=outcome.pseudonym, count=len(written))
        made = Subject("study", outcome.pseudonym, Counter(one.sop_class for one in written))
        self._trail.record(
            AuditEvent.EXPORT, [self._program, Participant("dicom folder", AuditRole.DESTINATION_MEDIA)], [made]
        )

    def _replace(self, outcome: Outcome) -> None:
        """Removes what an earlier run wrote of the study with another model or other settings: it is judged anew."""
        older = results_of(self.out, outcome.pseudonym) - self.written
        for path in older:
            path.unlink()
        self.replaced += len(older)
        if older:
            log(Event.REPLACED, study=outcome.pseudonym, count=len(older))

    @property
    def left(self) -> int:
        """Number of DICOM results in the folder that are of earlier runs."""
        return len(results_of(self.out) - self.written)

    @contextmanager
    def _going_on(self, outcome: Outcome, what: str) -> Iterator[None]:
        """What goes wrong with one study is said and stops no other: its outcome is in the worklist already."""
        try:
            yield
        except Exception as error:
            self.failed.append(f"{outcome.pseudonym}: {what}: {words_of(error)}")
            log(Event.FAILED, study=outcome.pseudonym, error=error)

    def _activity(self, kind: AuditType, outcome: AuditOutcome) -> None:
        user = Participant(_account(), AuditRole.LAUNCHER, requestor=True)
        application = replace(self._program, requestor=False)
        self._trail.record(AuditEvent.APPLICATION_ACTIVITY, [application, user], kind=kind, outcome=outcome)


def _classes(outcome: Outcome) -> Counter[str]:
    return Counter(instance.sop_class for one in outcome.analysed for instance in one.instances)


def _account() -> str:
    """The account that runs this, by number: a name of an account may be the name of a person."""
    return f"uid:{os.getuid()}" if hasattr(os, "getuid") else "uid:unknown"
