"""The command `anomaly triage deidentify`: DICOM files -> DICOM files under pseudonyms."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from medical.privacy.deidentify_files import FileResult

EXIT_SOME_NOT_WRITTEN = 1


def deidentify_command(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders, DICOMDIRs or ZIP archives.")],
    out: Annotated[Path, typer.Option(help="Folder of the results and of deidentified.csv.")],
    modified_dates: Annotated[
        bool,
        typer.Option("--modified-dates", help="Move dates, by the same days for all of a patient, and keep times."),
    ] = False,
    patient_characteristics: Annotated[
        bool, typer.Option("--patient-characteristics", help="Keep sex, age, size, weight.")
    ] = False,
    device_identity: Annotated[
        bool, typer.Option("--device-identity", help="Keep names and numbers of devices.")
    ] = False,
    keep_uids: Annotated[bool, typer.Option("--keep-uids", help="Keep UIDs; they lead back to the originals.")] = False,
    accept_burned_in_risk: Annotated[
        bool, typer.Option("--accept-burned-in-risk", help="Also write objects whose pixels may show a name.")
    ] = False,
    key_file: Annotated[Path | None, typer.Option(help="Key of the pseudonyms; else ANOMALY_MEDICAL_KEY.")] = None,
) -> None:
    """Remove what tells who the patient is (PS3.15 Annex E, Basic Profile).

    Pixels are not changed. Objects whose pixels may show a name are not
    written unless you take that risk: look at them. Heads in CT and MR can
    be recognised by their faces; nothing is done about that.

    With the same key, patients, studies and objects get the same pseudonyms.

    Exit status: 0 all were written; 1 some were not, the table says why;
    2 not done, the error says why.

    Examples:
        anomaly triage deidentify studies/ --out clean/ --key-file key.hex

        anomaly triage deidentify CD/DICOMDIR --out clean/ --modified-dates
    """
    import secrets

    from rich.console import Console

    from anomaly.progress import bars
    from medical.privacy.deidentify_files import TABLE, WRITTEN, deidentify_files
    from medical.privacy.profile import Options
    from medical.pseudonyms import key_from

    key = key_from(key_file)
    if key is None:
        typer.secho("No key: the pseudonyms are of this run alone and cannot be made again.", fg="yellow", err=True)
    options = Options(modified_dates, patient_characteristics, device_identity, keep_uids)
    with bars(1.0) as progress:
        results = deidentify_files(
            paths,
            out,
            key or secrets.token_bytes(32),
            options,
            accept_burned_in_risk=accept_burned_in_risk,
            progress=progress,
        )
    console = Console() if Console().is_terminal else Console(width=140)
    if results:
        console.print(_table(results))
    written = sum(result.status == WRITTEN for result in results)
    typer.echo(f"{written} of {len(results)} files written under pseudonyms. All of them: {out / TABLE}")
    if written < len(results):
        typer.echo("Files are numbered in the order of `anomaly triage check` of the same paths.")
        raise typer.Exit(EXIT_SOME_NOT_WRITTEN)


def _table(results: list[FileResult]) -> Table:
    from rich.table import Table

    table = Table()
    for title in ("files", "result", "reason", "kind", "in words"):
        table.add_column(title, justify="right" if title == "files" else "left")
    counts = Counter((one.status, one.reason, one.kind, one.words) for one in results)
    for (status, reason, kind, words), count in sorted(counts.items(), key=lambda found: (found[0][0], -found[1])):
        table.add_row(str(count), status, reason.replace(" ", "\n"), kind, words or "de-identified")
    return table
