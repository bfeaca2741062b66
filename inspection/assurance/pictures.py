"""Charts as pictures, SVG or PNG by the name of the file; alarms are marked by shape and word, not by colour alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from inspection.assurance.ewma import EwmaChart
from inspection.assurance.judgements import Judgement
from inspection.assurance.p_chart import PChart
from inspection.assurance.repeatability import Repeatability

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT, LIMIT, ALARM, SHADE = "#1c1917", "#78716c", "#0072b2", "#d55e00", "#e7e5e4"
"""Blue and vermilion of Okabe and Ito's palette: told apart with every colour vision."""
_MOST_TICKS = 10


def draw_p_chart(path: Path, chart: PChart, title: str, counted: str) -> None:
    """Draws the shares of all groups, their limits and alarms.

    Args:
        path: file to write, *.svg or *.png; replaced.
        chart: the chart.
        title: headline.
        counted: what the share is of, e.g. "NG".
    """
    figure, axes = _figure()
    place = np.arange(len(chart.groups))
    _reference(axes, chart.reference - 0.5, f"reference: first {chart.reference} groups")
    for limits in (chart.low, chart.high):
        axes.step(place, 100 * limits, where="mid", color=LIMIT, linestyle="--", linewidth=1.2)
    axes.axhline(100 * chart.centre, color=FAINT, linewidth=1)
    axes.plot(place, 100 * chart.shares, color=INK, marker="o", markersize=3.5, linewidth=1)
    _mark(axes, sorted({alarm.point for alarm in chart.alarms}), 100 * chart.shares)
    _labels(axes, [group.label for group in chart.groups])
    axes.set_ylabel(f"{counted}, % of the group")
    axes.set_ylim(bottom=0)
    axes.margins(x=0.01)
    _finish(figure, axes, path, title, f"{chart.kind}; centre {100 * chart.centre:.3g} %")


def draw_ewma(path: Path, chart: EwmaChart, labels: Sequence[str], title: str) -> None:
    """Draws the moving average, its limits and alarms.

    Args:
        path: file to write, *.svg or *.png; replaced.
        chart: the chart.
        labels: one for each group, e.g. its time.
        title: headline.
    """
    figure, axes = _figure()
    place = np.arange(len(chart.values))
    _reference(axes, chart.reference - 0.5, f"reference: first {chart.reference} groups")
    for limits in (chart.limits, -chart.limits):
        axes.plot(place, limits, color=LIMIT, linestyle="--", linewidth=1.2)
    axes.axhline(0, color=FAINT, linewidth=1)
    axes.plot(place, chart.values, color=INK, marker="o", markersize=3, linewidth=1)
    _mark(axes, [alarm.point for alarm in chart.alarms], chart.values)
    _labels(axes, labels)
    axes.set_ylabel("average, deviations of a group")
    axes.margins(x=0.01)
    _finish(figure, axes, path, title, chart.kind)


def draw_repeats(path: Path, judgements: Sequence[Judgement], found: Repeatability, title: str) -> None:
    """Draws all scores of each part, lowest mean first, with the threshold and the zone in which decisions are open.

    Args:
        path: file to write, *.svg or *.png; replaced.
        judgements: the study, with scores.
        found: what `repeatability` made of it.
        title: headline.
    """
    from inspection.assurance.repeatability import REACH

    figure, axes = _figure()
    scores: dict[str, list[float]] = {}
    for judgement in judgements:
        scores.setdefault(judgement.part, []).append(float(judgement.score or 0.0))
    parts = sorted(scores, key=lambda part: float(np.mean(scores[part])))
    reach = REACH * found.deviation
    axes.axhspan(found.threshold - reach, found.threshold + reach, color=SHADE, zorder=0, label="decision open")
    axes.axhline(found.threshold, color=LIMIT, linestyle="--", linewidth=1.2, label="threshold")
    for k, part in enumerate(parts):
        own, flipped = scores[part], part in found.flipped
        axes.plot([k, k], [min(own), max(own)], color=ALARM if flipped else FAINT, linewidth=1)
        marker: dict[str, Any] = {"marker": "D" if flipped else "o", "color": ALARM if flipped else INK}
        axes.plot([k] * len(own), own, linestyle="", markersize=3.5, **marker)
    if found.flipped:
        axes.plot([], [], marker="D", color=ALARM, linestyle="", markersize=4, label="on both sides")
    _labels(axes, parts)
    axes.set_ylabel("score")
    axes.set_xlabel("part, lowest score first")
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    room = "no normal part" if found.ratio is None else f"3 deviations are {100 * found.ratio:.0f} % of the room"
    _finish(figure, axes, path, title, f"repeat deviation {found.deviation:.3g}; {room}")


def _figure() -> tuple["Figure", "Axes"]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.6), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _reference(axes: "Axes", end: float, words: str) -> None:
    axes.axvspan(-0.5, end, color=SHADE, zorder=0)
    axes.annotate(
        words, (0, 1), (4, -4), xycoords=("data", "axes fraction"), textcoords="offset points", va="top", color=FAINT
    )


def _mark(axes: "Axes", points: Sequence[int], values: np.ndarray) -> None:
    if points:
        axes.plot(points, values[list(points)], "D", color=ALARM, markersize=7, label=f"alarm ({len(points)})")
        axes.legend(frameon=False, fontsize=10, loc="lower right", bbox_to_anchor=(1, 1))


def _labels(axes: "Axes", labels: Sequence[str]) -> None:
    step = max(1, -(-len(labels) // _MOST_TICKS))
    shown = range(0, len(labels), step)
    axes.set_xticks(list(shown), [labels[k] for k in shown], rotation=20, ha="right", fontsize=9)


def _finish(figure: "Figure", axes: "Axes", path: Path, title: str, subtitle: str) -> None:
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold", color=INK, pad=22)
    axes.annotate(subtitle, (0, 1), (0, 6), xycoords="axes fraction", textcoords="offset points", color=FAINT)
    figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
