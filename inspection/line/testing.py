"""Parts, inspectors and reports with which a line is tried without a camera, a model and a database."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from anomaly.calibration import Decision
from inspection.parts import Inspected, Part, PartResult, Reason


def part(name: str, problem: str = "") -> Part:
    """Returns a part with a black (4, 4, 1) uint8 image, or with a problem, captured now."""
    image = None if problem else np.zeros((4, 4, 1), np.uint8)
    return Part(id=name, source="test", captured=datetime.now(UTC), image=image, problem=problem)


def parts(count: int) -> Iterator[Part]:
    """Yields parts p0000, p0001, ... that are captured when they are asked for, as a camera's are."""
    for number in range(count):
        yield part(f"p{number:04d}")


def ok(part: Part) -> Inspected:
    """Returns the result of a part that was judged and is OK."""
    result = PartResult(
        part=part.id,
        source=part.source,
        captured=part.captured,
        decision=Decision.OK,
        reason=Reason.SCORE,
        score=0.0,
        p_value=1.0,
    )
    return Inspected(result, part.image)


@dataclass
class Judge:
    """An inspector that calls every part OK.

    Attributes:
        before: is called with each part first; it may wait or raise.
        asked: ids of the parts that it was given.
        done: ids of the parts that it judged.
    """

    before: Callable[[Part], object] = lambda part: None
    asked: list[str] = field(default_factory=list)
    done: list[str] = field(default_factory=list)

    def __call__(self, parts: Sequence[Part]) -> list[Inspected]:
        """Returns one OK per part, in order."""
        judged = []
        for one in parts:
            self.asked.append(one.id)
            self.before(one)
            judged.append(ok(one))
            self.done.append(one.id)
        return judged


@dataclass
class Kept:
    """A report that keeps results in memory.

    Attributes:
        before: is called before results are kept; it may wait or raise.
        results: all that were kept.
    """

    before: Callable[[], object] = lambda: None
    results: list[PartResult] = field(default_factory=list)

    def __call__(self, inspected: Sequence[Inspected]) -> None:
        """Keeps results."""
        self.before()
        self.results += [one.result for one in inspected]

    @property
    def names(self) -> list[str]:
        """Ids of all parts that were kept, sorted."""
        return sorted(result.part for result in self.results)

    def of(self, name: str) -> PartResult:
        """Returns the one result of a part."""
        (found,) = [result for result in self.results if result.part == name]
        return found


def wait_until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits for a condition.

    Raises:
        TimeoutError: it did not come true.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"it did not happen within {seconds:g} s")
        time.sleep(0.005)


def in_thread(run: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Runs something in a thread; returns it, and a list that receives what it returned or raised."""
    ended: list[object] = []

    def target() -> None:
        try:
            ended.append(run())
        except Exception as error:
            ended.append(error)

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    return thread, ended
