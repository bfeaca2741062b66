"""What a user types on the command line -> the settings of a detector; shared by the commands that fit."""

import json
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

from anomaly.catalog import build, detector_class
from anomaly.detector import Detector
from anomaly.errors import SettingError


class DetectorOptions(NamedTuple):
    """What was typed.

    Attributes:
        detector: name in the catalogue.
        backbone: "bundled", or any timm model.
        layers: comma separated; empty for the default.
        weights: file with the backbone's weights.
        settings: name=value of the detector.
        seed: seed of the fit.
    """

    detector: str
    backbone: str
    layers: str
    weights: Path | None
    settings: Sequence[str]
    seed: int

    def build(self, spec: Any) -> Detector:
        """Returns the detector.

        Args:
            spec: the `InputSpec` or `VolumeSpec` of its input.

        Raises:
            SettingError: a name or value is not allowed.
        """
        cls = detector_class(self.detector)
        chosen = {name: _json_or_text(value) for name, value in map(_assignment, self.settings)}
        detector: Detector = build(cls, {"input": spec, "seed": self.seed, **self._network(cls)} | chosen)
        return detector

    def _network(self, cls: type[Detector]) -> dict[str, Any]:
        """Returns the settings that say which network it builds on; models of anomalib name theirs in arguments."""
        file = str(self.weights) if self.weights else None
        layers = [layer for layer in self.layers.split(",") if layer]
        names = {field.name for field in fields(cls)}
        if "backbone" in names:
            return {"backbone": {"name": self.backbone, "layers": layers, "weights": file}}
        if layers or self.backbone != "bundled":
            example = '--set arguments={"backbone":"resnet18"}'
            raise SettingError(f"{cls.name} takes no --backbone and no --layers, but e.g. {example} and --weights FILE")
        if file and "weights" not in names:
            raise SettingError(f"{cls.name} builds on no pretrained weights, so it takes no --weights")
        return {"weights": file} if "weights" in names else {}


def two_numbers(option: str, text: str, separator: str, number: type[Any]) -> Any:
    """Reads two numbers; None where nothing was typed.

    Raises:
        SettingError: it is something else.
    """
    if not text:
        return None
    try:
        first, second = text.lower().split(separator)
        return number(first), number(second)
    except ValueError:
        raise SettingError(f"{option} must be two numbers, like 1{separator}2; got {text!r}") from None


def _json_or_text(value: str) -> Any:
    """Reads a value as JSON (numbers, true, [1, 2]); what is no JSON is text."""
    try:
        return json.loads(value)
    except json.JSONDecodeError:
        return value


def _assignment(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingError(f"--set must be name=value; got {text!r}")
    return name, value
