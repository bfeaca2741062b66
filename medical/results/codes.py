"""Codes of the results: those of PS3.16 where it has one, those of the private scheme 99ANOMALY for the rest.

The private scheme is declared in every object by a Coding Scheme Identification Sequence (PS3.3 C.12.1.1). The p-value
is private too: DICOM has no code for the share of normal patients that score at least as high.
"""

from typing import Any, NamedTuple

from anomaly.calibration import Decision
from medical import vocabulary
from medical.refusals import Reason

PRIVATE = "99ANOMALY"
SCHEME_NAME = "Anomaly suite, research codes"


class Code(NamedTuple):
    """A coded concept (PS3.3 section 8.8).

    Attributes:
        value: code value; more than 16 characters are stored as Long Code Value.
        scheme: coding scheme designator.
        meaning: for people, at most 64 characters.
    """

    value: str
    scheme: str
    meaning: str

    def concept(self) -> Any:
        """Returns it as highdicom's CodedConcept."""
        from highdicom.sr import CodedConcept

        return CodedConcept(*self)


PROCESSING_EQUIPMENT = Code(vocabulary.PROCESSING_EQUIPMENT, "DCM", "Processing Equipment")  # CID 7005
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")  # CID 7162
OF_INTEREST = Code("113000", "DCM", "Of Interest")  # CID 7010
MEASUREMENT_REPORT = Code("126000", "DCM", "Imaging Measurement Report")  # CID 7021
IMAGING_PROCEDURE = Code("363679005", "SCT", "Imaging procedure")  # CID 100
DEVICE = Code("121007", "DCM", "Device")  # CID 270
COMMENT = Code("121106", "DCM", "Comment")
SPATIAL_CONCEPT = Code("309825002", "SCT", "Spatial and Relational Concept")  # CID 7150
VOLUME = Code("118565006", "SCT", "Volume")
AREA = Code("42798000", "SCT", "Area")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
SQUARE_MILLIMETRE = Code("mm2", "UCUM", "square millimeter")
NO_UNITS = Code("1", "UCUM", "no units")
SOURCE = Code("260753009", "SCT", "Source")


SCORE = Code("SCORE", PRIVATE, "Anomaly score")
P_VALUE = Code("P_VALUE", PRIVATE, "Share of normal patients that score at least as high")
THRESHOLD = Code("THRESHOLD", PRIVATE, "Threshold of the score above which a study is flagged")
MAP_MAXIMUM = Code("MAP_MAXIMUM", PRIVATE, "Highest value of the anomaly map")
MAP_VALUE = Code("MAP_VALUE", PRIVATE, "Value of the anomaly map")
UNLIKE_NORMAL = Code("UNLIKE_NORMAL", PRIVATE, "Region unlike the normal images of the training")
TRIAGE_DECISION = Code("DECISION", PRIVATE, "Triage decision")
STATUS = Code("STATUS", PRIVATE, "Status of the analysis")
REASON = Code("REASON", PRIVATE, "Reason why it was not analysed")

DECISIONS = {
    Decision.OK: Code("NOT_FLAGGED", PRIVATE, "Not flagged; this does not mean that it is normal"),
    Decision.REVIEW: Code("FLAGGED", PRIVATE, "Flagged for review"),
    Decision.NG: Code("FLAGGED_STRONGLY", PRIVATE, "Flagged for review, strongly unlike normal"),
}

STATUSES = {
    "ANALYSED": Code("ANALYSED", PRIVATE, "Analysed"),
    "PARTLY_ANALYSED": Code("PARTLY_ANALYSED", PRIVATE, "Analysed in part"),
    "NOT_ANALYSED": Code("NOT_ANALYSED", PRIVATE, "Not analysed; this does not mean that it is normal"),
}

REASONS = {
    Reason.NOT_DICOM: "no DICOM file",
    Reason.TRUNCATED: "the file is cut off",
    Reason.DAMAGED: "the file is damaged",
    Reason.TOO_LARGE: "larger than allowed",
    Reason.TRANSFER_SYNTAX: "encoding that is not supported",
    Reason.SOP_CLASS: "kind of object that is not analysed",
    Reason.HEADER: "header without what the analysis needs",
    Reason.DUPLICATE_OBJECT: "the same object twice",
    Reason.NO_IMAGE: "no image",
    Reason.RESULT: "a result that was computed from images",
    Reason.NO_PIXELS: "no pixels",
    Reason.PHOTOMETRIC: "colour model that is not supported",
    Reason.PIXELS: "pixels that cannot be right",
    Reason.DECODER: "pixels that cannot be decoded",
    Reason.DECODER_LIMIT: "decoding needed too much time or memory",
    Reason.NO_GEOMETRY: "no position or orientation of the slices",
    Reason.TOO_FEW_SLICES: "too few slices",
    Reason.MISSING_SLICE: "a slice is missing",
    Reason.UNEVEN_SPACING: "slices are unevenly spaced",
    Reason.DUPLICATE_SLICE: "two slices at one place",
    Reason.GANTRY_TILT: "tilted gantry",
    Reason.MIXED_ORIENTATION: "slices of several orientations",
    Reason.MIXED_GRID: "slices of several sizes or pixel spacings",
    Reason.SEVERAL_ACQUISITIONS: "several acquisitions in one series",
    Reason.LOCALISER: "a localiser",
    Reason.MODALITY: "modality that the model was not made for",
    Reason.BODY_PART: "body part that the model was not made for",
    Reason.VIEW: "view that the model was not made for",
    Reason.AGE: "age that the model was not made for",
    Reason.SPACING: "spacing that the model was not made for",
    Reason.VALUE_UNIT: "unit of values that the model was not made for",
    Reason.OUT_OF_DISTRIBUTION: "unlike every image that the model was made for",
    Reason.FAILED: "the analysis failed",
    Reason.NOTHING_TO_ANALYSE: "nothing in the study that the model is made for",
}
"""Reason -> words for people, at most 64 characters; without patient data."""


def reason_code(reason: Reason) -> Code:
    """Returns the private code of a reason."""
    return Code(str(reason), PRIVATE, REASONS[reason])


def modality(value: str) -> Code | None:
    """Returns the code of a modality (CID 29), e.g. of "CT"; None for what the context group does not hold."""
    from pydicom.sr.codedict import codes as standard

    for name in dir(standard.cid29):
        code = getattr(standard.cid29, name)  # the group lists its methods too
        if getattr(code, "value", None) == value and code.scheme_designator == "DCM":
            return Code(code.value, "DCM", code.meaning)
    return None
