"""report.html: one file that opens from disk, without a network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.report.templates import template
from anomaly.report.words import number
from explain.methods import CONTROLS, TITLES
from explain.part import Judged, Part

if TYPE_CHECKING:
    from explain.writer import About

MOST_LISTED = 500
"""Images that are listed in the page; all are in report.json."""


@dataclass(frozen=True)
class PartPage:
    """What the page shows of a part.

    Attributes:
        part: the part.
        picture: data URI of its maps.
        curves: data URI of its curves; empty where nothing could be judged.
        figure: file of the figure, relative to the report.
    """

    part: Part
    picture: str
    curves: str
    figure: str


def twin_words(part: Part, ng: float) -> str:
    """What the normal content is, and how normal it is, in one sentence."""
    made = {
        "nearest normal patches": f"a mosaic of the best fitting patches of {len(part.twin.sources)} normal images",
        "nearest normal image": "the normal image that fits best",
        "reconstruction": "the model's own reconstruction",
        "blur": "a strong blur of the image, which is not normal content",
    }.get(part.twin.kind, part.twin.kind)
    strange = ", itself NG, so that figures count from there" if part.ground.twin > ng else ""
    return f"Removed regions are replaced by {made}; that alone scores {number(part.ground.twin)}{strange}."


def html(
    about: "About",
    pages: Sequence[PartPage],
    others: Sequence[Judged],
    pictures: Mapping[str, str],
    text: Mapping[str, Any],
) -> str:
    """Returns the whole report as one self-contained HTML document.

    Args:
        about: the run.
        pages: the explained parts.
        others: images that were scored and not explained.
        pictures: name -> data URI of the summary's figures.
        text: words of the summary, as `ReportWriter` puts them together.
    """
    page = template(Path(__file__).parent / "explain.html.j2", twin=twin_words)
    return page.render(
        about=about,
        pages=pages,
        others=others[:MOST_LISTED],
        unlisted=max(0, len(others) - MOST_LISTED),
        pictures=pictures,
        wording=about.wording,
        badges=about.wording.badges,
        titles=TITLES,
        controls={control.name for control in CONTROLS},
        **text,
    )
