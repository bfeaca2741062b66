"""Raw frames of parts that people called OK, copied for a refit or for a calibration, never the same part for both.

Thresholds must rest on good parts as they come. Accepted normals do not come like that: most of them are false rejects,
the strangest of the good. The random sample is fair, of stopped parts as of passed ones, because each part has the same
chance to be in it. So the sample is kept for the calibration, and what lies outside it is for the refit to learn.
"""

import csv
import hashlib
import re
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from anomaly.calibration import Decision
from anomaly.errors import DatasetError, SettingError
from inspection.report.view import stored_file
from inspection.results.records import StoredResult
from inspection.review.units import Unit

TABLE = "normals.csv"
COLUMNS = ("file", "run", "part", "decision", "score", "who", "given")
_HARMLESS = re.compile(r"[^A-Za-z0-9.-]+")


@dataclass(frozen=True)
class Normals:
    """What was copied.

    Attributes:
        out: the folder.
        copied: number of frames.
        stopped: how many of them the inspection had stopped.
        without_frame: accepted parts whose raw frame is not stored (any more).
        model: the model that is to learn them.
        same_model: whether the parts were judged by this very file.
        representative: whether this is the random sample.
    """

    out: Path
    copied: int
    stopped: int
    without_frame: int
    model: Path
    same_model: bool
    representative: bool

    def in_words(self) -> list[str]:
        """Lines for people, with the command to go on with."""
        lines = [f"{self.copied:,} frames of good parts in {self.out}, {self.stopped:,} of them had been stopped."]
        if self.without_frame:
            lines.append(
                f"{self.without_frame:,} more good parts have no stored frame ([results.pictures] of the recipe)."
            )
        if self.representative:
            return [
                *lines,
                "They are a random sample of good parts. Make the thresholds of a recipe from them:",
                f"  anomaly inspect calibrate RECIPE {self.out}",
            ]
        new = self.model.with_name(f"{self.model.stem}-2.safetensors")
        if not self.same_model:
            lines.append(
                f"The parts were not judged by {self.model.name} itself; that is right for an export of it only."
            )
        return [
            *lines,
            "Learn them; old and new model are compared, and a worse one is not written:",
            f"  anomaly refit {self.model} {self.out} -o {new}",
            "Most of them are strange normals, so take no thresholds from them: name the new model in the recipe, then",
            "collect the random sample with --representative and calibrate the recipe on it.",
        ]


def collect_normals(
    results: Iterable[StoredResult],
    out: Path,
    pictures: Path,
    model: Path,
    ok_share: float,
    *,
    representative: bool = False,
) -> Normals:
    """Copies the raw frames of parts whose latest verdict is OK.

    Args:
        results: parts of the period.
        out: new or empty folder.
        pictures: folder of the stored pictures.
        model: model file that is to learn them.
        ok_share: share of parts in the random sample, in (0, 1].
        representative: whether the random sample is wanted, or what lies outside it.

    Raises:
        DatasetError: there is no such part, or none of them has a frame.
        SettingError: the folder is not empty, the model no .safetensors file, or the share out of its range.
    """
    if model.suffix != ".safetensors" or not model.is_file():
        raise SettingError.of("--model", "value", "a model file *.safetensors that exists", str(model))
    if not 0 < ok_share <= 1:
        raise SettingError.of("the sample of parts", "ok_share", "above 0 and at most 1", ok_share)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingError.of("--out", "value", "a new or empty folder", str(out))
    with model.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    chosen = [one for one in results if _wanted(Unit.of(one), ok_share, representative=representative)]
    frames = [(one, frame) for one in chosen if (frame := stored_file(one, "raw", pictures)) is not None]
    if not frames:
        kind = "in the random sample" if representative else "outside the random sample"
        raise DatasetError(
            f"{len(chosen)} part(s) {kind} are called OK by people, and no raw frame of them lies in {pictures}; "
            "import verdicts first, or name the folder with --pictures"
        )
    out.mkdir(parents=True, exist_ok=True)
    with (out / TABLE).open("w", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for one, frame in frames:
            name = _name(one, frame)
            shutil.copyfile(frame, out / name)
            writer.writerow([name, *_facts(one)])
    return Normals(
        out=out,
        copied=len(frames),
        stopped=sum(one.result.decision != Decision.OK for one, _ in frames),
        without_frame=len(chosen) - len(frames),
        model=model,
        same_model={one.result.model for one, _ in frames} == {digest},
        representative=representative,
    )


def _wanted(unit: Unit, ok_share: float, *, representative: bool) -> bool:
    return unit.verdict == Decision.OK and (unit.chance < ok_share) == representative


def _facts(one: StoredResult) -> list[object]:
    verdict = one.verdict
    assert verdict is not None
    result = one.result
    return [one.run, result.part, result.decision.value, result.score, verdict.who, verdict.given.isoformat()]


def _name(one: StoredResult, frame: Path) -> str:
    """A name of harmless letters that is unique by run and part."""
    digest = hashlib.sha256(f"{one.run}\n{one.result.part}".encode("utf-8", "surrogatepass")).hexdigest()[:12]
    stem = _HARMLESS.sub("_", one.result.part)[:60].strip(".") or "part"
    return f"{stem}-{digest}{frame.suffix}"
