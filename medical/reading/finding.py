"""Paths that people give -> files that may be DICOM: folders, DICOMDIRs and ZIP archives are looked into."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import SettingError
from anomaly.progress import Progress
from medical.objects import RefusedFile
from medical.reading.archives import unpacked
from medical.reading.process import Worker
from medical.refusals import Reason, Refusal, RefusedError

DIRECTORY = "DICOMDIR"
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class Candidate:
    """A file to be read.

    Attributes:
        path: where it lies.
        name: for people: below the path that was given, with the archive's name where it lay in one.
    """

    path: Path
    name: str


Found = Candidate | tuple[RefusedFile, str]


def find(paths: Iterable[Path], worker: Worker, unpack_to: Path, progress: Progress) -> Iterator[Found]:
    """Yields every regular file below the paths, or why it is refused with its name; a file given twice comes twice.

    Args:
        paths: files, folders, DICOMDIRs and ZIP archives.
        worker: reads DICOMDIRs; its limits hold for archives.
        unpack_to: existing empty folder for the content of archives.
        progress: told of every file of an archive.

    Raises:
        SettingError: a path does not exist.
    """
    for path in paths:
        if not path.exists():
            raise SettingError(f"there is nothing at {path}; give files, folders, DICOMDIRs or ZIP archives")
    for path in paths:
        if path.is_dir():
            yield from _folder(path, worker, unpack_to, progress)
        else:
            yield from _file(path, path.name, worker, unpack_to, progress)


def _folder(folder: Path, worker: Worker, unpack_to: Path, progress: Progress) -> Iterator[Found]:
    """A DICOMDIR in a folder is no object of its own: the files beside it are found anyway, missing ones are said."""
    directories = []
    for parent, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted(files):
            path = Path(parent) / name
            if name.upper() == DIRECTORY:
                directories.append(path)
            else:
                yield from _file(path, str(path.relative_to(folder)), worker, unpack_to, progress)
    for path in directories:
        name = str(path.relative_to(folder))
        yield from (found for found in _directory(path, name, worker) if not isinstance(found, Candidate))


def _file(path: Path, name: str, worker: Worker, unpack_to: Path, progress: Progress) -> Iterator[Found]:
    if not path.is_file():
        yield _refused(path, name, Reason.NOT_DICOM, "neither a regular file nor a folder")
    elif path.name.upper() == DIRECTORY:
        yield from _directory(path, name, worker)
    elif _is_archive(path):
        for member in unpacked(path, worker.limits, unpack_to, progress):
            shown = f"{name}!{member.name}"
            if member.path is None:
                assert member.refusal is not None
                yield RefusedFile(path / member.name, member.refusal), shown
            else:
                yield Candidate(member.path, shown)
    else:
        yield Candidate(path, name)


def _is_archive(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(4) == _ZIP
    except OSError:  # the worker says why it cannot be opened
        return False


def _directory(path: Path, name: str, worker: Worker) -> Iterator[Found]:
    """The files that a DICOMDIR lists; never one outside of its folder."""
    try:
        answer, _ = worker.ask("directory", path)
    except RefusedError as error:
        yield RefusedFile(path, error.refusal), name
        return
    inside = name[: -len(path.name)]
    for parts in answer["listed"]:
        found = path.parent.joinpath(*parts)
        if any(part in ("", ".", "..") or "/" in part or "\\" in part for part in parts):
            yield _refused(path, name, Reason.DAMAGED, "the DICOMDIR lists a file outside of its folder")
        elif not found.is_file():
            yield _refused(
                found, inside + "/".join(parts), Reason.NOT_DICOM, "the DICOMDIR lists it, but it is not there"
            )
        else:
            yield Candidate(found, inside + "/".join(parts))


def _refused(path: Path, name: str, reason: Reason, words: str) -> tuple[RefusedFile, str]:
    return RefusedFile(path, Refusal(reason, words)), name
