"""The audit trail: append-only lines of JSON, each of which holds the hash of the one before.

A changed, removed, inserted or moved record breaks the chain (Schneier and Kelsey, Secure Audit Logs to Support
Computer Forensics, 1999). A second file, the head, holds how many records there are and the hash of the last, so that
records cut off at the end are missed. With a key the hashes are HMACs, and nobody without the key can make the trail
anew.

What it cannot find: a trail of which both files were deleted or put back to an earlier state together. Note the hash
that `anomaly triage audit verify` prints on paper or on another machine; given back, it must still be in the trail.
"""

import hmac
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from anomaly.errors import AnomalyError
from medical.privacy.audit_messages import AuditEvent, AuditOutcome, AuditType, Participant, Subject, audit_message
from medical.privacy.files import whole_file
from medical.privacy.keys import derived

NOTHING = "0" * 64
"""The hash before the first record."""


class AuditError(AnomalyError):
    """The audit trail was cut or its head is missing; nothing was appended."""


@dataclass(frozen=True)
class Head:
    """What the trail must hold at least.

    Attributes:
        records: their number.
        hash: of the last record.
        size: of the file in bytes.
    """

    records: int
    hash: str
    size: int


@dataclass(frozen=True)
class Verified:
    """What a check of a trail found.

    Attributes:
        records: how many good records there are.
        hash: of the last record; `NOTHING` without one.
        keyed: whether the hashes need the key, so that nobody without it could have made the trail anew.
        faults: line, from 1, and what is wrong with it; empty for a whole trail.
    """

    records: int
    hash: str
    keyed: bool
    faults: tuple[tuple[int, str], ...]


class AuditTrail:
    """Appends records; several processes may share a trail."""

    def __init__(self, path: Path, source: str, key: bytes | None = None) -> None:
        """Opens a trail, new or old; the head lies beside it, with ".head" appended to its name.

        Args:
            path: of the trail, in a folder that exists.
            source: Audit Source ID, the name of this installation.
            key: of `medical.pseudonyms.key_from`; without it anybody who can write the files can make them anew.
        """
        from filelock import FileLock

        self._path, self._source, self._chain = path, source, _Chain(key)
        self._lock = FileLock(path.with_name(f"{path.name}.lock"))

    def record(
        self,
        event: AuditEvent,
        participants: Sequence[Participant],
        subjects: Sequence[Subject] = (),
        *,
        outcome: AuditOutcome = AuditOutcome.SUCCESS,
        kind: AuditType | None = None,
    ) -> None:
        """Appends one record; it is on the disk when this returns.

        Args:
            event: what happened.
            participants: who took part, at least one.
            subjects: what it was about.
            outcome: how it ended.
            kind: event type code, where the event has one.

        Raises:
            AuditError: the trail was cut or its head is missing.
            SettingError: there is no participant.
            OSError: a file cannot be written.
        """
        message = audit_message(event, outcome, self._source, participants, subjects, kind)
        with self._lock:
            head, torn = self._end()
            line = self._chain.line(head.records + 1, head.hash, message)
            added = b"\n" + line if torn else line
            _append(self._path, added)
            self._write_head(Head(head.records + 1, json.loads(line)["hash"], head.size + len(added)))

    def _end(self) -> tuple[Head, bool]:
        """Returns the end of the trail, and whether a line after it was cut off by a crash.

        A process may have died between the record and the head: such records are read from the trail.
        """
        size = self._path.stat().st_size if self._path.exists() else 0
        head = read_head(self._path)
        if head is None and size:
            raise AuditError("the head of the audit trail is missing: keep both files and find out who removed it")
        head = head or Head(0, NOTHING, 0)
        if size < head.size:
            raise AuditError("the audit trail was cut: keep it as it is, verify it, and begin a new one elsewhere")
        left = b""
        if size > head.size:
            with self._path.open("rb") as file:
                file.seek(head.size)
                left = file.read()
        for line in left.splitlines(keepends=True):
            found = self._chain.checked(line, head.records + 1, head.hash)
            if isinstance(found, str):
                return Head(head.records, head.hash, size), not left.endswith(b"\n")
            head = Head(head.records + 1, found["hash"], head.size + len(line))
        return head, False

    def _write_head(self, head: Head) -> None:
        with whole_file(_head_path(self._path)) as file:
            file.write(_canonical({"records": head.records, "hash": head.hash, "size": head.size}))


