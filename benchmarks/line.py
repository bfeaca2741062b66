"""Sustained run of a line: frames at the fastest rate at which p99 of capture to durable result keeps the deadline.

A camera in this process delivers generated frames on a fixed schedule and does not wait (on_overload = "ng"). A frame
counts as captured when the schedule says so, also where the line was too busy to take it then. Inspector, results store
and pictures are the real ones. The rate is found by bisection with short trials, then a part of it is kept up for long.
Rows that are in the result file already are not measured again.
"""

import csv
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from anomaly.errors import SettingError
from anomaly.fitting import Plan
from anomaly.images import find_dataset, read_image
from anomaly.images.synthetic import write_dataset
from anomaly.progress import Progress, bars, silent
from benchmarks.commands import new_parser, run
from benchmarks.environment import FACTS, facts
from benchmarks.isolated import peak_mib
from benchmarks.tables import ResultFile, markdown, number
from inspection.inspector import RecipeInspector
from inspection.line.runner import Line, Status
from inspection.line.settings import LineSettings
from inspection.line.sources.given import GivenParts
from inspection.parts import Image, Inspected, Part
from inspection.recipe.choosing import Wishes
from inspection.recipe.making import make_recipe
from inspection.results.pictures import Look
from inspection.results.records import Run
from inspection.results.reporting import Reporter

KEY = ("run", "surface", "frame", "deadline_ms", "seconds")
VALUES = ("rate", "parts", "judged", "ng", "p50_ms", "p99_ms", "max_ms", "missed", "cpu_share", "peak_mib", "holds")
NORMALS, FRAMES, DEFECTIVE = 80, 49, 1
_TRIALS, _TRIAL_S, _WARM_S = 7, 10.0, 3.0

EXAMPLES = """\
  python -m benchmarks.line --out results/line
  python -m benchmarks.line --seconds 20 --trial 3 --out results/line-try"""


