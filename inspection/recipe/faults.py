"""Faults of a recipe as lines for people: key path, value, what is allowed."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from anomaly.errors import AnomalyError

_LONGEST = 60
_PASSWORD = re.compile(r"(://[^:/@\s]*:)[^\s\"]*@")


class RecipeError(AnomalyError):
    """A recipe cannot be used; the message has one line per fault.

    Attributes:
        path: the recipe.
        faults: the lines, each "key: what is wrong".
    """

    def __init__(self, path: Path, faults: Sequence[str]) -> None:
        """Makes the message of the faults."""
        self.path, self.faults = path, tuple(faults)
        if len(self.faults) == 1:
            super().__init__(f"{path}: {self.faults[0]}")
        else:
            super().__init__(f"{path} has {len(self.faults)} faults:" + "".join(f"\n  {line}" for line in self.faults))


def faults_of(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Returns one line per fault, in the order of the keys.

    Args:
        error: what pydantic found.
        model: what was read.
    """
    found = error.errors()
    within = {fault["loc"][:depth] for fault in found for depth in range(len(fault["loc"]))}
    told = [fault for fault in found if fault["type"] != "too_short" or fault["loc"] not in within]
    return [_line(fault["type"], fault["loc"], fault["msg"], fault["input"], model) for fault in told]


def _line(kind: str, keys: tuple[int | str, ...], message: str, value: Any, model: type[BaseModel]) -> str:
    path = key_path(keys)
    if kind == "extra_forbidden":
        allowed = sorted(_keys_at(model, keys[:-1]))
        close = get_close_matches(str(keys[-1]), allowed, n=1)
        hint = f" did you mean {close[0]!r}?" if close else ""
        return f"{path}: no such key;{hint} allowed here: {', '.join(allowed)}"
    if kind == "missing":
        return f"{path}: is missing"
    said = message.removeprefix("Value error, ").removeprefix("Input ").replace("should be", "must be")
    if isinstance(value, Mapping) and kind == "value_error":  # a rule about several keys names them itself
        return f"{path}: {said}" if path else said
    return f"{path}: {said}; got {_shown(value)}"


def key_path(keys: Iterable[int | str]) -> str:
    """Returns e.g. "defects.severity[1].peak" (tables are counted from 1)."""
    path = ""
    for key in keys:
        path += f"[{key + 1}]" if isinstance(key, int) else f".{key}" if path else key
    return path


def _shown(value: Any) -> str:
    text = _PASSWORD.sub(r"\1***@", json.dumps(value, default=str, ensure_ascii=False))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _keys_at(model: type[BaseModel], keys: Iterable[int | str]) -> set[str]:
    """Returns the keys of the sections that may stand at a place; of several kinds, all of theirs."""
    models = [model]
    for key in keys:
        fields = [m.model_fields[key] for m in models if isinstance(key, str) and key in m.model_fields]
        if fields:
            models = [found for field in fields for found in models_in(field.annotation)]
    return {name for m in models for name in m.model_fields}


def models_in(annotation: Any) -> list[type[BaseModel]]:
    """Returns the sections that an annotation names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in models_in(part)]
