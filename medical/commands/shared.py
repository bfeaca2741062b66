"""What the commands of triage have in common."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import typer

from anomaly.errors import AnomalyError

if TYPE_CHECKING:
    from medical.objects import RefusedFile
    from medical.pseudonyms import Pseudonyms

P = ParamSpec("P")


class StoppedError(AnomalyError):
    """A command ended by an error that it did not foresee. Without patient data."""


def discreet(command: Callable[P, None]) -> Callable[P, None]:
    """Returns the command such that what it did not foresee ends it with status 2 and words that name nobody.

    The text of a foreign error may hold what a file holds, and a traceback would show it; both would end with status 1,
    which says that the work was done.
    """

    @wraps(command)
    def run(*arguments: P.args, **named: P.kwargs) -> None:
        from medical.privacy.log_fields import Event
        from medical.privacy.logs import log, reduced, words_of

        try:
            command(*arguments, **named)
        except (AnomalyError, typer.Exit, typer.Abort):
            raise
        except Exception as error:
            log(Event.FAILED, error=error)
            words = f"stopped before the end: {words_of(error)} ({reduced(error)['raised']})"
            hint = "is there space, and may you write to the folder of the results?"
            raise StoppedError(f"{words}; {hint if isinstance(error, OSError) else 'please report it'}") from None

    return run


def site_pseudonyms() -> Pseudonyms:
    """Returns pseudonyms made with the site's key; where it has none, with one of this run alone.

    Raises:
        SettingError: there is a key, but it cannot be used.
    """
    from medical.pseudonyms import Pseudonyms, key_from

    return Pseudonyms(key_from(None) or secrets.token_bytes(32))


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


def say_refused(refused: Sequence[RefusedFile]) -> bool:
    """Says how many objects were refused, and why; no file is named, since names of files may name patients.

    Returns:
        Whether an image is among them, or what may be one.
    """
    from medical.objects import in_words, kinds_of

    others = [one for one in refused if not one.refusal.of_image]
    missed = [one for one in refused if one.refusal.of_image]
    if others:
        typer.echo(f"{len(others)} object(s) are no images: {in_words(kinds_of(others))}.", err=True)
    if not missed:
        return False
    counts = Counter(one.refusal.reason for one in missed)
    examples = {one.refusal.reason: one.refusal.detail for one in reversed(missed)}
    typer.secho(f"\n{len(missed)} object(s) were not used:", fg=typer.colors.YELLOW, err=True)
    for reason, count in counts.most_common():
        more = "e.g. " if count > 1 else ""
        typer.echo(f"  {count} x {reason}: {more}{examples[reason]}", err=True)
    return True
