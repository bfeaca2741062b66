"""Attribute gauge study: does the inspection decide alike when it sees the same part again, and is it right?

Source: AIAG, Measurement Systems Analysis, 4th edition, 2010, chapter III section C (attribute measurement systems):
effectiveness, miss rate and false-alarm rate of each appraiser, agreement tables with kappa, and the limits below. The
manual itself calls these limits guidelines; they are for point estimates, and the intervals here say how far few parts
carry. Agreement counts parts, each once, whatever the number of trials. Rates count decisions; their interval counts
parts, see `Rate`.

REVIEW is a decision of its own when judgements are compared with each other. Compared with a truth that is OK or NG, a
part sent to REVIEW has been stopped: right for NG, a false alarm for OK.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import combinations

import numpy as np

from anomaly.calibration import Decision
from inspection.assurance.intervals import Share, percent, share
from inspection.assurance.judgements import Judgement, appraisers, check_judgements
from inspection.assurance.kappa import Kappa, cohen_kappa, fleiss_kappa


class Verdict(StrEnum):
    """What a figure says about the gauge, by the limits of AIAG MSA, 4th edition."""

    GOOD = "acceptable"
    MARGINAL = "marginal"
    BAD = "not acceptable"


EFFECTIVENESS = 0.90, 0.80
"""Effectiveness: acceptable from, marginal from."""
MISSES = 0.02, 0.05
"""Miss rate: acceptable up to, marginal up to."""
FALSE_ALARMS = 0.05, 0.10
"""False-alarm rate: acceptable up to, marginal up to."""
KAPPA = 0.75, 0.40
"""Kappa: good agreement above, poor below."""


@dataclass(frozen=True)
class Rate:
    """A share of decisions on parts of one kind.

    Attributes:
        count: wrong decisions.
        of: decisions.
        parts: the parts: those with any wrong decision, of all of the kind, with the exact interval. Repeats of one
            part are no new evidence, so that only this interval is exact.
    """

    count: int
    of: int
    parts: Share

    @property
    def value(self) -> float:
        """Wrong decisions over decisions, in [0, 1]."""
        return self.count / self.of

    def in_words(self) -> str:
        """Returns e.g. "6.2 % (3 of 48 decisions; of parts 3 of 16, 95 % interval 4.0 % to 45.6 %)"."""
        interval = f"{100 * self.parts.confidence:g} % interval {percent(self.parts.low)} to {percent(self.parts.high)}"
        of_parts = f"of parts {self.parts.count} of {self.parts.of}, {interval}"
        return f"{percent(self.value)} ({self.count} of {self.of} decisions; {of_parts})"


@dataclass(frozen=True)
class Appraiser:
    """How one appraiser did.

    Attributes:
        name: of the appraiser.
        within: parts on which all of its trials agree; None for a single trial.
        repeat_kappa: Fleiss' kappa of its trials; None for a single trial.
        effective: parts of known truth that it got right in every trial; None if there is none.
        truth_kappa: Cohen's kappa of its decisions (stopped or not) and the truth; None without a truth.
        misses: NG parts decided OK; None if there is no such part.
        false_alarms: OK parts not decided OK; None if there is no such part.
    """

    name: str
    within: Share | None
    repeat_kappa: Kappa | None
    effective: Share | None
    truth_kappa: Kappa | None
    misses: Rate | None
    false_alarms: Rate | None

    def verdicts(self) -> dict[str, Verdict]:
        """Returns figure -> verdict of those figures that there are and that have usual limits."""
        found = {}
        if self.effective is not None:
            found["effectiveness"] = _at_least(self.effective.value, EFFECTIVENESS)
        if self.misses is not None:
            found["miss rate"] = _at_most(self.misses.value, MISSES)
        if self.false_alarms is not None:
            found["false-alarm rate"] = _at_most(self.false_alarms.value, FALSE_ALARMS)
        for name, kappa in (("kappa of repeats", self.repeat_kappa), ("kappa with truth", self.truth_kappa)):
            if kappa is not None and kappa.value is not None:
                found[name] = _at_least(kappa.value, KAPPA)
        return found


@dataclass(frozen=True)
class GaugeStudy:
    """The outcome of a study.

    Attributes:
        parts: number of parts.
        trials: of each appraiser.
        appraisers: one outcome for each.
        between: parts on which all trials of all appraisers agree; None for one appraiser.
        all_kappa: Fleiss' kappa over all trials of all appraisers; None for a single judgement per part.
        pairs: (first, second) -> Cohen's kappa of two appraisers over their paired trials.
        all_effective: parts of known truth that everyone got right in every trial; None if there is none.
        unlike: parts on which not all judgements agree.
        confidence: of every interval.
    """

    parts: int
    trials: int
    appraisers: tuple[Appraiser, ...]
    between: Share | None
    all_kappa: Kappa | None
    pairs: dict[tuple[str, str], Kappa]
    all_effective: Share | None
    unlike: tuple[str, ...]
    confidence: float

    def verdict(self) -> Verdict | None:
        """The worst verdict of all appraisers and pairs; None if no figure has one."""
        found = [verdict for one in self.appraisers for verdict in one.verdicts().values()]
        found += [_at_least(kappa.value, KAPPA) for kappa in self.pairs.values() if kappa.value is not None]
        return max(found, key=list(Verdict).index) if found else None


def study(judgements: Sequence[Judgement], confidence: float = 0.95) -> GaugeStudy:
    """Works out a study.

    Args:
        judgements: complete, see `check_judgements`; any order.
        confidence: of every interval, in (0, 1).

    Raises:
        DatasetError: the judgements are no complete study.
        SettingError: the confidence is out of its range.
    """
    check_judgements(judgements)
    names = appraisers(judgements)
    own = {name: sorted((j for j in judgements if j.appraiser == name), key=_place) for name in names}
    trials = len({j.trial for j in own[names[0]]})
    everything = _by_part(judgements)
    pairs = {
        (one, other): cohen_kappa(
            [j.decision for j in own[one]],
            [j.decision for j in own[other]],
            [j.part for j in own[one]],
            confidence,
        )
        for one, other in combinations(names, 2)
    }
    return GaugeStudy(
        parts=len(everything),
        trials=trials,
        appraisers=tuple(_appraiser(name, own[name], trials, confidence) for name in names),
        between=_parts(everything, _alike, confidence) if len(names) > 1 else None,
        all_kappa=_repeats(everything, confidence) if len(judgements) > len(everything) else None,
        pairs=pairs,
        all_effective=_parts(_known(everything), _right, confidence),
        unlike=tuple(part for part, found in everything.items() if not _alike(found)),
        confidence=confidence,
    )


def _appraiser(name: str, own: Sequence[Judgement], trials: int, confidence: float) -> Appraiser:
    parts = _by_part(own)
    known = [j for j in own if j.truth is not None]
    return Appraiser(
        name=name,
        within=_parts(parts, _alike, confidence) if trials > 1 else None,
        repeat_kappa=_repeats(parts, confidence) if trials > 1 else None,
        effective=_parts(_known(parts), _right, confidence),
        truth_kappa=cohen_kappa(
            [_stopped(j.decision) for j in known],
            [_stopped(j.truth) for j in known if j.truth],
            [j.part for j in known],
            confidence,
        )
        if known
        else None,
        misses=_wrong(known, Decision.NG, confidence),
        false_alarms=_wrong(known, Decision.OK, confidence),
    )


def _place(judgement: Judgement) -> tuple[str, str]:
    return judgement.part, judgement.trial


def _by_part(judgements: Sequence[Judgement]) -> dict[str, list[Judgement]]:
    found: dict[str, list[Judgement]] = {}
    for judgement in judgements:
        found.setdefault(judgement.part, []).append(judgement)
    return found


def _known(parts: dict[str, list[Judgement]]) -> dict[str, list[Judgement]]:
    return {part: found for part, found in parts.items() if found[0].truth is not None}


def _stopped(decision: Decision) -> str:
    return "passed" if decision == Decision.OK else "stopped"


def _alike(found: Sequence[Judgement]) -> bool:
    return len({j.decision for j in found}) == 1


def _right(found: Sequence[Judgement]) -> bool:
    return all(j.truth is not None and _stopped(j.decision) == _stopped(j.truth) for j in found)


def _parts(
    parts: dict[str, list[Judgement]], such: Callable[[Sequence[Judgement]], bool], confidence: float
) -> Share | None:
    return share(sum(map(such, parts.values())), len(parts), confidence) if parts else None


def _wrong(known: Sequence[Judgement], truth: Decision, confidence: float) -> Rate | None:
    parts = _by_part([j for j in known if j.truth == truth])
    if not parts:
        return None
    wrong = [sum(not _right([j]) for j in found) for found in parts.values()]
    decisions = sum(len(found) for found in parts.values())
    return Rate(sum(wrong), decisions, share(sum(map(bool, wrong)), len(parts), confidence))


def _repeats(parts: dict[str, list[Judgement]], confidence: float) -> Kappa:
    table = [[sum(j.decision == decision for j in found) for decision in Decision] for found in parts.values()]
    return fleiss_kappa(np.array(table), confidence)


def _at_least(value: float, limits: tuple[float, float]) -> Verdict:
    good, marginal = limits
    return Verdict.GOOD if value >= good else Verdict.MARGINAL if value >= marginal else Verdict.BAD


def _at_most(value: float, limits: tuple[float, float]) -> Verdict:
    good, marginal = limits
    return Verdict.GOOD if value <= good else Verdict.MARGINAL if value <= marginal else Verdict.BAD
