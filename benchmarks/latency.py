"""How long calls take, measured in turns so that whatever else the machine does hits all of them alike."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch

from anomaly.progress import Progress, silent

WARM = 3
"""Rounds that do not count."""
SETTLING = 3.0
"""Most seconds that `settle` waits."""


class Call(NamedTuple):
    """What is timed.

    Attributes:
        run: the call.
        threads: threads of torch during it; runtimes with threads of their own bring their setting along.
    """

    run: Callable[[], object]
    threads: int


class Latency(NamedTuple):
    """Wall time of one call in milliseconds: median and 90th percentile."""

    median: float
    p90: float


def take_turns(calls: Mapping[str, Call], runs: int) -> dict[str, Latency]:
    """Returns median and 90th percentile of what `times_in_turns` measures."""
    taken = times_in_turns(calls, runs)
    return {name: Latency(*(float(q) for q in np.quantile(times, (0.5, 0.9)))) for name, times in taken.items()}


@torch.inference_mode()
def times_in_turns(
    calls: Mapping[str, Call], runs: int, progress: Progress = silent, warm: int = WARM
) -> dict[str, list[float]]:
    """Times each call `runs` times, one after the other in every round, after `warm` rounds that do not count.

    Before a timed call the same one runs untimed: caches and threads are warm, as where part follows part. Before that,
    the threads of the call that had its turn come to rest.

    Args:
        calls: what is timed, by name.
        runs: timed calls of each.
        progress: is told which round it is.
        warm: rounds before those.

    Returns:
        Wall times in milliseconds of every call, in the order in which they were taken.
    """
    advance = progress("timed rounds", warm + runs)
    before = torch.get_num_threads()
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(warm + runs):
        for name, call in calls.items():
            torch.set_num_threads(call.threads)
            settle()
            call.run()
            start = time.perf_counter()
            call.run()
            if turn >= warm:
                taken[name].append(1000 * (time.perf_counter() - start))
        advance(1)
    torch.set_num_threads(before)
    return taken


def settle(most: float = SETTLING) -> None:
    """Waits until this process needs the CPU no more, at most `most` seconds.

    ONNX Runtime's threads go on spinning for a while after a run, in wait for the next one; whatever has its turn then
    would share the cores with them.
    """
    end = time.perf_counter() + most
    while time.perf_counter() < end:
        used, start = time.process_time(), time.perf_counter()
        time.sleep(0.01)
        if time.process_time() - used < 0.1 * (time.perf_counter() - start):
            return
