"""Figures with matplotlib, for reports and papers: maps side by side with one scale, curves, scores, clusters.

Colours are those of people with every colour vision: inferno for maps, Okabe and Ito's set for lines, each with a line
style of its own.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8

from anomaly.calibration import Calibration
from anomaly.report import display, overlay
from anomaly.report.words import number
from explain.faithfulness import MARKED
from explain.run import Explained, Part
from explain.twin import Normals

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LINES = (
    ("#0072B2", "-"), ("#D55E00", "--"), ("#009E73", "-."), ("#CC79A7", ":"), ("#E69F00", "-"), ("#56B4E9", "--"),
    ("#000000", "-."), ("#F0E442", ":"),
)  # fmt: skip
"""Colours of Okabe and Ito, and a line style each."""
FAINT, INK, KNOWN = "#57534e", "#1c1917", "#38bdf8"
LONGEST = 640
"""Longer side of a picture within a figure, in pixels."""
WIDTH = 11.0
"""Width of a figure in inches."""

Picture = UInt8[np.ndarray, "_ _ 3"]


def part_figure(part: Part, value_range: tuple[float, float], normals: Normals | None) -> "Figure":
    """Draws a part: original, normal twin, all maps with one scale, and the nearest normal patch.

    A white line surrounds the strongest 4 % of each map, which is what the faithfulness figures speak of.

    Args:
        part: the part.
        value_range: as `InputSpec.value_range`.
        normals: for the picture of the nearest normal patch.
    """
    original = _small(display(part.image, value_range))
    size = original.shape[:2]
    twin = part.twin.image.permute(1, 2, 0).numpy()
    limits = _shown_range(part.image, value_range)
    cells: list[tuple[str, Picture, Any]] = [
        ("image", original, part),
        (f"as it should look\n({part.twin.kind})", _small(_as(twin, limits)), None),
    ]
    for one in part.explained:
        shown = cv2.resize(one.explanation.shown(), size[::-1], interpolation=cv2.INTER_AREA)
        cells.append((_caption(one), overlay(original, shown, (0.0, 1.0), np.inf), one))
    figure, axes = _sheet([picture for _, picture, _ in cells], extra=2 if part.nearest else 0)
    for axis, (title, picture, what) in zip(axes, cells, strict=False):
        axis.imshow(picture)
        axis.set_title(title, fontsize=9, color=INK)
        if isinstance(what, Explained):
            _outline(axis, what.marked, size, "white")
        if what is part:
            _point(axis, part.anomaly_map, size)
            if part.mask is not None:
                _outline(axis, part.mask, size, KNOWN)
    if part.nearest and normals:
        _nearest(axes[-2:], part, value_range, normals)
    _legend(figure)
    return figure


def curves_figure(part: Part) -> "Figure":
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
    return figure


def scores_figure(calibration: Calibration, scores: Sequence[float], flagged: Sequence[float]) -> "Figure":
    """Draws the scores of the images against those of normals held out, with both thresholds.

    Args:
        calibration: thresholds and scores of normals.
        scores: of all images of the run.
        flagged: of those that are explained.
    """
    figure = _figure(WIDTH, 3.0)
    axis = figure.add_subplot()
    normals = np.asarray(calibration.scores)
    everything = np.concatenate([normals, scores, [calibration.ng.value]])
    bins = np.linspace(everything.min(), everything.max() + 1e-9, 41).tolist()
    axis.hist(normals, bins=bins, color="#a8a29e", label=f"{len(normals)} normals held out")
    axis.hist(list(scores), bins=bins, color="#0072B2", alpha=0.55, label=f"{len(scores)} images of this run")
    axis.plot(list(flagged), np.zeros(len(flagged)), "^", color="#D55E00", clip_on=False, label="explained here")
    review, ng = calibration.review.value, calibration.ng.value
    if review < ng:
        axis.axvline(review, color="#E69F00", linestyle="--", label=f"REVIEW above {number(review)}")
    axis.axvline(ng, color="#D55E00", linestyle="-", label=f"NG above {number(ng)}")
    axis.set(xlabel="anomaly score (higher is stranger)", ylabel="images")
    axis.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.02, 0.5))
    return figure


def clusters_figure(clusters: Float32[np.ndarray, "h w"], background: Picture, count: int) -> "Figure":
    """Draws how often each place of the part was marked.

    Args:
        clusters: number of parts that were marked there.
        background: a part, stretched to the size of `clusters`.
        count: number of parts.
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


def _nearest(axes: "Sequence[Axes]", part: Part, value_range: tuple[float, float], normals: Normals) -> None:
    nearest = part.nearest
    assert nearest is not None
    source = normals.images[nearest.index].permute(1, 2, 0).numpy()
    frames = (part.image, nearest.box), (source, nearest.normal_box)
    titles = "strangest place", f"nearest normal place\n{nearest.name[-28:]}"
    for axis, (frame, (top, bottom, left, right)), title in zip(axes, frames, titles, strict=True):
        axis.imshow(display(frame, value_range)[top:bottom, left:right])
        axis.set_title(title, fontsize=9, color=INK)


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


def _shown_range(image: np.ndarray, value_range: tuple[float, float]) -> tuple[float, float]:
    """The range that `display` shows an image with, so that image and twin are shown alike."""
    if image.dtype == np.uint8:
        return value_range
    low, high = (float(v) for v in np.percentile(image.astype(np.float32), (0.5, 99.5)))
    return (low, high) if low < high else value_range


def _as(frame: Float[np.ndarray, "h w c"], limits: tuple[float, float]) -> Picture:
    eight = ((frame - limits[0]) * (255.0 / (limits[1] - limits[0]))).clip(0, 255).round().astype(np.uint8)
    return display(eight, (0.0, 255.0))
