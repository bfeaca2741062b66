"""Fills the templates of the pages."""

from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any


def rendered(path: Path, *, title: str, headline: str, provenance: Mapping[str, str], **values: Any) -> str:
    """Returns a self-contained HTML document.

    Args:
        path: template, a file that extends `base.html.j2`.
        title: what the page is about.
        headline: the outcome in one sentence.
        provenance: name -> value, shown at the end.
        **values: what the template names.
    """
    from anomaly.report.templates import template
    from anomaly.report.words import BADGES

    return template(path, Path(__file__).parent).render(
        title=title,
        headline=headline,
        badges={word: badge for word, badge in BADGES.items() if word in ("NG", "REVIEW", "OK")},
        provenance={**provenance, "anomaly-suite": version("anomaly-suite")},
        written=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        **values,
    )
