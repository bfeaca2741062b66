"""What good parts score in an inspection: the file from which a recipe's thresholds come.

A model file promises something about frames as they are. A part may be registered, cut into tiles, judged in regions
only; so its promise rests on good parts, unknown to the model, that were measured in exactly this way. The file keeps
their scores, and thresholds are made of them for whatever rates the recipe wants (see `anomaly.calibration`).

Two figures of each part are kept. Its score decides by itself. The highest value of its map decides what counts as a
defect. Where a defect alone can make a part REVIEW or NG, good parts can be rejected in two ways; each then gets its
own share of the wanted rate, so that both together stay below it, whatever they have to do with each other.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from anomaly.calibration import Calibration, Decision, calibrate
from anomaly.errors import ArtifactError, CalibrationError
from inspection.recipe.sections import DefectsSection, ThresholdsSection

FORMAT, SCHEMA = "anomaly-suite part calibration", 1


class GoodPart(NamedTuple):
    """A good part that the model has not learned from.

    Attributes:
        file: its file name.
        sha256: of that file.
        score: its anomaly score.
        highest: the highest value of its map where it is judged.
        group: what it belongs to, where only groups (lots, repeated shots) are independent; its file name otherwise.
    """

    file: str
    sha256: str
    score: float
    highest: float
    group: str


class Thresholds(NamedTuple):
    """What decides about parts.

    Attributes:
        score: thresholds and p-values of scores.
        defects: p-values of the highest map values; map values above its `ng` belong to defects.
    """

    score: Calibration
    defects: Calibration

    def in_words(self) -> list[str]:
        """Returns lines for people: what the thresholds promise."""
        found = self.defects.ng
        shown = f"DEFECT above {found.value:.6g} in the map: {found.in_words()}."
        return [*self.score.in_words().splitlines(), shown]

    def beside(self, old: "Thresholds", parts: Sequence[GoodPart]) -> list[str]:
        """Returns lines for people: what the thresholds replace, and what both say of the good parts measured now.

        Args:
            old: the thresholds that are replaced, of the same model and way to measure: else they are not comparable.
            parts: the good parts that these ones come from.
        """
        pairs = [("REVIEW", old.score.review, self.score.review), ("NG", old.score.ng, self.score.ng)]
        pairs.append(("DEFECT", old.defects.ng, self.defects.ng))
        moved = ", ".join(f"{word} {was.value:.6g} -> {after.value:.6g}" for word, was, after in pairs)
        before, now = (sum(map(one._rejects, parts)) for one in (old, self))
        return [
            f"Replaces the thresholds from {len(old.score.scores)} normals: {moved}.",
            f"Of the {len(parts)} good parts measured now the old ones reject {before}, the new ones {now} "
            "(REVIEW, NG or a defect).",
        ]

    def _rejects(self, part: GoodPart) -> bool:
        return part.score > self.score.review.value or part.highest > self.defects.ng.value


@dataclass(frozen=True)
class PartCalibration:
    """Scores of good parts, and what they were measured with.

    Attributes:
        model: sha256 of the model file.
        training: fingerprint of the images that the model was made of; exports of one model share it.
        way: how parts were measured, see `inspection.measuring.way_of`.
        unit: what is independent: "image" (of one part each), or the name of a group, e.g. "lot".
        fitted: sha256 of each file that the model has learned from; they must never be calibrated on.
        parts: the good parts.
    """

    model: str
    training: str
    way: str
    unit: str
    fitted: tuple[str, ...]
    parts: tuple[GoodPart, ...]

    def thresholds(self, rates: ThresholdsSection, defects: DefectsSection) -> Thresholds:
        """Makes the thresholds for some rates.

        Args:
            rates: wanted false-reject rates.
            defects: what a defect alone can bring about.

        Raises:
            CalibrationError: there is no part.
        """
        review, ng, found = rates.review_rate, rates.ng_rate, rates.ng_rate
        if defects.worst != Decision.OK:
            found = rates.ng_rate / 2
            review -= found
            ng = min(review, ng - found if defects.worst == Decision.NG else ng)
        scores, highest = zip(*((part.score, part.highest) for part in self.parts), strict=True)
        groups = [part.group for part in self.parts]
        make = partial(calibrate, groups=groups, unit=self.unit, confidence=rates.confidence)
        return Thresholds(make(scores, review_rate=review, ng_rate=ng), make(highest, review_rate=found, ng_rate=found))

    def write(self, path: Path) -> str:
        """Writes the file and returns its sha256."""
        data = {"format": FORMAT, "schema": SCHEMA, **asdict(self), "parts": [part._asdict() for part in self.parts]}
        content = (json.dumps(data, indent=1, allow_nan=False) + "\n").encode()
        path.write_bytes(content)
        return hashlib.sha256(content).hexdigest()

    @classmethod
    def read(cls, path: Path) -> "PartCalibration":
        """Reads what `write` wrote.

        Raises:
            ArtifactError: the file cannot be read, or is not such a file.
        """
        try:
            data = json.loads(path.read_bytes())
            if (data.pop("format"), data.pop("schema")) != (FORMAT, SCHEMA):
                raise ArtifactError(f"{path} must be a {FORMAT} of schema {SCHEMA}; make it anew")
            parts = tuple(_good_part(part) for part in data.pop("parts"))
            found = cls(parts=parts, fitted=tuple(map(str, data.pop("fitted"))), **data)
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path} is no part calibration: {error}") from error
        if not found.parts:
            raise CalibrationError(f"{path} holds no good part")
        return found


def _good_part(data: dict[str, Any]) -> GoodPart:
    part = GoodPart(**data)
    return part._replace(score=float(part.score), highest=float(part.highest))
