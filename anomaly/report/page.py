"""report.html: one file that opens from disk, without a network, and says which parts are bad and where."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from anomaly.calibration import Calibration
from anomaly.report.heatmap import gradient
from anomaly.report.histogram import histogram
from anomaly.report.rows import Row, headline
from anomaly.report.templates import template
from anomaly.report.words import BADGES, NOT_SCORED, SCORED

NARROWEST, WIDEST = 0.8, 2.2
"""Width over height of the pictures in the gallery, at least and at most; others are shown whole within that."""


class Thumbnail(NamedTuple):
    """The pictures of one part as they are embedded.

    Attributes:
        original: data URI of the image.
        overlaid: data URI of the image with its anomaly map.
        known: whether a known defect is outlined in the original.
    """

    original: str
    overlaid: str
    known: bool


class Shown(NamedTuple):
    """A part that is pictured in the report."""

    row: Row
    thumbnail: Thumbnail


@dataclass(kw_only=True)
class Page:
    """Everything that the report says.

    Attributes:
        title: what was scored, e.g. the name of the part or of the run.
        model: provenance, name -> value, in the order to be shown.
        calibration: thresholds, scores of the normals held out, and the guarantee in words.
        scale: map values where the colours begin and end.
        contour: pixel threshold, where the white line runs.
        rows: all parts, in the order of the run.
        thumbnails: index into `rows` -> pictures; the highest scores.
        metrics: name -> value, where the truth is known.
        interrupted: why the run stopped before its end; empty when it did not.
    """

    title: str
    model: Mapping[str, str]
    calibration: Calibration
    scale: tuple[float, float]
    contour: float
    rows: list[Row] = field(default_factory=list)
    thumbnails: dict[int, Thumbnail] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    interrupted: str = ""

    def html(self) -> str:
        """Returns the whole report as one self-contained HTML document."""
        shown = sorted(
            (Shown(self.rows[index], thumbnail) for index, thumbnail in self.thumbnails.items()),
            key=lambda part: (-(part.row.score or 0.0), part.row.path),
        )
        pictured = Counter(part.row.decision for part in shown)
        decided = Counter(row.decision for row in self.rows)
        return template(Path(__file__).parent / "report.html.j2").render(
            page=self,
            badges=BADGES,
            headline=headline(self.rows),
            shown=shown,
            decided=decided,
            pictured=pictured,
            unpictured={word: decided[word] - pictured[word] for word in SCORED if decided[word] > pictured[word]},
            failed=[row for row in self.rows if row.decision == NOT_SCORED],
            mistakes=Counter(row.mistake for row in self.rows if row.mistake),
            histogram=self._histogram(),
            gradient=gradient(8),
            aspect=self._aspect(),
            written=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        )

    def _histogram(self) -> Markup:
        scores = {
            decision: np.array([row.score for row in self.rows if row.decision == decision], np.float64)
            for decision in SCORED
        }
        normals = np.asarray(self.calibration.scores, np.float64)
        return histogram(scores, normals, self.calibration.review.value, self.calibration.ng.value)

    def _aspect(self) -> float:
        """Width over height that suits most pictures of the gallery."""
        aspects = [(row.width or 1) / (row.height or 1) for row in self.rows if row.decision != NOT_SCORED]
        return float(np.clip(np.median(aspects or [1.0]), NARROWEST, WIDEST))
