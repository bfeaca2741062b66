"""The commands `anomaly inspect review ...`: parts to people, verdicts back, and what follows from them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from inspection.commands.selecting import ModelSha, OkShare, PasswordEnv, Pictures, RunId, Since, Store, Until

review_app = typer.Typer(help="Hand parts to people, take back verdicts, and learn from them.", no_args_is_help=True)
EXIT_WORSE = 3


@review_app.command("export")
def export_command(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder for review.html and verdicts.csv.")],
    ok_share: OkShare = 0.02,
    run: RunId = "",
    since: Since = "",
    until: Until = "",
    model_sha256: ModelSha = "",
    pictures: Pictures = None,
    password_env: PasswordEnv = "",
) -> None:
    """Hand out the stopped parts and a random sample of the passed ones, with pictures and a table of verdicts.

    The sample is needed: stopped parts alone say how many good ones are rejected, but never how many bad ones escape.
    Parts that have a verdict already are left out.

    Example: anomaly inspect review export results.sqlite --out review --ok-share 0.05
    """
    from anomaly.progress import bars
    from inspection.commands.selecting import Selection, new_folder, opened, picture_folder
    from inspection.review.export import CSV, HTML, write_export

    selection = Selection(run=run, since=since, until=until, model=model_sha256)
    folder = picture_folder(store, pictures)
    with opened(store, password_env) as results, bars(2.0) as progress:
        new_folder(out, (HTML, CSV))
        title = f"Review of {Path(store).stem}: {selection.in_words()}"
        found = write_export(out, selection.results(results), ok_share, folder, title=title, progress=progress)
    lines = [f"{found.in_words()}."]
    if found.reviewed:
        lines.append(f"Left out, because they have a verdict already: {found.reviewed:,}.")
    if found.without_picture:
        lines.append(
            f"Without a picture: {found.without_picture:,}; [results.pictures] of the recipe says what is stored."
        )
    lines.append(f"Judge them in {out / HTML} and save the table there, or fill in {out / CSV}; then:")
    lines.append(f"  anomaly inspect review import {store} verdicts.csv --who NAME")
    typer.echo("\n".join(lines))


@review_app.command("import")
def import_command(
    store: Store,
    table: Annotated[Path, typer.Argument(help="Table of verdicts, as `review export` gives and people fill in.")],
    who: Annotated[str, typer.Option(help="Who gave the verdicts; stored with them.")],
    correct: Annotated[
        bool, typer.Option("--correct", help="Verdicts may differ from stored ones; both stay, the newer one counts.")
    ] = False,
    password_env: PasswordEnv = "",
) -> None:
    """Store verdicts. Every row is checked first; if one is not right, all faults are listed and nothing is stored.

    Example: anomaly inspect review import results.sqlite verdicts.csv --who "A. Meier"
    """
    from inspection.commands.selecting import opened
    from inspection.review.taking import take_verdicts

    with opened(store, password_env) as results:
        taken = take_verdicts(results, table, who, correct=correct)
    typer.echo(taken.in_words())


@review_app.command("summary")
def summary_command(
    store: Store,
    ok_share: OkShare = 0.02,
    review_rate: Annotated[float, typer.Option(help="Wanted share of good parts that are not called OK.")] = 0.10,
    ng_rate: Annotated[float, typer.Option(help="Wanted share of good parts that are called NG.")] = 0.01,
    confidence: Annotated[float, typer.Option(help="Of intervals and promises.")] = 0.95,
    run: RunId = "",
    since: Since = "",
    until: Until = "",
    model_sha256: ModelSha = "",
    password_env: PasswordEnv = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Say what the verdicts mean: false-reject and escape rates with intervals, new thresholds, old and new compared.

    Nothing is replaced; --ok-share must be that of the export.

    Exit status: 0 done; 2 not done, the error says why; 3 done, but the new thresholds would pass a known defect.

    Example: anomaly inspect review summary results.sqlite --ok-share 0.05 --review-rate 0.02
    """
    import json

    from inspection.commands.selecting import Selection, opened
    from inspection.review.summary import summarise
    from inspection.review.units import Unit

    selection = Selection(run=run, since=since, until=until, model=model_sha256)
    with opened(store, password_env) as results:
        units = [Unit.of(stored) for stored in selection.results(results)]
    found = summarise(units, ok_share, review_rate=review_rate, ng_rate=ng_rate, confidence=confidence)
    typer.echo(json.dumps(found.to_dict(), indent=2) if as_json else "\n".join(found.in_words()))
    if found.comparison is not None and found.comparison.worse:
        raise typer.Exit(EXIT_WORSE)


@review_app.command("normals")
def normals_command(
    store: Store,
    out: Annotated[Path, typer.Option(help="New or empty folder for the raw frames and normals.csv.")],
    model: Annotated[Path, typer.Option(help="Model file (.safetensors) that is to learn them.")],
    representative: Annotated[
        bool,
        typer.Option("--representative", help="The random sample instead, for `anomaly inspect calibrate`."),
    ] = False,
    ok_share: OkShare = 0.02,
    run: RunId = "",
    since: Since = "",
    until: Until = "",
    model_sha256: ModelSha = "",
    pictures: Pictures = None,
    password_env: PasswordEnv = "",
) -> None:
    """Collect the raw frames of parts that people called OK, for a refit; prints the command that learns them.

    Parts of the random sample are kept out of it: they are for the calibration that follows (--representative).

    Example: anomaly inspect review normals results.sqlite --out accepted --model lid.safetensors
    """
    from inspection.commands.selecting import Selection, opened, picture_folder
    from inspection.review.normals import collect_normals

    selection = Selection(run=run, since=since, until=until, model=model_sha256)
    folder = picture_folder(store, pictures)
    with opened(store, password_env) as results:
        found = collect_normals(selection.results(results), out, folder, model, ok_share, representative=representative)
    typer.echo("\n".join(found.in_words()))
