"""Studies and charts from stored results: runs over the same parts are repetitions, parts in time make charts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from anomaly.calibration import Decision
from anomaly.errors import DatasetError, SettingError
from inspection.assurance.judgements import Judgement
from inspection.assurance.p_chart import Group
from inspection.parts import JUDGED
from inspection.results.records import StoredResult

LINE = "line"
"""The appraiser of all runs."""
COUNTED = ("ng", "stopped", "unjudged")
FORMATS = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}


@dataclass(frozen=True, slots=True)
class Seen:
    """A part as charts need it.

    Attributes:
        captured: when.
        decision: of the inspection.
        score: None if it was not judged.
        model: sha256 of the model.
    """

    captured: datetime
    decision: Decision
    score: float | None
    model: str

    @classmethod
    def of(cls, stored: StoredResult) -> "Seen":
        """Returns the part of a stored result."""
        result = stored.result
        return cls(result.captured, result.decision, result.score if result.reason in JUDGED else None, result.model)


def judgements_of_runs(results: Iterable[StoredResult], runs: Sequence[str]) -> list[Judgement]:
    """Returns a study whose trials are runs over the same parts, with the verdicts of people as truth.

    A part that was not judged in a run is in the study with the decision that it got, and without a score.

    Args:
        results: at least those of the runs.
        runs: ids of two runs or more.

    Raises:
        DatasetError: people contradict each other about a part.
        SettingError: there are fewer than two runs, or one is named twice.
    """
    if len(set(runs)) < 2 or len(set(runs)) < len(runs):
        raise SettingError.of("a gauge study", "runs", "two or more different runs over the same parts", list(runs))
    chosen = [one for one in results if one.run in runs]
    truths: dict[str, Decision] = {}
    for one in chosen:
        if one.verdict is not None and truths.setdefault(one.result.part, one.verdict.verdict) != one.verdict.verdict:
            raise DatasetError(f"part {one.result.part!r} is called OK in one run and NG in another; correct a verdict")
    return [
        Judgement(
            part=one.result.part,
            appraiser=LINE,
            trial=one.run,
            decision=one.result.decision,
            truth=truths.get(one.result.part),
            score=one.result.score,
        )
        for one in chosen
    ]


def groups_of(seen: Sequence[Seen], by: str, counted: str, until: datetime) -> tuple[list[Group], int]:
    """Groups parts in time for a p-chart. No group reaches across the end of the reference.

    Args:
        seen: parts in the order of time.
        by: "hour", "day", or how many parts make a group, as text. What is left over at an end is no group.
        counted: what counts: "ng", "stopped" (REVIEW or NG) or "unjudged".
        until: end of the reference, with a time zone.

    Returns:
        The groups, and how many of them lie before `until`.

    Raises:
        SettingError: `by` or `counted` is not allowed.
    """
    if counted not in COUNTED:
        raise SettingError.of("the p-chart", "count", f"one of {', '.join(COUNTED)}", counted)
    before = [one for one in seen if one.captured < until]
    periods = [_grouped(part, by, counted) for part in (before, seen[len(before) :])]
    return [*periods[0], *periods[1]], len(periods[0])


def _grouped(seen: Sequence[Seen], by: str, counted: str) -> list[Group]:
    if by in FORMATS:
        named: dict[str, list[Seen]] = {}
        for one in seen:
            named.setdefault(one.captured.strftime(FORMATS[by]), []).append(one)
        return [Group(name, _count(own, counted), len(own)) for name, own in named.items()]
    if not by.isdecimal() or int(by) < 1:
        raise SettingError.of("the p-chart", "by", "hour, day or a number of parts", by)
    size = int(by)
    pieces = [seen[k : k + size] for k in range(0, len(seen) - size + 1, size)]
    return [Group(f"{own[0].captured:%Y-%m-%d %H:%M}", _count(own, counted), size) for own in pieces]


def _count(seen: Sequence[Seen], counted: str) -> int:
    if counted == "unjudged":
        return sum(one.score is None for one in seen)
    if counted == "stopped":
        return sum(one.decision != Decision.OK for one in seen)
    return sum(one.decision == Decision.NG for one in seen)
