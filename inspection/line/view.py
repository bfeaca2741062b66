"""The line on a terminal, drawn anew four times a second; plain lines where there is no terminal."""

import re
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Event, Thread
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from anomaly.calibration import Decision
from inspection.line.alarms import Alarm
from inspection.line.runner import State, Status
from inspection.line.summary import in_one_line, latency, missed, not_judged

_DRAWN_EVERY_S = 0.25
_LINE_EVERY_S = 10.0
_ASKED_EVERY_S = 2.0
_BAR = 20
_STYLES = {State.DONE: "bold green", State.FAILED: "bold red", State.STOPPING: "bold yellow"}


class LineView:
    """Shows a line while the `with` block lasts, from its own thread: a terminal that stands still stops nothing."""

    def __init__(
        self,
        title: str,
        deadline_ms: float,
        status: Callable[[], Status],
        problems: Callable[[], Sequence[str]],
        console: Console,
    ) -> None:
        """Stores what is asked for.

        Args:
            title: what runs, e.g. recipe and source.
            deadline_ms: milliseconds from capture to durable result.
            status: the line as it is now.
            problems: what people should see to besides the line's alarms, e.g. receivers that are away. May be slow.
            console: where it is shown.
        """
        self._title, self._deadline, self._status, self._problems = title, deadline_ms, status, problems
        self._console = console
        self._over = Event()
        self._thread = Thread(target=self._run, name="view", daemon=True)
        self._told: set[str] = set()

    def __enter__(self) -> "LineView":
        """Starts to show."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Shows the end, and waits a moment for a terminal that stands still."""
        self._over.set()
        self._thread.join(2.0)

    def _run(self) -> None:
        if self._console.is_terminal:
            self._draw()
        else:
            self._write()

    def _draw(self) -> None:
        with Live(console=self._console, auto_refresh=False) as live:
            problems: Sequence[str] = ()
            turn = 0
            while True:
                over = self._over.wait(_DRAWN_EVERY_S)
                if over or turn % (_ASKED_EVERY_S // _DRAWN_EVERY_S) == 0:
                    problems = self._problems()
                live.update(drawn(self._title, self._deadline, self._status(), problems), refresh=True)
                turn += 1
                if over:
                    return

    def _write(self) -> None:
        turn, lines, known = 0, int(_LINE_EVERY_S // _ASKED_EVERY_S), set[str]()
        self._say(self._title)
        while True:
            over = self._over.wait(_ASKED_EVERY_S)
            status = self._status()
            turn += 1
            for text in map(_alarm_in_words, status.alarms):
                if text not in self._told:
                    self._told.add(text)
                    self._say(text)
            known = self._tell_new(known)
            if over or turn % lines == 0:
                self._say(in_one_line(status))
            if over:
                return

    def _tell_new(self, known: set[str]) -> set[str]:
        """Says which problems were not there before; the same one with another number is the same."""
        problems = {re.sub(r"\d", "", text): text for text in self._problems()}
        for key, text in problems.items():
            if key not in known:
                self._say(text)
        return set(problems)

    def _say(self, text: str) -> None:
        self._console.print(
            f"{datetime.now().astimezone():%H:%M:%S} {text}", markup=False, soft_wrap=True, highlight=False
        )


def drawn(title: str, deadline_ms: float, status: Status, problems: Sequence[str]) -> RenderableType:
    """Returns the picture of a line for a terminal."""
    figures = status.figures
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_row("parts", f"{figures.reported:,} reported of {figures.seen:,}, {figures.rate:.1f} a second")
    if figures.reported:
        late = figures.missed > 0
        table.add_row("latency", f"{latency(figures)}; deadline {deadline_ms:g} ms")
        table.add_row("", Text(missed(figures), style="yellow" if late else ""))
        table.add_row("decisions", _decisions(status))
        unjudged = figures.reported - figures.judged
        table.add_row("not judged", Text(not_judged(figures.reasons), style="red" if unjudged else ""))
    table.add_row("queue", f"{_bar(status.waiting, status.queue)} {status.waiting}/{status.queue}")
    if figures.last_ng:
        last = figures.last_ng
        table.add_row("last NG", Text(f"{last.part}  {last.captured.astimezone():%H:%M:%S}  {last.reason}"))
    active = [Text(f"ALARM {alarm.kind}: {alarm.text}", style="bold red") for alarm in status.alarms if not alarm.until]
    notes = [Text(problem, style="yellow") for problem in problems]
    head = Text(str(status.state), style=_STYLES.get(status.state, "bold"))
    return Panel(
        Group(table, *active, *notes), title=Text(title), subtitle=head, title_align="left", subtitle_align="left"
    )


def _decisions(status: Status) -> Text:
    decisions, share = status.figures.decisions, status.figures.yield_share
    text = Text(f"OK {decisions.get(Decision.OK, 0):,} (yield {share:.1%})", style="green")
    text.append(f"  REVIEW {decisions.get(Decision.REVIEW, 0):,}", style="yellow")
    return text.append(f"  NG {decisions.get(Decision.NG, 0):,}", style="red")


def _bar(waiting: int, queue: int) -> str:
    filled = -(-waiting * _BAR // queue)
    return "█" * filled + "░" * (_BAR - filled)


def _alarm_in_words(alarm: Alarm) -> str:
    over = f", over since {alarm.until.astimezone():%H:%M:%S}" if alarm.until else ""
    return f"ALARM {alarm.kind} since {alarm.since.astimezone():%H:%M:%S}: {alarm.text}{over}"
