"""What is encrypted comes back unchanged; whatever is changed, cut, moved or exchanged is refused."""

import io
import os
import stat

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import SettingError
from medical.privacy import encryption
from medical.privacy.encryption import CHUNK, HEADER, TAG, Vault, VaultError
from medical.privacy.keys import derived
from medical.pseudonyms import Pseudonyms

KEY = bytes(range(32))
few = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("vault")


@pytest.fixture
def small(monkeypatch):
    """Many chunks in few bytes."""
    monkeypatch.setattr(encryption, "CHUNK", 7)


@few
@given(content=st.binary(max_size=60), size=st.integers(1, 9))
def test_round_trip(folder, content, size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encryption, "CHUNK", size)
        Vault(KEY).write(folder / "a", content)
        assert Vault(KEY).read(folder / "a") == content
        Vault(KEY).read_into(folder / "a", folder / "plain")
    assert (folder / "plain").read_bytes() == content


@pytest.mark.parametrize("size", [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_round_trip_at_the_edges_of_a_chunk(tmp_path, size):
    content = os.urandom(size)
    Vault(KEY).write_from(tmp_path / "a", io.BytesIO(content))
    assert Vault(KEY).read(tmp_path / "a") == content
    assert (tmp_path / "a").stat().st_size == HEADER + size + TAG * max(1, -(-size // CHUNK))


@few
@given(data=st.data(), content=st.binary(min_size=1, max_size=40))
def test_every_changed_bit_is_found(folder, data, content):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encryption, "CHUNK", 7)
        Vault(KEY).write(folder / "a", content)
        stored = bytearray((folder / "a").read_bytes())
        stored[data.draw(st.integers(0, len(stored) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        (folder / "a").write_bytes(stored)
        with pytest.raises(VaultError):
            Vault(KEY).read(folder / "a")


def test_a_file_cut_at_any_place_is_found(tmp_path, small):
    Vault(KEY).write(tmp_path / "a", b"x" * 21)
    stored = (tmp_path / "a").read_bytes()
    for length in range(len(stored)):
        (tmp_path / "a").write_bytes(stored[:length])
        with pytest.raises(VaultError):
            Vault(KEY).read(tmp_path / "a")


def test_moved_repeated_and_appended_chunks_are_found(tmp_path, small):
    Vault(KEY).write(tmp_path / "a", b"a" * 7 + b"b" * 7 + b"c" * 7)
    stored = (tmp_path / "a").read_bytes()
    header, chunks = stored[:HEADER], [stored[HEADER + i * 23 : HEADER + (i + 1) * 23] for i in range(3)]
    for order in ([1, 0, 2], [0, 0, 2], [0, 2], [0, 1, 2, 2], [2], [0, 1, 1, 2]):
        (tmp_path / "a").write_bytes(header + b"".join(chunks[i] for i in order))
        with pytest.raises(VaultError, match="damaged"):
            Vault(KEY).read(tmp_path / "a")


def test_chunks_of_another_file_are_found(tmp_path, small):
    Vault(KEY).write(tmp_path / "a", b"a" * 14, label="same")
    Vault(KEY).write(tmp_path / "b", b"b" * 14, label="same")
    a, b = (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()
    (tmp_path / "a").write_bytes(a[:-23] + b[-23:])
    with pytest.raises(VaultError, match="damaged"):
        Vault(KEY).read(tmp_path / "a", label="same")


def test_exchanged_files_are_found(tmp_path):
    Vault(KEY).write(tmp_path / "a", b"a")
    Vault(KEY).write(tmp_path / "b", b"b")
    (tmp_path / "a").replace(tmp_path / "b")
    with pytest.raises(VaultError, match="not the one that was asked for"):
        Vault(KEY).read(tmp_path / "b")
    assert Vault(KEY).read(tmp_path / "b", label="a") == b"a"


def test_errors_say_what_is_wrong(tmp_path):
    Vault(KEY).write(tmp_path / "a", b"content")
    with pytest.raises(VaultError, match="another key"):
        Vault(bytes(32)).read(tmp_path / "a")
    (tmp_path / "plain").write_bytes(b"never encrypted, and long enough for a header of sixty bytes or so")
    with pytest.raises(VaultError, match="not encrypted"):
        Vault(KEY).read(tmp_path / "plain")
    stored = bytearray((tmp_path / "a").read_bytes())
    stored[7] = 2
    (tmp_path / "a").write_bytes(stored)
    with pytest.raises(VaultError, match="another version"):
        Vault(KEY).read(tmp_path / "a")
    with pytest.raises(SettingError, match="32 bytes"):
        Vault(b"short")


def test_nothing_appears_when_decryption_fails(tmp_path, small):
    Vault(KEY).write(tmp_path / "a", b"x" * 30)
    stored = bytearray((tmp_path / "a").read_bytes())
    stored[-1] ^= 1
    (tmp_path / "a").write_bytes(stored)
    with pytest.raises(VaultError):
        Vault(KEY).read_into(tmp_path / "a", tmp_path / "target")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    class Broken(io.BytesIO):
        def read(self, size=-1):
            raise OSError("unplugged")

    Vault(KEY).write(tmp_path / "a", b"old")
    with pytest.raises(OSError, match="unplugged"):
        Vault(KEY).write_from(tmp_path / "a", Broken())
    assert Vault(KEY).read(tmp_path / "a") == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(os.name != "posix", reason="modes of files are POSIX")
def test_only_the_owner_may_read(tmp_path):
    before = os.umask(0)
    try:
        Vault(KEY).write(tmp_path / "a", b"content")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o600


def test_the_content_is_not_in_the_file_and_no_two_files_are_alike(tmp_path):
    for name in "ab":
        Vault(KEY).write(tmp_path / name, b"DOE^JANE" * 9, label="same")
    a, b = (tmp_path / "a").read_bytes(), (tmp_path / "b").read_bytes()
    assert b"DOE" not in a
    assert a[HEADER:] != b[HEADER:]


def test_the_format_is_plain_aes_256_gcm(tmp_path):
    """Decrypted here with the primitives alone: the documented layout is the one on the disk."""
    Vault(KEY).write(tmp_path / "a", b"content", label="what")
    stored = (tmp_path / "a").read_bytes()
    key = derived(derived(KEY, "encryption"), "encryption", stored[16:48])
    assert AESGCM(key).decrypt(bytes(11) + b"\x01", stored[48:], stored[:48] + b"what") == b"content"


def test_each_use_has_its_own_key():
    uses = {derived(KEY, use) for use in ("pseudonyms", "encryption", "audit", "de-identification")}
    assert len(uses | {KEY}) == 5
    assert Pseudonyms(KEY).of("1.2.3") == Pseudonyms(KEY).of("1.2.3") != Pseudonyms(bytes(32)).of("1.2.3")
    assert len(Pseudonyms(KEY).of("1.2.3")) == 16
