"""The commands `anomaly triage serve` and `anomaly triage queue`: the PACS service and what waits in it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from medical.pacs.overview import Row

Config = Annotated[Path | None, typer.Option("--config", help="Settings (.toml); `serve --example` prints an example.")]


def serve_command(
    config: Config = None,
    example: Annotated[bool, typer.Option("--example", help="Print a commented example of the settings.")] = False,
) -> None:
    """Receive studies, analyse them, send the results back and verify that they arrived.

    Takes objects by C-STORE, from a drop folder and from a DICOMweb server.
    Everything is in a durable queue: after a kill, a power cut or while the PACS
    is down nothing is lost and nothing is done twice. Log lines are JSON on
    standard error, without patient data. SIGTERM or Ctrl-C stops it.

    Examples:
        anomaly triage serve --example > pacs.toml

        anomaly triage serve --config pacs.toml
    """
    from medical.pacs.settings import example as example_text
    from medical.pacs.settings import read_settings

    if example:
        typer.echo(example_text(), nl=False)
        return
    settings = read_settings(_needed(config))
    from medical.pacs.service import Service

    Service(settings).run()


def queue_command(
    config: Config = None,
    everything: Annotated[bool, typer.Option("--all", help="Delivered and superseded studies, too.")] = False,
    retry: Annotated[
        str, typer.Option(help="Try a study again at once, by its pseudonym, or `all`: not analysed, failed, waiting.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what waits in the queue of the PACS service, which may run or not.

    Exit status: 0 nothing needs a person; 1 studies are not analysed or failed.

    Examples:
        anomaly triage queue --config pacs.toml

        anomaly triage queue --config pacs.toml --retry 3f2a9c0d1e4b5a69
    """
    import json

    from medical.pacs.database import Database
    from medical.pacs.overview import Overview
    from medical.pacs.settings import read_settings

    settings = read_settings(_needed(config))
    database = Database.open(settings.spool.folder / "queue.sqlite")
    try:
        overview = Overview(database)
        if retry:
            tried = overview.retry(None if retry == "all" else retry)
            typer.echo(f"Tried again: {tried} of the studies.", err=True)
        rows, counts = overview.rows(finished=everything), overview.counts()
    finally:
        database.close()
    if as_json:
        typer.echo(json.dumps({"counts": counts, "studies": [row.as_json() for row in rows]}, indent=2))
    else:
        _show(rows, counts)
    if counts["not_analysed"] or counts["failed"]:
        raise typer.Exit(1)


def _show(rows: list[Row], counts: dict[str, int]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("study", "rev.", "state", "age", "objects", "results", "waits for"):
        table.add_column(name, no_wrap=name in ("study", "state", "age"))
    for row in rows:
        waiting = ", ".join(f"{name} ({count})" for name, count in row.waiting.items())
        cells = (row.study, str(row.revision), row.state, _age(row.age_seconds), str(row.objects), str(row.results))
        table.add_row(*cells, waiting)
    if rows:
        console.print(table)
    for row in rows:
        if row.error:
            console.print(Text(f"{row.study}: {row.error}"))
    console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count) or "The queue is empty.")


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def _needed(config: Path | None) -> Path:
    if config is None:
        raise typer.BadParameter("give the settings: --config FILE; `anomaly triage serve --example` prints an example")
    return config
