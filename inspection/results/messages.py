"""What receivers get: one JSON message per part, version 1. Its JSON schema is docs/results.schema.json."""

import json
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from anomaly.calibration import Decision
from anomaly.settings_file import Section
from inspection.parts import Defect, Reason
from inspection.results.records import StoredResult
from inspection.results.tables import escaped

_NAMESPACE = uuid.UUID("5b1c2b1e-6c0f-5d0e-9d7b-2a4c7f0f3a11")


class DefectMessage(Section):
    """One defect; places are in the raw frame."""

    id: int = Field(description="1, 2, ... within the part, the most severe first")
    x_mm: float = Field(description="centroid, from the left edge of the frame")
    y_mm: float = Field(description="centroid, from the top edge of the frame")
    box_px: tuple[int, int, int, int] = Field(description="top, left, bottom, right; bottom and right are exclusive")
    area_mm2: float = Field(description="area")
    length_mm: float = Field(description="longer side of the smallest rectangle that holds it")
    width_mm: float = Field(description="shorter side of that rectangle")
    peak: float = Field(description="highest anomaly score in it")
    mean: float = Field(description="mean anomaly score in it")
    p_value: float = Field(gt=0, le=1, description="share of normal images whose map anywhere scores as high")
    severity: str = Field(description="name of the recipe's class")

    @classmethod
    def of(cls, defect: Defect) -> "DefectMessage":
        """Returns the message of a defect."""
        values = {name: getattr(defect, name) for name in cls.model_fields}
        return cls(**values | {"severity": escaped(defect.severity)})


class ResultMessage(Section):
    """What became of one part. Text is as the database holds it; see `tables.escaped`."""

    version: Literal[1] = Field(description="of this format")
    id: str = Field(description="stable: the same part of the same run always has it; drop what came before")
    run: str = Field(description="id of the run")
    part: str = Field(description="serial number or frame id, unique within the run")
    source: str = Field(description="the camera or the file")
    captured: str = Field(description="when the part was seen, ISO 8601 with time zone")
    decision: Literal["OK", "REVIEW", "NG"] = Field(description="only a part that was judged can be OK")
    reason: Literal[tuple(Reason.__members__)] = Field(description="why")
    detail: str = Field(description="the reason in words")
    score: float | None = Field(description="anomaly score; null if the part was not judged")
    p_value: float | None = Field(description="share of normal parts that score at least as high; null if not judged")
    defects: tuple[DefectMessage, ...] = Field(description="the most severe first")
    recipe: str = Field(description="sha256 of the recipe")
    model: str = Field(description="sha256 of the model file")
    milliseconds: dict[str, float] = Field(description="what took how long")
    pictures: dict[str, str] = Field(description='"raw" and "overlay": path in the folder of pictures; {} if none')


@dataclass(frozen=True)
class Message:
    """A message on its way.

    Attributes:
        id: stable id; a message may come more than once, always with the same.
        content: what it says.
    """

    id: str
    content: ResultMessage

    @classmethod
    def of(cls, stored: StoredResult) -> "Message":
        """Returns the message of a stored result."""
        result, id = stored.result, message_id(stored.run, stored.result.part)
        content = ResultMessage(
            version=1,
            id=id,
            run=escaped(stored.run),
            part=escaped(result.part),
            source=escaped(result.source),
            captured=result.captured.isoformat(),
            decision=Decision(result.decision).value,
            reason=Reason(result.reason).value,
            detail=escaped(result.detail),
            score=result.score,
            p_value=result.p_value,
            defects=tuple(DefectMessage.of(defect) for defect in result.defects),
            recipe=escaped(result.recipe),
            model=escaped(result.model),
            milliseconds={escaped(name): float(value) for name, value in result.milliseconds.items()},
            pictures={picture.kind: picture.path for picture in stored.pictures},
        )
        return cls(id, content)

    def body(self) -> bytes:
        """Returns the JSON text, plain ASCII in one line."""
        return json.dumps(self.content.model_dump(), allow_nan=False, separators=(",", ":")).encode("ascii")


def message_id(run: str, part: str) -> str:
    """Returns the stable id of the message on a part: a version 5 UUID (RFC 9562) of run and part."""
    name = json.dumps([run, part])
    return str(uuid.uuid5(_NAMESPACE, name))


def schema() -> dict[str, Any]:
    """Returns the JSON schema (2020-12) of a message."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "anomaly-suite: result of one part, version 1",
        **{key: value for key, value in ResultMessage.model_json_schema().items() if key != "title"},
    }
