"""One function per fault of a line: brings it about, runs the line, and counts what became of the parts.

Every case stores its results in a real database and counts there. Faults of cameras and inspectors are brought about
in this process; faults of processes, files, disks and brokers by the real command, a real small disk, a real broker.
"""

import os
import re
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly.calibration import Decision
from anomaly.errors import DatasetError
from benchmarks.line_fault_tools import (
    BALLAST,
    broker,
    fill,
    finished,
    free_port,
    image_files,
    moved,
    recipe_in,
    small_disk,
    started,
    subscriber,
    wait_for,
)
from inspection.line.errors import LineError
from inspection.line.runner import Line
from inspection.line.settings import LineSettings
from inspection.line.sources.base import Serial, Source
from inspection.line.sources.given import GivenParts
from inspection.line.sources.watching import WatchedFolder, WatchTimes
from inspection.line.testing import Judge, in_thread, parts, wait_until
from inspection.parts import JUDGED, Part, PartResult
from inspection.recipe.recipe import Recipe
from inspection.results.errors import StoreError
from inspection.results.records import Run
from inspection.results.reporting import Reporter, open_store
from inspection.results.settings import PictureSettings, ResultsSettings

_QUICK: dict[str, Any] = {"part_timeout_ms": 300.0, "deadline_ms": 200.0, "watchdog_s": 0.3, "stop_s": 2.0}
_PICTURES = PictureSettings(raw=(), overlay=())


@dataclass(frozen=True)
class Case:
    """What a fault did.

    Attributes:
        fault: what was done.
        said: what the line said: alarms, error, exit status.
        parts: parts that there were.
        stored: results by decision and reason, e.g. {"NG TIMEOUT": 1}.
        lost: parts without a result.
        twice: results beyond one for each part.
        wrongly_ok: parts that are OK though they cannot have been judged.
    """

    fault: str
    said: str
    parts: int
    stored: Mapping[str, int]
    lost: int
    twice: int
    wrongly_ok: int


def counted(
    fault: str, said: str, ids: Collection[str], results: Sequence[PartResult], judgeable: Collection[str]
) -> Case:
    """Counts results against the parts that there were, and against those that can have been judged."""
    names = [result.part for result in results]
    kinds = Counter(
        f"{result.decision}" if result.reason in JUDGED else f"{result.decision} {result.reason}" for result in results
    )
    wrong = sum(result.decision == Decision.OK and result.part not in judgeable for result in results)
    return Case(fault, said, len(ids), dict(kinds), len(set(ids) - set(names)), len(names) - len(set(names)), wrong)


def camera_stalls(folder: Path) -> Case:
    """A camera delivers, is silent for longer than the watchdog allows, and delivers again."""

    def camera() -> Iterator[Part]:
        for part in parts(20):
            if part.id == "p0010":
                time.sleep(1.0)
            yield part

    return _in_process("camera stalls for 1 s", folder, GivenParts(camera()), Judge(), _ids(20))


def camera_fails(folder: Path) -> Case:
    """The driver of a camera raises."""

    def camera() -> Iterator[Part]:
        yield from parts(20)
        raise OSError("no such device")

    return _in_process("camera is unplugged after 20 parts", folder, GivenParts(camera()), Judge(), _ids(20))


def inspection_hangs(folder: Path) -> Case:
    """An inspection never comes back."""

    def before(part: Part) -> None:
        if part.id == "p0010":
            threading.Event().wait()

    source = GivenParts(parts(20))
    return _in_process(
        "inspection hangs for ever from the 11th part on", folder, source, Judge(before), _ids(20), batch=1
    )


def inspection_fails(folder: Path) -> Case:
    """An inspection raises for every fifth part."""

    def before(part: Part) -> None:
        if int(part.id[1:]) % 5 == 0:
            raise RuntimeError("out of memory")

    return _in_process("inspection raises for each fifth part", folder, GivenParts(parts(20)), Judge(before), _ids(20))


def overload(folder: Path) -> Case:
    """Parts come faster than they are inspected, and the source cannot wait."""

    def slow(part: Part) -> None:
        time.sleep(0.02)

    settings: dict[str, Any] = {"on_overload": "ng", "queue": 5, "batch": 1}
    fault = "60 parts at once, queue of 5, on_overload = ng"
    return _in_process(fault, folder, GivenParts(parts(60)), Judge(slow), _ids(60), **settings)


