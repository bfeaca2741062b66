"""Time and memory of a fit against the number of images, on generated parts of 256 x 256 pixels.

Every fit runs in a process of its own with the default settings and the backbone of the package, and streams the files
as `anomaly fit` does. The parts are drawn once; a fit on N of them takes the first N serial numbers in random order.
Rows that are in the result file already are not measured again: give a new --out after a change of the code.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from anomaly.catalog import DETECTORS, build, detector_class
from anomaly.errors import DatasetError
from anomaly.images import ImageLoader, infer_input, list_images
from anomaly.images.synthetic import write_dataset
from anomaly.progress import Progress, bars, silent
from anomaly.scoring import BATCH
from benchmarks.commands import names, new_parser, run
from benchmarks.environment import FACTS, facts
from benchmarks.isolated import FIGURES, Meter, run_isolated
from benchmarks.tables import ResultFile, markdown, number

COUNTS = (50, 200, 1000, 5000)
SIZE = (256, 256)
KEY = ("detector", "images", "surface", "threads")
LIMITS = {"subspace": 1.5, "memory_bank": 3.0}
"""Peak memory in GB that a fit must stay under, whatever the number of images."""

EXAMPLES = """\
  python -m benchmarks.scaling --out results/scaling
  python -m benchmarks.scaling --counts 20,40 --detectors subspace --out results/scaling-try"""


def generate(folder: Path, surface: str, count: int) -> None:
    """Draws `count` normal parts into a folder, unless it holds them already.

    Raises:
        DatasetError: the folder holds fewer, or something else.
    """
    complete = folder / "manifest.csv"  # written last
    if not complete.is_file():
        write_dataset(folder, surface, count, 0, 0, SIZE, seed=0)
    found = len(list_images([folder]))
    if found < count:
        raise DatasetError(f"{folder} holds {found} images; {count} are needed. Name another folder with --data")


def fit(detector: str, folder: str, count: int) -> dict[str, float]:
    """Fits a detector with default settings on `count` parts in this process; returns what it cost."""
    import cv2  # noqa: F401 - imports are no part of the fit
    import timm  # noqa: F401

    paths = list_images([Path(folder)])[:count]
    order = np.random.default_rng(0).permutation(count)
    settings = build(detector_class(detector), {"input": infer_input(paths)})
    meter = Meter()
    loader = ImageLoader([paths[i] for i in order], settings.input, BATCH)
    settings.fit(batch.images for batch in loader)
    if loader.failures:
        raise DatasetError(f"{len(loader.failures)} image(s) cannot be used, e.g. {loader.failures[0]}")
    return meter.figures()


def measure(
    file: ResultFile,
    detectors: Sequence[str],
    counts: Sequence[int],
    surface: str,
    threads: int,
    data: Path,
    progress: Progress = silent,
) -> list[dict[str, str]]:
    """Fits whatever the result file lacks, small before large; returns the rows of all that is asked for.

    Args:
        file: receives the rows.
        detectors: names of detectors.
        counts: numbers of images.
        surface: name of the generated surface.
        threads: threads of a fit.
        data: folder for the parts.
        progress: is told what is being done.
    """
    rows = []
    advance = progress("fits", len(counts) * len(detectors))
    for count in sorted(counts):
        for detector in detectors:
            key = {"detector": detector, "images": count, "surface": surface, "threads": threads}
            row = file.find(key)
            if row is None:
                generate(data, surface, max(counts))
                arguments = {"detector": detector, "folder": str(data), "count": count}
                row = file.add({**key, **run_isolated("benchmarks.scaling:fit", arguments, threads), **facts()})
            rows.append(row)
            advance(1)
    return rows


def exponent(images: Sequence[float], values: Sequence[float]) -> float:
    """Returns the slope of a least-squares line through the logarithms: 1 where a value grows as the images do."""
    return float(np.polyfit(np.log(images), np.log(values), 1)[0])


def plot(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draws time and peak memory against the number of images, both axes logarithmic."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogFormatter, NullLocator

    figure = Figure(figsize=(10, 4), layout="constrained")
    panels: list[Any] = list(figure.subplots(1, 2))
    for index, detector in enumerate(dict.fromkeys(row["detector"] for row in rows)):
        own = [row for row in rows if row["detector"] == detector]
        images, colour = [float(row["images"]) for row in own], f"C{index}"
        for panel, column, factor in ((panels[0], "fit_wall_s", 1.0), (panels[1], "peak_mib", 2**20 / 1e9)):
            values = [float(row[column]) * factor for row in own]
            grows = f" ~ N^{exponent(images, values):.2f}" if len(own) > 1 else ""
            panel.loglog(images, values, "o-", color=colour, label=f"{detector}{grows}")
        if detector in LIMITS:
            label = f"limit of {detector}: {LIMITS[detector]:g} GB"
            panels[1].axhline(LIMITS[detector], color=colour, linestyle=":", label=label)
    for panel, title in zip(panels, ("wall time of the fit, s", "peak memory of the process, GB"), strict=True):
        panel.set(xlabel="training images of 256 x 256 px", ylabel=title)
        counts = sorted({int(row["images"]) for row in rows})
        panel.set_xticks(counts, [f"{count:,}" for count in counts])
        panel.xaxis.set_minor_locator(NullLocator())
        panel.yaxis.set_major_formatter(LogFormatter())
        panel.yaxis.set_minor_formatter(LogFormatter())
        panel.grid(visible=True, which="both", alpha=0.3)
        panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns the rows for people."""
    header = ["detector", "images", "wall s", "CPU s", "ms an image", "after imports, MiB", "peak, MiB", "added, MiB"]
    shown = [
        [
            *(row["detector"], row["images"], number(row["fit_wall_s"], 1), number(row["fit_cpu_s"], 1)),
            number(1000 * float(row["fit_wall_s"]) / int(row["images"]), 1),
            *(number(row[column], 0) for column in ("imports_mib", "peak_mib", "added_mib")),
        ]
        for row in rows
    ]
    return markdown(header, shown)


def main() -> None:
    """Runs the command."""
    parser = new_parser("benchmarks.scaling", __doc__, EXAMPLES, "folder for scaling.csv and scaling.svg")
    parser.add_argument("--counts", default=",".join(map(str, COUNTS)), help="numbers of images (%(default)s)")
    parser.add_argument("--detectors", default="subspace,memory_bank", help=f"of {', '.join(DETECTORS)} (%(default)s)")
    parser.add_argument("--surface", default="brushed_metal", help="generated surface (%(default)s)")
    parser.add_argument("--threads", type=int, default=os.cpu_count(), help="threads of a fit")
    parser.add_argument("--data", type=Path, help="folder for the parts, kept; by default a temporary one")
    options = parser.parse_args()
    file = ResultFile(options.out / "scaling.csv" if options.out else None, KEY, (*FIGURES, *FACTS))
    data: AbstractContextManager[Any] = nullcontext(options.data) if options.data else TemporaryDirectory()
    with data as folder, bars() as progress:
        counts = [int(count) for count in names(options.counts)]
        parts = Path(folder) / options.surface
        rows = measure(file, names(options.detectors), counts, options.surface, options.threads, parts, progress)
    print("\n".join([" | ".join(facts().values()), "", table(rows)]))
    if options.out:
        plot(rows, options.out / "scaling.svg")
        print(f"\nplot: {options.out / 'scaling.svg'}")


if __name__ == "__main__":
    run(main)
