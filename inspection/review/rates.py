"""False-reject and escape rates of parts that were inspected, from verdicts on some of them.

Strata and estimator: stopped parts (REVIEW, NG) are reviewed in full, passed parts (OK) by a simple random sample (see
`inspection.review.units`). In the sample, k of n passed parts turn out to be NG; N passed parts then hold about N k / n
escapes (the expansion estimator of stratified sampling: Cochran, Sampling Techniques, 3rd edition, 1977, chapter 5),
and between how many and how many is the exact hypergeometric interval of `inspection.assurance.intervals.lot_count`.
Every rate rises or falls with the number of escapes throughout, so that its interval ends where that of the escapes
does. The intervals speak of these parts; the next month is another matter.

What has no verdict is not guessed: a sampled part without one counts as OK at one end of the interval and as NG at the
other, and so does a stopped part. The estimates take such parts to be as the others of their stratum; of parts that
could not be judged, with no verdict on any of them, they count none as bad. Verdicts on passed parts outside the sample
(a complaint, a suspicion) are no random draw: escapes among them are certain and raise the lower end, nothing else.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from anomaly.calibration import Decision
from anomaly.errors import DatasetError
from inspection.assurance.intervals import lot_count, percent
from inspection.review.units import Unit, sampled


@dataclass(frozen=True)
class Estimate:
    """A share with its interval.

    Attributes:
        value: best estimate, in [0, 1]; None if nothing was seen that it could come from.
        low: lower end, in [0, 1].
        high: upper end, in [0, 1].
    """

    value: float | None
    low: float
    high: float

    def in_words(self) -> str:
        """Returns e.g. "1.2 % (0.8 % to 2.0 %)"."""
        value = "no estimate" if self.value is None else percent(self.value)
        return f"{value} ({percent(self.low)} to {percent(self.high)})"


@dataclass(frozen=True)
class Counts:
    """Verdicts on some parts.

    Attributes:
        ok: parts that are OK.
        ng: parts that are NG.
        open: parts without a verdict.
    """

    ok: int
    ng: int
    open: int

    @classmethod
    def of(cls, units: Sequence[Unit]) -> "Counts":
        """Counts the verdicts of parts."""
        ok, ng = (sum(unit.verdict == verdict for unit in units) for verdict in (Decision.OK, Decision.NG))
        return cls(ok, ng, len(units) - ok - ng)

    @property
    def parts(self) -> int:
        """Number of parts."""
        return self.ok + self.ng + self.open

    @property
    def ng_in_all(self) -> float | None:
        """Expected number of NG parts, those without a verdict taken to be as the others; None without verdicts."""
        known = self.ok + self.ng
        return self.parts * self.ng / known if known else (None if self.parts else 0.0)


@dataclass(frozen=True)
class ReviewRates:
    """What verdicts say about an inspection.

    Attributes:
        stopped: parts that were judged and stopped.
        unjudged: parts that could not be judged, and were stopped for it.
        passed: number of passed parts.
        sample: passed parts in the random sample.
        known_escapes: passed parts with the verdict NG, in the sample or not.
        escapes: between which numbers the escapes among the passed parts lie.
        false_rejects: share of the good parts that were judged that were stopped.
        missed: share of the bad parts that were passed.
        bad_among_passed: share of the passed parts that are bad.
        confidence: of the intervals.
    """

    stopped: Counts
    unjudged: Counts
    passed: int
    sample: Counts
    known_escapes: int
    escapes: tuple[int, int]
    false_rejects: Estimate
    missed: Estimate
    bad_among_passed: Estimate
    confidence: float


def review_rates(units: Sequence[Unit], ok_share: float, confidence: float = 0.95) -> ReviewRates:
    """Works out the rates.

    Args:
        units: all parts of the period, reviewed or not.
        ok_share: share of the passed parts that was drawn for review, in (0, 1].
        confidence: of the intervals, in (0, 1).

    Raises:
        DatasetError: there is no part.
        SettingError: an argument is out of its range.
    """
    if not units:
        raise DatasetError("there is no part to work out rates from; check --run, --since and --until")
    passed = [unit for unit in units if not unit.stopped]
    stopped = Counts.of([unit for unit in units if unit.stopped and unit.judged])
    unjudged = Counts.of([unit for unit in units if unit.stopped and not unit.judged])
    sample = Counts.of(sampled(passed, ok_share))
    known = Counts.of(passed)
    low, high = escape_bounds(passed, ok_share, confidence)
    expected = len(passed) * sample.ng / (sample.ok + sample.ng) if sample.ok + sample.ng else None
    escapes = None if expected is None else max(expected, float(known.ng))
    if not passed:
        escapes = 0.0
    stopped_ng, unjudged_ng = stopped.ng_in_all, unjudged.ng_in_all
    bad = None if stopped_ng is None else stopped_ng + (unjudged_ng or 0.0)
    rejects = None if stopped_ng is None else stopped.parts - stopped_ng
    good = None if escapes is None else len(passed) - escapes
    return ReviewRates(
        stopped=stopped,
        unjudged=unjudged,
        passed=len(passed),
        sample=sample,
        known_escapes=known.ng,
        escapes=(low, high),
        false_rejects=Estimate(
            _share(rejects, good),
            _end(stopped.ok, len(passed) - low, 0.0),
            _end(stopped.ok + stopped.open, len(passed) - high, 1.0),
        ),
        missed=Estimate(
            _share(escapes, bad),
            _end(low, stopped.ng + unjudged.ng + stopped.open + unjudged.open, 0.0),
            _end(high, stopped.ng + unjudged.ng, 1.0),
        ),
        bad_among_passed=Estimate(
            _share(escapes, None if escapes is None else len(passed) - escapes),
            low / len(passed) if passed else 0.0,
            high / len(passed) if passed else 1.0,
        ),
        confidence=confidence,
    )


def escape_bounds(passed: Sequence[Unit], ok_share: float, confidence: float) -> tuple[int, int]:
    """Returns between which numbers the NG parts among passed parts lie.

    Args:
        passed: all passed parts of the period.
        ok_share: share of them that was drawn for review, in (0, 1].
        confidence: of the two-sided interval, in (0, 1).
    """
    sample, known = Counts.of(sampled(passed, ok_share)), Counts.of(passed)
    low, _ = lot_count(sample.ng, sample.parts, len(passed), confidence)
    _, high = lot_count(sample.ng + sample.open, sample.parts, len(passed), confidence)
    return max(low, known.ng), max(min(high, len(passed) - known.ok), known.ng)


def _share(part: float | None, rest: float | None) -> float | None:
    if part is None or rest is None or part + rest == 0:
        return None
    return part / (part + rest)


def _end(part: float, rest: float, unknown: float) -> float:
    """One end of an interval: part / (part + rest), or the outermost value where there is neither."""
    return part / (part + rest) if part + rest else unknown
