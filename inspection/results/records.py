"""What is stored: runs, results with their pictures, verdicts; and how they become rows and are read back exactly."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from typing import Any, Literal
from uuid import uuid4

from anomaly.calibration import Decision
from anomaly.errors import SettingError
from inspection.parts import Defect, PartResult, Reason

Kind = Literal["raw", "overlay"]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_BOX = ("top_px", "left_px", "bottom_px", "right_px")
_AS_THEY_ARE = ("x_mm", "y_mm", "area_mm2", "length_mm", "width_mm", "peak", "mean", "p_value")


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run of a line, from start to stop.

    Attributes:
        id: unique among all runs of a database.
        recipe: sha256 of the recipe.
        model: sha256 of the model file.
        started: when, with a time zone.
        version: of anomaly-suite.
    """

    id: str
    recipe: str
    model: str
    started: datetime
    version: str

    def __post_init__(self) -> None:
        """Refuses a run without a name or a zone of time."""
        if not self.id:
            raise SettingError.of("Run", "id", "not empty", self.id)
        if self.started.tzinfo is None:
            raise SettingError.of("Run", "started", "a time with its zone", self.started)

    @classmethod
    def now(cls, *, recipe: str, model: str) -> "Run":
        """Returns a run that starts now, with an id of time and chance, e.g. "20261122T211500Z-1f3a9c2e"."""
        started = datetime.now(UTC)
        return cls(
            id=f"{started:%Y%m%dT%H%M%SZ}-{uuid4().hex[:8]}",
            recipe=recipe,
            model=model,
            started=started,
            version=version("anomaly-suite"),
        )


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A stored picture of a part.

    Attributes:
        kind: "raw" frame or "overlay" of the heatmap.
        folder: id of the folder of pictures in which it lies; see `pictures.PictureFolder`.
        path: relative to that folder, with forward slashes.
        bytes: size of the file.
        written: when it was written, with a time zone.
    """

    kind: Kind
    folder: str
    path: str
    bytes: int
    written: datetime


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a person says of a part.

    Attributes:
        run: id of the run.
        part: id of the part.
        verdict: OK or NG.
        who: who says so.
        given: when, with a time zone.
    """

    run: str
    part: str
    verdict: Decision
    who: str
    given: datetime

    def __post_init__(self) -> None:
        """Refuses REVIEW, a verdict of nobody, and a time without a zone."""
        if self.verdict == Decision.REVIEW:
            raise SettingError.of("Verdict", "verdict", "OK or NG", str(self.verdict))
        if not self.who:
            raise SettingError.of("Verdict", "who", "not empty", self.who)
        if self.given.tzinfo is None:
            raise SettingError.of("Verdict", "given", "a time with its zone", self.given)


@dataclass(frozen=True, kw_only=True)
class StoredResult:
    """A result as it lies in the store.

    Attributes:
        id: its number in the store; grows in the order of writing.
        run: id of its run.
        result: what became of the part, exactly as it was reported.
        pictures: those that are on disk.
        verdicts: what people have said of it, the oldest first.
    """

    id: int
    run: str
    result: PartResult
    pictures: tuple[Picture, ...] = ()
    verdicts: tuple[Verdict, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The latest verdict; None while nobody has given one."""
        return self.verdicts[-1] if self.verdicts else None


def microseconds(time: datetime) -> int:
    """Returns the microseconds from 1970 UTC to a time with a zone."""
    return (time - _EPOCH) // timedelta(microseconds=1)


def time_of(microseconds: int) -> datetime:
    """Returns the time in UTC of so many microseconds from 1970 UTC."""
    return _EPOCH + timedelta(microseconds=microseconds)


def picture_row(result: int, picture: Picture) -> dict[str, Any]:
    """Returns the row of `pictures`."""
    return {
        "result": result,
        "kind": picture.kind,
        "folder": picture.folder,
        "path": picture.path,
        "bytes": picture.bytes,
        "written_us": microseconds(picture.written),
    }


def picture_of(row: Mapping[str, Any]) -> Picture:
    """Reads what `picture_row` has written."""
    return Picture(
        kind=row["kind"],
        folder=row["folder"],
        path=row["path"],
        bytes=row["bytes"],
        written=time_of(row["written_us"]),
    )


def verdict_of(row: Mapping[str, Any], run: str, part: str) -> Verdict:
    """Reads a row of `verdicts`."""
    return Verdict(
        run=run,
        part=part,
        verdict=Decision(row["verdict"]),
        who=row["who"],
        given=datetime.fromisoformat(row["given"]),
    )


def result_row(run: int, result: PartResult) -> dict[str, Any]:
    """Returns the row of `results`."""
    return {
        "run": run,
        "part": result.part,
        "source": result.source,
        "captured": result.captured.isoformat(),
        "captured_us": microseconds(result.captured),
        "decision": result.decision.value,
        "reason": result.reason.value,
        "detail": result.detail,
        "score": None if result.score is None else float(result.score),
        "p_value": None if result.p_value is None else float(result.p_value),
        "recipe": result.recipe,
        "model": result.model,
        "milliseconds": json.dumps({name: float(value) for name, value in result.milliseconds.items()}),
    }


def defect_rows(result: int, defects: Sequence[Defect]) -> list[dict[str, Any]]:
    """Returns the rows of `defects`, in order."""
    return [
        {
            "result": result,
            "position": position,
            "id": int(defect.id),
            **{name: float(getattr(defect, name)) for name in _AS_THEY_ARE},
            **{name: int(edge) for name, edge in zip(_BOX, defect.box_px, strict=True)},
            "severity": defect.severity,
        }
        for position, defect in enumerate(defects)
    ]


def defect_of(row: Mapping[str, Any]) -> Defect:
    """Reads what `defect_rows` has written."""
    top, left, bottom, right = (row[name] for name in _BOX)
    values = {name: row[name] for name in _AS_THEY_ARE}
    return Defect(id=row["id"], box_px=(top, left, bottom, right), severity=row["severity"], **values)


def result_of(row: Mapping[str, Any], defects: Sequence[Defect]) -> PartResult:
    """Reads what `result_row` has written."""
    return PartResult(
        part=row["part"],
        source=row["source"],
        captured=datetime.fromisoformat(row["captured"]),
        decision=Decision(row["decision"]),
        reason=Reason(row["reason"]),
        detail=row["detail"],
        score=row["score"],
        p_value=row["p_value"],
        defects=tuple(defects),
        recipe=row["recipe"],
        model=row["model"],
        milliseconds=json.loads(row["milliseconds"]),
    )
