"""The command `anomaly inspect defects`: the defects of stored results as a table."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inspection.commands.selecting import ModelSha, PasswordEnv, Pictures, RunId, Since, Store, Until


def defects_command(
    store: Store,
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, *.csv or *.jsonl.")],
    run: RunId = "",
    since: Since = "",
    until: Until = "",
    model_sha256: ModelSha = "",
    crops: Annotated[Path | None, typer.Option(help="Folder for a picture of each defect, cut from its frame.")] = None,
    pictures: Pictures = None,
    password_env: PasswordEnv = "",
) -> None:
    """Write a list of all defects: part, place, size in millimetres, severity, p-value; a picture of each if wanted.

    Examples:
        anomaly inspect defects results.sqlite -o defects.csv --since 2026-11-23

        anomaly inspect defects results.sqlite -o defects.jsonl --crops crops/
    """
    from inspection.commands.selecting import Selection, opened, picture_folder
    from inspection.crops import write_crops
    from inspection.defect_list import write_defects

    selection = Selection(run=run, since=since, until=until, model=model_sha256)
    folder = None if crops is None else picture_folder(store, pictures)
    with opened(store, password_env) as results:
        count = write_defects(output, selection.results(results))
        typer.echo(f"Wrote {count} defect(s) of {selection.in_words()} to {output}.")
        if crops is not None and folder is not None:
            cut = write_crops(crops, selection.results(results), folder)
            missing = f"; of {cut.without_frame} no raw frame is stored" if cut.without_frame else ""
            typer.echo(f"Wrote {cut.written} picture(s) of defects to {crops}{missing}.")
