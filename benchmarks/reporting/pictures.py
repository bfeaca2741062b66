"""Pictures of a report: accuracy against latency, and average ranks with the critical difference.

Colours are those of Okabe and Ito, which people with colour-blindness can tell apart; every method has a marker too.
Source of the second picture: Demsar, Statistical comparisons of classifiers over multiple data sets, JMLR 2006.
"""

from collections.abc import Mapping, Sequence
from io import StringIO
from typing import Any, NamedTuple

import numpy as np

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX*<>"
_FEWEST = 5
"""Sets from which on ranks are tested."""


class Point(NamedTuple):
    """A method in the picture: median latency in ms, image AUROC and its standard error."""

    latency: float
    auroc: float
    error: float


def frontier(points: Mapping[str, Point]) -> list[str]:
    """Returns the methods that no other one beats in both, from fast to slow."""
    found: list[str] = []
    for name, point in sorted(points.items(), key=lambda item: (item[1].latency, -item[1].auroc)):
        if not found or point.auroc > points[found[-1]].auroc:
            found.append(name)
    return found


def pareto(points: Mapping[str, Point], title: str) -> str:
    """Returns an SVG: image AUROC against latency, with 95 % bars and the line of the methods that none beats."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(7.5, 5.2), layout="constrained")
    panel: Any = figure.subplots()
    best = [points[name] for name in frontier(points)]
    panel.plot(
        [p.latency for p in best],
        [p.auroc for p in best],
        color="0.6",
        linestyle="--",
        zorder=1,
        label="none is better in both",
    )
    for index, (name, point) in enumerate(points.items()):
        panel.errorbar(
            point.latency, point.auroc, yerr=1.96 * point.error, fmt=MARKERS[index % len(MARKERS)], markersize=9,
            color=COLOURS[index % len(COLOURS)], capsize=3, label=name,
        )  # fmt: skip
    panel.set_xscale("log")
    low, high = min(p.latency for p in points.values()), max(p.latency for p in points.values())
    panel.set_xlim(low / 1.5, high * 1.5)
    panel.xaxis.set_major_locator(LogLocator(10, (1, 2, 5)))
    panel.xaxis.set_major_formatter(ScalarFormatter())
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set(xlabel="ms an image at batch 1, median (logarithmic)", ylabel="image AUROC")
    figure.suptitle(title, fontsize=10)
    panel.grid(visible=True, alpha=0.3)
    panel.legend(fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False)
    return _svg(figure)


class Ranks(NamedTuple):
    """Average ranks over sets, 1 = best, and what they can tell apart.

    Attributes:
        average: method -> average rank.
        p_value: of Friedman's test that all methods are alike.
        difference: ranks further apart than this differ at 5 % (Nemenyi).
        sets: number of sets.
    """

    average: dict[str, float]
    p_value: float
    difference: float
    sets: int


def ranks(names: Sequence[str], values: Sequence[Sequence[float]]) -> Ranks | None:
    """Returns the ranks of methods; None below 5 sets or 3 methods, where the test says nothing.

    Args:
        names: the methods.
        values: one row per set, one figure per method, higher = better.

    Source: Demsar 2006, section 3.2.2.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    table = np.array(values, dtype=float)
    if len(table) < _FEWEST or len(names) < 3:
        return None
    average = np.array([rankdata(-row) for row in table]).mean(axis=0)
    alike = bool((np.ptp(table, axis=1) == 0).all())
    p_value = 1.0 if alike else float(friedmanchisquare(*table.T).pvalue)
    count = len(names)
    quantile = float(studentized_range.ppf(0.95, count, np.inf)) / np.sqrt(2)
    difference = float(quantile * np.sqrt(count * (count + 1) / (6 * len(table))))
    return Ranks(dict(zip(names, average.tolist(), strict=True)), p_value, difference, len(table))


def critical_difference(found: Ranks) -> str:
    """Returns an SVG: average ranks as points, each with half the critical difference to both sides."""
    from matplotlib.figure import Figure

    names = sorted(found.average, key=lambda name: found.average[name])
    figure = Figure(figsize=(8, 1.2 + 0.4 * len(names)), layout="constrained")
    panel: Any = figure.subplots()
    for place, name in enumerate(reversed(names)):
        rank = found.average[name]
        panel.errorbar(rank, place, xerr=found.difference / 2, fmt="o", color=COLOURS[0], capsize=4)
        panel.annotate(f"{rank:.2f}", (rank, place), xytext=(0, 6), textcoords="offset points", ha="center", fontsize=8)
    panel.set_yticks(range(len(names)), names[::-1])
    panel.set_ylim(-0.6, len(names) - 0.3)
    panel.invert_xaxis()
    panel.set(xlabel=f"average rank over {found.sets} sets (right is better); bars that do not overlap differ at 5 %")
    panel.grid(visible=True, axis="x", alpha=0.3)
    return _svg(figure)


def _svg(figure: Any) -> str:
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "anomaly bench report"}):  # the same rows give the same file
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None})
    return text.getvalue()
