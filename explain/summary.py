"""What a batch of parts has in common: where defects cluster, and which methods held."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from explain.localisation import LEAST, Lift, lifts
from explain.methods import TITLES

LONGEST = 256
"""Longer side of maps and masks that are kept for the summary, in pixels."""
_PLACES = (("upper", "middle", "lower"), ("left", "centre", "right"))


@dataclass(frozen=True)
class Clusters:
    """Where parts were marked, on one canvas to which all parts are stretched.

    Attributes:
        counts: (h, w) float32, number of parts that were marked there.
        parts: number of parts.
        words: one sentence for people.
    """

    counts: Float32[np.ndarray, "h w"]
    parts: int
    words: str


def reduced_map(values: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "_ _"]:
    """Returns a map at no more than 256 px, each pixel the mean of what it covers."""
    factor = min(1.0, LONGEST / max(values.shape))
    size = max(1, round(values.shape[1] * factor)), max(1, round(values.shape[0] * factor))
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def clusters(marked: Sequence[Bool[np.ndarray, "h w"]]) -> Clusters:
    """Adds up where parts were marked; sizes may differ, the first one gives the canvas.

    Args:
        marked: at least one region per part, e.g. the strongest 4 % of its anomaly map.
    """
    shape = reduced_map(marked[0].astype(np.float32)).shape
    counts = np.zeros(shape, np.float32)
    for region in marked:
        counts += cv2.resize(region.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA) > 0.25
    return Clusters(counts, len(marked), _in_words(counts, marked))


def _in_words(counts: Float32[np.ndarray, "h w"], marked: Sequence[Bool[np.ndarray, "h w"]]) -> str:
    ninths: Counter[tuple[int, int]] = Counter()
    for region in marked:
        rows, columns = np.nonzero(region)
        if len(rows):
            ninths.update({tuple(place) for place in _ninths(rows, columns, region.shape)})
    if not ninths:
        return "No part was marked anywhere."
    (row, column), often = max(ninths.items(), key=lambda item: (item[1], -item[0][0], -item[0][1]))
    place = f"{_PLACES[0][row]} {_PLACES[1][column]}"
    if len(marked) == 1:
        return f"One part was explained; it is marked at the {place}."
    highest = int(counts.max())
    return (
        f"Most often marked: the {place} ninth of the part, in {often} of {len(marked)} parts; "
        f"no single place is marked in more than {highest}."
    )


def _ninths(rows: np.ndarray, columns: np.ndarray, shape: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the ninths of the image that hold at least a quarter of a region."""
    places = (3 * rows // shape[0]) * 3 + 3 * columns // shape[1]
    shares = np.bincount(places, minlength=9) / len(rows)
    return [divmod(int(k), 3) for k in np.flatnonzero(shares >= 0.25)]


def lift_words(name: str, found: dict[str, Lift]) -> str:
    """One sentence on how a method's maps lie on known defects, corrected for chance."""
    lift, title = found["energy"], TITLES[name]
    if lift.lift is None or lift.crossed is None or lift.low is None or lift.high is None:
        return f"{title}: {100 * lift.paired:.0f} % of its energy lies on the known defect; one part allows no more."
    verdict = "above chance" if lift.proven else "NOT proven above chance"
    if lift.images < LEAST:
        verdict = f"{lift.images} parts are too few to prove anything"
    return (
        f"{title}: {100 * lift.paired:.0f} % of its energy lies on the known defects, {100 * lift.crossed:.0f} % on "
        f"those of other parts; lift {100 * lift.lift:+.0f} points (95 % interval {100 * lift.low:+.0f} to "
        f"{100 * lift.high:+.0f}): {verdict}."
    )


def localised(
    maps: dict[str, list[Float32[np.ndarray, "_ _"]]], masks: Sequence[Bool[np.ndarray, "_ _"]], seed: int
) -> dict[str, dict[str, Lift]]:
    """Returns method -> figure -> lift, for methods that explained every part with a mask."""
    return {name: lifts(found, masks, seed) for name, found in maps.items() if masks and len(found) == len(masks)}
