"""The commands `anomaly bench ...`. Each lies in its own file, which loads what it needs when it runs."""

from pathlib import Path
from typing import Annotated

import typer

from benchmarks.datasets_cli import audit_command, check_command, datasets_command, download_command
from benchmarks.running_cli import report_command, reproduce_command, run_command

app = typer.Typer(
    help="Measure: detectors beside peers, latency on this machine, shortcuts and leaks of data sets.",
    no_args_is_help=True,
)
app.command("run")(run_command)
app.command("reproduce")(reproduce_command)
app.command("report")(report_command)
app.command("audit")(audit_command)
app.command("datasets")(datasets_command)
app.command("check")(check_command)
app.command("download")(download_command)


@app.command()
def latency(
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for latency.csv, latency.md and latency.svg.")
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="Timed calls of each row; larger batches get a fifth.")] = 80,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Threads of the CPU that one run uses; default: all cores.")
    ] = None,
    size: Annotated[int, typer.Option(min=32, help="Height and width of canvas and frame in pixels.")] = 256,
    batches: Annotated[str, typer.Option(help="Frames of one run, comma separated.")] = "1,8",
    peers: Annotated[
        bool, typer.Option(help="Also anomalib's own exports of Patchcore and Padim, where anomalib is installed.")
    ] = True,
    wafer: Annotated[bool, typer.Option(help="Also 36 frames of 512 x 512 px, against a budget of 360 ms.")] = True,
) -> None:
    """Time the default detector in every runtime that runs here: raw uint8 frame in, decision out.

    All rows take turns in one process, on the same number of threads, with the copies to and from the runtime. The
    machine's own limits (matrix product, memory copy) are measured in the same run. Takes about five minutes.

    Examples:
        anomaly bench latency --out results/latency

        anomaly bench latency --runs 10 --batches 1 --no-peers --no-wafer      a quick try
    """
    import os

    from anomaly.progress import bars
    from benchmarks.commands import numbers
    from benchmarks.latency_report import report
    from benchmarks.line_latency import Wish, measured

    wish = Wish(
        runs=runs,
        threads=threads or os.cpu_count() or 1,
        size=size,
        batches=numbers("--batches", batches),
        peers=peers,
        wafer=wafer,
    )
    with bars() as progress:
        result = measured(wish, progress)
    typer.echo(report(result, wish, out))
