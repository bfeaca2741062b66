"""Encrypted files: AES-256-GCM in chunks, so that files of any size need little memory and no part can be exchanged.

Each file has a key of its own, derived from a random salt (HKDF). The nonce of a chunk is its number and whether it is
the last one; the associated data are the header (with the version of the format) and a label. So a changed, removed,
repeated or moved chunk, a file cut off at any place, and a file put in the place of another are all detected. Source:
the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizar, Online Authenticated-Encryption and its Nonce-Reuse
Misuse-Resistance, CRYPTO 2015; PS3.15 section 5 leaves the choice of a cipher for data at rest to the site.

Layout: magic and version (8 bytes), check of the key (8), salt (32), then chunks of 1 MiB and their tags (16 each).
"""

import hmac
import io
import secrets
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from anomaly.errors import AnomalyError
from medical.privacy.files import whole_file
from medical.privacy.keys import derived

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"ANOMVLT\x01"
CHUNK = 1 << 20
TAG = 16
SALT = 32
CHECK = 8
HEADER = len(MAGIC) + CHECK + SALT


class VaultError(AnomalyError):
    """A file is not encrypted, was encrypted with another key, or is damaged. Its content must not be used."""


class Vault:
    """Writes and reads encrypted files with one key. Safe to share between threads and processes."""

    def __init__(self, key: bytes) -> None:
        """Derives its own key; `key` is that of `medical.pseudonyms.key_from`.

        Raises:
            SettingError: the key has not 32 bytes.
        """
        self._key = derived(key, "encryption")
        self._check = hmac.new(self._key, b"check of the key", sha256).digest()[:CHECK]

    def write(self, path: Path, content: bytes, *, label: str | None = None) -> None:
        """Encrypts `content` into a new or replaced file, which is there whole or not at all, with mode 0600.

        Args:
            path: in a folder that exists.
            content: any number of bytes.
            label: what the content is; reading needs the same. The file's name unless given, so that a file that is
                renamed cannot be read: give a label where it may be, or where equal names lie in several folders.

        Raises:
            OSError: the file cannot be written.
        """
        self.write_from(path, io.BytesIO(content), label=label)

    def read(self, path: Path, *, label: str | None = None) -> bytes:
        """Returns the content of a file that `write` made.

        Raises:
            VaultError: the file is not encrypted, of another key, label or version, or damaged.
            OSError: the file cannot be read.
        """
        content = io.BytesIO()
        self._decrypt(path, content, label)
        return content.getvalue()

    def write_from(self, path: Path, source: BinaryIO, *, label: str | None = None) -> None:
        """Like `write`, from an open binary file of any size, with a few MiB of memory."""
        salt = secrets.token_bytes(SALT)
        header = MAGIC + self._check + salt
        with whole_file(path) as file:
            file.write(header)
            cipher, bound = self._cipher(salt), _bound(header, path, label)
            number, chunk = 0, _full(source, CHUNK)
            while True:
                after = _full(source, CHUNK)
                file.write(cipher.encrypt(_nonce(number, last=not after), chunk, bound))
                if not after:
                    return
                number, chunk = number + 1, after

    def read_into(self, path: Path, target: Path, *, label: str | None = None) -> None:
        """Decrypts into the file `target` (mode 0600), which appears only when all of it is verified.

        Raises:
            VaultError: as `read`; `target` is untouched then.
            OSError: a file cannot be read or written.
        """
        with whole_file(target) as file:
            self._decrypt(path, file, label)

    def _decrypt(self, path: Path, target: BinaryIO, label: str | None) -> None:
        from cryptography.exceptions import InvalidTag

        with path.open("rb") as file:
            header = file.read(HEADER)
            cipher, bound = self._cipher(self._salt(header)), _bound(header, path, label)
            number, chunk = 0, _full(file, CHUNK + TAG)
            while True:
                after = _full(file, CHUNK + TAG)
                try:
                    target.write(cipher.decrypt(_nonce(number, last=not after), chunk, bound))
                except (InvalidTag, ValueError):
                    raise VaultError(
                        f"an encrypted file is damaged, cut off or not the one that was asked for (chunk {number}): "
                        "do not use it, make it again from the source"
                    ) from None
                if not after:
                    return
                number, chunk = number + 1, after

    def _salt(self, header: bytes) -> bytes:
        """Says what is wrong without naming the file: its name may be all that a stranger needs."""
        magic, check, salt = header[: len(MAGIC)], header[len(MAGIC) : -SALT], header[-SALT:]
        if magic[:-1] != MAGIC[:-1]:
            raise VaultError("the file is not encrypted by this suite; it was not read")
        if magic != MAGIC:
            raise VaultError(
                "the encrypted file has another version of the format; read it with the suite that wrote it"
            )
        if len(header) != HEADER:
            raise VaultError("an encrypted file is cut off within its header: do not use it")
        if not hmac.compare_digest(check, self._check):
            raise VaultError("the file was encrypted with another key, or its header is damaged; give the key of then")
        return salt

    def _cipher(self, salt: bytes) -> "AESGCM":
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        return AESGCM(derived(self._key, "encryption", salt))


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes([last])


def _bound(header: bytes, path: Path, label: str | None) -> bytes:
    return header + (path.name if label is None else label).encode()


def _full(source: BinaryIO, size: int) -> bytes:
    """Reads `size` bytes, or all that are left: a raw file or pipe may give fewer at once."""
    parts, wanted = [], size
    while wanted and (part := source.read(wanted)):
        parts.append(part)
        wanted -= len(part)
    return b"".join(parts)
