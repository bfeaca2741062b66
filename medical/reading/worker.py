"""The worker process: reads headers and decodes frames, with limited memory; if it dies, nothing else does.

Requests are lines of JSON on standard input; an answer is its length in 4 bytes, JSON, and the raw bytes that the JSON
announces. No pickle. What libraries print goes nowhere: it may hold patient data.
"""

import json
import logging
import os
import resource
import signal
import struct
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from medical.reading.directory import listed
from medical.reading.frames import decode, decoder_of
from medical.reading.header import read_header
from medical.reading.limits import Limits
from medical.reading.opening import Opened
from medical.reading.values import values_of
from medical.refusals import Reason, RefusedError

_GRACE = 10
"""Seconds after which the worker ends itself, over those that the parent waits."""
_STATE = Path("/proc/self/statm")
Answer = tuple[dict[str, Any], list[bytes]]


class _Reader:
    """Keeps the last object open: frames of one object are asked for one after another."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._key: tuple[Any, ...] | None = None
        self._opened: Opened | None = None
        self._checked: dict[str, Any] = {}

    def header(self, path: Path) -> Answer:
        """Reads and checks the header."""
        self._open(path)
        return self._checked, []

    def frame(self, path: Path, uid: str, frame: int, constant: bool, send: bool) -> Answer:
        """Decodes one frame and maps its values."""
        opened = self._open(path)
        if not 1 <= frame <= self._checked["instance"]["frames"]:
            raise RefusedError(Reason.PIXELS, f"there is no frame {frame} of {self._checked['instance']['frames']}")
        if self._checked["instance"]["uid"] != uid:
            raise RefusedError(Reason.DAMAGED, "the file holds another object than when it was listed")
        found = values_of(decode(opened, frame), opened.header, frame, constant)
        about = {"unit": found.unit, "decoder": decoder_of(opened.transfer_syntax), "shape": found.values.shape}
        if not send:
            return about | {"raw": []}, []
        raw = [np.ascontiguousarray(found.values, dtype=np.float32).tobytes()]
        if not found.valid.all():
            raw.append(found.valid.tobytes())
        return about | {"raw": [len(one) for one in raw]}, raw

    def directory(self, path: Path) -> Answer:
        """Reads which files a DICOMDIR lists."""
        return {"listed": listed(path, self._limits)}, []

    def _open(self, path: Path) -> Opened:
        state = path.stat()
        key = (path, state.st_mtime_ns, state.st_size)
        if self._opened is None or key != self._key:
            self.close()
            self._opened, self._checked = read_header(path, self._limits)
            self._key = key
        return self._opened

    def close(self) -> None:
        """Closes the last object."""
        if self._opened is not None:
            self._opened.close()
        self._opened = self._key = None


def main() -> None:
    """Answers requests until standard input ends, or until memory ran out or did not come back: then "last" is said.

    An alarm ends the process where the parent is gone and cannot.
    """
    channel = _private_channel()
    limits = Limits(**json.loads(sys.argv[1]))
    _prepare()
    idle = _in_use()
    reader = _Reader(limits)
    _send(channel, {"ready": os.getpid()}, [])
    for line in sys.stdin.buffer:
        request = json.loads(line)
        operation, path = request.pop("do"), Path(request.pop("path"))
        signal.alarm(int(limits.seconds) + _GRACE)
        try:
            with _limited_memory(limits):
                answer, raw = getattr(reader, operation)(path, **request)
        except RefusedError as error:
            about = getattr(error, "about", {})
            answer, raw = {"refused": [error.refusal.reason, error.refusal.detail], "about": about}, []
        except MemoryError:
            answer, raw = {"refused": [Reason.DECODER_LIMIT, _too_much(limits)], "about": {}, "last": True}, []
        except OSError as error:
            words = f"the file cannot be read: {os.strerror(error.errno or 0)}"
            answer, raw = {"refused": [Reason.NOT_DICOM, words], "about": {}}, []
        except Exception as error:  # of any library: the file is refused, the worker goes on
            reader.close()
            answer = {"refused": [Reason.DAMAGED, f"the object cannot be read ({type(error).__name__})"], "about": {}}
            raw = []
        signal.alarm(0)
        if _in_use() - idle > limits.memory_bytes // 2:
            answer["last"] = True
        _send(channel, answer, raw)
        if "last" in answer:
            return


def _too_much(limits: Limits) -> str:
    return f"reading needs more than {limits.memory_bytes >> 20} MiB of memory"


def _private_channel() -> BinaryIO:
    """Keeps standard output for answers and points what libraries print elsewhere."""
    channel = os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    return channel


def _prepare() -> None:
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold patient data


def _in_use() -> int:
    """Bytes of address space; 0 where that is not known (not Linux), and memory is then not limited."""
    if not _STATE.exists():
        return 0
    return int(_STATE.read_text("ascii").split()[0]) * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def _limited_memory(limits: Limits) -> Iterator[None]:
    """Limits the address space to what is in use now and the allowance."""
    used = _in_use()
    if not used:
        yield
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (used + limits.memory_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def _send(channel: BinaryIO, answer: dict[str, Any], raw: list[bytes]) -> None:
    text = json.dumps(answer).encode("ascii")
    channel.write(struct.pack("<L", len(text)))
    channel.write(text)
    for one in raw:
        channel.write(one)
    channel.flush()
