"""report.pdf: the same report as pages of A4, written page by page."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from anomaly.report.words import number, shorten
from explain.methods import TITLES
from explain.page import PartPage, twin_words
from explain.view import Wording

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from explain.writer import About

A4 = 8.27, 11.69
MARGIN = 0.06
LINE = 0.0165
"""Height of a line of text as a share of the page."""
CHARACTERS = 122
"""Characters of a line of text."""
BOLD = 0.88
"""Share of them that a line of bold text holds."""
INK, FAINT, WARN = "#1c1917", "#57534e", "#9a3412"


class Pdf:
    """A PDF file: the summary first, then a page or more for each part, then where it all comes from."""

    def __init__(self, path: Path, wording: Wording) -> None:
        """Remembers the file, which is written by `close`, and what stands on its pages."""
        self._path, self._wording = path, wording
        self._parts: list[Figure] = []

    def part(self, page: PartPage, sheet: bytes, curves: bytes | None, place: str, ng: float) -> None:
        """Lays out a part: what was flagged, its maps, and how far to trust them.

        Args:
            page: the part.
            sheet: PNG of its maps.
            curves: PNG of its curves; None where nothing could be judged.
            place: what the foot of the page says, e.g. "image 3 of 20".
            ng: the NG threshold.
        """
        part = page.part
        flow = _Flow(place, self._wording.notice)
        badge = self._wording.badges[str(part.judged.verdict.decision)]
        flow.badge(badge.word, badge.background, badge.ink, shorten(part.title, 60))
        flow.text(" ".join((part.view.words, twin_words(part, ng), *part.view.notes)))
        if part.nearest:
            usual = number(part.nearest.typical)
            flow.text(
                f"The strangest place is most like a place in {part.nearest.name}: {number(part.nearest.distance)} "
                f"away in the model's features, where {usual} is usual for this image."
            )
        flow.picture(sheet, 0.44)
        for one in part.explained:
            said = one.found.in_words() if one.found else ""
            flow.text(f"{one.title}: {one.trust.word}. {said}", colour=FAINT if one.control else INK)
            for warning in one.trust.warnings:
                flow.text(warning, colour=WARN, indent=2)
        for name, reason in part.refused.items():
            flow.text(f"{TITLES[name]} is not shown: {reason}.", colour=FAINT)
        if curves is not None:
            flow.picture(curves, 0.19)
        self._parts += flow.pages

    def close(self, about: "About", pictures: Mapping[str, bytes], text: Mapping[str, Any]) -> None:
        """Writes the file."""
        from matplotlib.backends.backend_pdf import PdfPages

        file: Any
        with PdfPages(self._path) as file:
            for page in [*_summary(about, pictures, text), *self._parts, *_provenance(about, text)]:
                file.savefig(page)


def _summary(about: "About", pictures: Mapping[str, bytes], text: Mapping[str, Any]) -> "list[Figure]":
    flow = _Flow("summary", about.wording.notice)
    flow.text(about.title, colour=FAINT)
    flow.text(text["headline"], size=14)
    for line in about.wording.cautions:
        flow.text(line, colour=WARN)
    if text["interrupted"]:
        flow.text(f"INCOMPLETE. The run stopped before its end: {text['interrupted']}", colour=WARN)
    for line in text["summary"]:
        flow.text(line)
    for picture in pictures.values():
        flow.picture(picture, 0.25)
    _methods(flow, text)
    if text["failures"]:
        flow.text(about.wording.unused, size=11)
    for line in text["failures"]:
        flow.text(line, colour=WARN)
    return flow.pages


def _methods(flow: "_Flow", text: Mapping[str, Any]) -> None:
    if text["table"]:
        flow.text("Which explanations to trust", size=11)
    for row in text["table"]:
        taken = ""
        if row["removed"] is not None:
            taken = f"; its strongest 4 % takes away {round(100 * row['removed'])} % of the anomaly on average"
        counts = ", ".join(f"{word} for {row[word]}" for word in ("holds", "doubtful", "not judged") if row[word])
        flow.text(f"{TITLES[row['method']]}: {counts or 'a control'}{taken}.")
    if text["lifts"]:
        flow.text("Against known defects, corrected for chance", size=11)
    for line in text["lifts"]:
        flow.text(line)


def _provenance(about: "About", text: Mapping[str, Any]) -> "list[Figure]":
    flow = _Flow("provenance", about.wording.notice)
    flow.text("How this was made", size=11)
    for line in about.calibration.in_words().splitlines():
        flow.text(line)
    for name, value in about.model.items():
        flow.text(f"{name}: {value}")
    flow.text(f"methods: {', '.join(about.methods)}; seed {about.seed}")
    flow.text(f"normal images: {', '.join(about.normals) or 'none given'}")
    flow.text(f"report written: {text['written']}")
    return flow.pages


class _Flow:
    """Pages of A4 that are filled from the top, one after the other."""

    def __init__(self, foot: str, notice: str) -> None:
        self.pages: list[Figure] = []
        self._foot, self._notice = foot, notice
        self._begin()

    def badge(self, word: str, background: str, ink: str, title: str) -> None:
        """Writes a decision and a title."""
        box = {"facecolor": background, "edgecolor": "none", "boxstyle": "round,pad=0.3"}
        page = self.pages[-1]
        page.text(MARGIN + 0.01, self._top, word, color=ink, fontsize=12, weight="bold", va="top", bbox=box)
        across = max(0.12, 0.045 + 0.0125 * len(word))
        page.text(MARGIN + across, self._top, title, color=INK, fontsize=12, weight="bold", va="top")
        self._top -= 2.2 * LINE

    def text(self, words: str, *, size: int = 8, colour: str = INK, indent: int = 0) -> None:
        """Writes a paragraph; large ones are headings."""
        height = LINE * size / 8 * 0.92
        self._top -= 0.5 * height if size > 8 else 0.0
        left = MARGIN + 0.008 * indent
        words = words.replace(" %", "\u00a0%")  # a number is not parted from its unit
        room = CHARACTERS * 8 / size * (BOLD if size > 8 else 1)
        for line in textwrap.wrap(words, round(room) - indent) or [""]:
            if self._top - height < MARGIN:
                self._begin()
            weight = "bold" if size > 8 else "normal"
            self.pages[-1].text(left, self._top, line, fontsize=size, color=colour, weight=weight, va="top")
            self._top -= height
        self._top -= 0.25 * height

    def picture(self, png: bytes, height: float) -> None:
        """Draws a picture, at most as high as a share of the page."""
        pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
        assert pixels is not None
        pixels = pixels[..., ::-1]
        tall, wide = pixels.shape[:2]
        across = 1 - 2 * MARGIN
        needed = across * A4[0] * tall / wide / A4[1]
        if needed > height:
            across, needed = across * height / needed, height
        if self._top - needed < MARGIN:
            self._begin()
        axis = self.pages[-1].add_axes((0.5 - across / 2, self._top - needed, across, needed))
        axis.imshow(pixels, interpolation="lanczos")
        axis.set_axis_off()
        self._top -= needed + 0.6 * LINE

    def _begin(self) -> None:
        from matplotlib.figure import Figure

        page = Figure(figsize=A4)
        page.text(1 - MARGIN, MARGIN / 2, self._foot, fontsize=7, color=FAINT, ha="right")
        page.text(0.5, 1 - MARGIN / 2, self._notice, fontsize=8, color=INK, ha="center", weight="bold")
        self.pages.append(page)
        self._top = 1 - MARGIN
