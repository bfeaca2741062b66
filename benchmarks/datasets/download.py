"""Fetches a file of a public set: goes on where it broke off, keeps it only if it is the one its publisher names."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from anomaly.errors import DatasetError
from anomaly.progress import Progress, silent
from benchmarks.datasets.cards import Archive, Card

if TYPE_CHECKING:
    import httpx

_MEGABYTE = 1 << 20
_TIMEOUT = 60.0


def terms(card: Card) -> str:
    """Returns what somebody must have read before downloading."""
    where = f" ({card.licence_text})" if card.licence_text else ""
    return "\n".join(
        [
            f"{card.title}: {card.source}",
            f"licence         {card.licence}{where}",
            f"redistribution  {card.redistribution}",
            f"not for         {card.must_not_use}",
            f"cite            {card.citation}",
        ]
    )


def fetch(archive: Archive, target: Path, progress: Progress = silent) -> Path:
    """Downloads a file, or the rest of it.

    Args:
        archive: its address and hash.
        target: file to write; "<name>.part" beside it holds what has come so far.
        progress: told of megabytes.

    Returns:
        `target`.

    Raises:
        DatasetError: the server refuses, the connection breaks (run again: it goes on), or the hash is another one.
    """
    import httpx

    if target.is_file():
        return _checked(archive, target, target)
    partial = target.with_name(f"{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        begun = partial.stat().st_size if partial.is_file() else 0
        wanted = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={begun}-"} if begun else {})
        with httpx.stream("GET", archive.url, headers=wanted, follow_redirects=True, timeout=_TIMEOUT) as answer:
            if answer.status_code != httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:  # else all of it is here
                answer.raise_for_status()
                _append(answer, partial, begun, progress)
    except (httpx.HTTPError, OSError) as error:
        raise DatasetError(f"{archive.url} broke off: {error}; run it again, it goes on from {partial}") from error
    return _checked(archive, partial, target)


def _append(answer: "httpx.Response", partial: Path, begun: int, progress: Progress) -> None:
    resumed = answer.status_code == 206
    rest = int(answer.headers.get("Content-Length", 0))
    step = progress(f"{partial.stem}, MB", max(1, rest // _MEGABYTE))
    waiting = 0
    with partial.open("ab" if resumed and begun else "wb") as file:
        for block in answer.iter_raw():  # as it comes: what waited for a full block would be lost with the connection
            file.write(block)
            waiting += len(block)
            step(waiting // _MEGABYTE)
            waiting %= _MEGABYTE


def _checked(archive: Archive, path: Path, target: Path) -> Path:
    expected = archive.sha256 or archive.md5
    if expected:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256" if archive.sha256 else "md5").hexdigest()
        if found != expected:
            raise DatasetError(
                f"{path} has the hash {found}, not {expected} as its publisher says: it is damaged or another version; "
                "remove it and run this again"
            )
    return path.replace(target) if path != target else target
