"""The report of a run for people: what was not judged, what was decided and why, when, and the worst parts."""

import csv
import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from anomaly.errors import DatasetError
from anomaly.progress import Progress, silent
from inspection.parts import JUDGED
from inspection.report.page import rendered
from inspection.report.timeline import timeline
from inspection.report.view import severity, text, view
from inspection.results.records import StoredResult

HTML, CSV = "report.html", "parts.csv"
MOST = 300
"""Parts with pictures in the report; about 30 MB."""
MOST_LISTED = 200
"""Parts that could not be judged, in the table at the top."""
COLUMNS = (
    "run",
    "part",
    "source",
    "captured",
    "decision",
    "reason",
    "detail",
    "score",
    "p_value",
    "defects",
    "verdict",
)


@dataclass
class _Summary:
    """What is remembered of the parts while they pass by."""

    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    times: dict[str, list[datetime]] = field(default_factory=lambda: defaultdict(list))
    unjudged: list[StoredResult] = field(default_factory=list)
    worst: list[Any] = field(default_factory=list)
    recipes: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    runs: Counter[str] = field(default_factory=Counter)
    stopped: int = 0

    def add(self, stored: StoredResult) -> None:
        result = stored.result
        self.counts[result.decision.value, result.reason.value] += 1
        self.times[result.decision.value].append(result.captured)
        for counter, name in ((self.recipes, result.recipe), (self.models, result.model), (self.runs, stored.run)):
            counter[name] += 1
        if result.reason not in JUDGED:
            self.unjudged.append(stored)
        if result.decision != "OK":
            self.stopped += 1
            row = severity(result), -stored.id, stored
            if len(self.worst) < MOST:
                heapq.heappush(self.worst, row)
            else:
                heapq.heappushpop(self.worst, row)


def write_report(
    out: Path, results: Iterable[StoredResult], pictures: Path, *, title: str, progress: Progress = silent
) -> str:
    """Writes report.html and parts.csv, which has all parts.

    Memory: one time per part, the parts that could not be judged, and the worst `MOST` parts.

    Args:
        out: folder; files of the same names are replaced.
        results: the parts of the report.
        pictures: folder of the stored pictures.
        title: headline.
        progress: is told what is being done.

    Returns:
        The outcome in one sentence.

    Raises:
        DatasetError: there is no part.
    """
    summary = _Summary()
    with (out / CSV).open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for stored in results:
            summary.add(stored)
            writer.writerow(_row(stored))
    if not summary.counts:
        (out / CSV).unlink()
        raise DatasetError("there is no part to report; check --run, --since, --until and --model-sha256")
    worst = [stored for *_, stored in sorted(summary.worst, reverse=True)]
    advance = progress("embedding pictures", len(worst))
    shown = []
    for stored in worst:
        shown.append(view(stored, pictures))
        advance(1)
    decided = Counter[str]()
    for (decision, _), count in summary.counts.items():
        decided[decision] += count
    headline = _headline(decided, len(summary.unjudged))
    drawn, bucket = timeline(summary.times)
    html = rendered(
        Path(__file__).parent / "report.html.j2",
        title=title,
        headline=headline,
        provenance={name: _names(own) for name, own in _provenance(summary).items()},
        decided=decided,
        reasons={word: _reasons(summary.counts, word) for word in ("OK", "REVIEW", "NG")},
        unjudged=[view(stored, pictures, embed=False) for stored in summary.unjudged],
        unjudged_by_reason=Counter(stored.result.reason.value for stored in summary.unjudged).most_common(),
        most_listed=MOST_LISTED,
        yield_words=f"{100 * decided['OK'] / decided.total():.1f} %",
        timeline=drawn,
        bucket=bucket,
        shown=shown,
        left_out=summary.stopped - len(shown),
    )
    (out / HTML).write_text(html, encoding="utf-8")
    return headline


def _row(stored: StoredResult) -> list[object]:
    result = stored.result
    return [
        stored.run,
        result.part,
        result.source,
        result.captured.isoformat(),
        result.decision.value,
        result.reason.value,
        result.detail,
        result.score,
        result.p_value,
        len(result.defects),
        "" if stored.verdict is None else stored.verdict.verdict.value,
    ]


def _headline(decided: Counter[str], unjudged: int) -> str:
    counts = ", ".join(f"{decided[word]:,} {word}" for word in ("NG", "REVIEW", "OK"))
    failed = f"; {unjudged:,} could not be judged" if unjudged else ""
    return f"{decided.total():,} part{'' if decided.total() == 1 else 's'}: {counts}{failed}"


def _reasons(counts: Counter[tuple[str, str]], decision: str) -> str:
    found = [(count, reason) for (word, reason), count in counts.items() if word == decision]
    return ", ".join(f"{count:,} {reason}" for count, reason in sorted(found, reverse=True)) or "none"


def _provenance(summary: _Summary) -> dict[str, Counter[str]]:
    return {"runs": summary.runs, "recipe (sha256)": summary.recipes, "model (sha256)": summary.models}


def _names(found: Counter[str]) -> str:
    named = [f"{text(name) or 'not known'}: {count:,} parts" for name, count in found.most_common(8)]
    return "; ".join(named) + (f"; and {len(found) - 8} more" if len(found) > 8 else "")
