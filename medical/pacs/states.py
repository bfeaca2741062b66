"""The states of a study on its way, and the coded causes that end it without a result.

    receiving -> complete -> analysing -> analysed -> delivering -> delivered
        |            |           |-> not_analysed        |-> failed
        |            +-----------+-> superseded (a late object opened the next revision)

Each arrow is one transaction, so that a crash leaves a study in one of these states and nowhere between.
"""

from enum import StrEnum


class State(StrEnum):
    """State of one revision of a study.

    A revision is the study with all objects that had come when its timeout ended. A later object opens the next one.
    """

    RECEIVING = "receiving"
    COMPLETE = "complete"
    ANALYSING = "analysing"
    ANALYSED = "analysed"
    DELIVERING = "delivering"
    DELIVERED = "delivered"
    NOT_ANALYSED = "not_analysed"
    FAILED = "failed"
    SUPERSEDED = "superseded"


FINISHED = (State.DELIVERED, State.NOT_ANALYSED, State.SUPERSEDED)
"""Nothing is to be done any more."""

OPEN = (State.RECEIVING, State.COMPLETE, State.ANALYSING)
"""Results of these revisions do not exist yet; a late object supersedes the latter two."""


class Cause(StrEnum):
    """Why a study was not analysed, or failed; the closed list."""

    ANALYSER_ENDED = "ANALYSER_ENDED"
    """Its process ended: crash, out of memory, killed."""
    ANALYSER_TIMEOUT = "ANALYSER_TIMEOUT"
    ANALYSER_ERROR = "ANALYSER_ERROR"
    """It raised an error."""
    ANALYSER_RESULT = "ANALYSER_RESULT"
    """What it returned cannot be sent: no DICOM object, an UID that is used already."""
    OBJECTS_REMOVED = "OBJECTS_REMOVED"
    """Earlier objects of the study were removed from the spool when it was done; the study must be sent again."""
    SPOOL_ROOM = "SPOOL_ROOM"
    """The spool could not be written; tried again until it can."""
    SPOOL_DAMAGED = "SPOOL_DAMAGED"
    """A stored file is missing or has changed."""
