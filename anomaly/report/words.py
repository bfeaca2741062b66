"""Numbers, names and decisions as people read them; shared by the heatmap pictures and the report."""

import math
from typing import NamedTuple

NOT_SCORED = "NOT_SCORED"
"""Decision of a part that could not be judged; never to be taken for OK."""


class Badge(NamedTuple):
    """How a decision looks: always a word as well as a colour.

    Attributes:
        word: what people read.
        background: colour of the badge, "#rrggbb"; told apart with every colour vision.
        ink: colour of the word on it, "#rrggbb"; contrast at least 4.5 : 1.
    """

    word: str
    background: str
    ink: str


BADGES = {
    "NG": Badge("NG", "#c2410c", "#ffffff"),
    "REVIEW": Badge("REVIEW", "#fbbf24", "#1c1917"),
    "OK": Badge("OK", "#0f766e", "#ffffff"),
    NOT_SCORED: Badge("not scored", "#4b5563", "#ffffff"),
}
"""Decision -> badge, worst first."""
SCORED = tuple(decision for decision in BADGES if decision != NOT_SCORED)
"""Decisions on parts that could be judged, worst first."""


def number(value: float) -> str:
    """Returns `value` with three significant digits, without an exponent from 0.001 to a million."""
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"


def shorten(text: str, length: int) -> str:
    """Returns `text` with its middle replaced by an ellipsis when it has more than `length` characters (at least 3)."""
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[-(length - 1 - head) :]}"
