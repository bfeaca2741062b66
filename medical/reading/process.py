"""The parent's side of the worker process: asks, waits a limited time, and starts a fresh one where one died."""

import fcntl
import json
import os
import select
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from anomaly.errors import AnomalyError
from medical.pseudonyms import KEY_VARIABLE
from medical.reading.limits import MIB, Limits
from medical.refusals import Reason, RefusedError

_START = "from medical.reading.worker import main; main()"
_START_SECONDS = 120.0
_ANSWER_BYTES = 256 * MIB


class _DiedError(Exception):
    """The worker closed its end."""


class _LateError(Exception):
    """The worker did not answer in time."""


class Worker:
    """One worker process, started with the first request; a context manager. Threads may share it.

    Nothing that the worker does can end the caller: it is killed after `limits.seconds` and replaced if it dies.
    """

    def __init__(self, limits: Limits) -> None:
        """Starts nothing yet."""
        self.limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.RLock()

    def __enter__(self) -> "Worker":
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends the process."""
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the running worker; None where none runs."""
        return None if self._process is None else self._process.pid

    def close(self) -> None:
        """Ends the process; a later request starts another."""
        process, self._process = self._process, None
        if process is None:
            return
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def ask(self, do: str, path: Path, **arguments: Any) -> tuple[dict[str, Any], list[bytearray]]:
        """Sends one request and returns the answer and its raw bytes.

        Args:
            do: "header", "frame" or "directory".
            path: the file.
            arguments: of the operation.

        Raises:
            RefusedError: the worker refused the file, took too long or died over it; its `about` says what is known.
            AnomalyError: the worker does not start.
        """
        with self._lock:
            try:
                answer, raw = self._answer({"do": do, "path": str(path.absolute()), **arguments})
            except _LateError:
                self.close()
                raise RefusedError(
                    Reason.DECODER_LIMIT, f"reading took longer than {self.limits.seconds:g} s and was stopped"
                ) from None
            except _DiedError:
                code = self._process.wait() if self._process is not None else 0
                self.close()
                raise RefusedError(Reason.DECODER, f"the reading process ended over it (status {code})") from None
            except BaseException:
                self.close()  # half an answer may lie in the pipe
                raise
            if "last" in answer:
                self.close()
        if "refused" in answer:
            reason, detail = answer["refused"]
            refused = RefusedError(Reason(reason), detail)
            refused.about = answer["about"]  # type: ignore[attr-defined]
            raise refused
        return answer, raw

    def _answer(self, request: dict[str, Any]) -> tuple[dict[str, Any], list[bytearray]]:
        process = self._process or self._started()
        assert process.stdin is not None
        end = time.monotonic() + self.limits.seconds
        try:
            process.stdin.write(json.dumps(request).encode("ascii") + b"\n")
            process.stdin.flush()
        except BrokenPipeError:
            raise _DiedError from None
        return self._received(process, end)

    def _started(self) -> "subprocess.Popen[bytes]":
        root = str(Path(__file__).parents[2])
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH", "")))),
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
        }
        environment.pop(KEY_VARIABLE, None)  # what decodes foreign files holds no keys
        command = [sys.executable, "-P", "-c", _START, json.dumps(self.limits.to_json())]
        self._process = subprocess.Popen(  # noqa: S603  # this very interpreter and a constant program
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
        )
        assert self._process.stdout is not None
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            fcntl.fcntl(self._process.stdout, fcntl.F_SETPIPE_SZ, MIB)  # the most that is allowed to everyone
        try:
            self._received(self._process, time.monotonic() + _START_SECONDS)
        except (_DiedError, _LateError):
            self.close()
            raise AnomalyError(
                "the reading process does not start; to see why: python -c 'import medical.reading.worker'"
            ) from None
        return self._process

    def _received(self, process: "subprocess.Popen[bytes]", end: float) -> tuple[dict[str, Any], list[bytearray]]:
        (length,) = struct.unpack("<L", self._bytes(process, 4, end))
        answer = json.loads(self._bytes(process, length, end))
        return answer, [self._bytes(process, size, end) for size in answer.get("raw", ())]

    def _bytes(self, process: "subprocess.Popen[bytes]", count: int, end: float) -> bytearray:
        assert process.stdout is not None
        if count > _ANSWER_BYTES:
            raise _DiedError
        found = bytearray(count)
        view, done, pipe = memoryview(found), 0, process.stdout.fileno()
        while done < count:
            if not select.select([pipe], [], [], max(end - time.monotonic(), 0))[0]:
                raise _LateError
            got = os.readv(pipe, [view[done:]])
            if got == 0:
                raise _DiedError
            done += got
        return found


def as_frame(answer: dict[str, Any], raw: list[bytearray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns values (H, W) or (H, W, 3) float32 and their validity (H, W) from the answer to "frame"."""
    shape = tuple(answer["shape"])
    values = np.frombuffer(raw[0], dtype=np.float32).reshape(shape)
    valid = np.frombuffer(raw[1], dtype=bool).reshape(shape[:2]) if len(raw) > 1 else np.ones(shape[:2], dtype=bool)
    return values, valid
