"""The order of the worklist: a flagged study moves up, and nothing else moves.

All studies that are not flagged, NOT_ANALYSED or analysed, keep the order in which they would have been read without
the algorithm: by the site's priority, then by arrival. So a low score never moves a study down (triage in parallel to
the standard of care; 21 CFR 892.2080 describes such devices, which this is not).
"""

import math
from collections.abc import Iterable

from medical.outcome import Outcome

RULE = (
    "Sorted by priority: the site's own, raised to HIGH where a study is flagged, never lowered. Within one priority "
    "flagged studies come first, the rarest score first; all others, whether analysed or not, follow in the order of "
    "acquisition, and those without a known time come first. A low score never moves a study down."
)
"""The rule in words, for every worklist."""


def effective_order(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Returns the outcomes in the order in which they are to be read.

    Equal ones stay in the order in which they were given, which should be that of their arrival.
    """
    return sorted(outcomes, key=_place)


def _place(outcome: Outcome) -> tuple[int, int, float, float, str]:
    """An unknown time sorts first: it may be the oldest. Of equally rare scores the higher comes first."""
    acquired = outcome.acquired or ""
    if not outcome.flagged:
        return outcome.priority.rank, 1, 0.0, 0.0, acquired
    score = math.inf if outcome.score is None or not math.isfinite(outcome.score) else outcome.score
    p_value = 0.0 if outcome.p_value is None or math.isnan(outcome.p_value) else outcome.p_value
    return outcome.priority.rank, 0, p_value, -score, acquired
