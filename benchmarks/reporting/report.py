"""Reads runs, puts the sections together and writes report.md, report.html and the pictures."""

import csv
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from anomaly.errors import DatasetError
from benchmarks.reporting.anchors import read_anchors
from benchmarks.reporting.page import Section, Table, as_html, as_markdown
from benchmarks.reporting.results import Results, read_results
from benchmarks.reporting.sections import against_latency, means, promises, sets, wins
from benchmarks.scaling import exponent
from benchmarks.tables import number

TITLE = "Anomaly detection: measured runs"
_OTHERS = 0.5
"""Load of other programs, in cores, from which on latencies are called not quotable."""
_READ = (
    "Image AUROC: mean over seeds; noise: 1.96 standard errors, from a bootstrap over test images and the spread over "
    "seeds; never below one test image. With one seed the spread over seeds is unknown and not in it.",
    "Marked is a best image AUROC only, and only where its lead over every other method is beyond the noise of both. "
    "The other figures have no interval, so none of them is marked.",
    "All methods of a set saw the same training and test images on the same canvas, with default settings; nothing was "
    "chosen on test data. Peers of anomalib get ResNet-18 weights where they take any: compare with (resnet18) rows.",
    "shortcut: one global number of an image, no detector, whichever side is higher. A score that does not clearly "
    "beat the best of them proves nothing.",
    "(2) behind a mean: over that many sets only, so not comparable with the others of its column.",
    "ms: from canvas to score and map, batch 1. fit: reading files included, imports not. Peaks: of the whole process.",
)


def write_report(folders: Sequence[Path], out: Path, scaling: Sequence[Path], notes: Sequence[str]) -> list[Path]:
    """Writes the report of runs and returns its files.

    Args:
        folders: folders of `anomaly bench run`.
        out: folder to write to.
        scaling: results of `benchmarks.scaling`.
        notes: sentences for the top.

    Raises:
        DatasetError: a folder or file is not what it should be.
    """
    results = read_results(folders)
    sections = [
        Section("Conditions", [*notes, *conditions(results)]),
        *([means(results)] if len({one.dataset for one in results.experiments()}) > 1 else []),
        against_latency(results, _others(results) > _OTHERS),
        *sets(results, read_anchors()),
        wins(results),
        promises(results),
        *([grown(scaling)] if scaling else []),
        Section("How to read this", list(_READ)),
    ]
    out.mkdir(parents=True, exist_ok=True)
    files = {"report.md": as_markdown(TITLE, sections), "report.html": as_html(TITLE, sections)}
    files |= {section.picture.file: section.picture.svg for section in sections if section.picture}
    for name, text in files.items():
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in files]


def conditions(results: Results) -> list[str]:
    """Returns sentences about machine, date, versions, and what limits the figures."""
    rows = results.rows
    dates = sorted(row["date"] for row in rows)
    machines = dict.fromkeys(f"{row['cpu']}, {row['cores']} cores, {row['threads']} thread(s) used" for row in rows)
    lines = [
        f"{len(rows)} fits on {'; '.join(machines)}; {dates[0]} to {dates[-1]}; commit "
        f"{', '.join(dict.fromkeys(row['commit'] for row in rows))}; anomaly-suite {version('anomaly-suite')}.",
        f"Versions: {'; '.join(dict.fromkeys(row['versions'] for row in rows))}.",
    ]
    limits = sorted({int(row["limit"]) for row in rows if row["limit"]})
    if limits:
        lines.append(
            f"LIMITED RUN: at most {', '.join(map(str, limits))} training images and as many test images of each set. "
            "These are not the figures of the full sets."
        )
    if _others(results) > _OTHERS:
        lines.append(
            f"BUSY MACHINE: load of other programs up to {_others(results):.1f} while latencies were taken. Wall "
            "times, latencies and throughput are not quotable; CPU seconds, memory and quality are."
        )
    splits = {title: split for run in results.runs.values() for title, split in run["sets"].items()}
    measured = {experiment.title for experiment in results.experiments()}
    lines += [f"{title}: {split}." for title, split in splits.items() if title in measured]
    lines += [f"INCOMPLETE: {title} was asked for and has no row." for title in splits if title not in measured]
    return lines


def _others(results: Results) -> float:
    """Returns the highest load of other programs while latencies were taken."""
    return max(float(row["load"]) - float(row["threads"]) for row in results.rows)


def grown(paths: Sequence[Path]) -> Section:
    """Returns how cost grows, by fitted exponents: 1 where it doubles with the images.

    Raises:
        DatasetError: a file is not of `benchmarks.scaling`.
    """
    section = Section(
        "Scaling", ["Exponent: slope of a line through the logarithms; 1 grows as the number of images does."]
    )
    for path in paths:
        rows = _scaling_rows(path)
        table = []
        for detector in dict.fromkeys(row["detector"] for row in rows):
            own = sorted((row for row in rows if row["detector"] == detector), key=lambda row: int(row["images"]))
            counts = [float(row["images"]) for row in own]
            slopes = [
                number(exponent(counts, [float(row[column]) for row in own]) if len(own) > 1 else None, 2)
                for column in ("fit_cpu_s", "peak_mib")
            ]
            span = f"{int(counts[0]):,} to {int(counts[-1]):,}"
            table.append(
                [
                    detector,
                    span,
                    own[-1]["threads"],
                    *slopes,
                    number(own[-1]["fit_cpu_s"], 0),
                    number(own[-1]["peak_mib"], 0),
                ]
            )
        header = [
            "detector",
            "images",
            "threads",
            "exponent of CPU time",
            "of peak memory",
            "CPU s of the largest",
            "MiB",
        ]
        first = rows[0]
        section.tables.append(Table(f"{first['surface']}, {first['cpu']}, {first['date'][:10]}", header, table, 2))
    return section


def _scaling_rows(path: Path) -> list[Mapping[str, str]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[Mapping[str, str]] = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    needed = {"detector", "images", "threads", "surface", "fit_cpu_s", "peak_mib", "cpu", "date"}
    if not rows or not needed <= set(rows[0]):
        raise DatasetError(
            f"{path} is no scaling.csv of `python -m benchmarks.scaling`: it needs {', '.join(sorted(needed))}"
        )
    return rows
