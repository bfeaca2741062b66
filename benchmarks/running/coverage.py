"""Was the promised false-alarm rate kept? Normals held out of the fit make the thresholds, test normals judge them.

What is counted is what is independent: images, or patients and lots where the set names them (a group raises an alarm
if any of its images does). The exact interval of the true rate says what the test normals can decide at all.

Sources: Clopper and Pearson, The use of confidence or fiducial limits, Biometrika 1934; `anomaly.calibration`.
"""

from collections.abc import Sequence

from anomaly.calibration import Threshold, calibrate

KEPT, BROKEN, OPEN = "kept", "broken", "not decided"
LEVELS = ("review", "ng")
FIGURES = ("wanted", "promised", "flagged", "normals", "low", "high", "verdict")
COLUMNS = ("held_out_units", *(f"{level}_{figure}" for level in LEVELS for figure in FIGURES))
"""Columns of `coverage`: rates in 0..1, counts of independent units."""


def exact_interval(flagged: int, normals: int) -> tuple[float, float]:
    """Returns the exact 95 % interval of a rate of which `flagged` of `normals` were seen.

    Source: Clopper and Pearson 1934.
    """
    from scipy.stats import binomtest

    found = binomtest(flagged, normals).proportion_ci(0.95, method="exact")
    return float(found.low), float(found.high)


def verdict(promised: float, low: float, high: float) -> str:
    """Returns `KEPT` where the whole interval is within the promise, `BROKEN` where all is above it, else `OPEN`."""
    if low > promised:
        return BROKEN
    return KEPT if high <= promised else OPEN


def coverage(
    held_out: Sequence[float],
    normals: Sequence[float],
    held_out_groups: Sequence[str] | None = None,
    normal_groups: Sequence[str] | None = None,
) -> dict[str, float | str]:
    """Returns the row of `COLUMNS`: for REVIEW (10 %) and NG (1 %) what was promised, and what the test normals did.

    Args:
        held_out: scores of normals that the fit has not seen.
        normals: scores of the normal test images.
        held_out_groups: group of each held-out score, where only groups are independent.
        normal_groups: the same of the test normals.

    Raises:
        CalibrationError: no held-out score, or one is not finite.
    """
    calibration = calibrate(held_out, held_out_groups)
    units = _highest(normals, normal_groups)
    found: dict[str, float | str] = {"held_out_units": len(calibration.scores)}
    for level, threshold in zip(LEVELS, (calibration.review, calibration.ng), strict=True):
        values = _level(threshold, units)
        found |= {f"{level}_{figure}": value for figure, value in zip(FIGURES, values, strict=True)}
    return found


def _level(threshold: Threshold, units: Sequence[float]) -> tuple[float | str, ...]:
    flagged = sum(score > threshold.value for score in units)
    low, high = exact_interval(flagged, len(units))
    promised = threshold.guaranteed
    return threshold.wanted, promised, flagged, len(units), low, high, verdict(promised, low, high)


def _highest(scores: Sequence[float], groups: Sequence[str] | None) -> list[float]:
    if groups is None:
        return list(scores)
    found: dict[str, float] = {}
    for score, group in zip(scores, groups, strict=True):
        found[group] = max(score, found.get(group, score))
    return list(found.values())
