"""Files of objects and results on the disk: private, durable before anybody is told so, encrypted where there is a key.

spool/incoming/                  files that are coming in; what a crash left is removed at the next start
spool/studies/STUDY/OBJECT.dcm   pseudonyms; with a key AES-256-GCM (see `medical.privacy.encryption`)
spool/private/                   decrypted copies for one analysis or delivery, removed after it
"""

import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from anomaly.errors import SettingError
from medical.pacs.errors import DamagedError, SpoolError
from medical.pacs.headers import digest_of
from medical.privacy.encryption import Vault, VaultError
from medical.privacy.files import sync_folder
from medical.pseudonyms import KEY_FILE, Pseudonyms, kept_key


@dataclass(frozen=True)
class Stored:
    """A file of the spool.

    Attributes:
        study: pseudonym of the study.
        name: file name.
        digest: what `digest_of` gave when it was stored.
    """

    study: str
    name: str
    digest: str


class Spool:
    """The files of one service.

    Attributes:
        incoming: folder for files that are coming in.
        pseudonyms: of UIDs.
        encrypted: whether there is a key.
    """

    def __init__(self, folder: Path, key: bytes | None) -> None:
        """Makes the folders, with mode 0700.

        Without a key pseudonyms use a random one that is kept in the folder; nothing is encrypted then.

        Raises:
            SpoolError: the folders cannot be made.
            SettingError: files of the folder are encrypted and there is no key, or the other way round.
        """
        self.folder, self.encrypted = folder, key is not None
        self.incoming, self._studies, self._private = folder / "incoming", folder / "studies", folder / "private"
        try:
            for path in (folder, self.incoming, self._studies, self._private):
                path.mkdir(mode=0o700, parents=True, exist_ok=True)
                path.chmod(0o700)
            self.pseudonyms = Pseudonyms(key or _own_key(folder, fresh=not any(self._studies.iterdir())))
        except OSError as error:
            raise SpoolError(f"the spool folder {folder} cannot be used: {type(error).__name__}") from None
        self._vault = None if key is None else Vault(key)

    def begin(self) -> None:
        """Removes what a crash left of files that were coming in or decrypted."""
        for folder in (self.incoming, self._private):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def sweep(self, known: Iterable[tuple[str, str]]) -> int:
        """Removes files that no row of the queue knows, i.e. of transactions that a crash undid; returns how many."""
        kept, removed = set(known), 0
        for path in list(self._studies.glob("*/*")):
            if (path.parent.name, path.name) not in kept:
                path.unlink()
                removed += 1
        for folder in list(self._studies.iterdir()):
            if not any(folder.iterdir()):
                folder.rmdir()
        return removed

    def free_bytes(self) -> int:
        """Room on the disk."""
        return shutil.disk_usage(self.folder).free

    def new_file(self) -> Path:
        """Returns a name in `incoming` that is not taken."""
        return self.incoming / f"{secrets.token_hex(8)}.part"

    def prepare(self, file: Path, name: str) -> Path:
        """Makes a file of `incoming` ready to be placed: private, encrypted where there is a key, on the disk.

        Args:
            file: it is consumed.
            name: under which it will be placed.

        Raises:
            SpoolError: it cannot be written.
        """
        try:
            if self._vault is None:
                file.chmod(0o600)
                with file.open("rb") as opened:
                    os.fsync(opened.fileno())
                return file
            prepared = self.new_file()
            with file.open("rb") as opened:
                self._vault.write_from(prepared, opened, label=name)
            file.unlink()
            return prepared
        except OSError as error:
            raise SpoolError(f"an object cannot be written to the spool: {type(error).__name__}") from None

    def place(self, prepared: Path, study: str, name: str) -> None:
        """Moves a prepared file to its place, durably.

        Raises:
            SpoolError: it cannot be moved.
        """
        folder = self._studies / study
        try:
            if not folder.is_dir():
                folder.mkdir(mode=0o700)
                sync_folder(self._studies)
            prepared.replace(folder / name)
            sync_folder(folder)
        except OSError as error:
            raise SpoolError(f"an object cannot be moved within the spool: {type(error).__name__}") from None

    def remove(self, study: str) -> None:
        """Removes all files of a study."""
        shutil.rmtree(self._studies / study, ignore_errors=True)

    @contextmanager
    def private_folder(self) -> Iterator[Path]:
        """Gives an empty folder with mode 0700 that is removed afterwards."""
        folder = self._private / secrets.token_hex(8)
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextmanager
    def lent(self, stored: Sequence[Stored]) -> Iterator[tuple[Path, ...]]:
        """Gives readable files, checked against their digests; decrypted copies live as long as the block.

        Raises:
            DamagedError: a file is missing or has changed.
            SpoolError: a file cannot be decrypted at the moment.
        """
        if self._vault is None:
            yield tuple(_checked(self._studies / one.study / one.name, one) for one in stored)
            return
        with self.private_folder() as folder:
            yield tuple(self._decrypted(one, folder / one.name) for one in stored)

    def _decrypted(self, stored: Stored, target: Path) -> Path:
        assert self._vault is not None
        try:
            self._vault.read_into(self._studies / stored.study / stored.name, target, label=stored.name)
        except VaultError as error:
            raise DamagedError(f"a stored file cannot be decrypted: {error}") from None
        except FileNotFoundError:
            raise DamagedError("a stored file is missing") from None
        except OSError as error:
            raise SpoolError(f"a stored file cannot be decrypted: {type(error).__name__}") from None
        return _checked(target, stored)


def _own_key(folder: Path, *, fresh: bool) -> bytes:
    """A key of this folder alone, for pseudonyms; not made anew beside files that were named with another."""
    if not fresh and not (folder / KEY_FILE).exists():
        raise SettingError(
            f"the files of {folder} were stored with a key, and none is given now: name it in key_file or set "
            "ANOMALY_MEDICAL_KEY"
        )
    return kept_key(folder)


def _checked(path: Path, stored: Stored) -> Path:
    try:
        digest = digest_of(path)
    except Exception:  # pydicom raises many kinds
        digest = ""
    if digest != stored.digest:
        raise DamagedError("a stored file is missing or has changed since it was stored")
    return path
