"""Errors of the line.

AnomalyError
├── LineError    the line stopped because results could not be kept or the source failed
└── SourceError  a source cannot be opened or read
"""

from anomaly.errors import AnomalyError


class LineError(AnomalyError):
    """The line stopped although it was not told to; the message says why and which parts have no durable result."""


class SourceError(AnomalyError):
    """A source cannot be opened or read."""
