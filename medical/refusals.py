"""Why an object, a series or a study was not analysed: one code of a closed list, and words for people.

A refusal is a result like any other: it is shown, stored and sent. Its words never hold patient data: no names, no
identifiers, no dates, no UIDs, no values of free-text attributes, no paths.
"""

from dataclasses import dataclass
from enum import StrEnum

from anomaly.errors import AnomalyError


class Reason(StrEnum):
    """The closed list of codes. What was refused, by whom, is in the name; the words of a refusal say the rest."""

    # the file
    NOT_DICOM = "NOT_DICOM"
    TRUNCATED = "TRUNCATED"
    DAMAGED = "DAMAGED"
    TOO_LARGE = "TOO_LARGE"
    TRANSFER_SYNTAX = "TRANSFER_SYNTAX"
    SOP_CLASS = "SOP_CLASS"
    HEADER = "HEADER"
    DUPLICATE_OBJECT = "DUPLICATE_OBJECT"
    # nothing that a model could judge
    NO_IMAGE = "NO_IMAGE"
    RESULT = "RESULT"
    # its pixels
    NO_PIXELS = "NO_PIXELS"
    PHOTOMETRIC = "PHOTOMETRIC"
    PIXELS = "PIXELS"
    DECODER = "DECODER"
    DECODER_LIMIT = "DECODER_LIMIT"
    # the geometry of a series
    NO_GEOMETRY = "NO_GEOMETRY"
    TOO_FEW_SLICES = "TOO_FEW_SLICES"
    MISSING_SLICE = "MISSING_SLICE"
    UNEVEN_SPACING = "UNEVEN_SPACING"
    DUPLICATE_SLICE = "DUPLICATE_SLICE"
    GANTRY_TILT = "GANTRY_TILT"
    MIXED_ORIENTATION = "MIXED_ORIENTATION"
    MIXED_GRID = "MIXED_GRID"
    SEVERAL_ACQUISITIONS = "SEVERAL_ACQUISITIONS"
    LOCALISER = "LOCALISER"
    # the input contract of the model
    MODALITY = "MODALITY"
    BODY_PART = "BODY_PART"
    VIEW = "VIEW"
    AGE = "AGE"
    SPACING = "SPACING"
    VALUE_UNIT = "VALUE_UNIT"
    OUT_OF_DISTRIBUTION = "OUT_OF_DISTRIBUTION"
    # the study
    NOTHING_TO_ANALYSE = "NOTHING_TO_ANALYSE"
    FAILED = "FAILED"


@dataclass(frozen=True)
class Refusal:
    """Why something was not analysed.

    Attributes:
        reason: the code.
        detail: what was found and what is allowed, for people; without patient data.
    """

    reason: Reason
    detail: str

    def __str__(self) -> str:
        """Returns "CODE: words"."""
        return f"{self.reason}: {self.detail}"

    @property
    def of_image(self) -> bool:
        """Whether an image was missed, or what may be one; not so with objects that are no images, or results."""
        return self.reason not in (Reason.NO_IMAGE, Reason.RESULT)


class RefusedError(AnomalyError):
    """Something cannot be analysed; `refusal` says why."""

    def __init__(self, reason: Reason, detail: str) -> None:
        """Stores the refusal; the message is "CODE: words"."""
        self.refusal = Refusal(reason, detail)
        super().__init__(str(self.refusal))