def disk_full_for_a_while(folder: Path) -> Case:
    """The disk of the database is full, and has room again before the line gives up."""
    with small_disk(folder) as disk:

        def camera() -> Iterator[Part]:
            ballast = fill(disk)
            yield from parts(40)
            time.sleep(1.0)
            ballast.unlink()

        fault, database = "disk of the database full for 1 s", disk / "results.sqlite"
        source = GivenParts(camera())
        return _in_process(fault, folder, source, Judge(), _ids(40), database=database, watchdog_s=10.0)


def disk_full(folder: Path) -> Case:
    """The disk of the database stays full: the line stops; it is started again on the same folder with room."""
    with small_disk(folder) as disk:
        database, images = disk / "results.sqlite", image_files(folder, 20)
        settings = LineSettings(**{**_QUICK, "report_retry_s": 0.5})
        said = [_watched(folder, images, database, settings, lambda: fill(disk))]
        (disk / BALLAST).unlink()
        said.append(_watched(folder, images, database, settings, lambda: None))
        names = [path.name for path in images]
        results = _stored(ResultsSettings(database=str(database)), folder)
    fault = "disk of the database stays full; then room and a restart on the folder"
    return counted(fault, " Restart: ".join(said), names, results, names)


def model_corrupt(folder: Path) -> Case:
    """One byte of the model file is another."""
    recipe = recipe_in(folder)
    model = recipe.with_suffix(".safetensors")
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    images = image_files(folder, 10)
    status, _, error = finished(started(recipe, str(images[0].parent)))
    assert not (folder / "results.sqlite").exists()
    said = f"exit {status}: {error.strip().splitlines()[-1].replace(str(folder) + os.sep, '')[:100]}..."
    return counted("one bit of the model file is flipped", said + " No part was taken", [], [], [])


def unreadable(folder: Path, count: int = 1000) -> Case:
    """Five of a hundred files are truncated, empty, or no images."""
    recipe, images = recipe_in(folder), image_files(folder, count)
    broken = images[::20]
    for number, path in enumerate(broken):
        path.write_bytes([path.read_bytes()[:300], b"", b"this is no image"][number % 3])
    status, summary, _ = finished(started(recipe, str(images[0].parent)))
    intact = {path.name for path in images} - {path.name for path in broken}
    said = f"exit {status}; {summary['reasons'].get('UNREADABLE', 0)} UNREADABLE"
    ids = [path.name for path in images]
    return counted(f"{count:,} parts, {len(broken)} files unreadable", said, ids, _of(recipe), intact)


