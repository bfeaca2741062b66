"""What `anomaly bench latency` found, as table, plot and CSV."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import FACTS, facts
from benchmarks.line_latency import OURS, WAFER_BUDGET, WAFER_FRAMES, WAFER_SIDE, Result, Row, Wish, fastest
from benchmarks.roofline import Roofline
from benchmarks.tables import ResultFile, markdown, number

GOAL = 10.0
"""Milliseconds from raw frame to decision that the default detector should need at 256 px, one frame, two threads."""
PUBLISHED = 614
"""Images a second that the authors of EfficientAD state for its small model: 256 px, RTX A6000, float16 (WACV 2024)."""
KEY = ("model", "runtime", "precision", "batch", "frame", "canvas", "way", "threads")
FIGURES = ("p50_ms", "p90_ms", "p99_ms", "max_ms", "jitter_ms", "images_per_s")
VALUES = ("runs", *FIGURES, "gflop", "gbyte", "roofline_ms", "machine_gflops", "machine_gbytes_per_s", *FACTS)

NOTES = """\
- Milliseconds from a raw uint8 frame in the caller's memory to the decision there, copies included; jitter: p99 - p50.
- Rows with one number of frames took turns in one process. Whatever else the machine did meanwhile is in the figures.
- roofline: the time that the products of a frame need at the float32 peak measured here (or its bytes at the speed of
  a copy), as a share of p50. int8 may exceed 100 %: it is not bound to the float32 peak.
