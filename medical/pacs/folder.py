"""The drop folder: files are taken when they have settled, and removed when they are durable in the spool."""

import re
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from medical.pacs.errors import ObjectError
from medical.pacs.intake import Intake
from medical.pacs.settings import FolderSettings
from medical.pacs.spool import Spool
from medical.pacs.states import Said
from medical.privacy.files import whole_file
from medical.privacy.log_fields import Event
from medical.privacy.logs import log

REFUSED = "refused"
"""Folder within the drop folder: files that were not taken, each with a .reason.txt beside it."""
_UNFINISHED = re.compile(r"\..*|.*\.(part|partial|tmp|crdownload|filepart)", re.IGNORECASE)


class DropFolder:
    """Takes files out of a folder.

    A file is complete when its size and time have not changed for `settle_seconds`, or, with `settle_seconds` = 0, at
    once: for senders that rename. Names that begin with a dot or end in .part or .tmp are left alone; links too.
    """

    def __init__(self, settings: FolderSettings, intake: Intake, spool: Spool) -> None:
        """Keeps its parts; makes the folder where it is missing."""
        self._settings, self._intake, self._spool = settings, intake, spool
        self._seen: dict[Path, tuple[int, int, float]] = {}
        settings.path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def run(self, stopping: threading.Event) -> None:
        """Looks until the service stops."""
        while not stopping.is_set():
            try:
                self.look()
            except Exception as error:  # files may come and go while they are looked at
                log(Event.FOLDER_FAILED, error=error)
            stopping.wait(self._settings.every_seconds)

    def look(self) -> int:
        """Takes what has settled; returns how many files were taken or refused."""
        done, seen = 0, {}
        for file in self._files():
            status = file.stat()
            size, changed, since = self._seen.get(file, (-1, -1, 0.0))
            if (size, changed) != (status.st_size, status.st_mtime_ns):
                since = time.monotonic()
            seen[file] = (status.st_size, status.st_mtime_ns, since)
            if time.monotonic() - since >= self._settings.settle_seconds and self._intake.roomy():
                done += self._take(file)
        self._seen = seen
        return done

    def _take(self, file: Path) -> bool:
        copy = self._spool.new_file()
        try:
            if file.stat().st_size > self._intake.max_bytes:
                raise ObjectError(0, Said.SIZE)
            with file.open("rb") as source, copy.open("xb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            self._intake.take(copy, "folder")
        except ObjectError as error:
            if error.later:
                return False
            self._refuse(file, error)
            return True
        except OSError as error:
            log(Event.FOLDER_FAILED, error=error)
            return False
        finally:
            copy.unlink(missing_ok=True)
        file.unlink()
        return True

    def _refuse(self, file: Path, reason: ObjectError) -> None:
        """Moves a file aside with the reason; the log does not name it, since names may hold patient data."""
        folder = self._settings.path / REFUSED
        folder.mkdir(mode=0o700, exist_ok=True)
        target = folder / file.name
        number = 1
        while target.exists():
            target, number = folder / f"{number}-{file.name}", number + 1
        with whole_file(target.with_name(f"{target.name}.reason.txt")) as opened:
            opened.write(f"{reason}\n".encode())
        file.replace(target)
        log(Event.OBJECT_REFUSED, source="folder", error=reason)

    def _files(self) -> Iterator[Path]:
        refused = self._settings.path / REFUSED
        for file in sorted(self._settings.path.rglob("*")):
            inside = file.relative_to(self._settings.path).parts
            if refused in file.parents or any(map(_UNFINISHED.fullmatch, inside)):
                continue
            if file.is_file() and not file.is_symlink():
                yield file
