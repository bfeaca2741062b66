"""Charts over time as inline SVG: evidence of the tests, and one small EWMA chart per number."""

from collections.abc import Iterator, Sequence

import numpy as np
from markupsafe import Markup

from anomaly.drift.compare import ewma_limit
from anomaly.drift.run import DriftResult

HEIGHT, SMALL = 260, 96
_LOWEST, _HIGHEST = -0.35, 1.6
_MOST_POINTS = 600


def evidence_chart(result: DriftResult) -> Markup:
    """Draws the evidence of every test after each image: log wealth over its alarm level, so that 1 is an alarm."""
    alarmed = [alarm.name for alarm in result.alarms]
    quiet = [name for name in result.monitor.names if name not in alarmed]
    parts = [
        _rule("level", 1.0, _LOWEST, _HIGHEST, HEIGHT),
        _rule("axis", 0.0, _LOWEST, _HIGHEST, HEIGHT),
        *_since(result, HEIGHT),
    ]
    for name in [*quiet, *reversed(alarmed)]:
        share = np.clip(np.array(result.monitor.traces[name]) / result.monitor.log_level, _LOWEST, _HIGHEST)
        kind = f"line alarm-{alarmed.index(name) % 4}" if name in alarmed else "line quiet"
        parts.append(_line(kind, share, _LOWEST, _HIGHEST, HEIGHT, name))
    parts.append(_label("tick", 0.0, _y(1.0, _LOWEST, _HIGHEST, HEIGHT) - 6, "alarm"))
    parts.append(_label("tick", 0.0, _y(0.0, _LOWEST, _HIGHEST, HEIGHT) - 6, "no evidence"))
    return _svg(parts, HEIGHT, f"Evidence of {len(result.monitor.names)} tests over {len(result.paths)} images")


def ewma_chart(result: DriftResult, name: str) -> Markup:
    """Draws the moving average of a number in standard deviations of the reference, with its control limits."""
    limit, line = ewma_limit(), result.numbers.ewma(name)
    extent = 3.2
    moved = name in {alarm.name for alarm in result.alarms} | {change.name for change in result.moved}
    top, bottom = _y(limit, -extent, extent, SMALL), _y(-limit, -extent, extent, SMALL)
    parts = [
        f'<rect class="band" x="0" width="100%" y="{top:.1f}" height="{bottom - top:.1f}"/>',
        _rule("axis", 0.0, -extent, extent, SMALL),
        *_since(result, SMALL),
        _line("line out" if moved else "line in", line, -extent, extent, SMALL, name),
    ]
    return _svg(parts, SMALL, f"EWMA of {name}, limits {limit:.2f} deviations")


def _svg(parts: Sequence[str], height: int, label: str) -> Markup:
    content = "".join(parts)
    return Markup(f'<svg role="img" aria-label="{label}" width="100%" height="{height}">{content}</svg>')  # noqa: S704 - numbers and fixed words only


def _y(value: float, low: float, high: float, height: int) -> float:
    return height * (high - value) / (high - low)


def _rule(kind: str, value: float, low: float, high: float, height: int) -> str:
    y = _y(value, low, high, height)
    return f'<line class="{kind}" x1="0" x2="100%" y1="{y:.1f}" y2="{y:.1f}"/>'


def _since(result: DriftResult, height: int) -> Iterator[str]:
    if result.alarms:
        place = 100 * result.since / max(1, len(result.paths))
        yield f'<line class="since" x1="{place:.2f}%" x2="{place:.2f}%" y1="0" y2="{height}"/>'


def _label(kind: str, place: float, y: float, text: str) -> str:
    return f'<text class="{kind}" x="{place:.2f}%" y="{y:.1f}">{text}</text>'


def _line(kind: str, values: np.ndarray, low: float, high: float, height: int, name: str) -> str:
    """A line over the whole width; long runs are thinned out, keeping the farthest value of each stretch."""
    n = len(values)
    if n > _MOST_POINTS:
        stretches = np.array_split(np.arange(n), _MOST_POINTS)
        chosen = np.array([part[np.abs(values[part]).argmax()] for part in stretches])
    else:
        chosen = np.arange(n)
    points = " ".join(f"{100 * (i + 0.5) / n:.2f},{_y(float(values[i]), low, high, height):.1f}" for i in chosen)
    # the inner picture stretches with the page, its lines keep their width
    return (
        f'<svg width="100%" height="{height}" viewBox="0 0 100 {height}" preserveAspectRatio="none">'
        f'<polyline class="{kind}" points="{points}" vector-effect="non-scaling-stroke"><title>{name}</title>'
        "</polyline></svg>"
    )
