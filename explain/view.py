"""How a part is shown, and what a report calls things: what a frontend fills in so that its own rules hold.

`anomaly explain` shows frames as they are. A frontend with rules of its own (windows, orientation, words that must be
said or must not) makes its own `View` of each part and its own `Wording`; figures, page and PDF draw what these hold.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Shaped, UInt8

from anomaly.report import display
from anomaly.report.words import BADGES, Badge, number
from anomaly.scoring import Verdict
from explain.nearest import Nearest
from explain.twin import Normals, Twin

Picture = UInt8[np.ndarray, "_ _ 3"]
Edges = tuple[str, str, str, str]
"""Letters at the left, right, upper and lower edge; empty where there are none."""


@dataclass(frozen=True)
class Wording:
    """What a report calls things, and what it must say.

    Attributes:
        case: what is judged, in the singular.
        cases: the same in the plural.
        normals: what it is compared with, in the plural.
        badges: decision -> word and colours.
        notice: a sentence that stands on every page and figure; empty for none.
        stamp: a few words that stand within every picture; empty for none.
        cautions: sentences that stand first in the report.
        unused: what is said of files that could not be judged.
        alike: whether all parts lie alike, so that what is marked in several of them can be added up.
    """

    case: str = "image"
    cases: str = "images"
    normals: str = "normal parts"
    badges: Mapping[str, Badge] = field(default_factory=lambda: BADGES)
    notice: str = ""
    stamp: str = ""
    cautions: tuple[str, ...] = ()
    unused: str = "These files were not judged. Do not take them for OK."
    alike: bool = True


@dataclass(frozen=True, eq=False)
class View:
    """How one part is shown. Pictures have square pixels and any size; all of one part have the same field of view.

    Attributes:
        words: what the score means, for people.
        picture: the part.
        twin: what it should have looked like; None where that may not be shown.
        edges: letters at the edges of the part.
        nearest: the strangest place and the nearest normal one; None where there are none or they may not be shown.
        notes: further sentences.
    """

    words: str
    picture: Picture
    twin: Picture | None
    edges: Edges = ("", "", "", "")
    nearest: tuple[Picture, Picture] | None = None
    notes: tuple[str, ...] = ()


def plain_view(
    frame: Shaped[np.ndarray, "h w c"],
    value_range: tuple[float, float],
    score: float,
    verdict: Verdict,
    twin: Twin,
    nearest: Nearest | None,
    normals: Normals | None,
) -> View:
    """Shows a frame as it is, beside its twin and the nearest normal place.

    Args:
        frame: raw values.
        value_range: as `InputSpec.value_range`.
        score: anomaly score.
        verdict: p-value and decision.
        twin: what it should have looked like.
        nearest: the nearest normal place, if one was looked for.
        normals: where it lies.
    """
    words = (
        f"Score {number(score)}: at most about {100 * verdict.p_value:.1f} % of normal parts score as high "
        f"(p = {number(verdict.p_value)})."
    )
    limits = _shown_range(frame, value_range)
    pair = None
    if nearest is not None and normals is not None:
        source = normals.images[nearest.index].permute(1, 2, 0).numpy()
        pair = _cut(frame, nearest.box, value_range), _cut(source, nearest.normal_box, value_range)
    return View(
        words=words,
        picture=display(frame, value_range),
        twin=_as(twin.image.permute(1, 2, 0).numpy(), limits),
        nearest=pair,
    )


def _cut(
    frame: Shaped[np.ndarray, "h w c"], box: tuple[int, int, int, int], value_range: tuple[float, float]
) -> Picture:
    top, bottom, left, right = box
    return display(frame, value_range)[top:bottom, left:right]


def _shown_range(image: Shaped[np.ndarray, "h w c"], value_range: tuple[float, float]) -> tuple[float, float]:
    """The range that `display` shows an image with, so that image and twin are shown alike."""
    if image.dtype == np.uint8:
        return value_range
    low, high = (float(v) for v in np.percentile(image.astype(np.float32), (0.5, 99.5)))
    return (low, high) if low < high else value_range


def _as(frame: Float[np.ndarray, "h w c"], limits: tuple[float, float]) -> Picture:
    eight = ((frame - limits[0]) * (255.0 / (limits[1] - limits[0]))).clip(0, 255).round().astype(np.uint8)
    return display(eight, (0.0, 255.0))
