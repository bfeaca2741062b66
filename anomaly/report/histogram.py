"""Histogram of scores as inline SVG: the images of a run above the axis, the normals held out below it."""

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from markupsafe import Markup

from anomaly.report.words import BADGES, number

BINS = 48
TOP, UPPER, LOWER, BOTTOM = 40, 130, 70, 46
"""Heights in pixels: labels of the thresholds, bars of the images, bars of the normals, numbers and name of
the axis."""
LEAST_BAR = 3.0
"""Height in pixels of a bar that counts anything: three parts among thousands must be seen."""
MARGIN = 3.0
"""Room at both ends of the axis, in percent of the width."""
TICK_DISTANCE = 12.0
"""Least distance of two ticks in percent of the width; keeps their numbers apart on a phone."""
FAR = 5.0
"""The axis bends when a score lies more than this many times farther from the least one than the NG threshold does."""

Values = Float[np.ndarray, " _"]
Counts = Int[np.ndarray, " _"]
Tick = tuple[float, float]


class Axis(NamedTuple):
    """A monotone map from scores to percent of the width.

    Attributes:
        low: least score on the axis.
        high: greatest score on the axis.
        unit: distance from `low` up to which the axis is about linear; beyond, it becomes logarithmic. Infinite for an
            axis that is linear throughout.
    """

    low: float
    high: float
    unit: float

    @classmethod
    def over(cls, values: Values, ng: float) -> "Axis":
        """Lays an axis over `values` (n finite scores, n >= 1) and the NG threshold.

        It bends only where far outliers would otherwise squeeze the normal parts together.
        """
        low, high = min(float(values.min()), ng), max(float(values.max()), ng)
        if not low < high:
            return cls(low - 0.5, low + 0.5, math.inf)
        unit = ng - low
        return cls(low, high, unit if high - low > FAR * unit > 0 else math.inf)

    def position(self, score: float) -> float:
        """Returns the place of a score in percent of the width; beyond the ends, that of the end."""
        distance = min(max(score, self.low), self.high) - self.low
        share = distance / (self.high - self.low)
        if self.unit < math.inf:
            share = math.asinh(distance / self.unit) / math.asinh((self.high - self.low) / self.unit)
        return MARGIN + (100 - 2 * MARGIN) * share

    def ticks(self) -> list[Tick]:
        """Returns round scores with their places, far enough from each other to be labelled."""
        return self._even_ticks() if self.unit == math.inf else self._decades()

    def _even_ticks(self) -> list[Tick]:
        least = (self.high - self.low) * TICK_DISTANCE / (100 - 2 * MARGIN)
        magnitude = 10.0 ** math.floor(math.log10(least))
        step = next(factor * magnitude for factor in (1, 2, 5, 10) if factor * magnitude >= least)
        first, last = math.ceil(self.low / step), math.floor(self.high / step)
        return [(k * step, self.position(k * step)) for k in range(first, last + 1)]

    def _decades(self) -> list[Tick]:
        """Takes the roundest numbers first and leaves out what would come too close to them."""
        least, largest = (math.floor(math.log10(v)) for v in (self.unit, max(abs(self.low), abs(self.high))))
        powers = [10.0**exponent for exponent in range(largest, min(least, largest) - 1, -1)]
        candidates = [0.0] + [sign * factor * power for factor in (1, 5, 2, 3) for power in powers for sign in (1, -1)]
        ticks: list[Tick] = []
        for score in candidates:
            place = self.position(score)
            if self.low <= score <= self.high and all(abs(place - other) >= TICK_DISTANCE for _, other in ticks):
                ticks.append((score, place))
        return ticks


