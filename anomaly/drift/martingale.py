"""Betting against "nothing has changed": wealth that can hardly ever grow large while that is true.

A test martingale begins with 1 and bets at each image on the next p-value. As long as the p-values are independent
and uniform, its expectation stays at most 1, so by Ville's inequality the probability that it EVER reaches 1 / a is at
most a, however long the run. Smoothed conformal p-values among all images so far are independent and uniform, exactly,
for any finite reference, if reference and stream are exchangeable; p-values against a reference that never grows
would not be (its accidental gaps would look like a change in the end).

Sources: Vovk, Gammerman, Shafer, Algorithmic Learning in a Random World, 2nd ed. 2022, chapter 8; Vovk et al., Retrain
or not retrain: conformal test martingales for change-point detection, COPA 2021 (jumping between bets); Ville 1939.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from jaxtyping import Float64

TILTS = (-8.0, -3.0, -1.0, 1.0, 3.0, 8.0)
"""Strengths of the bets; positive ones bet that the values grow (small p-values), negative ones that they fall."""
JUMPS = (1e-4, 1e-3, 1e-2, 1e-1)
"""Shares of the wealth that are spread anew over all bets at each step; a quarter of the wealth begins with each."""
_SHRINKAGE = 0.05

Values = Float64[np.ndarray, " _"]
Factors = npt.NDArray[np.float64]
"""(bets,); not checked for its shape, being made at every step of every test."""


class Jumper:
    """Wealth that is spread over the bets of a `Tilt` and over doing nothing, and jumps between them.

    Attributes:
        log_wealth: natural logarithm of the wealth; 0 at the beginning.
    """

    def __init__(self, missed: float) -> None:
        """Spreads a wealth of 1 evenly; `missed` as in `Tilt`."""
        self.log_wealth = 0.0
        self._tilt = Tilt(missed)
        bets = len(TILTS) + 1
        self._shares = np.full((len(JUMPS), bets), 1 / (len(JUMPS) * bets))
        self._jumps = np.array(JUMPS)[:, None]

    def bet(self, above: int, equal: int, others: int, uniform: float) -> None:
        """Bets on the smoothed rank of a value: `above` of the `others` are larger and `equal` are the same."""
        factors = self._tilt.factors((above + uniform * (equal + 1)) / (others + 1))
        held = self._shares.sum(axis=1, keepdims=True)
        shares = (1 - self._jumps) * self._shares + self._jumps * held / self._shares.shape[1]
        shares[:, 1:] *= factors
        total = float(shares.sum())
        self.log_wealth += math.log(total)
        self._shares = shares / total


class RankMartingale:
    """Do values keep their distribution? Bets on the smoothed ranks of one number.

    The wealth is no supermartingale only of clean streams: it stays one if at every step at most a share `missed` of
    the images so far, and with at most that probability the next one, are anomalies with arbitrary values. Each bet
    is divided by 1 + missed * (its largest factor) for that.
    """

    def __init__(self, reference: Values, missed: float) -> None:
        """Begins with the values of the reference, in any order."""
        self._bag: list[float] = sorted(reference.tolist())
        self._jumper = Jumper(missed)

    @property
    def log_wealth(self) -> float:
        """Natural logarithm of the wealth."""
        return self._jumper.log_wealth

    def step(self, value: float, uniform: float) -> None:
        """Takes the next value; `uniform` in [0, 1) breaks ties and smooths the rank."""
        above = len(self._bag) - bisect_right(self._bag, value)
        equal = bisect_right(self._bag, value) - bisect_left(self._bag, value)
        self._jumper.bet(above, equal, len(self._bag), uniform)
        insort(self._bag, value)


class DistanceMartingale:
    """Do vectors keep their distribution? Bets on the ranks of their Mahalanobis distances.

    Mean and covariance are those of all vectors so far with the newest among them, which treats all alike: the ranks
    stay exact. Cost of a step: n * k^2 operations for n vectors of k numbers. `missed` as in `RankMartingale`.
    """

    def __init__(self, reference: Float64[np.ndarray, "n k"], missed: float) -> None:
        """Begins with the vectors of the reference."""
        self._bag = reference.copy()
        self._jumper = Jumper(missed)

    @property
    def log_wealth(self) -> float:
        """Natural logarithm of the wealth."""
        return self._jumper.log_wealth

    def step(self, value: Values, uniform: float) -> None:
        """Takes the next vector; `uniform` as in `RankMartingale.step`."""
        self._bag = np.concatenate([self._bag, value[None]])
        found = distances(self._bag, self._bag)
        above, equal = int((found[:-1] > found[-1]).sum()), int((found[:-1] == found[-1]).sum())
        self._jumper.bet(above, equal, len(found) - 1, uniform)


class Tilt:
    """The bets on a p-value: densities on [0, 1] that are bounded and monotone, exp(-strength * p) up to a factor."""

    def __init__(self, missed: float) -> None:
        """Prepares the bets for a share `missed` of anomalies, in [0, 1)."""
        tilts = np.array(TILTS)
        self._tilts = tilts
        self._front = tilts / -np.expm1(-tilts)
        self._insured = 1 + missed * np.abs(tilts) / -np.expm1(-np.abs(tilts))

    def factors(self, p_value: float) -> Factors:
        """Returns by what each bet is multiplied; the mean over uniform p-values is 1 / (1 + missed * largest)."""
        return np.asarray(self._front * np.exp(-self._tilts * p_value) / self._insured)


def distances(vectors: Float64[np.ndarray, "n k"], among: Float64[np.ndarray, "m k"]) -> Values:
    """Returns squared Mahalanobis distances of vectors from the mean of others, under their shrunk covariance."""
    centred = among - among.mean(axis=0)
    covariance = centred.T @ centred / len(among)
    covariance += (_SHRINKAGE * np.trace(covariance) / len(covariance) + 1e-12) * np.eye(len(covariance))
    shifted = vectors - among.mean(axis=0)
    return np.asarray((shifted * np.linalg.solve(covariance, shifted.T).T).sum(axis=1))


def start_of_rise(log_wealth: Sequence[float], alarm: int) -> int:
    """Estimates at which image (index from 0) a change began: the one after the wealth was least before its alarm.

    Args:
        log_wealth: after each image.
        alarm: index of the image at which the wealth reached its alarm level.
    """
    before = np.concatenate([[0.0], np.asarray(log_wealth[:alarm])])
    return int(len(before) - 1 - before[::-1].argmin())
