"""What a report of explanations says, and must say: the words of the worklist, and what maps may not be used for."""

from anomaly.calibration import Calibration
from anomaly.report.words import Badge, number
from explain.view import Wording
from medical.model import TriageModel
from medical.outcome import DISCLAIMER, Outcome
from medical.results.stamp import WARNING
from medical.worklist.words import NOT_NORMAL, STATES, decision_in_words, normals

CAUTIONS = (
    "The maps show what moved the score of this model, not where disease is. Do not use them to find, outline, measure "
    "or rule out findings, or to decide about a patient.",
    "Nothing is marked unless somebody asks for it: this report was asked for. It takes no part in the order of the "
    "worklist.",
    "A map that is called doubtful or not judged says nothing even of the model.",
    NOT_NORMAL,
    "Text that is burned into the pixels of an image is part of its picture here.",
)
"""What stands first in every report."""
BADGES = {
    "NG": Badge(STATES["strong"], "#b3261e", "#ffffff"),
    "REVIEW": Badge(STATES["flagged"], "#fbbf24", "#1c1917"),
    "OK": Badge(STATES["unflagged"], "#e3e7ec", "#16191d"),
}
"""Decision -> word and colours of the worklist; what is not flagged is never called OK or normal."""


def wording(calibration: Calibration) -> Wording:
    """Returns how a report speaks of studies."""
    return Wording(
        case="study",
        cases="studies",
        normals=normals(calibration.unit),
        badges=BADGES,
        notice=DISCLAIMER,
        stamp=WARNING,
        cautions=CAUTIONS,
        unused=(
            "Not analysed, or judged and not explained, as each line says. What was not analysed is not thereby normal."
        ),
        alike=False,
    )


def missed_in_words(outcome: Outcome) -> str:
    """Returns how many images of an analysed study were not analysed, as a sentence; empty where all were."""
    if not outcome.refused:
        return ""
    count = len(outcome.refused)
    return f"{count} of its {outcome.images} images {'was' if count == 1 else 'were'} not analysed."


def score_in_words(outcome: Outcome, model: TriageModel, own: float | None = None) -> str:
    """Returns what the score of an analysed study means.

    Args:
        outcome: with a score.
        model: what judged it.
        own: score of the image or slice alone, where that is not the score of the study.
    """
    assert outcome.score is not None
    assert outcome.p_value is not None
    calibration = model.artifact.calibration
    words = (
        f"The study scores {number(outcome.score)} (p = {number(outcome.p_value)}). "
        f"{decision_in_words(outcome, calibration)} {missed_in_words(outcome)}"
    ).rstrip()
    if own is None:
        return words
    aggregation = model.aggregation.in_words(model.contract.geometry)
    return f"{words} This picture alone scores {number(own)}. What counts: {aggregation}."