def histogram(scores: Mapping[str, Values], normals: Values, review: float, ng: float) -> Markup:
    """Draws the scores of a run against those of the normals held out of the fit.

    The width follows the page (places are in percent), the texts keep their size: readable on a phone too.

    Args:
        scores: decision -> finite scores of the images that got it; at least one score in all.
        normals: (n,) scores of the normals held out.
        review: REVIEW threshold.
        ng: NG threshold.

    Returns:
        One `<svg>` element; its colours come from the page's style sheet.
    """
    everything = np.concatenate([normals, *scores.values()])
    axis = Axis.over(everything, ng)
    ground, height = TOP + UPPER, TOP + UPPER + LOWER + BOTTOM
    counted = {decision: _counts(axis, values) for decision, values in scores.items()}
    held_out = _counts(axis, normals)
    parts = [
        *_bars(counted, ground),
        *_hanging(held_out, ground),
        f'<line class="axis" x1="0" x2="100%" y1="{ground}" y2="{ground}"/>',
        *(_tick(tick, height) for tick in axis.ticks()),
        _text(
            "tick",
            50.0,
            height - 4,
            "anomaly score" + (" (far scores drawn closer together)" if axis.unit < math.inf else ""),
        ),
        *_threshold("REVIEW", review, axis, 12, height),
        *_threshold("NG", ng, axis, 32, height),
    ]
    total = sum(len(values) for values in scores.values())
    label = f"Histogram of {total} anomaly scores; REVIEW above {number(review)}, NG above {number(ng)}"
    return Markup(f'<svg role="img" aria-label="{label}" width="100%" height="{height}">{"".join(parts)}</svg>')  # noqa: S704 - numbers and fixed words only


def _counts(axis: Axis, values: Values) -> Counts:
    places = [axis.position(float(value)) for value in values]
    return np.histogram(places, bins=BINS, range=(0, 100))[0]


def _bars(counted: Mapping[str, Counts], ground: int) -> Iterator[str]:
    """Stacks the decisions upwards, the worst on top."""
    fullest = max(1, int(sum(counted.values(), start=np.zeros(BINS, int)).max()))
    floor = np.full(BINS, float(ground))
    for decision in reversed(BADGES):
        counts = counted.get(decision, np.zeros(BINS, int))
        for k in np.flatnonzero(counts):
            height = max(LEAST_BAR, (UPPER - 2 * LEAST_BAR) * counts[k] / fullest)
            floor[k] -= height
            yield _bar(int(k), floor[k], height, decision.lower(), f"{counts[k]} {BADGES[decision].word}")


def _hanging(counts: Counts, ground: int) -> Iterator[str]:
    for k in np.flatnonzero(counts):
        height = max(LEAST_BAR, LOWER * counts[k] / counts.max())
        yield _bar(int(k), float(ground), height, "held-out", f"{counts[k]} normals held out")


def _bar(k: int, top: float, height: float, kind: str, hint: str) -> str:
    left, width = 100 * k / BINS, 100 / BINS
    return (
        f'<rect class="{kind}" x="{left:.2f}%" width="{width * 0.92:.2f}%" y="{top:.1f}" height="{height:.1f}">'
        f"<title>{hint}</title></rect>"
    )


def _text(kind: str, place: float, y: int, text: str, anchor: str = "middle", shift: int = 0) -> str:
    return f'<text class="{kind}" x="{place:.2f}%" dx="{shift}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _tick(tick: Tick, height: int) -> str:
    score, place = tick
    return _text("tick", place, height - 28, f"{score:.10g}" if abs(score) < 1e5 else f"{score:.0e}")


def _threshold(word: str, value: float, axis: Axis, row: int, height: int) -> Iterator[str]:
    """A line with its label: REVIEW to the left of it and NG to the right, where there is room."""
    place = axis.position(value)
    leftwards = place > (30 if word == "REVIEW" else 70)
    bottom = height - BOTTOM
    yield f'<line class="threshold" x1="{place:.2f}%" x2="{place:.2f}%" y1="{row - 10}" y2="{bottom}"/>'
    anchor, shift = ("end", -6) if leftwards else ("start", 6)
    yield _text("label", place, row, f"{word} above {number(value)}", anchor, shift)
