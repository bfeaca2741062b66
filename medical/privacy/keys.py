"""One key, several uses: each use gets a key of its own, so that none says anything about another (HKDF, RFC 5869)."""

from typing import Literal

from anomaly.errors import SettingError

Use = Literal["pseudonyms", "encryption", "audit", "de-identification"]
LENGTH = 32


def derived(key: bytes, use: Use, salt: bytes | None = None) -> bytes:
    """Returns the 32 bytes that `key` gives for one use.

    Args:
        key: 32 bytes, e.g. of `medical.pseudonyms.key_from`.
        use: what the result is for; bound into it.
        salt: further bytes that make it unique, e.g. for one file.

    Raises:
        SettingError: the key has another length.
    """
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    if len(key) != LENGTH:
        raise SettingError.of("derived", "key", f"{LENGTH} bytes", f"{len(key)} bytes")
    return HKDF(SHA256(), LENGTH, salt, f"anomaly-suite medical {use} v1".encode()).derive(key)
