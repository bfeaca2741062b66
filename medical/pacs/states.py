"""The states of a study on its way, and the coded causes that end it without a result.

    receiving -> complete -> analysing -> analysed -> delivering -> delivered
        |            |           |-> not_analysed        |-> failed
        |            +-----------+-> superseded (a late object opened the next revision)

Each arrow is one transaction, so that a crash leaves a study in one of these states and nowhere between.
"""

from enum import StrEnum

from medical.outcome import DISCLAIMER


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


class Receipt(StrEnum):
    """What became of an object that came."""

    NEW = "new"
    SAME = "same"
    """It is there already, with the same content."""
    OTHER = "other"
    """An object with its UID is there already, with other content; that one stays."""
    OWN = "own"
    """It is a result of this service that comes back; ignored."""


class Said(StrEnum):
    """What the log says where no error does: what this is, who was turned away and why, and what a site should mend."""

    RESEARCH_USE = DISCLAIMER
    HOST = "the host is not allowed"
    TITLE = "the calling AE title is not allowed from this host"
    ASSOCIATION = "the association was rejected: called AE title, or too many"
    SIZE = "the object is larger than max_object_megabytes"
    HANDSHAKE = "TLS handshake failed"
    CONNECTION = "the connection failed"
    UNENCRYPTED_SPOOL = "no key: objects lie unencrypted in the spool, readable by this user only"
    UNENCRYPTED_NODE = "other machines can connect and nothing is encrypted; set [node.tls]"


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
