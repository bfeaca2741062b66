"""A run in a folder: results.csv, one row at a time, and run.json, what the rows depend on. Broken off, it goes on.

Rows are measured once. Sets, detectors, backbones and seeds may be added by a later call; whatever changes what a
figure means (the settings in run.json, the source of anomaly and benchmarks, the processor) is refused with its name.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from anomaly.catalog import BRIDGES, DETECTORS, detector_class
from anomaly.errors import MissingExtraError, SettingError, UnknownNameError
from anomaly.progress import Progress, silent
from benchmarks.environment import FACTS, facts
from benchmarks.running.coverage import COLUMNS as COVERAGE
from benchmarks.running.executors import here, on_ray
from benchmarks.running.parts import find_parts
from benchmarks.running.rows import measure
from benchmarks.running.work import COSTS, KEY, PEERS, QUALITY, Job, jobs
from benchmarks.tables import ResultFile

RESULTS, RUN = "results.csv", "run.json"
VALUES = (*QUALITY, *COVERAGE, *COSTS, *FACTS)
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Settings:
    """What all rows of a run share.

    Attributes:
        limit: training and test images at most; None for all.
        threads: threads of fits and scorings.
        held_out: share of the training normals that the fit does not see and that makes the thresholds, in (0, 1).
        epochs: passes of anomalib's trained models.
        runs: timed calls of the latency at batch 1.
    """

    limit: int | None = None
    threads: int = 1
    held_out: float = 0.25
    epochs: int = 20
    runs: int = 50

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        for name in ("threads", "epochs", "runs"):
            if getattr(self, name) < 1:
                raise SettingError.of("bench run", name, "1 or more", getattr(self, name))
        if self.limit is not None and self.limit < 4:
            raise SettingError.of("bench run", "limit", "4 or more", self.limit)
        if not 0 < self.held_out < 1:
            raise SettingError.of("bench run", "held_out", "in (0, 1)", self.held_out)


@dataclass(frozen=True)
class Wish:
    """Which rows a call asks for.

    Attributes:
        data: words of `parts`.
        detectors: names in the catalogue.
        peers: models of other programs.
        backbones: backbones of our detectors.
        seeds: seeds, 0 or more.
    """

    data: tuple[str, ...]
    detectors: tuple[str, ...]
    peers: tuple[str, ...] = ()
    backbones: tuple[str, ...] = ("bundled",)
    seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        """Refuses names that are not in their table, and nothing to do."""
        if not self.data or not (self.detectors or self.peers) or not self.seeds or not self.backbones:
            raise SettingError("bench run needs data, at least one detector or peer, a backbone and a seed")
        for name in self.detectors:
            if name not in DETECTORS:
                raise UnknownNameError.among("detector", name, DETECTORS)
        for peer in self.peers:
            _require_peer(peer)


def run(wish: Wish, settings: Settings, out: Path, *, fresh: bool, ray: bool, progress: Progress = silent) -> list[str]:
    """Measures the rows that the folder lacks.

    Args:
        wish: the rows.
        settings: what they share.
        out: folder of the run.
        fresh: set earlier results of the folder aside, under a name with the time, and begin anew.
        ray: hand the rows to Ray.
        progress: is told what is being done.

    Returns:
        One line per row that failed; empty if all went well.

    Raises:
        SettingError: the folder belongs to other settings or another source, or another run is writing to it.
        MissingExtraError: Ray or a peer is not installed.
        DatasetError: a set cannot be used.
    """
    from filelock import FileLock, Timeout

    executor = on_ray(settings.threads) if ray else here
    wanted = _jobs(wish, settings)
    out.mkdir(parents=True, exist_ok=True)
    lock = FileLock(out / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SettingError(f"another run is writing to {out}; wait for its end or name another folder") from None
    with lock:
        _begin(out, wish, settings, wanted, fresh)
        file = ResultFile(out / RESULTS, KEY, VALUES)
        return measure(file, wanted, settings.threads, settings.runs, progress, executor)[1]


def source() -> str:
    """Returns a hash of the Python files of anomaly and benchmarks: what a figure depends on, committed or not.

    The files that only draw the report do not count.
    """
    found = hashlib.sha256()
    for package in ("anomaly", "benchmarks"):
        for path in sorted((_ROOT / package).rglob("*.py")):
            if "reporting" not in path.parts:
                found.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()[:16]


def _jobs(wish: Wish, settings: Settings) -> list[Job]:
    make = partial(jobs, limit=settings.limit, epochs=settings.epochs, held_out=settings.held_out)
    names = [*wish.detectors, *wish.peers]
    parts = find_parts(wish.data)
    found = [job for part in parts for seed in wish.seeds for job in make([part], names, wish.backbones, seed=seed)]
    return list(dict.fromkeys(found))


def _begin(out: Path, wish: Wish, settings: Settings, wanted: Sequence[Job], fresh: bool) -> None:
    """Compares with what is there, or sets it aside; writes run.json."""
    path, now = out / RUN, facts()
    if fresh:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        for name in (RESULTS, RUN):
            if (out / name).exists():
                (out / name).rename(out / f"earlier-{stamp}-{name}")
    depends = {**asdict(settings), "source": source(), "cpu": now["cpu"], "cores": now["cores"]}
    asked = {name: list(value) for name, value in asdict(wish).items()}
    content: dict[str, Any] = {"depends": depends, "commit": now["commit"], "begun": now["date"], "asked": []}
    if path.is_file():
        content = json.loads(path.read_text(encoding="utf-8"))
        _refuse_changes(out, content, depends, now["commit"])
    elif (out / RESULTS).exists():
        raise SettingError(f"{out} has {RESULTS} without {RUN}, so nobody knows its settings; --fresh sets it aside")
    if asked not in content["asked"]:
        content["asked"].append(asked)
    content["sets"] = content.get("sets", {}) | {
        job.part.title: job.protocol(None).split for job in {job.part: job for job in wanted}.values()
    }
    partial_file = path.with_suffix(".part")
    with partial_file.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    partial_file.replace(path)


def _refuse_changes(out: Path, content: dict[str, Any], depends: dict[str, Any], commit: str) -> None:
    changed = [
        f"{name}: {content['depends'].get(name)} -> {value}"
        for name, value in depends.items()
        if content["depends"].get(name) != value
    ]
    if changed:
        raise SettingError(
            f"the rows in {out} (begun {content['begun']}, commit {content['commit']}; now {commit}) were measured "
            f"under other conditions: {'; '.join(changed)}. Name another folder, or --fresh to set them aside"
        )


def _require_peer(name: str) -> None:
    prefix, colon, model = name.partition(":")
    if not colon or prefix not in BRIDGES:
        raise SettingError(f"a peer is named like anomalib:Patchcore; got {name!r}")
    needs = getattr(detector_class(name), "needs", None)
    if name not in PEERS and needs is not None:
        from anomaly.detectors.anomalib_bridge.models import MODELS

        if MODELS[model].weights or MODELS[model].folder:
            raise SettingError(
                f"{name} needs weights or a folder that this command has no setting for; peers that run: "
                f"{', '.join(PEERS)}, and models without a pretrained part"
            )
    if find_spec(prefix) is None:
        raise MissingExtraError.of(prefix, prefix, f"the peer {name}")
