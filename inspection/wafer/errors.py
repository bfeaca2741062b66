"""Errors of wafer files.

AnomalyError
└── WaferFileError      a wafer file cannot be read, or would not be valid if it were written
    ├── KlarfError      a KLARF file
    ├── MapFileError    a bin map (SEMI E142, SEMI G85)
    └── PickleRefused   a pickle names a class that no data set needs
"""

from anomaly.errors import AnomalyError


class WaferFileError(AnomalyError):
    """A wafer file cannot be read, or would not be valid if it were written."""


class KlarfError(WaferFileError):
    """A KLARF file cannot be read, or would not be valid if it were written."""


class MapFileError(WaferFileError):
    """A bin map cannot be read, or would not be valid if it were written."""


class PickleRefused(WaferFileError):  # noqa: N818 - it says what happened
    """A pickle names a class or function that is not on the list of harmless ones."""
