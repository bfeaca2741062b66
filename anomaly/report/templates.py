"""Jinja templates of the self-contained pages: every value is escaped, a value that is missing is an error."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from anomaly.report.words import number

if TYPE_CHECKING:
    from jinja2 import Template


def template(path: Path, *folders: Path, **filters: Callable[..., Any]) -> "Template":
    """Returns a template that is ready to render.

    Args:
        path: its file.
        folders: where else the templates are that it extends or includes.
        filters: name -> filter, besides `number`.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader([path.parent, *folders]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, **filters}
    return environment.get_template(path.name)
