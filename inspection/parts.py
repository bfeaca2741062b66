"""What travels along a line: a part with its image goes in, a result with a decision comes out, nothing gets lost.

Every part that a source has seen ends as exactly one `PartResult`. A part that could not be judged is never OK: its
result is NG or REVIEW and names the reason.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from anomaly.calibration import Decision
from anomaly.errors import SettingError

Image = NDArray[Any]
"""(H, W) or (H, W, C) raw frame, uint8, uint16 or float32, as the camera or the file gives it."""


class Reason(StrEnum):
    """Why a part got its decision."""

    SCORE = "SCORE"
    """It was judged, by its score."""
    DEFECTS = "DEFECTS"
    """It was judged, by the defects found in it."""
    UNREADABLE = "UNREADABLE"
    """Its image could not be read or is not what the recipe expects."""
    NOT_REGISTERED = "NOT_REGISTERED"
    """It could not be laid over the golden image within the recipe's limits."""
    TIMEOUT = "TIMEOUT"
    """It was not judged in time."""
    OVERLOAD = "OVERLOAD"
    """The line was faster than the inspection and the queue was full."""
    ERROR = "ERROR"
    """The inspection failed."""
    STOPPED = "STOPPED"
    """The line was stopped before it was judged."""


JUDGED = frozenset({Reason.SCORE, Reason.DEFECTS})
"""Reasons of parts that were really judged; any other part is never OK."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """One part as a source delivers it.

    Attributes:
        id: serial number or frame id, unique within a run; traced through to the results.
        source: where it comes from, e.g. the file name or the camera.
        captured: when it was seen, with a time zone.
        image: the raw frame; None where it could not be had.
        problem: why there is no image, "" otherwise.
    """

    id: str
    source: str
    captured: datetime
    image: Image | None = None
    problem: str = ""

    def __post_init__(self) -> None:
        """Refuses parts without a name, a zone of time, or both an image and a problem."""
        if not self.id:
            raise SettingError.of("Part", "id", "not empty", self.id)
        if self.captured.tzinfo is None:
            raise SettingError.of("Part", "captured", "a time with its zone", self.captured)
        if (self.image is None) == (self.problem == ""):
            raise SettingError.of("Part", "image and problem", "one of the two", (type(self.image), self.problem))


@dataclass(frozen=True, kw_only=True)
class Defect:
    """One connected region of a part that is not normal. Places are in the raw frame, lengths in millimetres.

    Attributes:
        id: 1, 2, ... within its part, the most severe first.
        x_mm: centroid, from the left edge of the frame.
        y_mm: centroid, from the top edge of the frame.
        box_px: (top, left, bottom, right) pixels of the raw frame; bottom and right are exclusive.
        area_mm2: area.
        length_mm: longer side of the smallest rectangle, at any angle, that holds it.
        width_mm: shorter side of that rectangle.
        peak: highest anomaly score in it.
        mean: mean anomaly score in it.
        p_value: share of normal images whose map anywhere scores as high, in (0, 1].
        severity: name of the recipe's class.
    """

    id: int
    x_mm: float
    y_mm: float
    box_px: tuple[int, int, int, int]
    area_mm2: float
    length_mm: float
    width_mm: float
    peak: float
    mean: float
    p_value: float
    severity: str

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        numbers = (self.x_mm, self.y_mm, self.area_mm2, self.length_mm, self.width_mm, self.peak, self.mean)
        if not all(math.isfinite(number) for number in numbers):
            raise SettingError.of("Defect", "places, sizes and scores", "finite", numbers)
        if not 0 < self.p_value <= 1:
            raise SettingError.of("Defect", "p_value", "above 0 and at most 1", self.p_value)


@dataclass(frozen=True, kw_only=True)
class PartResult:
    """What became of a part.

    Attributes:
        part: id of the part.
        source: where it came from.
        captured: when it was seen, with a time zone.
        decision: OK, REVIEW or NG; OK only if it was judged.
        reason: why.
        detail: the reason in words, for people; "" where the score says it all.
        score: anomaly score; None if it was not judged.
        p_value: share of normal parts that score at least as high, in (0, 1]; None if it was not judged.
        defects: the defects found, the most severe first.
        recipe: sha256 of the recipe.
        model: sha256 of the model file.
        milliseconds: what took how long, e.g. {"inspect": 12.5}.
    """

    part: str
    source: str
    captured: datetime
    decision: Decision
    reason: Reason
    detail: str = ""
    score: float | None = None
    p_value: float | None = None
    defects: tuple[Defect, ...] = ()
    recipe: str = ""
    model: str = ""
    milliseconds: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))

    def __post_init__(self) -> None:
        """Refuses a result that calls a part OK that was not judged, lacks its score, or has values like NaN."""
        judged = self.reason in JUDGED
        if self.decision == Decision.OK and not judged:
            raise SettingError.of("PartResult", "decision", "REVIEW or NG of a part that was not judged", self.reason)
        if judged != (self.score is not None) or judged != (self.p_value is not None):
            raise SettingError.of("PartResult", "score and p_value", "given exactly if it was judged", self.reason)
        if self.score is not None and not math.isfinite(self.score):
            raise SettingError.of("PartResult", "score", "finite", self.score)
        if self.p_value is not None and not 0 < self.p_value <= 1:
            raise SettingError.of("PartResult", "p_value", "above 0 and at most 1", self.p_value)
        if not all(math.isfinite(duration) for duration in self.milliseconds.values()):
            raise SettingError.of("PartResult", "milliseconds", "finite", dict(self.milliseconds))
        if self.captured.tzinfo is None:
            raise SettingError.of("PartResult", "captured", "a time with its zone", self.captured)

    @classmethod
    def not_judged(cls, part: Part, decision: Decision, reason: Reason, detail: str, **values: Any) -> "PartResult":
        """Returns the result of a part that could not be judged."""
        return cls(
            part=part.id,
            source=part.source,
            captured=part.captured,
            decision=decision,
            reason=reason,
            detail=detail,
            **values,
        )


@dataclass(frozen=True)
class Inspected:
    """A result with what a picture of it needs.

    Attributes:
        result: what became of the part.
        image: the raw frame; None where there was none.
        map: (H, W) float32 anomaly map on the pixels of the raw frame; None if it was not judged.
    """

    result: PartResult
    image: Image | None = None
    map: NDArray[np.float32] | None = None


class Inspector(Protocol):
    """Judges parts. Never raises for what is wrong with one part: that part's result says so."""

    def __call__(self, parts: Sequence[Part]) -> list[Inspected]:
        """Returns one result per part, in order."""
        ...