- anomalib: its own `to_onnx` and `to_openvino`, fixed batch of 1, ResNet-18, float32 (benchmarks/anomalib_exports.py).
"""


def report(result: Result, wish: Wish, out: Path | None) -> str:
    """Returns the result for people; writes latency.csv, latency.md and latency.svg if a folder is given."""
    circumstances = facts()
    text = "\n".join(
        [
            " | ".join(circumstances.values()),
            "",
            *_machine(result.rooflines, wish),
            "",
            table(result.rows, result.rooflines),
            "",
            *_verdicts(result, wish),
            *_wafer_lines(result),
            *(f"- left out: {line}" for line in dict.fromkeys(result.skipped)),
            "",
            NOTES.rstrip(),
        ]
    )
    if out is None:
        return text
    file = ResultFile(out / "latency.csv", KEY, VALUES)
    for row in (*result.rows, *result.wafers):
        file.add({**_columns(row, result.rooflines[row.device], wish), **circumstances})
    (out / "latency.md").write_text(text + "\n", encoding="utf-8")
    plot(result, out / "latency.svg")
    return f"{text}\n\nWrote {out / 'latency.csv'}, {out / 'latency.md'} and {out / 'latency.svg'}."


def table(rows: Iterable[Row], rooflines: Mapping[str, Roofline]) -> str:
    """Returns the rows side by side."""
    header = ["model", "runtime", "precision", "frames", "p50", "p90", "p99", "max", "jitter", "images/s", "roofline"]
    cells = []
    for row in rows:
        figures = row.figures()
        shown = [number(figures[name], 1) for name in FIGURES]
        share = "-" if row.work is None else f"{rooflines[row.device].least_ms(row.work) / figures['p50_ms']:.0%}"
        cells.append([row.model, row.runtime, row.precision, row.batch, *shown, share])
    return markdown(header, cells, texts=3)


def _machine(rooflines: Mapping[str, Roofline], wish: Wish) -> list[str]:
    lines = [f"{wish.size} x {wish.size} px, {wish.threads} thread(s) of the CPU; measured in this run:"]
    for device, roofline in rooflines.items():
        product, copy = f"{roofline.gflops:.0f} GFLOP/s (float32)", f"{roofline.gbytes:.1f} GB/s"
        lines.append(f"- {device}: matrix product {product}, memory copy {copy}")
    return lines


def _verdicts(result: Result, wish: Wish) -> list[str]:
    ours = fastest(result.rows)
    if ours is None:
        return []
    p50 = ours.quantile(0.5)
    lines = [f"- fastest of ours, one frame: {ours.runtime} {ours.precision}, p50 {p50:.1f} ms"]
    if wish.size == 256:
        lines[0] += f" (goal of {GOAL:g} ms with two threads: {'reached' if p50 <= GOAL else 'not reached'})"
    if ours.work is not None:
        least = result.rooflines[ours.device].least_ms(ours.work)
        lines.append(
            f"- its products need {ours.work.gflop:.2f} GFLOP a frame: {least:.1f} ms at the float32 peak measured here"
        )
    for name in dict.fromkeys(row.model for row in result.rows if row.model != OURS):
        theirs = fastest(result.rows, name)
        if theirs is not None:
            took = theirs.quantile(0.5)
            lines.append(f"- {name}: fastest {took:.1f} ms ({theirs.runtime}), {took / p50:.1f} times ours")
    speeds = [row.figures()["images_per_s"] for row in result.rows if row.device == "cuda"]
    if speeds and wish.size == 256:
        lines.append(f"- on the GPU at most {max(speeds):.0f} images/s; published for EfficientAD-S: {PUBLISHED}")
    return lines


def _wafer_lines(result: Result) -> list[str]:
    lines = []
    for row in result.wafers:
        took = row.quantile(0.5)
        line = (
            f"- wafer, {WAFER_FRAMES} frames of {WAFER_SIDE} x {WAFER_SIDE} px, canvas {row.canvas} px, {row.runtime} "
            f"{row.covers}: {took:.0f} ms of {WAFER_BUDGET:g} ms"
        )
        if row.work is not None:
            roofline = result.rooflines[row.device]
            least, limit = roofline.least_ms(row.work), roofline.limit(row.work)
            line += f"; limited by {limit}: {row.work.gflop:.0f} GFLOP take {least:.0f} ms at the float32 peak"
        lines.append(line)
    return lines


def _columns(row: Row, roofline: Roofline, wish: Wish) -> dict[str, Any]:
    work = row.work
    return {
        "model": row.model,
        "runtime": row.runtime,
        "precision": row.precision,
        "batch": row.batch,
        "frame": row.frame,
        "canvas": row.canvas,
        "way": row.covers,
        "threads": wish.threads,
        "runs": len(row.times),
        **row.figures(),
        "gflop": work.gflop if work else None,
        "gbyte": work.gbyte if work else None,
        "roofline_ms": roofline.least_ms(work) if work else None,
        "machine_gflops": roofline.gflops,
        "machine_gbytes_per_s": roofline.gbytes,
    }


def plot(result: Result, path: Path) -> None:
    """Draws p50 to p99 of every row with one frame as bars, beside the images a second of our rows by frames a run."""
    from matplotlib.figure import Figure

    single = sorted((row for row in result.rows if row.batch == 1), key=lambda row: -row.quantile(0.5))
    many = [row for row in result.rows if row.model == OURS]
    figure = Figure(figsize=(12, 1.6 + 0.34 * max(len(single), len(many) / 2)), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _bars(left, single, result.rooflines)
    _throughput(right, many)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _bars(panel: Any, rows: Sequence[Row], rooflines: Mapping[str, Roofline]) -> None:
    for place, row in enumerate(rows):
        p50, p99 = row.quantile(0.5), row.quantile(0.99)
        panel.barh(place, p50, color="C0" if row.model == OURS else "0.7")
        panel.plot([p50, p99], [place, place], color="0.2", marker="|")
        end = p99
        if row.work is not None:
            least = rooflines[row.device].least_ms(row.work)
            panel.plot([least, least], [place - 0.4, place + 0.4], color="C3", linewidth=2)
            end = max(p99, least)
        panel.annotate(f"{p50:.1f}", (end, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    panel.set_yticks(range(len(rows)), [f"{row.model}, {row.runtime} {row.precision}" for row in rows], fontsize=8)
    panel.axvline(GOAL, color="0.4", linestyle=":")
    panel.set(xlabel="ms from raw frame to decision, one frame: p50 (bar) to p99 (line)")
    panel.set_title("red: least time at the machine's float32 peak; dotted: goal of 10 ms", fontsize=9)
    panel.set_xlim(0, 1.12 * max(row.quantile(0.99) for row in rows) if rows else 1)


def _throughput(panel: Any, rows: Sequence[Row]) -> None:
    batches = sorted({row.batch for row in rows})
    names = list(dict.fromkeys(f"{row.runtime} {row.precision}" for row in rows))
    height = 0.8 / max(1, len(batches))
    for index, batch in enumerate(batches):
        own = {f"{row.runtime} {row.precision}": row.figures()["images_per_s"] for row in rows if row.batch == batch}
        places = [names.index(name) + (index - (len(batches) - 1) / 2) * height for name in own]
        panel.barh(places, list(own.values()), height=height, color=f"C{index}", label=f"{batch} frame(s) a run")
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.set(xlabel="images per second at the median")
    panel.legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
