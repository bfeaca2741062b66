"""What a report is made of, and its two forms: Markdown with pictures beside it, and one HTML file."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup, escape

from anomaly.report.templates import template
from benchmarks.tables import markdown


class Table(NamedTuple):
    """A table; a cell between ** is marked as the best.

    Attributes:
        caption: what it shows; may be empty.
        header: titles of the columns.
        rows: cells.
        texts: how many columns at the left hold text.
    """

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    texts: int


class Picture(NamedTuple):
    """A picture: name of its file, what it shows, and the SVG."""

    file: str
    shows: str
    svg: str


@dataclass
class Section:
    """A part of the report: what it is about, sentences, tables, a picture."""

    title: str
    lines: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    picture: Picture | None = None


def as_markdown(title: str, sections: Sequence[Section]) -> str:
    """Returns the report as Markdown; pictures are files beside it."""
    parts = [f"# {title}"]
    for section in sections:
        parts.append(f"## {section.title}")
        if section.lines:
            parts.append("\n".join(f"- {line}" for line in section.lines))
        if section.picture:
            parts.append(f"![{section.picture.shows}]({section.picture.file})")
        for table in section.tables:
            shown = markdown(table.header, table.rows, texts=table.texts)
            parts.append(f"{table.caption}\n\n{shown}" if table.caption else shown)
    return "\n\n".join(parts) + "\n"


def as_html(title: str, sections: Sequence[Section]) -> str:
    """Returns the report as one self-contained HTML document."""
    page = template(Path(__file__).parent / "report.html.j2", cell=_cell, drawing=_drawing)
    return page.render(title=title, sections=sections)


def _cell(text: str) -> Markup:
    """Returns a cell; the mark of the best becomes bold."""
    best = re.fullmatch(r"\*\*(.+)\*\*", str(text))
    return Markup("<strong>{}</strong>").format(best[1]) if best else escape(text)


def _drawing(picture: Picture) -> Markup:
    """Returns the SVG of a picture without the head of an XML file; its ids are those of this picture only."""
    svg = picture.svg[picture.svg.index("<svg") :]
    prefix = picture.file.partition(".")[0]
    svg = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{prefix}-", svg)
    return Markup(svg)  # noqa: S704 - drawn by matplotlib, which escapes the names
