"""The recipe that `anomaly inspect init` writes: TOML with a comment for every key, taken from the docstrings."""

import json
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from inspect import getdoc
from pathlib import PurePath
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from inspection.recipe.faults import models_in
from inspection.recipe.recipe import VERSION, Recipe
from inspection.recipe.sections import SeverityClass

_WIDTH = 110
_ATTRIBUTE = re.compile(r"^ {4}(\w+): ", re.MULTILINE)
_PUBLISHER = """
# Who is told of every result; see docs/recipes.md for "mqtt", "webhook", "csv" and "jsonl".
# [[results.publishers]]
# type = "csv"
# path = "results.csv"
"""


def recipe_text(product: str, values: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, Sequence[str]]) -> str:
    """Returns the text of a recipe.

    Args:
        product: name of the product variant.
        values: section -> key -> value of what is set; everything else is shown as a comment with its default.
        reasons: section -> lines that say why its values were chosen.
    """
    lines = [
        f"# Recipe of {product}: how its parts are inspected. Every key is explained in docs/recipes.md.",
        "# An unknown key is an error. A key behind a # has the value that is shown.",
        f"version = {VERSION}",
        f"product = {_toml(product)}",
    ]
    for name, field in Recipe.model_fields.items():
        for section in models_in(field.annotation):
            given = name in values or (not field.is_required() and field.default_factory is not None)
            lines += ["", *_lines(name, section, values.get(name, {}), reasons.get(name, ()), given)]
    return "\n".join(lines) + "\n" + _PUBLISHER


def _lines(
    name: str, section: type[BaseModel], values: Mapping[str, Any], reasons: Sequence[str], given: bool
) -> Iterator[str]:
    """Yields a section; one that is not given is a comment throughout."""
    yield from _comment((getdoc(section) or "").partition("\n")[0])
    for reason in reasons:
        yield from _comment(reason)
    yield f"[{name}]" if given else f"# [{name}]"
    meanings = attributes(section)
    nested = []
    for key, field in section.model_fields.items():
        inner = models_in(field.annotation)
        if inner:
            nested += [(key, inner, values.get(key))]
            continue
        yield from _comment(meanings[key])
        if key in values:
            yield f"{key} = {_toml(values[key])}"
        else:
            yield f"# {key} = {_default(field)}"
    for key, inner, value in nested:
        if inner == [SeverityClass]:
            yield from _tables(f"{name}.{key}", SeverityClass, value or ())
        elif len(inner) == 1:
            yield ""
            yield from _lines(f"{name}.{key}", inner[0], value or {}, (), given)


def _tables(name: str, section: type[BaseModel], rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    yield ""
    meanings = attributes(section)
    for number, row in enumerate(rows):
        yield f"[[{name}]]"
        for key, field in section.model_fields.items():
            if number == 0:
                yield from _comment(meanings[key])
            if key in row:
                yield f"{key} = {_toml(row[key])}"
            elif number == 0:
                yield f"# {key} = {_default(field)}"


def attributes(section: type[BaseModel]) -> dict[str, str]:
    """Returns what the docstring of a section says of each key, on one line."""
    _, _, block = (getdoc(section) or "").partition("Attributes:\n")
    pieces = _ATTRIBUTE.split(block)
    return {key: " ".join(text.split()) for key, text in zip(pieces[1::2], pieces[2::2], strict=True)}


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, _WIDTH)]


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True, validated_data={})
    if field.is_required():
        return "..."
    return "none" if value is None else _toml(value)


def _toml(value: Any) -> str:
    """JSON is TOML for words, numbers, truth values and lists of them."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False, default=_as_word)


def _as_word(value: Any) -> str:
    if isinstance(value, PurePath):
        return value.as_posix()
    raise TypeError(type(value))
