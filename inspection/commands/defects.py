"""The command `anomaly inspect defects`: the defects of stored results as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inspection.commands.selecting import ModelSha, PasswordEnv, RunId, Since, Store, Until


def defects_command(
    store: Store,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, *.csv or *.jsonl.")],
    run: RunId = "",
    since: Since = "",
    until: Until = "",
    model_sha256: ModelSha = "",
    password_env: PasswordEnv = "",
) -> None:
    """Write a list of all defects: part, place, size in millimetres, severity, p-value.

    Example: anomaly inspect defects results.sqlite -o defects.csv --since 2026-11-23
    """
    from inspection.commands.selecting import Selection, opened
    from inspection.defect_list import write_defects

    selection = Selection(run=run, since=since, until=until, model=model_sha256)
    with opened(store, password_env) as results:
        count = write_defects(output, selection.results(results))
    typer.echo(f"Wrote {count} defect(s) of {selection.in_words()} to {output}.")
