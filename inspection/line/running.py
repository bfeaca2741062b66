"""A recipe on a source: inspector, results, source, line, signals and view, opened and closed in the right order."""

import signal
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from anomaly.errors import AnomalyError
from inspection.inspector import RecipeInspector
from inspection.line.errors import LineError
from inspection.line.runner import Line, Status
from inspection.line.sources.memory import OpenFile
from inspection.line.sources.opening import SourceOptions, open_source
from inspection.line.view import LineView
from inspection.results.pictures import Look
from inspection.results.records import Run
from inspection.results.reporting import Reporter
from inspection.results.store import ResultsStore

if TYPE_CHECKING:
    from rich.console import Console

MEMORY = "line"
"""Folder beside the recipe for what watched folders remember."""


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run: its id in the results store.
        status: the line at its end.
        problems: what people should see to, e.g. messages that wait for a receiver.
        error: why it stopped although it was not told to, "" if it did not.
    """

    run: str
    status: Status
    problems: list[str]
    error: str


def run_recipe(recipe: Path, source: str, serial: str, producer: Path | None, console: "Console") -> Outcome:
    """Runs a line until its source ends or a signal stops it.

    Args:
        recipe: the recipe.
        source: what `--source` says, see `opening.KINDS`.
        serial: regular expression of the serial number in a file name; "" takes the name.
        producer: GenTL producer of GigE Vision cameras.
        console: where the line is shown.

    Raises:
        AnomalyError: the line could not start; no part was taken.
    """
    inspector = RecipeInspector.open(recipe)
    made = inspector.recipe
    _import_early()
    options = SourceOptions(
        memory=made.folder / MEMORY,
        serial=serial,
        producer=producer,
        was_reported=lambda file: is_stored(reporter.store, file),
    )
    with closing(open_source(source, options)) as parts:
        run = Run.now(recipe=made.sha256, model=made.model.sha256)
        look = Look(scale=inspector.scale, contour=inspector.contour, value_range=inspector.value_range)
        reporter = Reporter.open(made.results, made.folder, run, look=look)
        line = Line(parts, inspector, reporter.report, made.line, made.sha256, made.model.sha256)
        title = f"{made.product}: {recipe} on {parts.name}"
        view = LineView(title, made.line.deadline_ms, line.status, lambda: _problems(reporter), console)
        errors = []
        with view, stopped_by_signals(line):
            try:
                line.run()
            except LineError as stopped:
                errors.append(str(stopped))
        problems = _problems(reporter)
        try:
            reporter.close()
        except AnomalyError as failed:  # everything that was reported is stored all the same
            errors.append(str(failed))
    return Outcome(run.id, line.status(), problems, "; ".join(errors))


def _import_early() -> None:
    """Loads what pictures need: otherwise the first NG part would wait for it."""
    import cv2  # noqa: F401

    import anomaly.report.heatmap
    import anomaly.report.words  # noqa: F401


def is_stored(store: ResultsStore, file: OpenFile) -> bool:
    """Returns whether the result of a file is in the store, in whatever run.

    Raises:
        StoreError: the store cannot be read.
    """
    captured = datetime.fromisoformat(file.captured)
    found = store.results(part=file.part, since=captured, until=captured + timedelta(microseconds=1), limit=1)
    return next(found, None) is not None


@contextmanager
def stopped_by_signals(line: Line) -> Iterator[None]:
    """Has SIGINT and SIGTERM stop the line while the block lasts; a second one does not wait for parts in flight."""

    def stop(number: int, frame: FrameType | None) -> None:
        line.stop()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _problems(reporter: Reporter) -> list[str]:
    try:
        return [f"{problem.where}: {problem.what}" for problem in reporter.problems()]
    except AnomalyError as error:
        return [str(error)]
