"""Names that tell nothing: a keyed hash in the place of UIDs and patient identifiers, in logs and file names.

Without the key a pseudonym cannot be traced back, not even by trying all identifiers (HMAC-SHA256, RFC 2104, with a
key of its own that is derived from the site's).
"""

import hashlib
import hmac
import os
import secrets
from pathlib import Path

from anomaly.errors import SettingError
from medical.privacy.keys import derived

KEY_VARIABLE = "ANOMALY_MEDICAL_KEY"
"""Environment variable with the key of pseudonyms and of encryption: 64 hexadecimal digits (256 bits)."""


KEY_FILE = "pseudonyms.key"
"""In folders of results of a site without a key: so that pseudonyms there stay the same."""


class Pseudonyms:
    """Makes pseudonyms with one key; equal identifiers get equal pseudonyms as long as the key is the same."""

    def __init__(self, key: bytes) -> None:
        """Takes a key of 32 bytes.

        Raises:
            SettingError: the key has another length.
        """
        if len(key) != 32:
            raise SettingError.of("Pseudonyms", "key", "32 bytes", f"{len(key)} bytes")
        self._key = derived(key, "pseudonyms")

    def of(self, identifier: str) -> str:
        """Returns 16 hexadecimal digits."""
        return hmac.new(self._key, identifier.encode(), hashlib.sha256).hexdigest()[:16]


def key_from(file: Path | None = None) -> bytes | None:
    """Returns the key of the file, or of the environment where no file is given; None where there is neither.

    Args:
        file: holds 64 hexadecimal digits; only its owner may read it.

    Raises:
        SettingError: the file cannot be read or can be read by others, or the key is not 64 hexadecimal digits.
    """
    if file is None:
        text = os.environ.get(KEY_VARIABLE)
        return None if text is None else _parsed(text, f"environment variable {KEY_VARIABLE}")
    try:
        if os.name == "posix" and file.stat().st_mode & 0o077:
            raise SettingError(f"the key file {file} can be read by others; allow its owner only: chmod 600 {file}")
        return _parsed(file.read_text("ascii"), f"key file {file}")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"the key file {file} cannot be read: {error}") from None


def kept_key(folder: Path) -> bytes:
    """Returns the random key that is kept in a folder, for sites without a key; makes it where it is missing.

    Raises:
        SettingError: it cannot be read, or is none.
        OSError: it cannot be written.
    """
    from medical.privacy.files import whole_file

    file = folder / KEY_FILE
    if not file.exists():
        with whole_file(file) as opened:
            opened.write(secrets.token_hex(32).encode())
    key = key_from(file)
    assert key is not None
    return key


def _parsed(text: str, where: str) -> bytes:
    """Never repeats the text: it may be nearly the key."""
    try:
        key = bytes.fromhex(text.strip())
    except ValueError:
        key = b""
    if len(key) != 32:
        raise SettingError(f"the {where} must hold 64 hexadecimal digits; make one with: openssl rand -hex 32")
    return key
