"""What the worklist says, in words. A score that is not flagged is never called normal."""

from collections import Counter
from collections.abc import Mapping, Sequence

from anomaly.calibration import Calibration, Decision
from medical.objects import RefusedFile
from medical.outcome import Outcome

NOT_NORMAL = (
    "Not flagged does not mean normal: the algorithm saw nothing rarer than it sees in normals. Read every study."
)
KEEPS = "Nothing is known about this study; it keeps the priority of the site."
SHOWN = 5
STATES = {
    "strong": "Strongly flagged (NG)",
    "flagged": "Flagged (REVIEW)",
    "none": "Not analysed",
    "unflagged": "Not flagged",
}
"""State of a row -> what people read, in the order of the legend."""

_UNITS = {"image": "images", "patient": "patients", "patient_id": "patients", "study": "studies", "series": "series"}


def state(outcome: Outcome) -> str:
    """Returns the key of `STATES` that a study belongs to."""
    if outcome.refusal is not None or outcome.decision is None:
        return "none"
    return {Decision.NG: "strong", Decision.REVIEW: "flagged"}.get(outcome.decision, "unflagged")


def normals(unit: str) -> str:
    """Returns what a calibration counts, in the plural: "normal patients" for the unit "patient_id"."""
    return f"normal {_UNITS.get(unit, f'cases (one per {unit})')}"


def rarity(p_value: float, calibration: Calibration) -> str:
    """Returns how rare a score is among normals, e.g. "about 1 in 40 normal patients scores this high".

    Args:
        p_value: conformal p-value of the calibration, (0, 1].
        calibration: with the scores of n normals held out.
    """
    n, who = len(calibration.scores), normals(calibration.unit)
    above = round(p_value * (n + 1)) - 1
    if above <= 0:
        return f"none of {n} {who} held out scores this high"
    if p_value > 0.2:
        return f"about {min(round(10 * p_value), 10)} in 10 {who} score this high"
    return f"about 1 in {round(1 / p_value)} {who} scores this high"


def decision_in_words(outcome: Outcome, calibration: Calibration) -> str:
    """Returns one sentence on what the score means, or why there is none."""
    if outcome.refusal is not None or outcome.p_value is None:
        return KEEPS
    rare = rarity(outcome.p_value, calibration)
    return (
        f"{rare[0].upper()}{rare[1:]}."
        if outcome.flagged
        else f"{rare[0].upper()}{rare[1:]}; this does not mean normal."
    )


def refused_objects(outcome: Outcome) -> list[str]:
    """Returns which images of a study were not analysed: "VIEW (3 objects): LL; the model reads PA", most first."""
    return counted(outcome.refused)


def counted(refused: Sequence[RefusedFile]) -> list[str]:
    """Returns the reasons of refused objects, most first: "VIEW (3 objects): LL; the model reads PA"."""
    counts = Counter(file.refusal for file in refused)
    return [
        f"{refusal.reason} ({_counted(count, 'object', 'objects')}): {refusal.detail}"
        for refusal, count in counts.most_common()
    ]


def reasons(outcome: Outcome) -> list[str]:
    """Returns all coded reasons of a study, that of the whole study first."""
    own = [] if outcome.refusal is None else [str(outcome.refusal)]
    return own + refused_objects(outcome)


def headline(found: Mapping[str, int]) -> str:
    """Returns what a reader must know first, from the counts of flagged and not analysed studies."""
    if not found["studies"]:
        return "No studies"
    flagged, silent = found["flagged"], found["not_analysed"]
    first = _counted(flagged, "study is flagged", "studies are flagged") if flagged else "No study is flagged"
    second = _counted(silent, "was not analysed", "were not analysed") if silent else "all were analysed"
    return f"{first}, {second}"


def places(ranks: Sequence[int]) -> str:
    """Returns ranks in words: "places 2 to 4", "places 1, 3 and 7 more"."""
    if len(ranks) < 2:
        return "".join(f"place {rank}" for rank in ranks)
    if ranks[-1] - ranks[0] == len(ranks) - 1:
        return f"places {ranks[0]} to {ranks[-1]}"
    shown = ", ".join(map(str, ranks[:SHOWN]))
    return f"places {shown}" if len(ranks) <= SHOWN else f"places {shown} and {len(ranks) - SHOWN:,} more"


def _counted(count: int, one: str, more: str) -> str:
    return f"{count:,} {one if count == 1 else more}"
