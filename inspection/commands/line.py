"""The command `anomaly inspect run`: parts from a source, judged as a recipe says, into durable results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_NOT_JUDGED, EXIT_ERROR = 1, 2


def run_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe (.toml) that `anomaly inspect init` wrote.")],
    source: Annotated[
        str,
        typer.Option(
            help="FOLDER, FILE or LIST.txt: images that are there already; watch:FOLDER: images that come into it; "
            "video:FILE; camera:0, rtsp://...: USB and IP cameras; gige:SERIAL: GigE Vision; "
            "python:MODULE:FUNCTION: parts that a Python function yields."
        ),
    ],
    serial: Annotated[
        str, typer.Option(help=r"Regular expression of the serial number in a file name, e.g. 'SN(\d+)'.")
    ] = "",
    producer: Annotated[
        Path | None, typer.Option(help="GenTL producer (.cti) of the camera's vendor, for gige:.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output at the end, for machines.")
    ] = False,
) -> None:
    """Run a line: every part of the source ends as exactly one stored result.

    What could not be judged is NG or REVIEW, as the recipe says, with the
    reason; never OK. Ctrl-C or SIGTERM stops the line after the parts in
    flight, a second one does not wait for them. After a kill, a watched folder
    goes on where it was.

    Exit status: 0 all parts were judged; 1 some were not (unreadable, timeout,
    overload, stopped, ...); 2 the line could not start, or stopped because its
    source or the storing of results failed.

    Examples:
        anomaly inspect run lid.toml --source parts/

        anomaly inspect run lid.toml --source watch:/mnt/camera --serial 'SN([0-9]+)'

        anomaly inspect run lid.toml --source camera:0 --json > summary.json
    """
    import json

    from rich.console import Console

    from inspection.line.running import run_recipe
    from inspection.line.summary import as_json as as_values
    from inspection.line.summary import in_words

    outcome = run_recipe(recipe, source, serial, producer, Console(stderr=True))
    status, problems = outcome.status, outcome.problems
    values = {"run": outcome.run, **as_values(status), "problems": problems, "error": outcome.error or None}
    typer.echo(json.dumps(values, indent=2) if as_json else in_words(outcome.run, status))
    for problem in problems:
        typer.secho(f"  {problem}", fg=typer.colors.YELLOW, err=True)
    if outcome.error:
        typer.secho(f"Error: {outcome.error}", fg=typer.colors.RED, err=True)
        raise typer.Exit(EXIT_ERROR)
    if status.figures.judged < status.figures.reported:
        raise typer.Exit(EXIT_NOT_JUDGED)
