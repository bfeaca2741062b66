"""Which stored results a command works on: the options that select them, and the store they lie in."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inspection.results.records import StoredResult
    from inspection.results.store import ResultsStore

Store = Annotated[str, typer.Argument(help="SQLite file that a line has written, or URL of its PostgreSQL database.")]
PasswordEnv = Annotated[str, typer.Option(help="Environment variable with the password of the database.")]
RunId = Annotated[str, typer.Option("--run", help="Only parts of this run.")]
Since = Annotated[str, typer.Option(help="Only parts captured then or later, e.g. 2026-11-22 or 2026-11-22T06:00.")]
Until = Annotated[str, typer.Option(help="Only parts captured before.")]
ModelSha = Annotated[str, typer.Option("--model-sha256", help="Only parts that this model has seen.")]
Pictures = Annotated[
    Path | None, typer.Option(help="Folder of the stored pictures; default: pictures beside the SQLite file.")
]
OkShare = Annotated[
    float, typer.Option(help="Share of the passed parts that is reviewed as a random sample, above 0, at most 1.")
]


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which results of a store are wanted.

    Attributes:
        run: id of a run; "" for all.
        since: time from which on; "" for all. Without a zone it is local time.
        until: time before which; "" for all.
        model: sha256 of the model; "" for all.
    """

    run: str = ""
    since: str = ""
    until: str = ""
    model: str = ""

    def results(self, store: ResultsStore) -> Iterator[StoredResult]:
        """Iterates the results in the order of writing.

        Raises:
            SettingError: a time cannot be read, or the store has no such run.
            StoreError: the store cannot be read.
        """
        from anomaly.errors import UnknownNameError

        if self.run and self.run not in (names := [run.id for run in store.runs()]):
            raise UnknownNameError.among("run", self.run, names)
        return store.results(
            run=self.run or None,
            model=self.model or None,
            since=time_of("--since", self.since),
            until=time_of("--until", self.until),
        )

    def in_words(self) -> str:
        """Says which parts are meant."""
        words = [
            f"run {self.run}" if self.run else "all runs",
            f"since {self.since}" if self.since else "",
            f"until {self.until}" if self.until else "",
            f"model {self.model[:12]}" if self.model else "",
        ]
        return ", ".join(filter(None, words))


def opened(store: str, password_env: str) -> ResultsStore:
    """Opens a store that a line has written.

    Raises:
        SettingError: the environment variable is not set.
        StoreError: there is no such store.
    """
    import os

    from anomaly.errors import SettingError
    from inspection.results.store import ResultsStore

    if password_env and password_env not in os.environ:
        raise SettingError(f"--password-env names the environment variable {password_env!r}, which is not set")
    return ResultsStore.open(store, password=os.environ.get(password_env) if password_env else None)


def picture_folder(store: str, pictures: Path | None) -> Path:
    """Returns the folder of the stored pictures: the given one, or `pictures` beside a SQLite file.

    Raises:
        SettingError: it is not given and the store is no file.
    """
    from anomaly.errors import SettingError

    if pictures is not None:
        return pictures
    if "://" in store:
        raise SettingError("--pictures must name the folder of the pictures, because the store is no file")
    return Path(store).absolute().parent / "pictures"


def new_folder(out: Path, owned: tuple[str, ...]) -> Path:
    """Makes a folder for the files of a command; those of an earlier call are replaced, others refused.

    Args:
        out: the folder.
        owned: names of the files that the command writes.

    Raises:
        SettingError: it is no folder, or holds other files.
    """
    from anomaly.errors import SettingError

    if out.exists() and not out.is_dir():
        raise SettingError.of("--out", "value", "a folder", str(out))
    foreign = sorted(path.name for path in out.iterdir() if path.name not in owned) if out.exists() else []
    if foreign:
        raise SettingError(f"--out {out} must be new, empty, or hold only {', '.join(owned)}; it holds {foreign[0]!r}")
    out.mkdir(parents=True, exist_ok=True)
    return out


def time_of(option: str, text: str) -> datetime | None:
    """Reads a time, local where it has no zone; None for "".

    Raises:
        SettingError: it is no time; the message names the option.
    """
    from anomaly.errors import SettingError

    if not text:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise SettingError(f"{option} must be a date or time like 2026-11-22T06:00; got {text!r}") from None
    return time.astimezone()
