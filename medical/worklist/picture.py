"""Small pictures of the page: where a score lies among the normals (inline SVG), and thumbnails."""

import base64
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup

from anomaly.calibration import Calibration
from anomaly.report.histogram import Axis

WIDTH, HEIGHT, FLOOR = 150, 44, 36
"""Pixels of the picture; the bars stand on FLOOR, thresholds and marks reach below it."""
BINS = 40
WIDEST = 360
"""Pixels of the longer side of a thumbnail."""


class ScorePicture:
    """Draws scores over the distribution of the normals held out; the bars are drawn once and referred to."""

    def __init__(self, calibration: Calibration, scores: Sequence[float]) -> None:
        """Lays one axis for all rows, so that pictures can be compared; it bends where a score lies far out.

        Args:
            calibration: scores of the normals and thresholds.
            scores: of the rows; those that are not finite are left out.
        """
        self._calibration = calibration
        finite = [score for score in scores if math.isfinite(score)]
        self._axis = Axis.over(np.array([*calibration.scores, *finite], np.float64), calibration.ng.value)

    def definitions(self) -> Markup:
        """Returns the hidden SVG that the pictures refer to; once per page."""
        places = [self._x(score) for score in self._calibration.scores]
        counts, edges = np.histogram(places, BINS, (0, WIDTH))
        heights = np.maximum(2.0, 30 * counts / counts.max())
        bars = "".join(
            f'<rect x="{left:.1f}" y="{FLOOR - height:.1f}" width="{WIDTH / BINS - 0.5:.1f}" height="{height:.1f}"/>'
            for count, height, left in zip(counts, heights, edges[:-1], strict=True)
            if count
        )
        lines = "".join(
            f'<line class="{name}" x1="{self._x(value):.1f}" x2="{self._x(value):.1f}" y1="2" y2="{FLOOR + 4}"/>'
            for name, value in (("review", self._calibration.review.value), ("ng", self._calibration.ng.value))
        )
        return Markup(  # noqa: S704  only numbers are filled in
            '<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs><g id="normals">'
            f'<g class="bars">{bars}</g><line class="floor" x1="0" x2="{WIDTH}" y1="{FLOOR}" y2="{FLOOR}"/>{lines}'
            "</g></defs></svg>"
        )

    def mark(self, score: float, state: str) -> Markup:
        """Returns the picture of one finite score; `state` is the class of its colour."""
        x = min(max(self._x(score), 4.0), WIDTH - 4.0)
        return Markup(  # noqa: S704  only numbers and a class of ours are filled in
            f'<svg class="score" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" role="img" '
            'aria-label="place of the score among the normals"><use href="#normals"/>'
            f'<g class="mark {state}"><line x1="{x:.1f}" x2="{x:.1f}" y1="4" y2="{FLOOR}"/>'
            f'<path d="M{x:.1f} {FLOOR - 3}l5 9h-10z"/></g></svg>'
        )

    def _x(self, score: float) -> float:
        return self._axis.position(score) * WIDTH / 100


def thumbnail(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    """Returns an RGB picture, made smaller where it is large, as the data URI of a JPEG."""
    import cv2

    shrink = min(1.0, WIDEST / max(picture.shape[:2]))
    if shrink < 1:
        picture = cv2.resize(picture, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA).astype(np.uint8)
    encoded = cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.tobytes()).decode()}"
