"""Every error the suite raises on purpose.

AnomalyError
├── SettingError          a setting, option or argument has a value that is not allowed      (ValueError)
│   └── UnknownNameError  a name that is not in its table; the message lists the valid ones  (ValueError)
├── InputError            an image tensor does not fit the scorer's InputSpec                (ValueError)
├── ImageFileError        an image file is missing, corrupt, truncated, too large, ...
├── DatasetError          a folder or manifest has not the layout that was asked for
├── BackboneError         backbone weights are missing, incomplete or not of this network
├── CalibrationError      the normals held out cannot support what was asked of them
├── TrainingError         a training cannot go on, e.g. its loss is not finite
├── ArtifactError         a model file is truncated, tampered with, foreign or too new
├── ExportError           a model cannot be exported as asked
│   └── ParityError       an export scores other than its model; nothing was written
├── DeviceError           a device or provider that was asked for is not there, or another would run in its place
└── MissingExtraError     an optional package is not installed; says how to install it       (ImportError)

A message says what was wrong, the value, what is allowed and what to do.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

_LISTED = 60


class AnomalyError(Exception):
    """Base of every error that the suite raises on purpose."""


class SettingError(AnomalyError, ValueError):
    """A setting, option or argument has a value that is not allowed."""

    @classmethod
    def of(cls, owner: str, name: str, allowed: str, got: object) -> "SettingError":
        """Returns the one template for bad values: "`name` of `owner` must be `allowed`; got `got`"."""
        return cls(f"{name} of {owner} must be {allowed}; got {got!r}")


class UnknownNameError(SettingError):
    """A name is not in its table."""

    @classmethod
    def among(cls, kind: str, name: str, valid: Iterable[str]) -> "UnknownNameError":
        """Returns an error that suggests the closest name and lists the `valid` ones (of a long table, the closest)."""
        names = sorted(valid)
        close = get_close_matches(name, names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        if len(names) <= _LISTED:
            return cls(f"unknown {kind} {name!r}.{hint} Valid: {', '.join(names)}")
        near = get_close_matches(name, names, n=10, cutoff=0.3)
        return cls(f"unknown {kind} {name!r}.{hint} {len(names)} are valid, the closest: {', '.join(near) or 'none'}")


class InputError(AnomalyError, ValueError):
    """An image tensor does not fit the scorer's InputSpec."""


class ImageFileError(AnomalyError):
    """An image file could not be used; `path` names it and `reason` says why."""

    def __init__(self, path: Path | str, reason: str) -> None:
        """Stores the file and the reason; the message is "path: reason"."""
        super().__init__(f"{path}: {reason}")
        self.path = Path(path)
        self.reason = reason


class DatasetError(AnomalyError):
    """A folder or manifest has not the layout that was asked for."""


class BackboneError(AnomalyError):
    """Backbone weights are missing, incomplete or do not belong to the network."""


class CalibrationError(AnomalyError):
    """The normals held out cannot support what was asked of them."""


class TrainingError(AnomalyError):
    """A training cannot go on."""


class ArtifactError(AnomalyError):
    """A model file is truncated, tampered with, foreign or newer than this version."""


class ExportError(AnomalyError):
    """A model cannot be exported as asked."""


class ParityError(ExportError):
    """An export scores other than its model; nothing was written."""


class DeviceError(AnomalyError):
    """A device or provider that was asked for is not there, or another would run in its place."""


class MissingExtraError(AnomalyError, ImportError):
    """An optional package is not installed."""

    @classmethod
    def of(cls, package: str, extra: str, feature: str) -> "MissingExtraError":
        """Returns an error that names the feature, the package and the command that installs it."""
        return cls(f"{feature} needs the package {package!r}: pip install 'anomaly-suite[{extra}]'")
