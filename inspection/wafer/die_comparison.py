"""Die to die and die to golden die: the difference of each die from what is usual, scored by any detector.

The difference is a grey image of its own (float32, 0 is "as usual"), so every detector of the suite learns on
differences of good dies what a harmless difference looks like (noise, edges that never register perfectly, tone), and
scores those of dies to be inspected.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import InputError, SettingError
from inspection.wafer.dies import DieImage, Registration, median_die, neighbours, register
from inspection.wafer.geometry import DieIndex

if TYPE_CHECKING:
    import torch

    from anomaly.detector import Detector, Scorer
    from anomaly.input_spec import InputSpec

BATCH = 16


class DieDifference(NamedTuple):
    """How a die differs from what is usual.

    Attributes:
        die: column and row on the wafer.
        pixels: (h, w) float32 raw values of the die minus those of the reference, cut off at the contrast.
        shift_px: rows and columns by which the die was moved.
    """

    die: DieIndex
    pixels: NDArray[np.float32]
    shift_px: tuple[float, float]


class DieScore(NamedTuple):
    """Scores of a die.

    Attributes:
        die: column and row on the wafer.
        score: anomaly score.
        map: (h, w) float32 on the pixels of the die, higher is more anomalous.
    """

    die: DieIndex
    score: float
    map: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class DieComparison:
    """How dies are compared.

    Attributes:
        reference: "neighbours": the median of the nearest dies of the same wafer; "golden": a given die.
        neighbours: how many nearest dies; a median of 4 or more is not moved by one defective die among them.
        contrast: differences beyond this many raw values, up or down, are cut off; about what separates the darkest
            from the brightest part of the die.
        even_tone: take the mean difference out of each die, so that dies that are only lighter or darker do not count.
        registration: limits of the registration.
    """

    reference: Literal["neighbours", "golden"] = "neighbours"
    neighbours: int = 8
    contrast: float = 64.0
    even_tone: bool = True
    registration: Registration = field(default_factory=Registration)

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if self.reference not in ("neighbours", "golden"):
            raise SettingError.of("DieComparison", "reference", "'neighbours' or 'golden'", self.reference)
        if not 3 <= self.neighbours <= 48:
            raise SettingError.of("DieComparison", "neighbours", "3 to 48", self.neighbours)
        if not 0 < self.contrast < np.inf:
            raise SettingError.of("DieComparison", "contrast", "above 0", self.contrast)

    def input(self, size: tuple[int, int]) -> "InputSpec":
        """Returns the input of a detector of differences.

        Args:
            size: height and width of its canvas in pixels; dies are enlarged or reduced to it.
        """
        from anomaly.input_spec import InputSpec

        span = (-self.contrast, self.contrast)
        return InputSpec(channels=1, dtype="float32", value_range=span, unit="grey value difference", size=size)

    def differences(
        self, dies: Sequence[DieImage], golden: NDArray[np.float32] | None = None
    ) -> Iterator[DieDifference]:
        """Yields the difference of each die of one wafer from its reference.

        Args:
            dies: dies of one wafer, as `cut_dies` gives them.
            golden: (h, w) golden die; only for the reference "golden".

        Raises:
            InputError: a golden die is missing or not asked for, or there are too few dies for a median of neighbours.
        """
        if (golden is None) == (self.reference == "golden"):
            given = "given" if golden is not None else "not given"
            raise InputError(f"the reference is {self.reference!r}, and a golden die is {given}")
        if golden is None and len(dies) <= self.neighbours:
            raise InputError(f"{self.neighbours} neighbours need more than that many dies; got {len(dies)}")
        common = median_die(dies) if golden is None else golden
        registered = register(dies, common, self.registration)
        near = neighbours(registered, self.neighbours) if golden is None else []
        for index, die in enumerate(registered):
            usual = common if golden is not None else median_die([registered[i] for i in near[index]])
            change = die.pixels - usual
            if self.even_tone:
                change = change - np.median(change)
            clipped = np.clip(change, -self.contrast, self.contrast)
            yield DieDifference(die.die, clipped.astype(np.float32), die.shift_px)

    def fit(
        self, detector: "Detector", wafers: Sequence[Sequence[DieImage]], golden: NDArray[np.float32] | None = None
    ) -> "Scorer":
        """Fits a detector on the differences of good dies.

        Args:
            detector: any detector; its input is replaced by `input` of the same canvas.
            wafers: for each good wafer its dies.
            golden: as `differences`.

        Raises:
            InputError: as `differences`, or no wafer.
        """
        settled = replace(detector, input=self.input(detector.input.size))
        batches = (_batch(part) for dies in wafers for part in _parts(list(self.differences(dies, golden))))
        return settled.fit(batches).eval()

    def score(
        self, scorer: "Scorer", dies: Sequence[DieImage], golden: NDArray[np.float32] | None = None
    ) -> list[DieScore]:
        """Scores the dies of one wafer.

        Args:
            scorer: as `fit` gives it.
            dies: dies of one wafer.
            golden: as `differences`.
        """
        import torch

        scored = []
        for part in _parts(list(self.differences(dies, golden))):
            with torch.inference_mode():
                scores = scorer(_batch(part))
            for difference, score, anomaly_map in zip(part, *scores, strict=True):
                on_die = scorer.input.on_image(anomaly_map, *difference.pixels.shape)
                scored.append(DieScore(difference.die, float(score), on_die.numpy()))
        return scored


def _parts(differences: list[DieDifference]) -> Iterator[list[DieDifference]]:
    for start in range(0, len(differences), BATCH):
        yield differences[start : start + BATCH]


def _batch(differences: Sequence[DieDifference]) -> "torch.Tensor":
    import torch

    return torch.from_numpy(np.stack([difference.pixels for difference in differences]))[:, None]
