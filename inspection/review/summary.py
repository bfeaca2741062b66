"""All that verdicts say, in words and as JSON: rates, proposed thresholds, comparison."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from anomaly.calibration import Decision
from anomaly.errors import CalibrationError, DatasetError
from inspection.review.proposal import Comparison, Proposal, compare, propose
from inspection.review.rates import ReviewRates, review_rates
from inspection.review.units import Unit

_LISTED = 10


@dataclass(frozen=True)
class Summary:
    """The outcome of a review.

    Attributes:
        rates: of false rejects and escapes.
        proposal: new thresholds; None where there can be none.
        comparison: old and new on these parts; None with `proposal`.
        without: why no thresholds are proposed; "" with `proposal`.
    """

    rates: ReviewRates
    proposal: Proposal | None
    comparison: Comparison | None
    without: str

    def in_words(self) -> list[str]:
        """Lines for people."""
        lines = _rates(self.rates)
        if self.proposal is None or self.comparison is None:
            return [*lines, "", f"No thresholds are proposed: {self.without}."]
        return [*lines, "", *_proposal(self.proposal), "", *_comparison(self.comparison)]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        found: dict[str, Any] = {"rates": asdict(self.rates), "proposal": None, "without": self.without}
        if self.proposal is None or self.comparison is None:
            return found
        made, comparison = self.proposal, self.comparison
        found["proposal"] = {
            "model": made.model,
            "review": asdict(made.calibration.review),
            "ng": asdict(made.calibration.ng),
            "normals": len(made.calibration.scores),
            "verified": made.verified,
            "taken_off": made.taken_off,
            "confidence": made.confidence,
        }
        found["comparison"] = {
            "known": [
                {"verdict": verdict, "old": old, "new": new, "parts": count}
                for (verdict, old, new), count in comparison.known.items()
            ],
            "all": [{"old": old, "new": new, "parts": count} for (old, new), count in comparison.all.items()],
            **{name: list(getattr(comparison, name)) for name in ("new_escapes", "new_catches", "saved", "lost")},
        }
        return found


def summarise(
    units: Sequence[Unit],
    ok_share: float,
    *,
    review_rate: float = 0.10,
    ng_rate: float = 0.01,
    confidence: float = 0.95,
) -> Summary:
    """Works out everything; thresholds only where the verdicts carry them. See `review_rates` and `propose`.

    Raises:
        DatasetError: there is no part.
        SettingError: an argument is out of its range.
    """
    rates = review_rates(units, ok_share, confidence)
    try:
        made = propose(units, ok_share, review_rate=review_rate, ng_rate=ng_rate, confidence=confidence)
    except (DatasetError, CalibrationError) as error:
        return Summary(rates, None, None, str(error))
    return Summary(rates, made, compare(units, made.calibration), "")


def _rates(rates: ReviewRates) -> list[str]:
    stopped, sample, unjudged = rates.stopped, rates.sample, rates.unjudged
    low, high = rates.escapes
    lines = [
        f"{rates.passed:,} parts passed, {stopped.parts:,} stopped, {unjudged.parts:,} could not be judged.",
        f"Stopped parts: {stopped.ng:,} bad, {stopped.ok:,} good (false rejects), {stopped.open:,} without a verdict.",
        f"Random sample of the passed parts: {sample.parts:,}, of which {sample.ng:,} bad (escapes), "
        f"{sample.ok:,} good, {sample.open:,} without a verdict.",
    ]
    if unjudged.parts:
        lines.append(
            f"Parts that could not be judged: {unjudged.ng:,} bad, {unjudged.ok:,} good, {unjudged.open:,} open."
        )
    if rates.known_escapes > sample.ng:
        lines.append(f"{rates.known_escapes - sample.ng:,} more escapes are known from outside the sample.")
    return [
        *lines,
        "",
        f"Of these parts, with {100 * rates.confidence:g} % intervals:",
        f"  false rejects, of all good parts that were judged   {rates.false_rejects.in_words()}",
        f"  missed, of all bad parts                            {rates.missed.in_words()}",
        f"  bad, of all parts that passed                       {rates.bad_among_passed.in_words()}: "
        f"{low:,} to {high:,} parts",
    ]


def _proposal(made: Proposal) -> list[str]:
    return [
        f"Proposed thresholds for model {made.model[:12]}, from {made.passed:,} passed parts and {made.verified:,} "
        f"verified good ones that were stopped, without the {made.taken_off:,} lowest scores (escapes there may be):",
        *(f"  {line}" for line in made.calibration.in_words().splitlines()[1:]),
        f"  All of it together holds with {100 * made.confidence:g} % confidence, for parts like these.",
    ]


def _comparison(comparison: Comparison) -> list[str]:
    lines = [
        "Old and new on the parts with a verdict:",
        f"  {'':24} {'old OK':>8} {'REVIEW':>8} {'NG':>8}   {'new OK':>8} {'REVIEW':>8} {'NG':>8}",
    ]
    for verdict, name in ((Decision.OK, "good"), (Decision.NG, "bad")):
        old = [sum(n for (v, o, _), n in comparison.known.items() if (v, o) == (verdict, d)) for d in Decision]
        new = [sum(n for (v, _, w), n in comparison.known.items() if (v, w) == (verdict, d)) for d in Decision]
        lines.append(f"  {name:24}" + "".join(f" {n:8,}" for n in old) + "  " + "".join(f" {n:8,}" for n in new))
    old = [sum(n for (o, _), n in comparison.all.items() if o == d) for d in Decision]
    new = [sum(n for (_, w), n in comparison.all.items() if w == d) for d in Decision]
    lines.append(
        f"  {'all that were judged':24}" + "".join(f" {n:8,}" for n in old) + "  " + "".join(f" {n:8,}" for n in new)
    )
    for words, parts in (
        ("WORSE: known defects that would now pass", comparison.new_escapes),
        ("known defects that would now be stopped", comparison.new_catches),
        ("good parts that would no longer be stopped", comparison.saved),
        ("good parts that would now be stopped", comparison.lost),
    ):
        if parts:
            more = f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else ""
            lines.append(f"  {len(parts)} {words}: {', '.join(parts[:_LISTED])}{more}")
    return [
        *lines,
        "Nothing was replaced. A recipe takes its thresholds from its rates and its calibration file; to renew that,",
        "collect good parts (`review normals --representative`) and run `anomaly inspect calibrate`.",
    ]
