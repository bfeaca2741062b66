"""Progress of long work: what the jobs report to, and the bar that the command line shows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[str, int], Callable[[int], None]]
"""Called with what is being done and how many steps it has; returns what is called with the steps just done."""


def silent(what: str, steps: int) -> Callable[[int], None]:
    """Shows nothing."""
    return lambda done: None


@contextmanager
def bars() -> Iterator[Progress]:
    """Shows one bar per piece of work on standard error; plain lines where that is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)) as shown:

        def start(what: str, steps: int) -> Callable[[int], None]:
            task = shown.add_task(what, total=steps)
            return lambda done: shown.advance(task, done)

        yield start
