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


@dataclass(frozen=True)
class Stretch:
    """Parts that follow each other.

    Attributes:
        label: what people read under the point, e.g. its time.
        seen: the parts, one at least.
    """

    label: str
    seen: Sequence[Seen]

    def group(self, counted: str) -> Group:
        """Returns the point of a p-chart.

        Args:
            counted: what counts: "ng", "stopped" (REVIEW or NG) or "unjudged".

        Raises:
            SettingError: it is none of these.
        """
        if counted not in COUNTED:
            raise SettingError.of("the p-chart", "count", f"one of {', '.join(COUNTED)}", counted)
        if counted == "unjudged":
            count = sum(one.score is None for one in self.seen)
        elif counted == "stopped":
            count = sum(one.decision != Decision.OK for one in self.seen)
        else:
            count = sum(one.decision == Decision.NG for one in self.seen)
        return Group(self.label, count, len(self.seen))

    def scores(self) -> list[float]:
        """Returns the scores of the parts that were judged."""
        return [one.score for one in self.seen if one.score is not None]


def stretches(seen: Sequence[Seen], by: str, until: datetime) -> tuple[list[Stretch], int]:
    """Cuts parts in time into the points of a chart. None reaches across the end of the reference.

    Args:
        seen: parts in the order of time.
        by: "hour", "day", or how many parts make a point, as text. What is left over at an end is none.
        until: end of the reference, with a time zone.

    Returns:
        The stretches, and how many of them lie before `until`.

    Raises:
        SettingError: `by` is not allowed.
    """
    before = [one for one in seen if one.captured < until]
    early, late = (_cut(part, by) for part in (before, seen[len(before) :]))
    return [*early, *late], len(early)


def _cut(seen: Sequence[Seen], by: str) -> list[Stretch]:
    if by in FORMATS:
        named: dict[str, list[Seen]] = {}
        for one in seen:
            named.setdefault(one.captured.strftime(FORMATS[by]), []).append(one)
        return [Stretch(name, own) for name, own in named.items()]
    if not by.isdecimal() or int(by) < 1:
        raise SettingError.of("the charts", "by", "hour, day or a number of parts", by)
    size = int(by)
    pieces = [seen[k : k + size] for k in range(0, len(seen) - size + 1, size)]
    return [Stretch(f"{own[0].captured:%Y-%m-%d %H:%M}", own) for own in pieces]
