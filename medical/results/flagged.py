"""Which images of a flagged study are the reason: what key object selections list and summaries show."""

from medical.outcome import Algorithm, Analysed, Outcome
from medical.results.settings import ResultError

REVIEW_ABOVE = "REVIEW above"
"""Name of the threshold of REVIEW among the settings of an algorithm, in any case."""


def threshold(algorithm: Algorithm) -> float | None:
    """Returns the score above which a study is flagged; None where the algorithm does not state it.

    Raises:
        ResultError: what it states is no number.
    """
    stated = next((text for name, text in algorithm.settings.items() if name.lower() == REVIEW_ABOVE.lower()), None)
    try:
        return None if stated is None else float(stated)
    except ValueError:
        raise ResultError(f"setting {REVIEW_ABOVE!r} of the algorithm must be a number; got {stated!r}") from None


def flagged_images(outcome: Outcome, algorithm: Algorithm) -> list[Analysed]:
    """Returns the images and volumes for which a study was flagged, highest score first; none if it was not.

    They are those whose own score is above the threshold; where none is (the score of the study may be another
    aggregation) or no threshold is stated, the one with the highest score.
    """
    if not outcome.flagged:
        return []
    ranked = sorted(outcome.analysed, key=lambda analysed: -analysed.score)
    limit = threshold(algorithm)
    above = [] if limit is None else [analysed for analysed in ranked if analysed.score > limit]
    return above or ranked[:1]


def frame_number(analysed: Analysed) -> int | None:
    """Returns the 1-based frame that an image is in a multi-frame object; None for single-frame objects and volumes."""
    return analysed.frame if analysed.affine is None and analysed.instances[0].frames > 1 else None
