"""A worklist against known labels: does the score tell abnormal from normal studies, and does it move them forward?

Every figure stands beside what a shortcut reaches: a single number of an image (brightness, file size) that knows
nothing of disease. Intervals take studies as independent: they are too narrow where patients have several. Studies that
were NOT_ANALYSED have no score: they are counted apart, and count as not flagged.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from anomaly.errors import DatasetError
from anomaly.metrics import auroc, bootstrap_interval
from medical.subgroups import interval

NORMAL, ABNORMAL = "normal", "abnormal"
SPECIFICITY = 0.90
_FIRST = 0.25

Scores = Float64[np.ndarray, " n"]
Labels = Int[np.ndarray, " n"]


@dataclass(frozen=True)
class Case:
    """A study of the worklist with its label.

    Attributes:
        study: Study Instance UID.
        rank: place in the worklist, from 1.
        score: raw score; None where it was NOT_ANALYSED.
        flagged: whether it is flagged.
        abnormal: the label.
        stratum: e.g. the view; only studies of one stratum are compared within it. Empty for none.
        shortcuts: name -> number of the image, as the labels give it.
    """

    study: str
    rank: int
    score: float | None
    flagged: bool
    abnormal: bool
    stratum: str
    shortcuts: Mapping[str, float]


@dataclass(frozen=True)
class Share:
    """A share with its exact 95 % interval.

    Attributes:
        hits: studies that count.
        total: of how many.
    """

    hits: int
    total: int

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        low, high = interval(self.hits, self.total) if self.total else (0.0, 1.0)
        return {"hits": self.hits, "total": self.total, "share": self.value, "low": low, "high": high}

    @property
    def value(self) -> float | None:
        """The share; None of nothing."""
        return self.hits / self.total if self.total else None


def read_cases(worklist: Path, labels: Path, by: str = "") -> list[Case]:
    """Joins a worklist with labels.

    Args:
        worklist: worklist.json of `anomaly triage run`.
        labels: CSV with the columns study and label ("normal" or "abnormal"); further columns of numbers are shortcuts.
        by: column of the stratum; empty for none.

    Raises:
        DatasetError: a file cannot be read, a column is missing, a label is unknown, or a study has no label or no row.
    """
    try:
        rows = {row["study_instance_uid"]: row for row in json.loads(worklist.read_text("utf-8"))["studies"]}
        with labels.open(newline="", encoding="utf-8-sig") as file:
            known = list(csv.DictReader(file))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"{worklist} or {labels} cannot be read: {error!r}") from error
    needed = {"study", "label", *([by] if by else [])}
    if not known or needed - set(known[0]):
        raise DatasetError(
            f"{labels} must have the columns {', '.join(sorted(needed))}; it has {', '.join(known[0] if known else ())}"
        )
    if wrong := {row["label"] for row in known} - {NORMAL, ABNORMAL}:
        raise DatasetError(f"{labels}: a label must be {NORMAL!r} or {ABNORMAL!r}; got {sorted(wrong)}")
    named = {row["study"]: row for row in known}
    if len(named) != len(known):
        raise DatasetError(f"{labels} labels {len(known) - len(named)} studies more than once; give one line each")
    if set(named) != set(rows):
        raise DatasetError(
            f"{len(set(rows) - set(named))} studies of the worklist have no label, "
            f"{len(set(named) - set(rows))} labels have no study in the worklist; every study needs both, else the "
            "figures would flatter"
        )
    shortcuts = [name for name in known[0] if name not in needed and all(_is_number(row[name]) for row in known)]
    return [_case(row, named[uid], by, shortcuts) for uid, row in rows.items()]


def evaluate(cases: Sequence[Case], seed: int = 0) -> dict[str, Any]:
    """Returns all figures, JSON-able.

    Raises:
        DatasetError: there are not two analysed studies of each label at least.
    """
    analysed = [case for case in cases if case.score is not None]
    if min(sum(case.abnormal for case in analysed), sum(not case.abnormal for case in analysed)) < 2:
        raise DatasetError("an evaluation needs two analysed studies of each label at least")
    strata = sorted({case.stratum for case in cases} - {""})
    found = {"studies": _counts(cases), **_figures(analysed, seed), **_thresholds(cases), "worklist": _moved(cases)}
    by = {name: [case for case in analysed if case.stratum == name] for name in strata}
    return found | {
        "auroc_within_strata": _within(list(by.values())) if strata else None,
        "strata": {name: {"studies": _counts(part), **_figures(part, seed)} for name, part in by.items()},
        "shortcuts": {name: _shortcut(analysed, name) for name in (cases[0].shortcuts if cases else {})},
    }


def sensitivity_at(scores: Scores, labels: Labels, specificity: float = SPECIFICITY) -> float:
    """Returns the share of abnormal scores above the lowest threshold that this share of normal scores does not pass.

    Args:
        scores: (N,) raw scores.
        labels: (N,) 1 = abnormal.
        specificity: wanted share of normals at or below the threshold, in (0, 1).
    """
    normal = np.sort(scores[labels == 0])
    threshold = normal[int(np.ceil(specificity * normal.size - 1e-9)) - 1]
    return float((scores[labels == 1] > threshold).mean())


def _figures(cases: Sequence[Case], seed: int) -> dict[str, Any]:
    scores, labels = _arrays(cases)
    if len(set(labels.tolist())) < 2:
        return {"auroc": None, "sensitivity_at_90_specificity": None}
    found: dict[str, Any] = {}
    for name, metric in (("auroc", auroc), ("sensitivity_at_90_specificity", sensitivity_at)):
        low, high = bootstrap_interval(metric, scores, labels, seed=seed)
        found[name] = {"value": metric(scores, labels), "low": low, "high": high}
    return found


def _thresholds(cases: Sequence[Case]) -> dict[str, Any]:
    abnormal = [case for case in cases if case.abnormal]
    normal = [case for case in cases if not case.abnormal]
    return {
        "flagged_abnormal": Share(sum(case.flagged for case in abnormal), len(abnormal)).to_dict(),
        "flagged_normal": Share(sum(case.flagged for case in normal), len(normal)).to_dict(),
    }


def _moved(cases: Sequence[Case]) -> dict[str, Any]:
    """How many abnormal studies the first quarter of the worklist holds, and what share it would hold by chance."""
    places = round(_FIRST * len(cases))
    abnormal = [case for case in cases if case.abnormal]
    inside = sum(case.rank <= places for case in abnormal)
    most = min(places, len(abnormal)) / len(abnormal)
    chance = places / len(cases)
    return {
        "places": places,
        "by_chance": chance,
        "abnormal_in_first_quarter": Share(inside, len(abnormal)).to_dict(),
        "at_most": most,
    }


def _within(groups: Sequence[Sequence[Case]]) -> float | None:
    """AUROC over pairs of one stratum only."""
    total, pairs = 0.0, 0
    for group in groups:
        scores, labels = _arrays(group)
        count = int((labels == 1).sum() * (labels == 0).sum())
        total += count * auroc(scores, labels) if count else 0.0
        pairs += count
    return total / pairs if pairs else None


def _shortcut(cases: Sequence[Case], name: str) -> float:
    """AUROC of one number of the image, in whichever direction is better: what a score must clearly beat."""
    values = np.array([case.shortcuts[name] for case in cases])
    found = auroc(values, _arrays(cases)[1])
    return max(found, 1 - found)


def _counts(cases: Sequence[Case]) -> dict[str, int]:
    return {
        "normal": sum(not case.abnormal for case in cases),
        "abnormal": sum(case.abnormal for case in cases),
        "normal_not_analysed": sum(not case.abnormal and case.score is None for case in cases),
        "abnormal_not_analysed": sum(case.abnormal and case.score is None for case in cases),
    }


def _arrays(cases: Sequence[Case]) -> tuple[Scores, Labels]:
    return np.array([case.score for case in cases], dtype=np.float64), np.array([int(c.abnormal) for c in cases])


def _case(row: Mapping[str, Any], label: Mapping[str, str], by: str, shortcuts: Sequence[str]) -> Case:
    return Case(
        study=row["study_instance_uid"],
        rank=int(row["rank"]),
        score=None if row["score"] is None else float(row["score"]),
        flagged=row["decision"] in ("REVIEW", "NG"),
        abnormal=label["label"] == ABNORMAL,
        stratum=label[by] if by else "",
        shortcuts={name: float(label[name]) for name in shortcuts},
    )


def _is_number(text: str) -> bool:
    try:
        return bool(np.isfinite(float(text)))
    except ValueError:
        return False
