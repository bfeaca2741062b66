"""Names of detectors: a plain table, imported on demand."""

from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, get_type_hints

from anomaly.detector import Detector
from anomaly.errors import SettingError, UnknownNameError

DETECTORS = {
    "memory_bank": "anomaly.detectors.memory_bank:MemoryBankDetector",
    "subspace": "anomaly.detectors.subspace:SubspaceDetector",
}


def detector_class(name: str) -> type[Detector]:
    """Returns the class of a detector by name.

    Raises:
        UnknownNameError: no such detector; the message lists the valid ones.
    """
    if name not in DETECTORS:
        raise UnknownNameError.among("detector", name, DETECTORS)
    module, _, cls = DETECTORS[name].partition(":")
    found: type[Detector] = getattr(import_module(module), cls)
    return found


def build(cls: type[Any], settings: dict[str, Any]) -> Any:
    """Builds a dataclass of settings from a nested mapping, as JSON gives it; strict.

    Raises:
        SettingError: an unknown name, or a value that is not allowed.
    """
    hints = get_type_hints(cls)
    names = {f.name for f in fields(cls)}
    if unknown := sorted(set(settings) - names):
        raise UnknownNameError.among(f"setting of {getattr(cls, 'name', cls.__name__)}", unknown[0], names)
    values = {
        key: build(hints[key], value) if is_dataclass(hints[key]) and isinstance(value, dict) else value
        for key, value in settings.items()
    }
    try:
        return cls(**values)
    except TypeError as error:
        raise SettingError(f"settings of {getattr(cls, 'name', cls.__name__)}: {error}") from None
