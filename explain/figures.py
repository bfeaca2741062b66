"""Figures with matplotlib, for reports and papers: maps side by side with one scale, curves, scores, clusters.

Colours are those of people with every colour vision: inferno for maps, Okabe and Ito's set for lines, each with a line
style of its own.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from anomaly.calibration import Calibration
from anomaly.report import overlay
from anomaly.report.words import number
from explain.faithfulness import MARKED
from explain.part import Explained, Part
from explain.view import Edges, Picture, Wording

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = (
    ("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"), ("#E69F00", "-"), ("#56B4E9", "--"),
    ("#000000", "-."), ("#F0E442", ":"),
)  # fmt: skip
"""Colours of Okabe and Ito, and a line style each."""
FAINT, INK, KNOWN, LETTER = "#57534e", "#1c1917", "#38bdf8", "#fde047"
LONGEST = 640
"""Longer side of a picture within a figure, in pixels."""
WIDTH = 11.0
"""Width of a figure in inches."""


def part_figure(part: Part, wording: Wording) -> "Figure":
    """Draws a part: original, normal twin, all maps with one scale, and the nearest normal patch.

    A white line surrounds the strongest 4 % of each map, which is what the faithfulness figures speak of.

    Args:
        part: the part.
        wording: what stands on the figure and within every picture.
    """
    view = part.view
    original = _small(view.picture)
    size = original.shape[:2]
    cells: list[tuple[str, Picture, Explained | None]] = [("image", original, None)]
    if view.twin is not None:
        cells.append((f"as it should look\n({part.twin.kind})", _small(view.twin), None))
    for one in part.explained:
        shown = cv2.resize(one.explanation.shown(), size[::-1], interpolation=cv2.INTER_AREA)
        cells.append((_caption(one), overlay(original, shown, (0.0, 1.0), np.inf), one))
    figure, axes = _sheet([picture for _, picture, _ in cells], extra=2 if view.nearest else 0)
    for axis, (title, picture, explained) in zip(axes, cells, strict=False):
        axis.imshow(picture)
        axis.set_title(title, fontsize=9, color=INK)
        if explained is not None:
            _outline(axis, explained.marked, size, "white")
        _letters(axis, view.edges, wording.stamp)
    _point(axes[0], part.anomaly_map, size)
    if part.mask is not None:
        _outline(axes[0], part.mask, size, KNOWN)
    if part.nearest and view.nearest:
        titles = "strangest place", f"nearest normal place\n{part.nearest.name[-28:]}"
        for axis, picture, title in zip(axes[-2:], view.nearest, titles, strict=True):
            axis.imshow(picture)
            axis.set_title(title, fontsize=9, color=INK)
            _letters(axis, ("",) * 4, wording.stamp)
    _headed(figure, wording)
    _legend(figure)
    return figure


def curves_figure(part: Part, wording: Wording) -> "Figure":
    """Draws deletion and insertion curves of all maps of a part."""
    figure = _figure(WIDTH, 3.4)
    shown = [one for one in part.explained if one.found is not None]
    for place, (name, title) in enumerate(
        (("deletion", "Deletion: anomaly that is left"), ("insertion", "Insertion: anomaly that appears"))
    ):
        axis = figure.add_subplot(1, 2, place + 1)
        for one, (colour, style) in zip(shown, _styles(len(shown)), strict=True):
            assert one.found is not None
            values = np.asarray(getattr(one.found, name))
            axis.plot(np.arange(len(values)), 100 * values, style, color=colour, label=one.title, linewidth=1.8)
        axis.set_xticks(range(len(shown[0].found.shares)), [f"{100 * s:g}" for s in shown[0].found.shares])  # type: ignore[union-attr]
        axis.axvline(shown[0].found.shares.index(MARKED), color=FAINT, linewidth=0.8)  # type: ignore[union-attr]
        axis.set(title=title, xlabel="% of the image replaced, strongest first", ylabel="% of the anomaly")
        axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.02, 0.5), frameon=False)
    _headed(figure, wording)
    return figure


def scores_figure(
    calibration: Calibration, scores: Sequence[float], flagged: Sequence[float], wording: Wording
) -> "Figure":
    """Draws the scores of the images against those of normals held out, with both thresholds.

    Args:
        calibration: thresholds and scores of normals.
        scores: of all images of the run.
        flagged: of those that are explained.
        wording: what they are called, and what stands on the figure.
    """
    figure = _figure(WIDTH, 3.0)
    axis = figure.add_subplot()
    normals = np.asarray(calibration.scores)
    everything = np.concatenate([normals, scores, [calibration.ng.value]])
    bins = np.linspace(everything.min(), everything.max() + 1e-9, 41).tolist()
    axis.hist(normals, bins=bins, color="#a8a29e", label=f"{len(normals)} normals held out")
    axis.hist(list(scores), bins=bins, color="#0072B2", alpha=0.55, label=f"{len(scores)} {wording.cases} of this run")
    axis.plot(list(flagged), np.zeros(len(flagged)), "^", color="#D55E00", clip_on=False, label="explained here")
    review, ng = calibration.review.value, calibration.ng.value
    if review < ng:
        axis.axvline(review, color="#E69F00", linestyle="--", label=f"REVIEW above {number(review)}")
    axis.axvline(ng, color="#D55E00", linestyle="-", label=f"NG above {number(ng)}")
    axis.set(xlabel="anomaly score (higher is stranger)", ylabel=wording.cases)
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
    _headed(figure, wording)
    return figure


def clusters_figure(
    clusters: Float32[np.ndarray, "h w"], background: Picture, count: int, wording: Wording
) -> "Figure":
    """Draws how often each place of the part was marked.

    Args:
        clusters: number of parts that were marked there.
        background: a part, stretched to the size of `clusters`.
        count: number of parts.
        wording: what stands on the figure.
    """
    height, width = clusters.shape
    figure = _figure(WIDTH * 0.7, WIDTH * 0.6 * min(1.2, height / width) + 0.8)
    axis = figure.add_subplot()
    top = max(1.0, float(clusters.max()))
    axis.imshow(overlay(background, clusters, (0.0, top), np.inf))
    axis.set_axis_off()
    axis.set_title(
        f"Where {count} part{'s were' if count > 1 else ' was'} marked as unlike normal", fontsize=10, color=INK
    )
    _headed(figure, wording)
    _bar(figure, "none", f"{top:.0f} of {count}")
    return figure


def encoded(figure: "Figure", kind: str, dpi: int = 130) -> bytes:
    """Returns a figure as a file: "png", "svg" or "pdf"; the same figure gives the same bytes."""
    from matplotlib import rc_context

    stream = io.BytesIO()
    metadata: dict[str, Any] = {"png": {}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    with rc_context({"svg.hashsalt": "anomaly"}):
        figure.savefig(stream, format=kind, dpi=dpi, metadata=metadata, facecolor="white")
    figure.set_layout_engine("none")  # the places are found; finding them again takes as long as drawing
    return stream.getvalue()


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure  # no pyplot: no window, no global state

    return Figure(figsize=(width, height), layout="constrained")


def _sheet(pictures: Sequence[Picture], extra: int) -> "tuple[Figure, list[Axes]]":
    """Lays out axes for pictures of one shape, as many beside each other as can be read."""
    height, width = pictures[0].shape[:2]
    across = max(2, min(5, len(pictures) + extra, round(5 * (height / width) ** 0.5)))
    down = -(-len(pictures) // across)
    if across * down < len(pictures) + extra:
        down += 1
    cell = (WIDTH - 0.4) / across
    figure = _figure(WIDTH, down * (min(cell * height / width, 4.5) + 0.5) + 0.6)
    grid = figure.subplots(down, across, squeeze=False)
    axes = list(grid.flat)
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def _caption(one: Explained) -> str:
    if one.found is None:
        words = "not judged"
    else:
        words = f"strongest {100 * MARKED:.0f} % takes away {round(100 * one.found.removed)} %"
    return f"{one.title}{' (control)' if one.control else ''}\n{words}"


def _outline(axis: "Axes", region: Bool[np.ndarray, "h w"], size: Sequence[int], colour: str) -> None:
    if not region.any():
        return
    shown = cv2.resize(region.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    shown = np.pad(shown, 1)  # so that lines close at the border
    places = np.arange(-1, size[1] + 1), np.arange(-1, size[0] + 1)
    for ink, width in (("black", 2.2), (colour, 1.0)):
        axis.contour(*places, shown, levels=[0.5], colors=ink, linewidths=width)


def _point(axis: "Axes", values: Float32[np.ndarray, "h w"], size: Sequence[int]) -> None:
    row, column = np.unravel_index(int(values.argmax()), values.shape)
    y, x = (row + 0.5) * size[0] / values.shape[0], (column + 0.5) * size[1] / values.shape[1]
    for ink, width in (("black", 3.4), ("white", 1.4)):
        axis.plot(x, y, "o", markersize=16, markerfacecolor="none", markeredgecolor=ink, markeredgewidth=width)


def _letters(axis: "Axes", edges: Edges, stamp: str) -> None:
    """Writes letters at the middle of the edges, and a few words in the lower left corner."""
    from matplotlib.patheffects import withStroke

    places = (
        *((0.02, 0.5, "left", "center"), (0.98, 0.5, "right", "center")),
        *((0.5, 0.98, "center", "top"), (0.5, 0.08 if stamp else 0.02, "center", "bottom")),
    )
    texts = [(letters, *place, 10.0) for letters, place in zip(edges, places, strict=True) if letters]
    texts += [(stamp, 0.02, 0.02, "left", "bottom", 5.5)] if stamp else []
    for text, x, y, across, down, points in texts:
        axis.text(
            x, y, text, ha=across, va=down, fontsize=points, color=LETTER, transform=axis.transAxes, weight="bold",
            path_effects=[withStroke(linewidth=points / 5, foreground="black")],
        )  # fmt: skip


def _headed(figure: "Figure", wording: Wording) -> None:
    if wording.notice:
        figure.suptitle(wording.notice, fontsize=9, color=INK, weight="bold")


def _legend(figure: "Figure") -> None:
    _bar(figure, "nothing", "strongest of the map", "white line: strongest 4 %; circle: strangest place")


def _bar(figure: "Figure", low: str, high: str, note: str = "") -> None:
    """Draws the one scale of all maps, as they lie on mid grey."""
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    grey = np.full((10, 256, 3), 128, np.uint8)
    steps = np.tile(np.linspace(0, 1, 256, dtype=np.float32), (10, 1))
    layout = figure.get_layout_engine()
    assert isinstance(layout, ConstrainedLayoutEngine)
    layout.set(rect=(0, 0.07, 1, 0.93))
    axis = figure.add_axes((0.15, 0.025, 0.25, 0.018))
    axis.set_in_layout(False)
    axis.imshow(overlay(grey, steps, (0.0, 1.0), np.inf), aspect="auto")
    axis.set_axis_off()
    figure.text(0.14, 0.034, low, ha="right", va="center", fontsize=8, color=FAINT)
    figure.text(
        0.41, 0.034, f"{high}{'   |   ' + note if note else ''}", ha="left", va="center", fontsize=8, color=FAINT
    )


def _styles(count: int) -> list[tuple[str, str]]:
    return [LINES[k % len(LINES)] if k < len(LINES) else (LINES[k % len(LINES)][0], "-") for k in range(count)]


def _small(picture: Picture) -> Picture:
    factor = LONGEST / max(picture.shape[:2])
    size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
    way = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(picture, size, interpolation=way))
