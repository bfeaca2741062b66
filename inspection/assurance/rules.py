"""Run rules: when a chart of standardised points raises an alarm.

Source: Nelson, The Shewhart control chart: tests for special causes, Journal of Quality Technology 1984, rules 1, 2, 5
and 6 (those that speak of a level; after the Western Electric handbook of 1956). The price of more rules is more false
alarms: rule 1 alone gives one in 370 points of a normal process that has not changed, these four together about one in
90 (Champ and Woodall, Exact results for Shewhart control charts with supplementary runs rules, Technometrics 1987, who
count eight in a row where Nelson has nine).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray


class Rule(StrEnum):
    """What raised an alarm."""

    BEYOND_LIMIT = "Nelson 1: one point beyond the control limit"
    NINE_ON_ONE_SIDE = "Nelson 2: nine points in a row on one side of the centre"
    TWO_OF_THREE = "Nelson 5: two of three points beyond two deviations on one side"
    FOUR_OF_FIVE = "Nelson 6: four of five points beyond one deviation on one side"
    EWMA = "EWMA beyond its control limit"


@dataclass(frozen=True)
class Alarm:
    """One alarm of a chart.

    Attributes:
        point: index of the point at which the rule was first met, from 0.
        rule: that was met.
        above: whether on the upper side.
    """

    point: int
    rule: Rule
    above: bool

    def in_words(self, labels: Sequence[str]) -> str:
        """Returns e.g. "at 07:30: Nelson 1: one point beyond the control limit (above)"."""
        return f"at {labels[self.point]}: {self.rule.value} ({'above' if self.above else 'below'})"


_WINDOWS = {
    Rule.BEYOND_LIMIT: (1, 1, 3.0),
    Rule.NINE_ON_ONE_SIDE: (9, 9, 0.0),
    Rule.TWO_OF_THREE: (2, 3, 2.0),
    Rule.FOUR_OF_FIVE: (4, 5, 1.0),
}
"""Rule -> so many, of so many in a row, beyond so many deviations."""


def alarms(standardised: NDArray[np.float64]) -> list[Alarm]:
    """Returns the alarms of a chart, in the order of time.

    A rule that stays met is one alarm, at the point where it begins; every point beyond the limit is one.

    Args:
        standardised: (n,) points as deviations from the centre.
    """
    found = []
    for rule, (least, window, level) in _WINDOWS.items():
        for above in (True, False):
            beyond = (standardised if above else -standardised) > level
            counts = np.convolve(beyond, np.ones(window, int))[: len(beyond)]
            met = (counts >= least) & beyond
            begins = met if rule == Rule.BEYOND_LIMIT else met & ~np.append(False, met[:-1])
            found += [Alarm(int(point), rule, above) for point in np.flatnonzero(begins)]
    return sorted(found, key=lambda alarm: (alarm.point, list(Rule).index(alarm.rule)))
