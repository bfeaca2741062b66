"""The state of a line in words and as JSON."""

import math
from collections.abc import Mapping
from typing import Any

from anomaly.calibration import Decision
from inspection.line.counters import Figures
from inspection.line.runner import Status
from inspection.parts import JUDGED


def as_json(status: Status) -> dict[str, Any]:
    """Returns the line as plain values; what has no value yet is None."""
    figures = status.figures
    last = figures.last_ng
    return {
        "state": str(status.state),
        "seen": figures.seen,
        "reported": figures.reported,
        "judged": figures.judged,
        "decisions": {str(decision): figures.decisions.get(decision, 0) for decision in Decision},
        "reasons": {str(reason): count for reason, count in sorted(figures.reasons.items())},
        "yield": _known(figures.yield_share),
        "seconds": figures.seconds,
        "rate": figures.reported / figures.seconds if figures.seconds else None,
        "p50_ms": _known(figures.p50_ms),
        "p99_ms": _known(figures.p99_ms),
        "missed_deadlines": figures.missed,
        "discarded_late": figures.late,
        "unreported": status.unreported,
        "last_ng": last and {"part": last.part, "captured": last.captured.isoformat(), "reason": last.reason},
        "alarms": [
            {
                "kind": str(alarm.kind),
                "text": alarm.text,
                "since": alarm.since.isoformat(),
                "until": alarm.until.isoformat() if alarm.until else None,
            }
            for alarm in status.alarms
        ],
    }


def in_one_line(status: Status) -> str:
    """Returns the line as one line of a log."""
    figures = status.figures
    words = [f"{status.state}: {figures.reported:,} parts", f"{figures.rate:.1f}/s"]
    if figures.reported:
        words += [latency(figures), missed(figures), f"yield {figures.yield_share:.1%}"]
    if figures.judged < figures.reported:
        words.append(f"not judged: {not_judged(figures.reasons)}")
    words.append(f"queue {status.waiting}/{status.queue}")
    if figures.last_ng:
        words.append(f"last NG {figures.last_ng.part} ({figures.last_ng.reason})")
    return ", ".join(words)


def in_words(run: str, status: Status) -> str:
    """Returns what a run has done, for people, at its end."""
    figures = status.figures
    lines = [f"Run {run}: {figures.reported:,} of {figures.seen:,} parts have a stored result."]
    if figures.reported:
        counts = ", ".join(f"{figures.decisions.get(decision, 0):,} {decision}" for decision in Decision)
        lines += [
            f"  decisions    {counts}; yield {figures.yield_share:.1%}",
            f"  not judged   {not_judged(figures.reasons)}",
            f"  latency      {latency(figures)}; {missed(figures)}",
        ]
    if figures.late:
        lines.append(f"  discarded    {figures.late:,} outcomes of the inspection came too late")
    lines += [f"  alarm        {alarm.kind}: {alarm.text}" for alarm in status.alarms]
    return "\n".join(lines)


def latency(figures: Figures) -> str:
    """Returns median and 99th percentile in words."""
    return f"p50 {figures.p50_ms:.0f} ms, p99 {figures.p99_ms:.0f} ms"


def missed(figures: Figures) -> str:
    """Returns the missed deadlines in words."""
    return f"{figures.missed:,} deadlines missed ({figures.missed / max(1, figures.reported):.1%})"


def not_judged(reasons: Mapping[str, int]) -> str:
    """Returns the reasons of parts that were not judged, with their counts; "none" if there are none."""
    return (
        ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()) if reason not in JUDGED) or "none"
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
