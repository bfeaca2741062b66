"""A piece of work in a fresh interpreter, with its wall time, CPU time and peak memory.

Peak memory is the kernel's high-water mark of the process (VmHWM). ru_maxrss is the same figure, but a process inherits
the one of the program that started it, so it is used only where /proc is missing.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

_MIB = 2**20
T = TypeVar("T")


def run_isolated(task: str, arguments: Mapping[str, Any], threads: int) -> Any:
    """Runs "module:function" in a new process with this interpreter and returns its result.

    Args:
        task: the function; takes JSON-able keyword arguments and returns something JSON-able.
        arguments: what it is called with.
        threads: threads of the numerical libraries.

    Raises:
        subprocess.CalledProcessError: the function failed; its traceback is on standard error.
    """
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks.isolated", task, json.dumps(arguments), str(result)]
        subprocess.run(command, check=True, env=environment)  # noqa: S603 - this module, by this interpreter
        return json.loads(result.read_text(encoding="utf-8"))


class Meter:
    """Measures the process that it is created in, from its creation on, with all threads.

    Create it after the imports: `figures` then tells apart what the program holds and what the work adds.
    """

    def __init__(self) -> None:
        """Starts the clocks."""
        self._imports = peak_mib()
        self._features = (0.0, 0.0)
        self._start = _clocks()

    def features(self, batches: Iterable[T]) -> Iterator[T]:
        """Yields what it is given; the time that the batches take to come is counted as feature extraction."""
        source = iter(batches)
        while True:
            wall, cpu = _clocks()
            batch = next(source, None)
            now = _clocks()
            self._features = (self._features[0] + now[0] - wall, self._features[1] + now[1] - cpu)
            if batch is None:
                return
            yield batch

    def figures(self) -> dict[str, float]:
        """Returns `FIGURES` up to now; "rest" is the time outside `features`."""
        wall, cpu = (now - start for now, start in zip(_clocks(), self._start, strict=True))
        peak = peak_mib()
        return {
            "features_cpu_s": self._features[1],
            "rest_cpu_s": cpu - self._features[1],
            "fit_cpu_s": cpu,
            "features_wall_s": self._features[0],
            "rest_wall_s": wall - self._features[0],
            "fit_wall_s": wall,
            "imports_mib": self._imports,
            "peak_mib": peak,
            "added_mib": peak - self._imports,
        }


FIGURES = (
    *("features_cpu_s", "rest_cpu_s", "fit_cpu_s", "features_wall_s", "rest_wall_s", "fit_wall_s"),
    *("imports_mib", "peak_mib", "added_mib"),
)
"""Columns of `Meter.figures`: seconds and MiB."""


def peak_mib() -> float:
    """Returns the largest resident memory of this process so far, in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / _MIB
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _MIB


def _clocks() -> tuple[float, float]:
    """Returns wall time and CPU time (user and system, all threads, finished children) in seconds."""
    return time.perf_counter(), sum(os.times()[:4])


def _main() -> None:
    task, arguments, result = sys.argv[1:]
    module, _, function = task.partition(":")
    outcome = getattr(import_module(module), function)(**json.loads(arguments))
    Path(result).write_text(json.dumps(outcome), encoding="utf-8")


if __name__ == "__main__":
    _main()
