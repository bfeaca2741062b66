"""What the analysis says of a study, for worklists, DICOM results and the PACS service."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float, Float32

from anomaly.calibration import Decision
from medical.objects import Instance, RefusedFile
from medical.refusals import Refusal

DISCLAIMER = "Research use only. NOT FOR DIAGNOSTIC USE. Not a medical device."
"""Said on every output. A low score does not mean that a study is normal."""


class Priority(StrEnum):
    """Terms of Requested Procedure Priority (0040,1003), most urgent first (PS3.3 C.4.11)."""

    STAT = "STAT"
    HIGH = "HIGH"
    ROUTINE = "ROUTINE"
    MEDIUM = "MEDIUM"
    LOW = "LOW"

    @property
    def rank(self) -> int:
        """0 for the most urgent."""
        return list(Priority).index(self)


@dataclass(frozen=True)
class Algorithm:
    """What computed a result; goes into every DICOM result.

    Attributes:
        name: of the algorithm, e.g. "anomaly-suite subspace".
        version: of this suite.
        model: sha256 of the model file.
        settings: further settings for people, e.g. {"review above": "0.91", "aggregation": "highest image"}.
    """

    name: str
    version: str
    model: str
    settings: dict[str, str]


@dataclass(frozen=True)
class Analysed:
    """One analysed image or volume.

    Attributes:
        instances: one for an image, all slices in order for a volume, or the one multi-frame object.
        frame: 1-based frame of a multi-frame object that was analysed as an image; None for a whole volume.
        score: raw anomaly score, higher is more anomalous.
        p_value: share of normal patients that score at least as high, (0, 1].
        map: (H, W) or (D, H, W) float32 anomaly map on the pixel grid of the source; None where the run keeps none.
        contour: map values above it are marked.
        scale: map values where colours begin and end.
        affine: (4, 4) of a volume as in `Volume.affine`; None for an image.
    """

    instances: tuple[Instance, ...]
    frame: int | None
    score: float
    p_value: float
    map: Float32[np.ndarray, "*d h w"] | None
    contour: float
    scale: tuple[float, float]
    affine: Float[np.ndarray, "4 4"] | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of a study.

    Attributes:
        study: Study Instance UID.
        pseudonym: keyed hash of it, for logs and file names.
        site_priority: the site's own priority, from the objects or from the caller; ROUTINE where nobody said.
        acquired: study date and time, ISO 8601; None where unknown.
        modality: of its first analysed object, or of its first object; "unknown" where none is readable.
        decision: decision on its score; None where it was NOT_ANALYSED.
        score: raw score of the study, by the model's stated aggregation; None where it was NOT_ANALYSED.
        p_value: of the score; None where it was NOT_ANALYSED.
        analysed: its analysed images and volumes.
        refused: its images, and what may be images, that were not analysed.
        refusal: why the study as a whole was NOT_ANALYSED; None where it was analysed.
        objects: number of DICOM objects of the study.
        others: of these the ones that are nothing to analyse: no images, or results that were computed from images.
    """

    study: str
    pseudonym: str
    site_priority: Priority
    acquired: str | None
    modality: str
    decision: Decision | None
    score: float | None
    p_value: float | None
    analysed: tuple[Analysed, ...]
    refused: tuple[RefusedFile, ...]
    refusal: Refusal | None
    objects: int
    others: tuple[RefusedFile, ...] = ()

    @property
    def images(self) -> int:
        """Number of objects that are images, or may be."""
        return self.objects - len(self.others)

    @property
    def unread(self) -> tuple[RefusedFile, ...]:
        """What results name as not analysed: its images; where it has none, all objects, since these are its reason.

        Other objects come and go, such as reports: results must not change with them.
        """
        return self.refused if self.images else self.others

    @property
    def status(self) -> str:
        """ANALYSED (every image), PARTLY_ANALYSED or NOT_ANALYSED."""
        if self.refusal is not None:
            return "NOT_ANALYSED"
        return "PARTLY_ANALYSED" if self.refused else "ANALYSED"

    @property
    def flagged(self) -> bool:
        """Whether the score is above the threshold of REVIEW."""
        return self.decision in (Decision.REVIEW, Decision.NG)

    @property
    def priority(self) -> Priority:
        """The site's priority, raised to HIGH if the study is flagged; never lowered."""
        return min(self.site_priority, Priority.HIGH, key=lambda p: p.rank) if self.flagged else self.site_priority
