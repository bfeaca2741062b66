"""What the commands of triage have in common."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from medical.objects import RefusedFile
    from medical.pseudonyms import Pseudonyms


def pseudonyms_with(key_file: Path | None = None) -> tuple[Pseudonyms, bytes | None]:
    """Returns pseudonyms and the site's key; pseudonyms of this run alone, and None, where the site has no key.

    Raises:
        SettingError: there is a key, but it cannot be used.
    """
    from medical.pseudonyms import Pseudonyms, key_from

    key = key_from(key_file)
    return Pseudonyms(key or secrets.token_bytes(32)), key


def made_folder(folder: Path) -> Path:
    """Makes a folder for results that its owner alone can read, and returns it; one that is there stays as it is.

    Raises:
        SettingError: it cannot be made.
    """
    from anomaly.errors import SettingError

    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise SettingError(f"the folder {folder} cannot be made: {error.strerror}") from error
    return folder


def say_refused(refused: Sequence[RefusedFile]) -> None:
    """Says how many objects were refused, and why; no file is named, since names of files may name patients."""
    if not refused:
        return
    counts = Counter(one.refusal.reason for one in refused)
    examples = {one.refusal.reason: one.refusal.detail for one in reversed(refused)}
    typer.secho(f"\n{len(refused)} object(s) were not used:", fg=typer.colors.YELLOW, err=True)
    for reason, count in counts.most_common():
        more = "e.g. " if count > 1 else ""
        typer.echo(f"  {count} x {reason}: {more}{examples[reason]}", err=True)
