"""Names of detectors: a plain table, imported on demand."""

import json
from dataclasses import fields, is_dataclass
from importlib import import_module
from typing import Any, cast, get_type_hints

from anomaly.detector import Detector
from anomaly.errors import SettingError, UnknownNameError

DETECTORS = {
    "autoencoder": "anomaly.detectors.autoencoder:AutoencoderDetector",
    "feature_autoencoder": "anomaly.detectors.feature_autoencoder:FeatureAutoencoderDetector",
    "feature_transformer": "anomaly.detectors.feature_transformer:FeatureTransformerDetector",
    "gaussian": "anomaly.detectors.gaussian:GaussianDetector",
    "memory_bank": "anomaly.detectors.memory_bank:MemoryBankDetector",
    "student": "anomaly.detectors.student:StudentDetector",
    "subspace": "anomaly.detectors.subspace:SubspaceDetector",
}

VOLUME_DETECTORS = {"volume_autoencoder": "anomaly.detectors.volume_autoencoder:VolumeAutoencoderDetector"}
"""Detectors of volumes, see `anomaly.volume_spec`; those of `DETECTORS` take images."""

BRIDGES = {"anomalib": "anomaly.detectors.anomalib_bridge.detector:detector_class"}
"""What stands before the colon of a foreign model's name -> function that returns its class."""


def detector_class(name: str) -> type[Detector]:
    """Returns the class of a detector by name, or of a foreign model by "anomalib:Model".

    Raises:
        UnknownNameError: no such detector; the message lists the valid ones.
    """
    prefix, colon, model = name.partition(":")
    if colon and prefix in BRIDGES:
        module, _, function = BRIDGES[prefix].partition(":")
        bridged: type[Detector] = getattr(import_module(module), function)(model)
        return bridged
    known = DETECTORS | VOLUME_DETECTORS
    if name not in known:
        raise UnknownNameError.among("detector", name, known)
    module, _, cls = known[name].partition(":")
    found: type[Detector] = getattr(import_module(module), cls)
    return found


def build(cls: type[Any], settings: dict[str, Any]) -> Any:
    """Builds a dataclass of settings from a nested mapping, as JSON gives it; strict.

    Raises:
        SettingError: an unknown name, or a value that is not allowed.
    """
    owner = cls.name if issubclass(cls, Detector) else cls.__name__
    hints = get_type_hints(cls)
    names = {f.name for f in fields(cls)}
    if unknown := sorted(set(settings) - names):
        raise UnknownNameError.among(f"setting of {owner}", unknown[0], names)
    return cls(**{name: _checked(owner, name, hints[name], value) for name, value in settings.items()})


def _checked(owner: str, name: str, hint: Any, value: Any) -> Any:
    """Returns a value of the type that the setting declares; JSON knows neither dataclasses nor tuples."""
    from pydantic import TypeAdapter, ValidationError

    if is_dataclass(hint):
        if isinstance(value, cast("type[Any]", hint)):
            return value
        if isinstance(value, dict):
            return build(cast("type[Any]", hint), value)
        raise SettingError.of(owner, name, "a mapping of settings", value)
    try:
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except ValidationError:
        allowed = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
        raise SettingError.of(owner, name, f"of type {allowed}", value) from None
