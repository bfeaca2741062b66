"""report.pdf: the same report as pages of A4, written page by page."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from anomaly.report.words import BADGES, number, shorten
from explain.methods import TITLES
from explain.page import PartPage, twin_words, verdict_words

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from explain.writer import About

A4 = 8.27, 11.69
MARGIN = 0.06
LINE = 0.0165
"""Height of a line of text as a share of the page."""
CHARACTERS = 104
"""Characters of a line of text."""
INK, FAINT, WARN = "#1c1917", "#57534e", "#9a3412"


class Pdf:
    """A PDF file that grows page by page."""

    def __init__(self, path: Path) -> None:
        """Opens the file."""
        from matplotlib.backends.backend_pdf import PdfPages

        self._pages: Any = PdfPages(path)

    def part(self, page: PartPage, sheet: "Figure", curves: "Figure | None", place: int, of: int, ng: float) -> None:
        """Writes the page of one part: what was flagged, its maps, and how far to trust them."""
        part = page.part
        writer = _Page()
        badge = BADGES[str(part.judged.verdict.decision)]
        writer.badge(badge.word, badge.background, badge.ink, shorten(part.judged.path.name, 60))
        writer.text(f"{verdict_words(part)} {twin_words(part, ng)}")
        if part.nearest:
            usual = number(part.nearest.typical)
            writer.text(
                f"The strangest place is most like a place in {part.nearest.name}: {number(part.nearest.distance)} "
                f"away in the model's features, where {usual} is usual for this image."
            )
        writer.picture(sheet, 0.46)
        for one in part.explained:
            said = one.found.in_words() if one.found else ""
            writer.text(f"{one.title}{' (control)' if one.control else ''} - {one.trust.word}. {said}", bold=True)
            for warning in one.trust.warnings:
                writer.text(warning, colour=WARN, indent=2)
        for name, reason in part.refused.items():
            writer.text(f"{TITLES[name]} is not shown: {reason}.", colour=FAINT)
        if curves is not None and writer.room > 0.2:
            writer.picture(curves, min(0.24, writer.room - 0.04))
        writer.foot(f"part {place} of {of}")
        self._pages.savefig(writer.figure)

    def close(self, about: "About", pictures: Mapping[str, "Figure"], text: Mapping[str, Any]) -> None:
        """Writes the summary and the provenance, and closes the file."""
        writer = _Page()
        writer.text(about.title, colour=FAINT)
        writer.text(text["headline"], size=14, bold=True)
        if text["interrupted"]:
            writer.text(f"INCOMPLETE. The run stopped before its end: {text['interrupted']}", colour=WARN)
        for line in text["summary"]:
            writer.text(line)
        for figure in pictures.values():
            writer.picture(figure, 0.25)
        writer.text("Which explanations to trust", size=11, bold=True)
        for row in text["table"]:
            taken = "-" if row["removed"] is None else f"{100 * row['removed']:.0f} %"
            writer.text(
                f"{TITLES[row['method']]}: holds for {row['holds']}, doubtful for {row['doubtful']}, not judged for "
                f"{row['not judged']} parts; its strongest 4 % takes away {taken} of the anomaly on average."
            )
        for line in text["lifts"]:
            writer.text(line)
        for line in text["failures"]:
            writer.text(f"Could not be used, do not take it for OK: {line}", colour=WARN)
        writer.foot("summary")
        self._pages.savefig(writer.figure)
        made = _Page()
        made.text("How this was made", size=11, bold=True)
        for line in about.calibration.in_words().splitlines():
            made.text(line)
        for name, value in about.model.items():
            made.text(f"{name}: {value}")
        made.text(f"methods: {', '.join(about.methods)}; seed {about.seed}")
        made.text(f"report written: {text['written']}")
        made.foot("provenance")
        self._pages.savefig(made.figure)
        self._pages.close()


class _Page:
    """A page of A4 that is filled from the top."""

    def __init__(self) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=A4)
        self._top = 1 - MARGIN

    @property
    def room(self) -> float:
        """What is left, as a share of the page."""
        return self._top - MARGIN

    def badge(self, word: str, background: str, ink: str, title: str) -> None:
        """Writes a decision and a title."""
        box = {"facecolor": background, "edgecolor": "none", "boxstyle": "round,pad=0.3"}
        self.figure.text(MARGIN + 0.01, self._top, word, color=ink, fontsize=12, weight="bold", va="top", bbox=box)
        self.figure.text(MARGIN + 0.14, self._top, title, color=INK, fontsize=12, weight="bold", va="top")
        self._top -= 2.2 * LINE

    def text(self, words: str, *, size: int = 8, bold: bool = False, colour: str = INK, indent: int = 0) -> None:
        """Writes a paragraph; what does not fit on the page is left to the HTML report."""
        lines = textwrap.wrap(words, round(CHARACTERS * 8 / size) - indent) or [""]
        height = LINE * size / 8 * 0.92
        for line in lines:
            if self._top - height < MARGIN + LINE:
                return
            weight = "bold" if bold and size > 8 else "normal"
            left = MARGIN + 0.008 * indent
            self.figure.text(left, self._top, line, fontsize=size, color=colour, weight=weight, va="top")
            self._top -= height
        self._top -= 0.25 * height

    def picture(self, figure: "Figure", height: float) -> None:
        """Draws another figure, at most as high as a share of the page, if there is room for a third of it."""
        height = min(height, self.room - LINE)
        if height < 0.08:
            return
        pixels = _rendered(figure)
        tall, wide = pixels.shape[:2]
        across = 1 - 2 * MARGIN
        needed = across * A4[0] * tall / wide / A4[1]
        if needed > height:
            across, needed = across * height / needed, height
        axis = self.figure.add_axes((0.5 - across / 2, self._top - needed, across, needed))
        axis.imshow(pixels, interpolation="lanczos")
        axis.set_axis_off()
        self._top -= needed + 0.6 * LINE

    def foot(self, words: str) -> None:
        """Writes the last line of the page."""
        self.figure.text(1 - MARGIN, MARGIN / 2, words, fontsize=7, color=FAINT, ha="right")


def _rendered(figure: "Figure") -> np.ndarray:
    import cv2

    from explain.figures import encoded

    pixels = cv2.imdecode(np.frombuffer(encoded(figure, "png", 150), np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    return np.asarray(pixels[..., ::-1])
