"""The command `anomaly triage run`: studies -> worklist, and DICOM results where they are asked for."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from medical.outcome import Priority
    from medical.reading import Inventory

EXIT_SOME_FAILED = 1


def run_command(
    model: Annotated[Path, typer.Argument(help="Model that `anomaly triage fit` wrote.")],
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, folders, DICOMDIR or ZIP archives.")],
    out: Annotated[Path, typer.Option(help="Folder for the worklist (HTML, CSV, JSON), log and audit trail.")],
    dicom: Annotated[bool, typer.Option("--dicom", help="Also write results as DICOM objects, into dicom/.")] = False,
    with_heatmaps: Annotated[
        bool, typer.Option("--with-heatmaps", help="Mark regions: thumbnails, segmentations, parametric maps.")
    ] = False,
    priorities: Annotated[
        Path | None, typer.Option(help="CSV (study,priority) of the site's priorities; else the objects say them.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="Key of pseudonyms; default: ANOMALY_MEDICAL_KEY, else one kept in the folder.")
    ] = None,
) -> None:
    """Sort studies by how rare they look among normal ones. Priorities are raised, never lowered.

    A study that is not flagged is not thereby normal. What could not be analysed keeps the site's priority and says
    why. Research use, not a medical device.

    A second run into the same folder replaces the worklist, and the DICOM results of the studies that it judges.

    Exit status: 0 done; 1 done, but some images were not analysed (the worklist says which and why); 2 not done, no
    worklist was written; 130 stopped, neither.

    Examples:
        anomaly triage run chest.safetensors incoming/ --out worklist

        anomaly triage run chest.safetensors incoming/ --out worklist --dicom --with-heatmaps
    """
    from datetime import datetime

    from anomaly.progress import bars
    from medical.commands.shared import made_folder, say_refused
    from medical.model import TriageModel
    from medical.privacy.logs import set_up_logging
    from medical.pseudonyms import key_from
    from medical.reading import PixelReader, take_inventory
    from medical.run_folder import DICOM, LOG, folder_pseudonyms
    from medical.running import Run
    from medical.triage import Triage
    from medical.worklist import About, write_worklist

    triage_model = TriageModel.load(model)
    known = _priorities(priorities) if priorities else {}
    key = key_from(key_file)
    pseudonyms = folder_pseudonyms(made_folder(out), key)
    set_up_logging(out / LOG)
    run = Run(out, triage_model, pseudonyms, key, dicom=dicom, with_heatmaps=with_heatmaps)
    with (
        bars() as progress,
        PixelReader() as reader,
        take_inventory(paths, pseudonyms, progress, reader) as inventory,
        _something(inventory),
        run,
    ):
        triage = Triage(triage_model, reader, pseudonyms, keep_maps=with_heatmaps, priorities=known.get)
        advance = progress("analysing studies", len(inventory.studies))
        for outcome in triage.outcomes(inventory.studies):
            run.add(outcome)
            advance(1)
        about = About(triage_model.algorithm(), triage_model.artifact.calibration, datetime.now().astimezone())
        written = write_worklist(run.outcomes, out, about, run.pictures, strays=inventory.refused)
    flagged = sum(outcome.flagged for outcome in run.outcomes)
    silent = sum(outcome.refusal is not None for outcome in run.outcomes)
    typer.echo(
        f"{len(run.outcomes)} studies: {flagged} flagged, {silent} not analysed. Open {written.html} in a browser."
    )
    if dicom:
        typer.echo(f"{len(run.written)} DICOM results in {out / DICOM}.")
    if run.replaced:
        typer.echo(
            f"{run.replaced} DICOM results of earlier runs were replaced: their studies were judged anew.", err=True
        )
    if run.left:
        words = (
            f"{run.left} DICOM results of earlier runs are left in {out / DICOM}: this run wrote none of their studies."
        )
        typer.secho(words, fg=typer.colors.YELLOW, err=True)
    if lost := len(known.keys() - {outcome.study for outcome in run.outcomes}):
        typer.secho(f"{lost} priorities are of studies that are not in the worklist.", fg=typer.colors.YELLOW, err=True)
    for line in run.failed:
        typer.secho(f"not written: {line}", fg=typer.colors.YELLOW, err=True)
    refused = [one for outcome in run.outcomes for one in (*outcome.refused, *outcome.others)]
    if say_refused([*inventory.refused, *refused]) or silent or run.failed:
        raise typer.Exit(EXIT_SOME_FAILED)


@contextmanager
def _something(inventory: Inventory) -> Iterator[None]:
    """Nothing at all is no result: a folder that is empty by mistake must not look like a quiet morning."""
    from anomaly.errors import SettingError

    if not inventory.files:
        raise SettingError("there is no file below what was given; nothing was analysed and no worklist was written")
    yield


def _priorities(path: Path) -> Mapping[str, Priority]:
    import csv

    from anomaly.errors import DatasetError
    from medical.outcome import Priority

    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = [(row["study"].strip(), Priority(row["priority"].strip().upper())) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, AttributeError) as error:
        allowed = ", ".join(Priority)
        raise DatasetError(f"{path} must be a CSV with the columns study and priority ({allowed}): {error}") from error
    if len(dict(rows)) < len(rows):
        raise DatasetError(f"{path} names {len(rows) - len(dict(rows))} studies more than once; give one priority each")
    return dict(rows)
