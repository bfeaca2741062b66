"""Exact intervals for shares: of a source without end, and of a lot that has an end.

Clopper and Pearson, The use of confidence or fiducial limits illustrated in the case of the binomial, Biometrika 1934:
an interval that covers the true share at least as often as it says, whatever the share and however few the trials. Of a
lot of known size, a sample tells about what is left of it alone; the same inversion is then made with the
hypergeometric distribution (Buonaccorsi, A note on confidence intervals for proportions in finite populations, The
American Statistician 1987), and a sample that is the whole lot leaves nothing open.
"""

from bisect import bisect_left
from dataclasses import dataclass

from anomaly.errors import SettingError

_ROUNDING = 1e-9  # a probability that equals the limit but for the last bits does not contradict


@dataclass(frozen=True)
class Share:
    """A share that was counted, with its exact interval.

    Attributes:
        count: how many.
        of: among how many, 1 or more.
        low: lower end of the two-sided interval, in [0, 1].
        high: upper end, in [0, 1].
        confidence: that the interval covers the true share, in (0, 1).
    """

    count: int
    of: int
    low: float
    high: float
    confidence: float

    @property
    def value(self) -> float:
        """The share that was seen, in [0, 1]."""
        return self.count / self.of

    def in_words(self) -> str:
        """Returns e.g. "4.9 % (5 of 102; 95 % interval 1.6 % to 11.1 %)"."""
        counted = f"{self.count:,} of {self.of:,}; {100 * self.confidence:g} % interval"
        return f"{percent(self.value)} ({counted} {percent(self.low)} to {percent(self.high)})"


def share(count: int, of: int, confidence: float = 0.95) -> Share:
    """Returns a share with its Clopper-Pearson interval.

    Args:
        count: how many trials had it, 0..`of`.
        of: number of independent trials, 1 or more.
        confidence: in (0, 1).

    Raises:
        SettingError: an argument is out of its range.
    """
    from scipy.stats import beta

    _require(count, of, confidence)
    tail = (1 - confidence) / 2
    low = float(beta.ppf(tail, count, of - count + 1)) if count else 0.0
    high = float(beta.isf(tail, count + 1, of - count)) if count < of else 1.0
    return Share(count, of, low, high, confidence)


def lot_count(count: int, of: int, lot: int, confidence: float = 0.95) -> tuple[int, int]:
    """Returns between which numbers of a lot have it, from a random sample drawn of it without replacement.

    Args:
        count: how many of the sample have it, 0..`of`.
        of: size of the sample, 0..`lot`; of an empty sample nothing is known.
        lot: size of the lot, 0 or more.
        confidence: of the two-sided exact interval, in (0, 1).

    Returns:
        The smallest and the largest number in the lot, 0..`lot`, that this sample does not contradict. A value is
        contradicted if so few, or so many, would be found with a probability below (1 - confidence) / 2.

    Raises:
        SettingError: an argument is out of its range.
    """
    from scipy.stats import hypergeom

    if of == 0:
        if count or lot < 0:
            raise SettingError.of("lot_count", "count", "0 of an empty sample", count)
        return 0, lot
    _require(count, of, confidence)
    if lot < of:
        raise SettingError.of("lot_count", "lot", f"at least the sample, {of}", lot)
    tail = (1 - confidence) / 2 * (1 - _ROUNDING)
    possible = range(count, lot - of + count + 1)
    # so many are found more often, so few less often, the more there are
    low = bisect_left(possible, True, key=lambda inside: hypergeom.sf(count - 1, lot, inside, of) >= tail)
    above = bisect_left(possible, True, key=lambda inside: hypergeom.cdf(count, lot, inside, of) < tail)
    return possible[low], possible[above - 1]


def percent(value: float) -> str:
    """Returns a share as people read it: one decimal, more below 1 % so that small rates do not become 0."""
    if value == 0 or value >= 0.01:
        return f"{100 * value:.1f} %"
    return f"{100 * value:.2g} %"


def _require(count: int, of: int, confidence: float) -> None:
    if of < 1:
        raise SettingError.of("share", "of", "1 or more", of)
    if not 0 <= count <= of:
        raise SettingError.of("share", "count", f"in 0..{of}", count)
    if not 0 < confidence < 1:
        raise SettingError.of("share", "confidence", "in (0, 1)", confidence)
