"""What analyses a study, and the process that it runs in.

The process lives as long as the service, so that a model is loaded once; it is ended and started anew when it crashes
or takes too long. It talks in lines of JSON (see `analysis_process`), so that nothing is pickled, and what it prints
goes nowhere: it may hold patient data.
"""

import json
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol, runtime_checkable

from medical.pacs.errors import AnalysisError
from medical.pacs.settings import AnalysisSettings
from medical.pacs.states import Cause

_LONGEST_LINE = 1 << 20
_LOOK_SECONDS = 0.2


@dataclass(frozen=True)
class AnalysisResult:
    """What an analysis hands over.

    Attributes:
        outcome_status: ANALYSED, PARTLY_ANALYSED or NOT_ANALYSED, as `medical.outcome.Outcome.status` says.
        files_to_send: DICOM files within the folder `out`; may be none.
        summary: one line for people, without patient data.
    """

    outcome_status: str
    files_to_send: tuple[Path, ...]
    summary: str


@runtime_checkable
class Analyser(Protocol):
    """Analyses one study after the other, in a process of its own.

    The same study may come again: after a crash, and with more objects. Results of the first kind are discarded; those
    of the second go out as well, so a result needs another SOP Instance UID unless it is the same byte for byte.
    """

    def analyse(self, files: Sequence[Path], out: Path) -> AnalysisResult:
        """Analyses the objects of one study.

        Args:
            files: DICOM files that must not be changed.
            out: empty folder for results.

        Raises:
            RefusedError: with its code; like every other error it makes the attempt fail. A study that cannot be
                analysed is no error but a result with the status NOT_ANALYSED.
        """
        ...


class AnalysisStopped(Exception):  # noqa: N818 - no error: the service was asked to stop
    """The service stops in the middle of an analysis."""


class AnalysisProcess:
    """Runs analyses in another process."""

    def __init__(self, settings: AnalysisSettings, stopping: threading.Event) -> None:
        """Starts nothing yet.

        Args:
            settings: what analyses.
            stopping: set when the service stops; a running analysis is then given up.
        """
        self._settings, self._stopping = settings, stopping
        self._process: subprocess.Popen[bytes] | None = None

    def run(self, files: Sequence[Path], out: Path) -> AnalysisResult:
        """Analyses one study.

        Raises:
            AnalysisError: the attempt ended without a result.
            AnalysisStopped: the service stops.
        """
        deadline = time.monotonic() + self._settings.timeout_minutes * 60
        try:
            process = self._started()
            request = {"files": [str(path) for path in files], "out": str(out)}
            _input(process).write(json.dumps(request).encode() + b"\n")
            _input(process).flush()
            answer = self._answer(process, deadline)
        except OSError:
            self.close()
            raise AnalysisError(Cause.ANALYSER_ENDED, "its process ended") from None
        except BaseException:
            self.close()
            raise
        return _result(answer, out)

    def close(self) -> None:
        """Ends the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            _input(process).close()
            _output(process).close()

    def _started(self) -> "subprocess.Popen[bytes]":
        if self._process is None:
            command = [sys.executable, "-m", "medical.pacs.analysis_process", self._settings.analyser]
            self._process = subprocess.Popen(  # noqa: S603 - this Python, and a name from the settings
                [*command, json.dumps(self._settings.arguments)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=self._settings.folder,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
                start_new_session=True,  # Ctrl-C at a terminal is for the service alone
            )
        return self._process

    def _answer(self, process: "subprocess.Popen[bytes]", deadline: float) -> dict[str, object]:
        line = b""
        output = _output(process)
        while not line.endswith(b"\n"):
            if self._stopping.is_set():
                raise AnalysisStopped
            if time.monotonic() > deadline:
                limit = f"{self._settings.timeout_minutes:g} minutes"
                raise AnalysisError(Cause.ANALYSER_TIMEOUT, f"it took longer than {limit}")
            if select.select([output], [], [], _LOOK_SECONDS)[0]:
                part = os.read(output.fileno(), 1 << 16)
                line += part
                if not part or len(line) > _LONGEST_LINE:
                    raise AnalysisError(Cause.ANALYSER_ENDED, f"its process ended with status {_status(process)}")
        answer = json.loads(line)
        assert isinstance(answer, dict)
        return answer


def _result(answer: dict[str, object], out: Path) -> AnalysisResult:
    if "error" in answer:
        raise AnalysisError(Cause.ANALYSER_ERROR, str(answer["error"])[:300])
    names = answer["files"]
    assert isinstance(names, list)
    files = tuple(Path(str(name)) for name in names)
    if any(out.resolve() not in path.resolve().parents for path in files):
        raise AnalysisError(Cause.ANALYSER_RESULT, "a result does not lie in the folder for results")
    return AnalysisResult(str(answer["status"]), files, str(answer["summary"])[:300])


def _status(process: "subprocess.Popen[bytes]") -> int:
    """The exit status of a process that has ended or talks nonsense; negative: the signal that ended it."""
    try:
        return process.wait(_LOOK_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def _input(process: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert process.stdin is not None
    return process.stdin


def _output(process: "subprocess.Popen[bytes]") -> IO[bytes]:
    assert process.stdout is not None
    return process.stdout
