"""Decisions over time as inline SVG: one stacked bar per stretch of time."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

import numpy as np
from markupsafe import Markup

HEIGHT, FOOT = 150, 24
MOST_BARS = 60
LEAST_BAR = 3.0
"""Height in pixels of a bar that counts anything: three parts among thousands must be seen."""
DECISIONS = ("OK", "REVIEW", "NG")
_STEPS = (1, 5, 15, 60, 300, 900, 3600, 4 * 3600, 86400, 7 * 86400)
_NAMES = (
    "1 second",
    "5 seconds",
    "15 seconds",
    "1 minute",
    "5 minutes",
    "15 minutes",
    "1 hour",
    "4 hours",
    "1 day",
    "1 week",
)


def timeline(times: Mapping[str, Sequence[datetime]]) -> tuple[Markup, str]:
    """Draws how many parts got which decision when.

    Args:
        times: decision -> when its parts were captured, with time zones; one part at least in all.

    Returns:
        One `<svg>` element, whose colours come from the page's style sheet, and what a bar is, in words.
    """
    seconds = {name: np.array([time.timestamp() for time in own]) for name, own in times.items()}
    everything = np.concatenate(list(seconds.values()))
    first, last = float(everything.min()), float(everything.max())
    step, name = next(
        (pair for pair in zip(_STEPS, _NAMES, strict=True) if (last - first) / pair[0] < MOST_BARS),
        (max(_STEPS[-1], (last - first) / MOST_BARS * 1.01), ""),
    )
    begin = first // step * step
    bars = int((last - begin) // step) + 1
    edges = begin + step * np.arange(bars + 1)
    counts = {decision: np.histogram(seconds.get(decision, []), edges)[0] for decision in DECISIONS}
    fullest = max(1, int(sum(counts.values(), start=np.zeros(bars, int)).max()))
    drawn = []
    for k in range(bars):
        floor = float(HEIGHT)
        for decision in DECISIONS:
            if count := int(counts[decision][k]):
                height = max(LEAST_BAR, (HEIGHT - 2 * LEAST_BAR) * count / fullest)
                floor -= height
                drawn.append(
                    f'<rect class="{decision.lower()}" x="{100 * k / bars:.2f}%" width="{92 / bars:.2f}%" '
                    f'y="{floor:.1f}" height="{height:.1f}"><title>{count} {decision}</title></rect>'
                )
    zone = next(time.tzinfo for own in times.values() for time in own)
    start, end = (datetime.fromtimestamp(float(edge), zone) for edge in (edges[0], edges[-1]))
    shown = "%Y-%m-%d %H:%M" if step >= timedelta(minutes=1).total_seconds() else "%Y-%m-%d %H:%M:%S"
    drawn.append(f'<line class="axis" x1="0" x2="100%" y1="{HEIGHT}" y2="{HEIGHT}"/>')
    drawn.append(f'<text x="0" y="{HEIGHT + 17}">{start:{shown}}</text>')
    drawn.append(f'<text x="100%" y="{HEIGHT + 17}" text-anchor="end">{end:{shown}}</text>')
    label = f"{everything.size} parts from {start:{shown}} to {end:{shown}}, by decision"
    svg = f'<svg role="img" aria-label="{label}" width="100%" height="{HEIGHT + FOOT}">{"".join(drawn)}</svg>'
    bar = f"one bar = {name or f'{step / 86400:.0f} days'}, the fullest {fullest:,} parts"
    return Markup(svg), bar  # noqa: S704 - numbers and fixed words only