def verify(path: Path, key: bytes | None = None, *, noted: str | None = None) -> Verified:
    """Checks every record of a trail, and that none is missing at its end.

    Args:
        path: of the trail; may be appended to meanwhile.
        key: that of the trail, if it has one.
        noted: hash of a record that was noted down earlier; it must be in the trail.

    Raises:
        AuditError: the trail needs a key and none is given.
        OSError: the file cannot be read.
    """
    chain, head = _Chain(key), read_head(path)
    faults: list[tuple[int, str]] = []
    number, good, last, seen, keyed = 0, 0, NOTHING, {NOTHING}, False
    for number, line in enumerate(_lines(path), 1):
        checked = chain.checked(line, good + 1, last)
        if isinstance(checked, str):
            faults.append((number, checked))
        found = _stated(line)
        if found is None:
            continue
        good, last, keyed = found["number"], found["hash"], keyed or found["keyed"]
        seen.add(last)
    if keyed and key is None:
        raise AuditError(f"this audit trail was made with a key: give it to verify its {number} records")
    if head is None:
        faults += [(number, "the head of the trail is missing: records may be missing at the end")] if number else []
    elif head.hash not in seen or good < head.records:
        faults.append((number, f"the trail ends too early: the head counts {head.records} records, found {good}"))
    if noted is not None and noted not in seen:
        faults.append((number, "the noted hash is not in the trail: it was made anew or put back to an earlier state"))
    return Verified(good, last, keyed, tuple(faults))


def read_head(path: Path) -> Head | None:
    """Returns the head of a trail; None where it is missing or damaged."""
    try:
        values = json.loads(_head_path(path).read_bytes())
        return Head(int(values["records"]), str(values["hash"]), int(values["size"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


class _Chain:
    """Makes and checks lines."""

    def __init__(self, key: bytes | None) -> None:
        self._key = None if key is None else derived(key, "audit")

    def line(self, number: int, previous: str, message: dict[str, Any]) -> bytes:
        record = {"number": number, "keyed": self._key is not None, "previous": previous, "AuditMessage": message}
        return _canonical({**record, "hash": self._hash(record)})

    def checked(self, line: bytes, number: int, previous: str) -> dict[str, Any] | str:
        """Returns the record of a line, or what is wrong with it."""
        record = _stated(line)
        if record is None:
            return "no record: cut off or overwritten"
        content = {name: value for name, value in record.items() if name != "hash"}
        if record["keyed"] and self._key is None:
            return "needs the key"
        if not record["keyed"] and self._key is not None:
            return "made without the key"
        if _canonical(record) != line or not hmac.compare_digest(self._hash(content), record["hash"]):
            return "changed, or made with another key"
        if (record["number"], record["previous"]) != (number, previous):
            return f"record {record['number']} does not follow the one before: records are missing, added or moved"
        return record

    def _hash(self, record: dict[str, Any]) -> str:
        content = _canonical(record)
        return sha256(content).hexdigest() if self._key is None else hmac.digest(self._key, content, "sha256").hex()


def _stated(line: bytes) -> dict[str, Any] | None:
    """Returns what a line says it is; None where it is no record."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    known = isinstance(record, dict) and set(record) == {"number", "keyed", "previous", "AuditMessage", "hash"}
    types = known and (type(record["number"]), type(record["keyed"]), type(record["hash"])) == (int, bool, str)
    return record if types and record["hash"].isascii() else None


def _lines(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        yield from file


def _canonical(values: dict[str, Any]) -> bytes:
    return json.dumps(values, separators=(",", ":")).encode("ascii") + b"\n"


def _append(path: Path, content: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        while content:
            content = content[os.write(handle, content) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _head_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.head")
