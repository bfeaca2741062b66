"""What has moved, by how much: descriptions beside the sequential tests, which alone raise alarms."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from anomaly.drift.descriptors import EMBEDDING
from anomaly.drift.martingale import distances
from anomaly.drift.monitor import EMBEDDED
from anomaly.drift.reference import Reference

EWMA_WEIGHT, EWMA_LIMIT = 0.2, 3.0
"""Weight of the newest image, and the limits in standard deviations of the average (Roberts 1959)."""
_CLIP = 3.0
_USUAL = 0.95
_LEAST_KS = 5

Table = Float64[np.ndarray, "n k"]
Column = Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Change:
    """How one number of some images compares with the reference.

    Attributes:
        name: of the number.
        reference: median of the reference.
        present: median of the images.
        shift: difference of the medians in standard deviations of the reference.
        outside: share of the images beyond the middle 95 % of the reference (for the embedding: farther than 95 %).
        energy: energy distance of the standardised values.
        ks_p: p-value of the two-sample Kolmogorov-Smirnov test between what passes on both sides, for one look; None
            where fewer than five images pass.
    """

    name: str
    reference: float
    present: float
    shift: float
    outside: float
    energy: float
    ks_p: float | None

    @property
    def moved(self) -> bool:
        """Whether most images lie where hardly any normal does: more than chance or a few defects can do."""
        return self.outside > 0.5


class Numbers:
    """Score, descriptors and the distance of the embedding, of the reference and of a run."""

    def __init__(self, reference: Reference, rows: Table) -> None:
        """Turns the columns of an embedding into one distance from the others (the reference: leaving itself out)."""
        known = reference.values
        plain = [k for k, name in enumerate(reference.names) if name not in EMBEDDING]
        embedded = [k for k, name in enumerate(reference.names) if name in EMBEDDING]
        self.names = tuple(reference.names[k] for k in plain) + ((EMBEDDED,) if embedded else ())
        self.reference, self.run = known[:, plain], rows[:, plain]
        if embedded:
            vectors, others = known[:, embedded], np.arange(len(known))
            left_out = [distances(vectors[i : i + 1], vectors[others != i])[0] for i in others]
            far = np.sqrt(distances(rows[:, embedded], vectors))
            self.reference = np.column_stack([self.reference, np.sqrt(left_out)])
            self.run = np.column_stack([self.run, far])

    def ewma(self, name: str) -> Column:
        """Returns the exponentially weighted moving average of the standardised number over the run.

        Values are clipped at 3 standard deviations first, so that single defects hardly lift the line.

        Source: Roberts, Control chart tests based on geometric moving averages, Technometrics 1959.
        """
        column = self.names.index(name)
        average, line = 0.0, []
        for value in np.clip(self._standard(self.run[:, column], column), -_CLIP, _CLIP):
            average += EWMA_WEIGHT * (value - average)
            line.append(average)
        return np.array(line)

    def changes(self, since: int, passed: np.ndarray, level: float) -> list[Change]:
        """Compares the images from index `since` on with the reference.

        Args:
            since: index of the first image, from 0.
            passed: (n,) bool, which images of the run were not set aside.
            level: scores from here on are set aside, in the reference too.
        """
        passing = self.reference[:, 0] < level
        return [self._change(k, since, np.asarray(passed, dtype=bool), passing) for k in range(len(self.names))]

    def _standard(self, values: Column, column: int) -> Column:
        known = self.reference[:, column]
        return np.asarray((values - known.mean()) / (known.std() + 1e-12))

    def _change(self, column: int, since: int, passed: np.ndarray, passing: np.ndarray) -> Change:
        from scipy.stats import energy_distance, ks_2samp

        known, present = self.reference[:, column], self.run[since:, column]
        tail = (1 - _USUAL) / 2
        low, high = np.quantile(known, (tail, 1 - tail))
        if self.names[column] == EMBEDDED:
            low, high = -np.inf, np.quantile(known, _USUAL)
        ours, theirs = present[passed[since:]], known[passing]
        return Change(
            name=self.names[column],
            reference=float(np.median(known)),
            present=float(np.median(present)),
            shift=float((np.median(present) - np.median(known)) / (known.std() + 1e-12)),
            outside=float(((present < low) | (present > high)).mean()),
            energy=float(energy_distance(self._standard(known, column), self._standard(present, column))),
            ks_p=float(ks_2samp(ours, theirs).pvalue) if len(ours) >= _LEAST_KS else None,
        )


def ewma_limit() -> float:
    """Returns the control limit of `Numbers.ewma`, above and below 0."""
    return EWMA_LIMIT * float(np.sqrt(EWMA_WEIGHT / (2 - EWMA_WEIGHT)))