@dataclass(frozen=True)
class Bench:
    """What all runs share.

    Attributes:
        inspector: judges the frames.
        frames: frames that the camera repeats, one of fifty with a defect.
        settings: how the line runs.
        folder: for results and pictures.
    """

    inspector: RecipeInspector
    frames: Sequence[Image]
    settings: LineSettings
    folder: Path

    def camera(self, rate: float, seconds: float) -> Iterator[Part]:
        """Yields frames on schedule, `rate` a second."""
        began, start = datetime.now(UTC), time.monotonic()
        for k in range(round(rate * seconds)):
            time.sleep(max(0.0, start + k / rate - time.monotonic()))
            image = self.frames[k % len(self.frames)]
            captured = began + timedelta(seconds=k / rate)
            yield Part(id=f"{k:07d}", source="schedule", captured=captured, image=image)


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        status: the line at its end.
        times: seconds since the first frame at which results became durable, ascending.
        latencies: milliseconds from capture to durable result, in the same order.
        cpu_share: CPU seconds a second, of all threads.
    """

    status: Status
    times: np.ndarray[Any, np.dtype[np.float64]]
    latencies: np.ndarray[Any, np.dtype[np.float64]]
    cpu_share: float

    def holds(self, deadline_ms: float) -> bool:
        """Returns whether p99 keeps the deadline and every part was judged."""
        figures = self.status.figures
        return figures.judged == figures.seen and float(np.quantile(self.latencies, 0.99)) <= deadline_ms


def prepare(folder: Path, surface: str, size: int, deadline_ms: float) -> Bench:
    """Draws parts, makes a recipe as `anomaly inspect init` does, loads what it needs.

    Raises:
        SettingError: a value is not allowed.
    """
    write_dataset(folder / "data", surface, NORMALS, FRAMES, DEFECTIVE, (size, size), seed=0)
    data = find_dataset(folder / "data")
    recipe = folder / "part.toml"
    make_recipe(data.train, recipe, Wishes(pixel_size_mm=0.1, plan=Plan()), [])
    inspector = RecipeInspector.open(recipe)
    settings = LineSettings(
        **{**inspector.recipe.line.model_dump(), "deadline_ms": deadline_ms, "on_overload": "ng", "batch_wait_ms": 0.0}
    )
    return Bench(inspector, [read_image(sample.path) for sample in data.test], settings, folder)


def drive(bench: Bench, rate: float, seconds: float, progress: Progress = silent) -> Measured:
    """Runs the line once, into a database of its own."""
    folder = bench.folder / f"run-{time.monotonic_ns()}"
    folder.mkdir()
    inspector = bench.inspector
    look = Look(scale=inspector.scale, contour=inspector.contour, value_range=inspector.value_range)
    recipe = inspector.recipe
    made = Run.now(recipe=recipe.sha256, model=recipe.model.sha256)
    ends: list[tuple[float, float]] = []
    advance = progress(f"{rate:.1f} frames a second", round(rate * seconds))
    with Reporter.open(recipe.results, folder, made, look=look) as reporter:

        def report(inspected: Sequence[Inspected]) -> None:
            reporter.report(inspected)
            now, wall = time.monotonic(), datetime.now(UTC)
            ends.extend((now, (wall - one.result.captured).total_seconds() * 1000) for one in inspected)
            advance(len(inspected))

        line = Line(GivenParts(bench.camera(rate, seconds)), inspector, report, bench.settings)
        began, cpu = time.monotonic(), time.process_time()
        status = line.run()
        share = (time.process_time() - cpu) / (time.monotonic() - began)
    times, latencies = np.array(sorted(ends)).T
    return Measured(status, times - began, latencies, share)


def fastest(bench: Bench, trial_s: float, progress: Progress = silent) -> float:
    """Returns the fastest rate, frames a second, that held in a trial; found by bisection.

    A rate fails if two trials fail: a single one may be hit by something else on the machine.

    Raises:
        SettingError: no rate that was tried held.
    """
    high = 1.5 * _throughput(bench)
    low, best = 0.0, 0.0
    advance = progress("looking for the fastest rate", _TRIALS)
    for _ in range(_TRIALS):
        rate = (low + high) / 2
        trials = (drive(bench, rate, max(trial_s, 20 / rate)) for _ in range(2))
        if any(trial.holds(bench.settings.deadline_ms) for trial in trials):
            low = best = rate
        else:
            high = rate
        advance(1)
    if not best:
        raise SettingError(f"no rate down to {high:.2g} frames a second keeps {bench.settings.deadline_ms:g} ms here")
    return best


def _throughput(bench: Bench) -> float:
    """Returns how many parts a second the inspector alone judges, batch after batch."""
    batch = [next(bench.camera(1.0, 1.0))] * bench.settings.batch
    start, count = time.monotonic(), 0
    while time.monotonic() < start + _WARM_S:
        bench.inspector(batch)
        count += len(batch)
    return count / (time.monotonic() - start)


def row_of(measured: Measured, rate: float, deadline_ms: float) -> dict[str, object]:
    """Returns the figures of a run for the result file."""
    figures, latencies = measured.status.figures, measured.latencies
    return {
        "rate": rate,
        "parts": figures.seen,
        "judged": figures.judged,
        "ng": figures.decisions.get("NG", 0),
        "p50_ms": float(np.quantile(latencies, 0.5)),
        "p99_ms": float(np.quantile(latencies, 0.99)),
        "max_ms": float(latencies.max()),
        "missed": figures.missed,
        "cpu_share": measured.cpu_share,
        "peak_mib": peak_mib(),
        "holds": "yes" if measured.holds(deadline_ms) else "no",
    }


def per_second(measured: Measured) -> list[dict[str, float]]:
    """Returns reported parts, median, 99th percentile and maximum of the latency in each second of a run."""
    rows = []
    whole = measured.times.astype(int)
    for second in range(int(whole.max()) + 1):
        own = measured.latencies[whole == second]
        if own.size:
            p50, p99 = np.quantile(own, (0.5, 0.99))
            figures = {"parts": own.size, "p50_ms": float(p50), "p99_ms": float(p99), "max_ms": float(own.max())}
            rows.append({"second": second, **figures})
    return rows


def plot(seconds: Sequence[Mapping[str, float]], deadline_ms: float, title: str, path: Path) -> None:
    """Draws latency and rate of a run over its time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5), layout="constrained")
    panels: list[Any] = list(figure.subplots(2, 1, sharex=True, height_ratios=(3, 1)))
    time_s = [row["second"] for row in seconds]
    for column, label, colour in (("max_ms", "slowest", "0.75"), ("p99_ms", "p99", "C1"), ("p50_ms", "median", "C0")):
        panels[0].plot(time_s, [row[column] for row in seconds], color=colour, label=f"{label} in each second")
    panels[0].axhline(deadline_ms, color="C3", linestyle=":", label=f"deadline {deadline_ms:g} ms")
    panels[0].set(ylabel="capture to durable result, ms", ylim=(0, None))
    panels[0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8)
    figure.suptitle(title, fontsize=10)
    panels[1].plot(time_s, [row["parts"] for row in seconds], color="C2")
    panels[1].set(xlabel="seconds since the first frame", ylabel="results a second", ylim=(0, None))
    for panel in panels:
        panel.grid(visible=True, alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def write_seconds(seconds: Sequence[Mapping[str, float]], path: Path) -> None:
    """Writes the seconds of a run as CSV."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["second", "parts", "p50_ms", "p99_ms", "max_ms"])
        writer.writeheader()
        writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in seconds)


def table(rows: Sequence[Mapping[str, str]]) -> str:
    """Returns the rows for people."""
    header = ["run", "frame", "seconds", "frames/s", "parts", "not judged", "p50 ms", "p99 ms", "max ms", "missed"]
    shown = [
        [
            *(row["run"], row["frame"], row["seconds"], number(row["rate"], 1), row["parts"]),
            int(row["parts"]) - int(row["judged"]),
            *(number(row[name], 1) for name in ("p50_ms", "p99_ms", "max_ms")),
            *(row["missed"], number(row["cpu_share"], 2), number(row["peak_mib"], 0), row["holds"]),
        ]
        for row in rows
    ]
    return markdown([*header, "CPU", "peak MiB", "holds"], shown)


def main() -> None:
    """Runs the command."""
    parser = new_parser("benchmarks.line", __doc__, EXAMPLES, "folder for line.csv, line_seconds.csv and line.svg")
    parser.add_argument("--seconds", type=float, default=600.0, help="length of the sustained run (%(default)g)")
    parser.add_argument("--trial", type=float, default=_TRIAL_S, help="seconds of a trial (%(default)g)")
    parser.add_argument(
        "--share", type=float, default=0.9, help="part of the fastest rate that is kept up (%(default)g)"
    )
    parser.add_argument("--deadline-ms", type=float, default=200.0, help="deadline of the recipe (%(default)g)")
    parser.add_argument("--size", type=int, default=256, help="height and width of a frame in pixels (%(default)s)")
    parser.add_argument("--surface", default="brushed_metal", help="generated surface (%(default)s)")
    options = parser.parse_args()
    if not 0 < options.share <= 1:
        raise SettingError.of("benchmarks.line", "--share", "above 0 and at most 1", options.share)
    file = ResultFile(options.out / "line.csv" if options.out else None, KEY, (*VALUES, *FACTS))
    key = {"run": "sustained", "surface": options.surface, "frame": f"{options.size} x {options.size}"}
    key |= {"deadline_ms": options.deadline_ms, "seconds": options.seconds}
    row = file.find(key)
    if row is None:
        with TemporaryDirectory() as folder, bars() as progress:
            bench = prepare(Path(folder), options.surface, options.size, options.deadline_ms)
            best = fastest(bench, options.trial, progress)
            measured = drive(bench, options.share * best, options.seconds, progress)
        row = file.add({**key, **row_of(measured, options.share * best, options.deadline_ms), **facts()})
        if options.out:
            seconds = per_second(measured)
            write_seconds(seconds, options.out / "line_seconds.csv")
            title = f"{float(row['rate']):.1f} frames of {row['frame']} px a second for {options.seconds:g} s"
            plot(seconds, options.deadline_ms, f"{title}, {row['missed']} deadlines missed", options.out / "line.svg")
    print("\n".join([" | ".join(facts().values()), "", table([row])]))


if __name__ == "__main__":
    run(main)
