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


def pseudonyms_of(key_file: Path | None = None) -> Pseudonyms:
    """Returns pseudonyms with the site's key; with a key of this run alone where the site has none."""
    from medical.pseudonyms import Pseudonyms, key_from

    return Pseudonyms(key_from(key_file) or secrets.token_bytes(32))


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