def killed(folder: Path, count: int = 150) -> Case:
    """The process is killed with SIGKILL while it works, and started again on the same folder."""
    recipe, images = recipe_in(folder, batch=1), image_files(folder, count)
    ids = [path.name for path in images]
    first = started(recipe, f"watch:{images[0].parent}")
    wait_for(first, lambda: _count(recipe) >= count // 10)
    first.kill()
    first.communicate()
    before = _count(recipe)
    second = started(recipe, f"watch:{images[0].parent}")
    wait_for(second, lambda: _count(recipe) >= count)
    time.sleep(1.0)  # would more come?
    second.terminate()
    status, _, _ = finished(second)
    results = _of(recipe)
    said = f"{before} stored when killed; the restart stored {len(results) - before}; exit {status} after SIGTERM"
    return counted("kill -9 while it works, then a restart on the folder", said, ids, results, ids)


def terminated(folder: Path, count: int = 400) -> Case:
    """The process is told to stop with SIGTERM while it works."""
    recipe, images = recipe_in(folder), image_files(folder, count)
    process = started(recipe, str(images[0].parent))
    wait_for(process, lambda: _count(recipe) >= count // 10)
    process.terminate()
    status, summary, _ = finished(process)
    results = _of(recipe)
    ids = [path.name for path in images[: summary["seen"]]]
    seen, judged = summary["seen"], summary["judged"]
    said = f"exit {status}, {summary['state']}; {seen} of {count} parts were taken in, {judged} judged"
    return counted("SIGTERM while it works", said, ids, results, ids)


def broker_down(folder: Path, count: int = 40) -> Case:
    """The MQTT broker is away while the line runs, and comes back before its next start."""
    program = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        raise DatasetError("no mosquitto: apt-get install mosquitto")
    port = free_port()
    publisher = f'[[results.publishers]]\ntype = "mqtt"\nport = {port}\ntopic = "faults"\nclient_id = "faults"\n'
    recipe, images = recipe_in(folder, more=publisher), image_files(folder, count + 1)
    last = images.pop()
    first, summary, _ = finished(started(recipe, str(moved(images, folder / "first"))))
    with broker(program, port, folder), subscriber(port, "faults/results") as received:
        second, _, _ = finished(started(recipe, str(moved([last], folder / "second"))))
        wait_until(lambda: len(set(received)) >= count + 1, 30)
    ids = [path.name for path in [*images, last]]
    said = (
        f"exit {first}: {summary['problems'][0].split(': ', 1)[1]}. With the broker back: exit {second}, "
        f"{len(set(received))} of {count + 1} messages came"
    )
    return counted("MQTT broker away; then back", said, ids, _of(recipe), ids)


CASES: tuple[Callable[[Path], Case], ...] = (
    camera_stalls,
    camera_fails,
    inspection_hangs,
    inspection_fails,
    overload,
    disk_full_for_a_while,
    disk_full,
    model_corrupt,
    broker_down,
    killed,
    terminated,
    unreadable,
)


def _ids(count: int) -> list[str]:
    return [f"p{number:04d}" for number in range(count)]


def _in_process(
    fault: str,
    folder: Path,
    source: Source,
    judge: Judge,
    ids: list[str],
    database: Path | None = None,
    **settings: Any,
) -> Case:
    results = ResultsSettings(database=str(database or folder / "results.sqlite"), pictures=_PICTURES)
    with Reporter.open(results, folder, Run.now(recipe="", model="")) as reporter:
        line = Line(source, judge, reporter.report, LineSettings(**{**_QUICK, **settings}))
        said = _said(line)
        # A part can have been judged only if the inspection was given it and came back.
        return counted(fault, said, ids, [one.result for one in reporter.store.results()], judge.done)


def _said(line: Line) -> str:
    """Runs a line; returns its alarms and its error."""
    error = ""
    try:
        line.run()
    except LineError as stopped:
        error = "; error: " + re.sub(r"/\S+/", "", str(stopped).split("; without")[0])
    kinds = [f"alarm {alarm.kind}{'' if alarm.until else ' (lasts)'}" for alarm in line.status().alarms]
    return ", ".join(kinds or ["no alarm"]) + error


def _watched(
    folder: Path, images: list[Path], database: Path, settings: LineSettings, opened: Callable[[], object]
) -> str:
    """Runs a line on a watched folder until everything is reported or it stops by itself."""
    times = WatchTimes(poll=0.05, settle=0.1, give_up=1.0)
    source = WatchedFolder(images[0].parent, folder / "line" / "memory.sqlite", Serial(), times=times)
    results = ResultsSettings(database=str(database), pictures=_PICTURES)
    reporter = Reporter.open(results, folder, Run.now(recipe="", model=""))
    opened()
    line = Line(source, Judge(), reporter.report, settings)
    thread, said = in_thread(lambda: _said(line))
    wait_until(lambda: bool(said) or line.status().figures.reported >= len(images), 30)
    line.stop()
    thread.join()
    source.close()
    with suppress(StoreError):  # the end of the run cannot be written on a full disk
        reporter.close()
    return str(said[0])


def _stored(settings: ResultsSettings, folder: Path) -> list[PartResult]:
    with open_store(settings, folder) as store:
        return [stored.result for stored in store.results()]


def _of(recipe: Path) -> list[PartResult]:
    return _stored(Recipe.read(recipe).results, recipe.parent)


def _count(recipe: Path) -> int:
    """Returns how many results there are while the command works; none before it has made the database."""
    try:
        return len(_of(recipe))
    except StoreError:
        return 0
