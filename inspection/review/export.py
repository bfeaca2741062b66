"""Hands parts to people: one page with pictures and buttons, and the table of verdicts to fill in."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly.progress import Progress, silent
from inspection.report.page import rendered
from inspection.report.view import severity, view
from inspection.results.records import StoredResult
from inspection.review.units import Unit, sampled
from inspection.review.verdict_table import write_table

HTML, CSV = "review.html", "verdicts.csv"
MOST = 400
"""Parts on one page; about 40 MB of pictures. What is left comes with the next export."""
STOPPED, SAMPLE = "stopped by the inspection", "random sample of passed parts"


@dataclass(frozen=True)
class Export:
    """What was handed out.

    Attributes:
        stopped: stopped parts on the page.
        sample: passed parts on the page.
        waiting: parts that did not fit and come with the next export.
        reviewed: parts that have a verdict already and are left out.
        passed: number of passed parts that the sample was drawn from.
        without_picture: parts on the page without a picture.
    """

    stopped: int
    sample: int
    waiting: int
    reviewed: int
    passed: int
    without_picture: int

    def in_words(self) -> str:
        """One sentence for people."""
        stopped = f"{self.stopped:,} stopped part{'' if self.stopped == 1 else 's'}"
        words = f"{stopped} and a random sample of {self.sample:,} of {self.passed:,} passed parts"
        waiting = f"; {self.waiting:,} more wait for the next export" if self.waiting else ""
        return f"{words} to review{waiting}"


def write_export(
    out: Path,
    results: Iterable[StoredResult],
    ok_share: float,
    pictures: Path,
    *,
    title: str,
    progress: Progress = silent,
) -> Export:
    """Writes page and table of the parts that have no verdict yet.

    Memory: the results on the page.

    Args:
        out: folder; files of the same names are replaced.
        results: all parts of the period.
        ok_share: share of the passed parts to review, in (0, 1].
        pictures: folder of the stored pictures.
        title: headline of the page.
        progress: is told what is being done.

    Raises:
        SettingError: the share is out of its range.
    """
    passed = reviewed = seen = 0
    drawn: list[tuple[float, int, StoredResult]] = []  # the smallest chances: a random choice, should they be too many
    stopped: list[tuple[tuple[float, ...], int, StoredResult]] = []
    for stored in results:
        unit = Unit.of(stored)
        passed += not unit.stopped
        wanted = unit.stopped or bool(sampled([unit], ok_share))
        if wanted and unit.verdict is not None:
            reviewed += 1
        elif wanted:
            seen += 1
            if unit.stopped:
                _keep(stopped, (severity(stored.result), -stored.id, stored))
            else:
                _keep(drawn, (-unit.chance, -stored.id, stored))
    chosen = [(stored, SAMPLE) for *_, stored in sorted(drawn, reverse=True)[:MOST]]
    chosen += [(stored, STOPPED) for *_, stored in sorted(stopped, reverse=True)[: MOST - len(chosen)]]
    chosen.sort(key=lambda row: severity(row[0].result), reverse=True)
    advance = progress("embedding pictures", len(chosen))
    shown = []
    for stored, why in chosen:
        shown.append(view(stored, pictures, why))
        advance(1)
    export = Export(
        stopped=sum(part.why == STOPPED for part in shown),
        sample=sum(part.why == SAMPLE for part in shown),
        waiting=seen - len(shown),
        reviewed=reviewed,
        passed=passed,
        without_picture=sum(not part.uri for part in shown),
    )
    write_table(out / CSV, chosen)
    html = rendered(
        Path(__file__).parent / "review.html.j2",
        title=title,
        headline=export.in_words(),
        provenance={"sample": f"passed parts whose chance (hash of the id) is below {ok_share:g}"},
        export=export,
        shown=shown,
        table=CSV,
    )
    (out / HTML).write_text(html, encoding="utf-8")
    return export


def _keep(heap: list[Any], row: Any) -> None:
    """Keeps the largest `MOST` rows."""
    if len(heap) < MOST:
        heapq.heappush(heap, row)
    else:
        heapq.heappushpop(heap, row)
