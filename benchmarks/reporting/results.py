"""Rows of runs as what they are about: experiments (a set, or a product of one) and methods (detector and backbone).

Noise of an image AUROC: the variance of its bootstrap over test images (mean over seeds) plus that of the mean over
seeds. Two methods differ where their difference is beyond 1.96 standard errors of independent figures. Both saw
the same test images, so the true error of the difference is mostly smaller: this marks rather too little.
The error is never taken to be below one image in all, since a bootstrap of a perfect score knows none.
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anomaly.errors import DatasetError
from benchmarks.running.run import RESULTS, RUN, VALUES
from benchmarks.running.work import KEY, SHORTCUT

Row = Mapping[str, str]
_Z = 1.96


class Experiment(NamedTuple):
    """A set, or a product of one."""

    dataset: str
    category: str

    @property
    def title(self) -> str:
        """Name for people."""
        return f"{self.dataset} {self.category}".strip()


class Method(NamedTuple):
    """A detector with its backbone."""

    detector: str
    backbone: str

    @property
    def title(self) -> str:
        """Name for people."""
        return self.detector if self.backbone == "-" else f"{self.detector} ({self.backbone})"


class Figure(NamedTuple):
    """A mean with its standard error, in the unit of the figure."""

    value: float
    error: float

    def ahead_of(self, other: "Figure") -> bool:
        """Returns whether this one is higher beyond the noise of both."""
        return self.value - other.value > _Z * sqrt(self.error**2 + other.error**2)


@dataclass(frozen=True)
class Results:
    """All rows of the runs of a report.

    Attributes:
        rows: rows of detectors and peers.
        shortcuts: rows of single global numbers.
        runs: contents of run.json, by folder.
    """

    rows: Sequence[Row]
    shortcuts: Sequence[Row]
    runs: Mapping[str, Mapping[str, Any]]

    def experiments(self) -> list[Experiment]:
        """Returns the experiments in the order of the rows."""
        return list(dict.fromkeys(Experiment(row["dataset"], row["category"]) for row in self.rows))

    def methods(self) -> list[Method]:
        """Returns the methods in the order of the rows."""
        return list(dict.fromkeys(Method(row["detector"], row["backbone"]) for row in self.rows))

    def of(self, experiment: Experiment, method: Method) -> list[Row]:
        """Returns the rows of a method, one for each seed."""
        wanted = (*experiment, *method)
        names = ("dataset", "category", "detector", "backbone")
        return [row for row in self.rows if tuple(row[name] for name in names) == wanted]

    def shortcuts_of(self, experiment: Experiment) -> list[Row]:
        """Returns the rows of single global numbers, the best first."""
        own = [row for row in self.shortcuts if (row["dataset"], row["category"]) == tuple(experiment)]
        return sorted(own, key=lambda row: -float(row["image_auroc"]))

    def auroc(self, experiment: Experiment, method: Method) -> Figure | None:
        """Returns the image AUROC, mean over seeds, with its standard error; None where it was not measured."""
        return auroc_of(self.of(experiment, method))


def auroc_of(rows: Sequence[Row]) -> Figure | None:
    """Returns the mean image AUROC over seeds with its standard error; None without rows."""
    if not rows:
        return None
    values = [float(row["image_auroc"]) for row in rows]
    widths = [(float(row["image_auroc_high"]) - float(row["image_auroc_low"])) / (2 * _Z) for row in rows]
    images = max(float(np.mean(np.square(widths))), 1 / int(rows[0]["test"]) ** 2)
    seeds = float(np.var(values, ddof=1)) / len(values) if len(values) > 1 else 0.0
    return Figure(float(np.mean(values)), sqrt(images + seeds))


def mean_of(figures: Sequence[Figure]) -> Figure:
    """Returns the mean of independent figures."""
    return Figure(
        float(np.mean([one.value for one in figures])), sqrt(sum(one.error**2 for one in figures)) / len(figures)
    )


def mean(rows: Sequence[Row], column: str) -> float | None:
    """Returns the mean of a column over the rows that have it; None if none has."""
    values = [float(row[column]) for row in rows if row[column]]
    return float(np.mean(values)) if values else None


def leader(figures: Mapping[Method, Figure]) -> Method | None:
    """Returns the method that is ahead of every other one beyond the noise; None if there is none, or only one."""
    if len(figures) < 2:
        return None
    best = max(figures, key=lambda method: figures[method].value)
    ahead = all(figures[best].ahead_of(figure) for method, figure in figures.items() if method != best)
    return best if ahead else None


def read_results(folders: Sequence[Path]) -> Results:
    """Reads folders of `anomaly bench run`.

    Raises:
        DatasetError: a folder is no run, has other columns, or two runs hold the same row.
    """
    found: dict[tuple[str, ...], dict[str, str]] = {}
    origin: dict[tuple[str, ...], Path] = {}
    runs = {}
    for folder in folders:
        if not (folder / RESULTS).is_file() or not (folder / RUN).is_file():
            raise DatasetError(f"{folder} is no folder of `anomaly bench run`: it needs {RESULTS} and {RUN}")
        runs[folder.name] = json.loads((folder / RUN).read_text(encoding="utf-8"))
        for row in _rows(folder / RESULTS):
            identity = tuple(row[name] for name in ("dataset", "category", "detector", "backbone", "seed"))
            if identity in found and origin[identity] != folder and row["detector"].startswith(SHORTCUT):
                continue  # the same images give the same number
            if identity in found:
                raise DatasetError(
                    f"{' '.join(filter(None, identity))} is in {origin[identity]} and in {folder}, or twice there with "
                    "other settings; a mean of both would mean nothing: report them apart"
                )
            found[identity], origin[identity] = row, folder
    rows = [row for row in found.values() if not row["detector"].startswith(SHORTCUT)]
    if not rows:
        raise DatasetError(f"no row was measured yet in {', '.join(map(str, folders))}")
    return Results(rows, [row for row in found.values() if row["detector"].startswith(SHORTCUT)], runs)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    if missing := sorted({*KEY, *VALUES} - set(reader.fieldnames or ())):
        raise DatasetError(f"{path} lacks the columns {', '.join(missing)}; was it made by another version?")
    return rows
