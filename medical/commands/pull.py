"""The command `anomaly triage pull`: studies out of a PACS into a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from anomaly.errors import SettingError

if TYPE_CHECKING:
    from medical.pacs.pull import Source

EXIT_SOME_FAILED = 1


def pull_command(
    source: Annotated[str, typer.Argument(help="http(s)://HOST/dicom-web, or AE_TITLE@HOST:PORT.")],
    out: Annotated[Path, typer.Option(help="Folder; files that are there already are not fetched again.")],
    dates: Annotated[str, typer.Option("--date", help="Study dates: YYYYMMDD or YYYYMMDD-YYYYMMDD.")] = "",
    modality: Annotated[str, typer.Option(help="A modality that the studies have, e.g. CR.")] = "",
    accessions: Annotated[Path | None, typer.Option(help="Text file with one accession number per line.")] = None,
    calling: Annotated[str, typer.Option(help="Our AE title, for AE_TITLE@HOST:PORT.")] = "ANOMALY",
    tls: Annotated[Path | None, typer.Option(help="Settings of `serve` whose [node.tls] is used, for DICOM.")] = None,
    header_env: Annotated[
        list[str] | None, typer.Option(help="HEADER=VARIABLE: header with the value of an environment variable.")
    ] = None,
    key_file: Annotated[Path | None, typer.Option(help="Key of the pseudonyms; else ANOMALY_MEDICAL_KEY.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Copy studies out of a PACS into a folder with pseudonymous names; goes on where it was stopped.

    The files hold what the PACS holds, patient data too: keep the folder
    private. Exit status: 0 all was copied; 1 some studies were not, named by
    pseudonym; 2 the PACS could not be asked.

    Examples:
        anomaly triage pull http://127.0.0.1:8042/dicom-web --date 20260101-20260131 --modality CR --out studies/

        anomaly triage pull ORTHANC@127.0.0.1:4242 --accessions list.txt --out studies/
    """
    import json

    from anomaly.progress import bars
    from medical.pacs.pull import Query, pull
    from medical.privacy.logs import set_up_logging
    from medical.pseudonyms import key_from

    set_up_logging(None)
    query = Query(dates, modality, _lines(accessions) if accessions else ())
    chosen = _source(source, calling, tls, header_env or [])
    with bars() as progress:
        pulled = pull(chosen, query, out, key_from(key_file), progress)
    counts = {"studies": pulled.studies, "fetched": pulled.fetched, "present": pulled.present}
    if as_json:
        typer.echo(json.dumps({**counts, "problems": pulled.problems}, indent=2))
    else:
        typer.echo(f"{pulled.studies} studies: {pulled.fetched} objects fetched, {pulled.present} were there already.")
    for study, why in pulled.problems.items():
        typer.echo(f"  study {study}: {why}", err=True)
    if pulled.problems:
        raise typer.Exit(EXIT_SOME_FAILED)


def _source(text: str, calling: str, tls: Path | None, headers: list[str]) -> Source:
    from pydantic import ValidationError

    from medical.pacs.associations import Remote
    from medical.pacs.pull import DicomSource, WebSource
    from medical.pacs.settings import Web, ae_title
    from medical.pacs.web import WebPeer

    try:
        if text.startswith(("http://", "https://")):
            pairs = dict(_pair(one) for one in headers)
            return WebSource(WebPeer(Web(url=text, headers_env=pairs)))
        title, at, where = text.partition("@")
        host, colon, port = where.rpartition(":")
        if not (at and colon and host and port.isdigit()):
            raise ValueError("must be http(s)://HOST/PATH or AE_TITLE@HOST:PORT")
        return DicomSource(Remote(ae_title(calling), ae_title(title), host, int(port), tls=_context(tls)))
    except ValidationError as error:
        raise SettingError(f"the source {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    except ValueError as error:
        if isinstance(error, SettingError):
            raise
        raise SettingError(f"the source {error}; got {text!r}") from None


def _context(settings: Path | None):  # type: ignore[no-untyped-def]  # noqa: ANN202 - ssl is loaded when it is needed
    if settings is None:
        return None
    from medical.pacs.scp import client_context
    from medical.pacs.settings import read_settings

    node = read_settings(settings).node
    if node.tls is None:
        raise SettingError(f"{settings} has no [node.tls]")
    return client_context(node)


def _pair(text: str) -> tuple[str, str]:
    name, equals, variable = text.partition("=")
    if not equals:
        raise SettingError("--header-env must be HEADER=VARIABLE, e.g. Authorization=PACS_TOKEN")
    return name, variable


def _lines(file: Path) -> tuple[str, ...]:
    try:
        found = tuple(line.strip() for line in file.read_text("utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"{file} cannot be read: {type(error).__name__}") from None
    if not found:
        raise SettingError(f"{file} holds no accession numbers")
    if any(letter in number for number in found for letter in "*?\\"):
        raise SettingError(f"{file}: accession numbers must have none of * ? \\")
    return found
