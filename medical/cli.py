"""The commands `anomaly triage ...`. Each lies in its own file, which loads what it needs when it runs."""

import typer

app = typer.Typer(
    help="Radiology triage: DICOM in, worklist and DICOM results out. Research use, not a medical device.",
    no_args_is_help=True,
)
