"""Parts from Python: any iterable of `Part`."""

from collections.abc import Generator, Iterable
from threading import Event

from inspection.line.sources.base import Forgetful
from inspection.parts import Part


class GivenParts(Forgetful):
    """Passes on the parts of an iterable, e.g. a generator around the library of a camera."""

    def __init__(self, parts: Iterable[Part], name: str = "python") -> None:
        """Stores the iterable; it is read once, in the thread of the line that asks for parts."""
        self.name = name
        self._parts = parts

    def parts(self, stop: Event) -> Generator[Part, None, None]:
        """Yields the parts. While the iterable computes the next one it is not interrupted."""
        for part in self._parts:
            yield part
            if stop.is_set():
                return
