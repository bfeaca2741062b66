"""Measures whatever a result file lacks, row by row: the one loop behind every table of detectors."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from anomaly.progress import Progress, silent
from benchmarks.detector_sets import Protocol
from benchmarks.environment import facts
from benchmarks.running.executors import Executor, here
from benchmarks.running.work import NONE, SHORTCUT, SHORTCUTS, Job, measured, shortcuts
from benchmarks.tables import ResultFile


def measure(
    file: ResultFile,
    wanted: Sequence[Job],
    threads: int,
    runs: int,
    progress: Progress = silent,
    executor: Executor[Any] = here,
) -> tuple[list[dict[str, str]], list[str]]:
    """Measures the rows that are not there yet, each on the disk before the next; a row that fails stops no other.

    Args:
        file: receives the rows; it may keep fewer columns than are measured.
        wanted: rows, set by set.
        threads: threads of fits and scorings.
        runs: timed calls per latency.
        progress: is told what is being done.
        executor: who does the work.

    Returns:
        The rows of all that was asked for, shortcuts last in each set, and one line per row that failed.
    """
    keys, shown = _prepared(file, wanted, threads)
    failed: list[str] = []
    missing = [job for job in wanted if file.find(keys[job]) is None]
    advance = progress("rows", len(wanted))
    advance(len(wanted) - len(missing))
    for job, found in executor(missing, partial(measured, threads=threads, runs=runs)):
        if isinstance(found, dict):
            file.add({**keys[job], **found})
        else:
            failed.append(f"{job.part.title}: {job.detector} ({job.backbone}) failed, see above")
        advance(1)
    return [row for row in map(file.find, shown) if row], failed


def _prepared(
    file: ResultFile, wanted: Sequence[Job], threads: int
) -> tuple[dict[Job, dict[str, Any]], list[dict[str, Any]]]:
    """Measures the shortcuts, which takes one pass over the images, and returns the keys of jobs and of all rows."""
    keys: dict[Job, dict[str, Any]] = {}
    shown: list[dict[str, Any]] = []
    for part in dict.fromkeys(job.part for job in wanted):
        own = [job for job in wanted if job.part == part]
        opened = {job.seed: job.protocol(None) for job in own}
        keys |= {job: job.key(opened[job.seed], threads) for job in own}
        shown += [keys[job] for job in own]
        shown += _shortcut_rows(file, own[0], opened[own[0].seed], threads)
    return keys, shown


def _shortcut_rows(file: ResultFile, job: Job, protocol: Protocol, threads: int) -> list[dict[str, Any]]:
    common = job._replace(backbone=NONE, seed=0, held_out=0.0)  # the test images are the same under every seed
    wanted = [common._replace(detector=SHORTCUT + name).key(protocol, threads) for name in SHORTCUTS]
    for key in wanted:
        key["epochs"] = NONE
    if any(file.find(key) is None for key in wanted):
        found = shortcuts(protocol)
        for key in wanted:
            file.add({**key, **found[key["detector"]], **facts()})
    return wanted
