"""The commands `anomaly triage audit ...`: the audit trail."""

from pathlib import Path
from typing import Annotated

import typer

audit_app = typer.Typer(help="The audit trail of the radiology commands.", no_args_is_help=True)
EXIT_FAULTS = 3


@audit_app.callback()
def _audit() -> None:
    """The audit trail of the radiology commands."""


@audit_app.command("verify")
def verify_command(
    trail: Annotated[Path, typer.Argument(help="File of the trail; its head lies beside it.", exists=True)],
    key_file: Annotated[
        Path | None, typer.Option(help="Key of the trail; else that of the environment (ANOMALY_MEDICAL_KEY).")
    ] = None,
    noted: Annotated[str | None, typer.Option(help="Hash that an earlier check printed; must still be there.")] = None,
) -> None:
    """Check that no record of an audit trail was changed, removed, added or cut off.

    Exit status 0: whole; 3: faults, each with its line. Note down the hash
    that is printed: only with it can a trail be told from one that was put
    back to an earlier state together with its head.

    Examples:
        anomaly triage audit verify audit.jsonl --key-file key.hex

        anomaly triage audit verify audit.jsonl --key-file key.hex --noted 5d41402abc4b2a76b9719d911017c592...
    """
    from medical.privacy.audit import verify
    from medical.pseudonyms import key_from

    found = verify(trail, key_from(key_file), noted=noted)
    for line, words in found.faults:
        typer.secho(f"line {line}: {words}", fg=typer.colors.RED)
    if found.faults:
        typer.secho(f"FAULTS: {len(found.faults)}, beside {found.records} good records.", fg=typer.colors.RED)
        raise typer.Exit(EXIT_FAULTS)
    typer.echo(f"Whole: {found.records} records, the last with the hash\n{found.hash}")
    if found.records and not found.keyed:
        typer.echo("Made without a key: whoever can write the files could have made them anew.")
