"""The commands `anomaly bench run`, `reproduce` and `report`."""

from pathlib import Path
from typing import Annotated

import typer


def run_command(
    data: Annotated[
        str,
        typer.Option(
            help="Comma separated: shared sets, public sets at hand, NAME=FOLDER in the layout of the authors, or "
            "folders with train/good (or products that have it)."
        ),
    ],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the run; the same folder goes on where it was stopped.")
    ],
    detectors: Annotated[str, typer.Option(help="Of our catalogue, comma separated; empty for none.")] = (
        "subspace,memory_bank"
    ),
    peers: Annotated[str, typer.Option(help="Of other programs, comma separated, like anomalib:Patchcore.")] = "",
    backbones: Annotated[
        str, typer.Option(help="Of our detectors: bundled, resnet18 (the weights that peers get), or names of timm.")
    ] = "bundled",
    seeds: Annotated[str, typer.Option(help="Each seed is a fit of its own.")] = "0",
    limit: Annotated[int | None, typer.Option(help="Training images and test images at most; all by default.")] = None,
    threads: Annotated[int | None, typer.Option(help="Threads of a fit and of a scoring; default: all cores.")] = None,
    epochs: Annotated[int, typer.Option(help="Passes of anomalib's trained models.")] = 20,
    runs: Annotated[int, typer.Option(help="Timed calls of the latency at batch 1.")] = 50,
    held_out: Annotated[float, typer.Option(help="Share of the training normals that makes the thresholds.")] = 0.25,
    ray: Annotated[bool, typer.Option("--ray", help="Rows side by side through Ray (extra `ray`).")] = False,
    fresh: Annotated[bool, typer.Option("--fresh", help="Set earlier results of the folder aside.")] = False,
) -> None:
    """Measure detectors and peers on data sets: one row per set or product, detector, backbone and seed.

    Quality with intervals, kept false-alarm promises, time, memory, size; fit and scoring have a process of their own.
    Rows that are in OUT/results.csv are not measured again. Exit status 1: a row failed.

    Examples:
        anomaly bench run --data bsdata --detectors subspace --limit 40 --out try      a quick try

        anomaly bench run --data magnetic_tile,elpv_mono --peers anomalib:Patchcore --backbones resnet18 --out runs/a

        anomaly bench run --data mvtec_ad=/data/mvtec --seeds 0,1,2 --out runs/mvtec

        anomaly bench run --data my_parts/ --detectors subspace,memory_bank,gaussian --out runs/mine
    """
    import os

    from anomaly.progress import bars
    from benchmarks.commands import names, whole_numbers
    from benchmarks.running.run import RESULTS, Settings, Wish, run

    wish = Wish(
        data=tuple(names(data)),
        detectors=tuple(names(detectors)),
        peers=tuple(names(peers)),
        backbones=tuple(names(backbones)),
        seeds=whole_numbers("--seeds", seeds),
    )
    settings = Settings(
        limit=limit, threads=threads or os.cpu_count() or 1, held_out=held_out, epochs=epochs, runs=runs
    )
    with bars() as progress:
        failed = run(wish, settings, out, fresh=fresh, ray=ray, progress=progress)
    typer.echo(f"{out / RESULTS} is complete but for {len(failed)} row(s)." if failed else f"wrote {out / RESULTS}")
    typer.echo(f"tables and pictures: anomaly bench report {out} --out {out / 'report'}")
    for line in failed:
        typer.echo(f"FAILED {line}", err=True)
    if failed:
        raise typer.Exit(1)


def reproduce_command(
    known: Annotated[Path, typer.Argument(help="Folder of `anomaly bench run`, e.g. benchmarks/results/run.")],
    out: Annotated[
        Path, typer.Option("--out", help="Folder of the new run; the same folder goes on where it stopped.")
    ],
) -> None:
    """Measure all rows of a run anew, with its settings, and say whether its figures come out again.

    Exit status 1: a row differs by more than the noise that is printed, or could not be measured.

    Examples:
        anomaly bench reproduce benchmarks/results/run --out runs/again
    """
    from anomaly.progress import bars
    from benchmarks.running.reproducing import AGAIN, reproduce, told

    with bars() as progress:
        found = reproduce(known, out, progress)
    typer.echo(told(found))
    if any(one.verdict != AGAIN for one in found):
        raise typer.Exit(1)


def report_command(
    runs: Annotated[list[Path], typer.Argument(help="Folders of `anomaly bench run`; one table of all.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for report.md, report.html and the pictures.")],
    scaling: Annotated[
        list[Path] | None, typer.Option(help="scaling.csv of `python -m benchmarks.scaling`: fitted exponents.")
    ] = None,
    note: Annotated[list[str] | None, typer.Option(help="A sentence for the top of the report.")] = None,
) -> None:
    """Tables and pictures of runs: per set, means, who wins, accuracy against latency, kept promises.

    The best figure is marked only where the lead is outside the noise of test images and seeds.

    Examples:
        anomaly bench report runs/a --out runs/a/report

        anomaly bench report runs/a runs/b --scaling runs/scaling.csv --note "Two cores, busy." --out report
    """
    from benchmarks.reporting.report import write_report

    for path in write_report(runs, out, scaling or [], note or []):
        typer.echo(f"wrote {path}")
