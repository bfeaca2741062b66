"""The command `anomaly triage check`: what DICOM files are, and whether and why not they can be analysed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from medical.reading.survey import ObjectRow, Survey

EXIT_SOME_REFUSED = 1
_WIDTH = 160


def check_command(
    paths: Annotated[list[Path], typer.Argument(help="Files, folders, DICOMDIRs or ZIP archives.")],
    json_file: Annotated[Path | None, typer.Option("--json", help="Also write objects and series as JSON.")] = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Also write the objects as CSV.")] = None,
) -> None:
    """Say of every DICOM object what it is, whether it can be analysed, and why not; and whether series are volumes.

    All pixels are decoded once, in a process with limited memory and time. No patient data are shown or written; file
    names are. The codes are explained in docs/triage-reading.md.

    Exit status: 0 all images can be analysed; 1 some cannot, the table says why; 2 not done, the error says why.

    Examples:
        anomaly triage check /data/ct_study

        anomaly triage check CD/DICOMDIR study.zip --json check.json --csv check.csv
    """
    from rich.console import Console

    from anomaly.progress import bars
    from medical.pseudonyms import Pseudonyms
    from medical.reading import PixelReader, take_inventory
    from medical.reading.survey import survey, write_csv, write_json

    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    nobody = Pseudonyms(os.urandom(32))  # keys of patients are not shown
    with (
        bars(1.0) as progress,
        PixelReader() as pixels,
        take_inventory(paths, nobody, progress, pixels) as inventory,
    ):
        found = survey(inventory, pixels, progress)
    console.print(_objects(found))
    if found.series:
        console.print(_series(found))
    if json_file is not None:
        write_json(found, json_file)
    if csv_file is not None:
        write_csv(found, csv_file)
    console.print(found.summary(), highlight=False)
    if found.refused:
        raise typer.Exit(EXIT_SOME_REFUSED)


def _objects(found: Survey) -> Table:
    from rich.markup import escape
    from rich.table import Column, Table

    file = Column("File", overflow="fold", ratio=4)
    columns = (file, Column("Object", ratio=3), Column("Pixels", ratio=2), Column("Encoding", ratio=3))
    table = Table(*columns, Column("Analysis", ratio=5), title="Objects", title_justify="left", expand=True)
    for row in found.objects:
        pixels = row.size if row.frames in (None, 1) else f"{row.size}, {row.frames} frames"
        decoder = "" if row.decoder in ("", "none") else f"\n[dim]{escape(row.decoder)}[/dim]"
        table.add_row(
            escape(row.file),
            escape(_what(row)),
            pixels,
            f"{row.transfer_syntax}{decoder}",
            _verdict(row.code, row.detail),
        )
    return table


def _what(row: ObjectRow) -> str:
    said = row.object.startswith(row.modality) or row.modality == "unknown"
    return row.object if said else f"{row.object} ({row.modality})"


def _series(found: Survey) -> Table:
    from rich.markup import escape
    from rich.table import Column, Table

    first = Column("First file", overflow="fold", ratio=4)
    columns = ("Series", "Modality", "Objects", first, Column("Geometry", ratio=8))
    table = Table(*columns, title="Series", title_justify="left", expand=True)
    for row in found.series:
        verdict = _verdict(row.code, row.detail)
        table.add_row(str(row.number), escape(row.modality), str(row.objects), escape(row.first), verdict)
    return table


def _verdict(code: str, detail: str) -> str:
    from rich.markup import escape

    from medical.reading.survey import IMAGES, NOTHING, READABLE, VOLUME

    colour = "green" if code in (READABLE, VOLUME, IMAGES) else "cyan" if code in NOTHING else "yellow"
    return f"[{colour}]{code}[/{colour}]{f': {escape(detail)}' if detail else ''}"
