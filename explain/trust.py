"""Which explanations deserve trust, in plain words. What could not be judged is never called trustworthy."""

from collections.abc import Mapping
from dataclasses import dataclass

from explain.explanation import Explanation
from explain.faithfulness import Faithfulness, Ground
from explain.stability import Stability

UNSTABLE = 1.0
"""Sensitivity above which a map changes by more than itself."""
PREDICTS_NOTHING = 0.95
"""Infidelity above which a map predicts nothing."""
HARDLY = 0.1
"""Share of the anomaly that must go with the strongest 4 % of the image; 4 % would go if it were spread evenly."""


KNOW_NOTHING = ("edges", "random")
"""Controls that are there to be beaten, not believed."""


@dataclass(frozen=True)
class Trust:
    """Whether to believe an explanation.

    Attributes:
        word: "holds", "doubtful", "not judged", or "control" for maps that know no model.
        warnings: why not, one sentence each; empty where it holds.
    """

    word: str
    warnings: tuple[str, ...]


def trust(
    explanation: Explanation,
    found: Faithfulness | None,
    stable: Stability | None,
    on: Ground,
    control: Mapping[str, Faithfulness | None],
) -> Trust:
    """Puts all figures of an explanation of one image together.

    Args:
        explanation: the map.
        found: its faithfulness; None where it could not be judged.
        stable: its stability; None where it was not checked.
        on: what it was judged on.
        control: faithfulness of the control maps of the same image.
    """
    if explanation.method in KNOW_NOTHING:
        return Trust("control", ())
    warnings = _warnings(explanation, found, stable, control)
    if found is None:
        return Trust("not judged", (_why_not(on), *warnings))
    if not on.normal:
        warnings = [
            "Removed regions were filled with a blur, which is not normal content: give normal images.",
            *warnings,
        ]
    return Trust("doubtful" if warnings else "holds", tuple(warnings))


def _why_not(on: Ground) -> str:
    if on.twin >= on.image:
        return "Faithfulness could not be judged: the normal content scores as high as the image itself."
    return "Faithfulness could not be judged: the normal content is itself nearly as strange as the image."


def _warnings(
    explanation: Explanation,
    found: Faithfulness | None,
    stable: Stability | None,
    control: Mapping[str, Faithfulness | None],
) -> list[str]:
    warnings = []
    if not explanation.map.any():
        warnings.append("The map is empty: the method found nothing that speaks for an anomaly.")
    if explanation.check is not None and not explanation.check.holds:
        warnings.append(f"The method did not keep its own promise: {explanation.check.in_words()}.")
    if found is not None:
        warnings += _unfaithful(found, control)
    if stable is not None:
        if stable.about_the_image:
            warnings.append(
                f"It hardly changes when the model forgets everything (rank correlation {stable.randomised:.2f}): it "
                "shows the image, not what the model has learned."
            )
        if stable.sensitivity > UNSTABLE:
            warnings.append("It does not hold still: noise that nobody sees changes it by more than itself.")
    return warnings


def _unfaithful(found: Faithfulness, control: Mapping[str, Faithfulness | None]) -> list[str]:
    warnings = []
    chance = control.get("random")
    if found.removed <= found.removed_by_chance or (chance and found.deletion_auc >= chance.deletion_auc):
        warnings.append("No better than chance: removing what it marks is no more use than removing at random.")
    edges = control.get("edges")
    if edges and found.deletion_auc >= edges.deletion_auc:
        warnings.append("No better than the edges of the image, which know nothing of the model.")
    if found.removed < HARDLY:
        warnings.append(
            "What it marks carries hardly any of the anomaly: it marks the wrong places, or the anomaly is spread "
            "over the image and no map can point at it."
        )
    if found.infidelity > PREDICTS_NOTHING:
        warnings.append("It does not predict what removals do to the score.")
    return warnings
