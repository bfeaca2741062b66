"""New thresholds from parts that people have verified, and what they would have done to these parts.

The normals that the thresholds rest on are those of the line itself: stopped parts that people called OK, and passed
parts. A few of the passed parts are escapes, nobody knows which. So many of them as there may be at most (the upper end
of `rates.escape_bounds`) are taken off at the lowest scores: that leaves the highest scores untouched and the number of
normals below its true value, so that every threshold comes out no lower, and every promise no stronger, than those of
the true normals alone. Bonferroni: half of the doubt goes into that bound, half into the thresholds
(`anomaly.calibration`, confidence 97.5 % for a wanted 95 %), so that both hold together.

A part that was stopped for its defects stays stopped whatever the thresholds of the score are.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from anomaly.calibration import Calibration, Decision, calibrate
from anomaly.errors import DatasetError
from inspection.parts import Reason
from inspection.review.rates import escape_bounds
from inspection.review.units import Unit, one_model


@dataclass(frozen=True)
class Proposal:
    """Thresholds that are proposed.

    Attributes:
        calibration: the thresholds and what they promise.
        model: sha256 of the model whose scores they are of.
        passed: number of passed parts among the normals, before any was taken off.
        verified: number of stopped parts among them that a person called OK.
        taken_off: how many lowest scores were taken off, for the escapes there may be.
        confidence: with which all of it holds together.
    """

    calibration: Calibration
    model: str
    passed: int
    verified: int
    taken_off: int
    confidence: float


@dataclass(frozen=True)
class Comparison:
    """What new thresholds would have done.

    Attributes:
        known: (verdict, old decision, new decision) -> number of parts with a verdict.
        all: (old decision, new decision) -> number of parts that were judged.
        new_escapes: parts verified as NG that were stopped and would be passed.
        new_catches: parts verified as NG that were passed and would be stopped.
        saved: parts verified as OK that were stopped and would be passed.
        lost: parts verified as OK that were passed and would be stopped.
    """

    known: dict[tuple[Decision, Decision, Decision], int]
    all: dict[tuple[Decision, Decision], int]
    new_escapes: tuple[str, ...]
    new_catches: tuple[str, ...]
    saved: tuple[str, ...]
    lost: tuple[str, ...]

    @property
    def worse(self) -> bool:
        """Whether a defect that is known would now be passed."""
        return bool(self.new_escapes)


def propose(
    units: Sequence[Unit],
    ok_share: float,
    *,
    review_rate: float = 0.10,
    ng_rate: float = 0.01,
    confidence: float = 0.95,
) -> Proposal:
    """Makes thresholds from all parts of a period.

    Args:
        units: all parts, reviewed or not. Every stopped part that was judged needs a verdict.
        ok_share: share of the passed parts that was drawn for review, in (0, 1].
        review_rate: wanted share of good parts that are not OK, in (0, 1).
        ng_rate: wanted share of good parts that are NG, in (0, 1), at most `review_rate`.
        confidence: that the promises hold, in (0, 1).

    Raises:
        DatasetError: stopped parts lack a verdict, several models have judged, or no normal is left for certain.
        SettingError: an argument is out of its range.
    """
    model = one_model(units)
    judged = [unit for unit in units if unit.judged]
    missing = [unit for unit in judged if unit.stopped and unit.verdict is None]
    if missing:
        raise DatasetError(
            f"{len(missing)} stopped part(s) have no verdict, the first is {missing[0].name}; without them the highest "
            "scores of good parts are not known: review them and import the verdicts first"
        )
    passed = [unit for unit in judged if not unit.stopped]
    _, escapes = escape_bounds(passed, ok_share, confidence)  # its upper end errs with half of the doubt
    verified = [unit.score for unit in judged if unit.stopped and unit.verdict == Decision.OK]
    unproven = [unit.score for unit in passed if unit.verdict != Decision.NG]
    taken_off = escapes - (len(passed) - len(unproven))
    ordered = sorted(score for score in (*unproven, *verified) if score is not None)
    if taken_off >= len(ordered):
        raise DatasetError(
            f"of {len(passed)} passed parts {escapes} may be escapes, which leaves no normal: review more of the "
            "sample of passed parts (`review export --ok-share`)"
        )
    calibration = calibrate(
        ordered[taken_off:],
        unit="part",
        review_rate=review_rate,
        ng_rate=ng_rate,
        confidence=1 - (1 - confidence) / 2,
    )
    return Proposal(calibration, model, len(unproven), len(verified), taken_off, confidence)


def compare(units: Sequence[Unit], calibration: Calibration) -> Comparison:
    """Compares the decisions of the inspection with those of other thresholds, on the parts that it has judged.

    Args:
        units: parts; those that were not judged are left out, since no threshold helps them.
        calibration: the other thresholds.
    """
    judged = [unit for unit in units if unit.judged]
    pairs = [(unit, _decision(unit, calibration)) for unit in judged]
    runs = {unit.run for unit in judged}

    def turned(verdict: Decision, *, stopped: bool) -> tuple[str, ...]:
        return tuple(
            unit.part if len(runs) == 1 else unit.name
            for unit, new in pairs
            if unit.verdict == verdict and unit.stopped == stopped and (new != Decision.OK) != stopped
        )

    return Comparison(
        known=Counter((unit.verdict, unit.decision, new) for unit, new in pairs if unit.verdict is not None),
        all=Counter((unit.decision, new) for unit, new in pairs),
        new_escapes=turned(Decision.NG, stopped=True),
        new_catches=turned(Decision.NG, stopped=False),
        saved=turned(Decision.OK, stopped=True),
        lost=turned(Decision.OK, stopped=False),
    )


def _decision(unit: Unit, calibration: Calibration) -> Decision:
    assert unit.score is not None  # it was judged
    order, new = tuple(Decision), calibration.decide(unit.score)
    return max(new, unit.decision, key=order.index) if unit.reason == Reason.DEFECTS else new
