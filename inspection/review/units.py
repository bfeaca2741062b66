"""The parts that a review is about, as light rows, and which of the passed ones are its random sample.

What the inspection stopped is reviewed in full. What it passed cannot be, but without looking at some of it nobody
knows what escapes. So a random sample of the passed parts is reviewed too: those whose chance, a hash of the part's id
in [0, 1), lies below the wanted share. The hash is that by which the results keep pictures of passed parts. Any other
selection of parts (a day, a run) holds the same share of the sample; a larger share contains every smaller one; and
nobody has to remember who was drawn.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from anomaly.calibration import Decision
from anomaly.errors import DatasetError, SettingError
from inspection.parts import JUDGED, Reason
from inspection.results.records import StoredResult

OK_SHARE = 0.02
"""Share of the passed parts in the sample, unless another is asked for."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One part in a review.

    Attributes:
        run: id of the run.
        part: id of the part.
        decision: of the inspection.
        reason: of the decision.
        score: anomaly score; None if it was not judged.
        verdict: OK or NG, the latest that a person gave; None while nobody has.
        model: sha256 of the model.
        chance: in [0, 1), uniform over parts; a passed part is in the sample if it lies below the share.
    """

    run: str
    part: str
    decision: Decision
    reason: Reason
    score: float | None
    verdict: Decision | None
    model: str
    chance: float

    @classmethod
    def of(cls, stored: StoredResult) -> "Unit":
        """Returns the part of a stored result."""
        result, verdict = stored.result, stored.verdict
        return cls(
            run=stored.run,
            part=result.part,
            decision=result.decision,
            reason=result.reason,
            score=result.score,
            verdict=None if verdict is None else verdict.verdict,
            model=result.model,
            chance=chance(result.part),
        )

    @property
    def name(self) -> str:
        """Run and part, for messages."""
        return f"{self.part} (run {self.run})"

    @property
    def judged(self) -> bool:
        """Whether the inspection has really judged it."""
        return self.reason in JUDGED

    @property
    def stopped(self) -> bool:
        """Whether it was REVIEW or NG."""
        return self.decision != Decision.OK


def chance(part: str) -> float:
    """Returns a number in [0, 1) that looks drawn at random, always the same for an id."""
    import hashlib

    return int.from_bytes(hashlib.sha256(part.encode("utf-8", "surrogatepass")).digest()[:8]) / 2**64


def sampled(units: Iterable[Unit], ok_share: float) -> list[Unit]:
    """Returns the passed parts that are in the random sample, in their order.

    Args:
        units: parts.
        ok_share: share of the passed parts in the sample, in (0, 1].

    Raises:
        SettingError: the share is out of its range.
    """
    if not 0 < ok_share <= 1:
        raise SettingError.of("the sample of passed parts", "ok_share", "above 0 and at most 1", ok_share)
    return [unit for unit in units if not unit.stopped and unit.chance < ok_share]


def one_model(units: Sequence[Unit]) -> str:
    """Returns the model that has judged all parts that were judged.

    Raises:
        DatasetError: no part was judged, or several models did: their scores cannot be compared.
    """
    models = sorted({unit.model for unit in units if unit.judged})
    if not models:
        raise DatasetError(f"none of {len(units)} parts was judged, so that there is no score to work with")
    if len(models) > 1:
        raise DatasetError(
            f"{len(models)} models have judged these parts and their scores cannot be compared; choose one with "
            f"--model-sha256: {', '.join(models)}"
        )
    return models[0]
