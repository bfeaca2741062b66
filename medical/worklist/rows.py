"""One row of the worklist: an `Outcome` with its place, as CSV and JSON hold it. The fields are those of the schema."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from anomaly.calibration import Calibration
from medical.objects import in_words, kinds_of
from medical.outcome import DISCLAIMER, Outcome
from medical.worklist.order import effective_order
from medical.worklist.words import decision_in_words, reasons, state

FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""A cell of text that begins with one of these or its full-width form may be taken for a formula by a spreadsheet
(OWASP, CSV Injection)."""


@dataclass(frozen=True)
class Row:
    """One study of the worklist.

    Attributes:
        rank: place in the order of reading, from 1.
        priority: by which it is sorted.
        site_priority: that of the site; `priority` is this, or HIGH.
        raised: whether the two differ.
        pseudonym: of the study.
        identifier: what the caller gave, e.g. an accession number; empty where nothing.
        study_instance_uid: opens the study.
        modality: as in `Outcome`.
        acquired: ISO 8601; empty where unknown.
        status: ANALYSED, PARTLY_ANALYSED or NOT_ANALYSED.
        state: "strong", "flagged", "unflagged" or "none" (not analysed).
        decision: OK, REVIEW or NG; empty where it was not analysed. OK is "not flagged" and never "normal".
        words: what the score means, for people.
        score: raw score; None where there is none or it is not finite.
        p_value: share of normals that score at least as high; None where there is none.
        objects: number of DICOM objects.
        not_analysed: how many images among them were not analysed; all of them where the study was not.
        no_images: how many of them are nothing to analyse, by kind: reports, presentation states, segmentations, ...
        reasons: coded reasons, that of the whole study first.
    """

    rank: int
    priority: str
    site_priority: str
    raised: bool
    pseudonym: str
    identifier: str
    study_instance_uid: str
    modality: str
    acquired: str
    status: str
    state: str
    decision: str
    words: str
    score: float | None
    p_value: float | None
    objects: int
    not_analysed: int
    no_images: dict[str, int]
    reasons: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the row as worklist.json holds it."""
        return {**asdict(self), "reasons": list(self.reasons)}

    def as_cells(self) -> dict[str, str]:
        """Returns the row as worklist.csv holds it: text that a spreadsheet cannot take for a formula."""
        cells = {name: _cell(value) for name, value in self.as_json().items()}
        return {**cells, "disclaimer": DISCLAIMER}


def rows(outcomes: Sequence[Outcome], calibration: Calibration, identifiers: Mapping[str, str]) -> list[Row]:
    """Returns the rows in the order of reading, one for each outcome.

    Args:
        outcomes: in the order of arrival.
        calibration: of the model that judged them.
        identifiers: Study Instance UID -> identifier to be shown.
    """
    ordered = effective_order(outcomes)
    return [_row(rank, outcome, calibration, identifiers) for rank, outcome in enumerate(ordered, 1)]


def _row(rank: int, outcome: Outcome, calibration: Calibration, identifiers: Mapping[str, str]) -> Row:
    return Row(
        rank=rank,
        priority=outcome.priority.value,
        site_priority=outcome.site_priority.value,
        raised=outcome.priority != outcome.site_priority,
        pseudonym=outcome.pseudonym,
        identifier=identifiers.get(outcome.study, ""),
        study_instance_uid=outcome.study,
        modality=outcome.modality,
        acquired=outcome.acquired or "",
        status=outcome.status,
        state=state(outcome),
        decision="" if outcome.decision is None else outcome.decision.value,
        words=decision_in_words(outcome, calibration),
        score=_finite(outcome.score),
        p_value=_finite(outcome.p_value),
        objects=outcome.objects,
        not_analysed=outcome.images if outcome.refusal is not None else len(outcome.refused),
        no_images=kinds_of(outcome.others),
        reasons=tuple(reasons(outcome)),
    )


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def _cell(value: Any) -> str:
    """Numbers stay as they are, the minus of a negative score too; text is made harmless with an apostrophe."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, dict):
        value = in_words(value)
    text = "; ".join(value) if isinstance(value, list) else str(value)
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text
