"""What is recorded for one part: a row of results.csv and results.jsonl."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, fields

from anomaly.report.words import NOT_SCORED, SCORED


@dataclass(frozen=True, kw_only=True)
class Row:
    """One part; the attributes are the columns, None is an empty cell.

    Attributes:
        path: the image file as it was given.
        decision: "OK", "REVIEW", "NG", or "NOT_SCORED" for a part that could not be judged.
        score: anomaly score, raw; higher is more anomalous.
        p_value: conformal p-value, in (0, 1].
        label: what is known of the part: 1 defective, 0 good.
        kind: what is known of the defect, e.g. the name of its folder.
        width: of the image, in pixels.
        height: of the image, in pixels.
        peak_x: column of the largest value of the anomaly map, in pixels of the image from 0.
        peak_y: row of it.
        area_above_threshold: fraction of the image where the map exceeds the pixel threshold.
        heatmap: the picture of the part, relative to the folder of results.
        reason: why the part could not be judged.
    """

    path: str
    decision: str
    score: float | None = None
    p_value: float | None = None
    label: int | None = None
    kind: str = ""
    width: int | None = None
    height: int | None = None
    peak_x: int | None = None
    peak_y: int | None = None
    area_above_threshold: float | None = None
    heatmap: str = ""
    reason: str = ""

    @property
    def mistake(self) -> str:
        """What is wrong with the decision where the truth is known; empty when nothing is. REVIEW is never wrong."""
        mistakes: dict[tuple[int | None, str], str] = {(1, "OK"): "missed defect", (0, "NG"): "false alarm"}
        return mistakes.get((self.label, self.decision), "")


COLUMNS = tuple(column.name for column in fields(Row))


def headline(rows: Iterable[Row]) -> str:
    """Returns the outcome in plain words: "37 parts scored: 5 NG, 3 REVIEW, 29 OK, 1 could not be scored"."""
    counts = Counter(row.decision for row in rows)
    failed = counts.pop(NOT_SCORED, 0)
    total = counts.total()
    decided = [f"{counts[decision]:,} {decision}" for decision in SCORED]
    unscored = [f"{failed:,} could not be scored"] if failed else []
    return f"{total:,} part{'' if total == 1 else 's'} scored: {', '.join(decided + unscored)}"
