"""Progress of long work: what the jobs report to, and the bar that the command line shows."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Progress = Callable[[str, int], Callable[[int], None]]
"""Called with what is being done and how many steps it has; returns what is called with the steps just done."""

_SHORT = 2.0
_ACTIVE: ContextVar[Progress | None] = ContextVar("progress", default=None)


def silent(what: str, steps: int) -> Callable[[int], None]:
    """Shows nothing."""
    return lambda done: None


@contextmanager
def bars(delay: float = 0.0) -> Iterator[Progress]:
    """Shows one bar per piece of work on standard error; plain lines where that is no terminal.

    Args:
        delay: seconds of work before anything is shown; the work must report now and then.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    shown = Bars(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True))
    begun, running = time.monotonic(), False

    def show() -> None:
        nonlocal running
        if not running and time.monotonic() - begun >= delay:
            shown.start()
            running = True

    def start(what: str, steps: int) -> Callable[[int], None]:
        task = shown.add_task(what, total=steps)

        def advance(done: int) -> None:
            shown.advance(task, done)
            show()

        return advance

    token = _ACTIVE.set(start)
    show()
    try:
        yield start
    finally:
        _ACTIVE.reset(token)
        if running:
            shown.stop()


@contextmanager
def active_bars() -> Iterator[Progress]:
    """Gives the bars that the caller shows already; where it shows none, own ones for work of more than two seconds."""
    progress = _ACTIVE.get()
    if progress is not None:
        yield progress
        return
    with bars(_SHORT) as progress:
        yield progress
