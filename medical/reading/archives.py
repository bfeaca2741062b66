"""ZIP archives, unpacked under limits: files get names of our own, and their sizes are counted while unpacking."""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from anomaly.progress import Progress
from medical.reading.limits import Limits
from medical.refusals import Reason, Refusal

_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_FREE = 1 << 20
"""Bytes that a member may unpack to whatever its ratio: small files of zeros pack well."""


@dataclass(frozen=True)
class Member:
    """One file of an archive: unpacked to `path`, or refused.

    Attributes:
        name: in the archive.
        path: where it was unpacked to; None where it was refused.
        refusal: why it was refused.
    """

    name: str
    path: Path | None
    refusal: Refusal | None = None


def unpacked(archive: Path, limits: Limits, folder: Path, progress: Progress) -> Iterator[Member]:
    """Unpacks the files of an archive one after another.

    Args:
        archive: the ZIP file.
        limits: number of files, bytes and ratio.
        folder: existing folder; the files get numbers as names.
        progress: told of every file.

    Yields:
        Every file, and one refusal of the name "" where the archive as a whole cannot be read to its end.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            yield from _members(opened, limits, folder, progress)
    except (zipfile.BadZipFile, OSError, EOFError, ValueError, NotImplementedError, zlib.error) as error:
        yield Member("", None, Refusal(Reason.DAMAGED, f"the archive cannot be read ({type(error).__name__})"))


def _members(opened: zipfile.ZipFile, limits: Limits, folder: Path, progress: Progress) -> Iterator[Member]:
    infos = [info for info in opened.infolist() if not info.is_dir()]
    if len(infos) > limits.archive_files:
        words = f"the archive holds {len(infos)} files; allowed are {limits.archive_files}"
        yield Member("", None, Refusal(Reason.TOO_LARGE, words))
        return
    left = limits.archive_bytes
    archive = sum(1 for _ in folder.iterdir())
    advance = progress("Unpacking", len(infos))
    for number, info in enumerate(infos):
        advance(1)
        if refusal := _refusal_of(info):
            yield Member(info.filename, None, refusal)
            continue
        target = folder / f"{archive}-{number:06d}"
        allowed = min(left, max(_FREE, int(info.compress_size * limits.archive_ratio)))
        try:
            size = _copy(opened, info, target, allowed)
        except (zipfile.BadZipFile, OSError, EOFError, zlib.error) as error:
            target.unlink(missing_ok=True)
            words = f"the file in the archive is damaged ({type(error).__name__})"
            yield Member(info.filename, None, Refusal(Reason.DAMAGED, words))
            continue
        if size is None:
            target.unlink(missing_ok=True)
            words = f"unpacks to more than {allowed} bytes, the most allowed for its size and archive"
            yield Member(info.filename, None, Refusal(Reason.TOO_LARGE, words))
            continue
        left -= size
        yield Member(info.filename, target)


def _refusal_of(info: zipfile.ZipInfo) -> Refusal | None:
    name = PurePosixPath(info.filename.replace("\\", "/"))
    if name.is_absolute() or ".." in name.parts or ":" in info.filename:
        return Refusal(Reason.DAMAGED, "the name leads out of the archive")
    if info.flag_bits & 1:
        return Refusal(Reason.NOT_DICOM, "the file in the archive is encrypted")
    if info.compress_type not in _METHODS:
        return Refusal(Reason.NOT_DICOM, "the archive's compression is neither deflate nor none")
    return None


def _copy(opened: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path, allowed: int) -> int | None:
    """Returns the size; None where it exceeds what is allowed."""
    size = 0
    with opened.open(info) as source, target.open("wb") as file:
        while piece := source.read(1 << 20):
            size += len(piece)
            if size > allowed:
                return None
            file.write(piece)
    return size
