"""The command `anomaly inspect report`: a page about a run, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inspection.commands.selecting import ModelSha, PasswordEnv, Pictures, RunId, Since, Store, Until


def report_command(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder for report.html and parts.csv.")],
    run: RunId = "",
    since: Since = "",
    until: Until = "",
    model_sha256: ModelSha = "",
    pictures: Pictures = None,
    password_env: PasswordEnv = "",
) -> None:
    """Write a page about stored results: what was not judged, decisions, reasons, yield, and the worst parts.

    The page opens without a network.

    Example: anomaly inspect report results.sqlite --out monday --since 2026-11-23 --until 2026-11-24
    """
    from anomaly.progress import bars
    from inspection.commands.selecting import Selection, new_folder, opened, picture_folder
    from inspection.report.run_page import CSV, HTML, write_report

    selection = Selection(run=run, since=since, until=until, model=model_sha256)
    folder = picture_folder(store, pictures)
    with opened(store, password_env) as results, bars(2.0) as progress:
        new_folder(out, (HTML, CSV))
        title = f"{Path(store).stem}: {selection.in_words()}"
        headline = write_report(out, selection.results(results), folder, title=title, progress=progress)
    typer.echo(f"{headline}.\nOpen {out / HTML} in a browser; all parts are in {out / CSV}.")
