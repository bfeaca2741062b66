"""What a line has done so far: counts, rate, latency, yield, last rejected part."""

import time
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

import numpy as np

from anomaly.calibration import Decision
from inspection.parts import JUDGED, PartResult

_LATENCIES = 10_000
_WINDOW_S = 10.0


@dataclass(frozen=True, kw_only=True)
class LastRejected:
    """The last part that was NG.

    Attributes:
        part: its id.
        captured: when it was seen.
        reason: why, with the detail.
    """

    part: str
    captured: datetime
    reason: str


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Counts and times of a run.

    Attributes:
        seen: parts that the line took in.
        reported: parts with a durable result.
        judged: reported parts that were really judged.
        decisions: reported parts by decision.
        reasons: reported parts by reason.
        late: outcomes of the inspection that came after their part was reported as TIMEOUT or STOPPED; discarded.
        missed: parts reported later than the deadline after their capture.
        seconds: since the first part was taken in, up to the last report.
        rate: reported parts a second over the last ten seconds.
        p50_ms: median of capture to durable result over the last 10,000 parts, NaN before the first.
        p99_ms: 99th percentile of the same.
        yield_share: share of reported parts that are OK, NaN before the first.
        last_ng: the last part that was NG.
    """

    seen: int
    reported: int
    judged: int
    decisions: Mapping[str, int]
    reasons: Mapping[str, int]
    late: int
    missed: int
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float
    yield_share: float
    last_ng: LastRejected | None


class Counters:
    """Counts; every method may be called from any thread."""

    def __init__(self, deadline_s: float) -> None:
        """Starts at zero; `deadline_s` is in seconds from capture to durable result."""
        self._deadline = deadline_s
        self._lock = Lock()
        self._decisions: Counter[str] = Counter()
        self._reasons: Counter[str] = Counter()
        self._latencies: deque[float] = deque(maxlen=_LATENCIES)
        self._times: deque[float] = deque()
        self._seen = self._reported = self._judged = self._late = self._missed = 0
        self._first = self._last = 0.0
        self._last_ng: LastRejected | None = None

    def saw(self) -> None:
        """Counts a part that was taken in."""
        with self._lock:
            self._first = self._first or time.monotonic()
            self._seen += 1

    def discarded(self) -> None:
        """Counts an outcome that came too late."""
        with self._lock:
            self._late += 1

    def reported(self, result: PartResult, latency: float) -> None:
        """Counts a durable result that came `latency` seconds after the capture."""
        with self._lock:
            self._last = time.monotonic()
            self._reported += 1
            self._judged += result.reason in JUDGED
            self._decisions[result.decision] += 1
            self._reasons[result.reason] += 1
            self._missed += latency > self._deadline
            self._latencies.append(latency)
            self._times.append(self._last)
            if result.decision == Decision.NG:
                reason = f"{result.reason}: {result.detail}" if result.detail else str(result.reason)
                self._last_ng = LastRejected(part=result.part, captured=result.captured, reason=reason)

    def figures(self) -> Figures:
        """Returns what was counted up to now."""
        with self._lock:
            now = time.monotonic()
            while self._times and self._times[0] < now - _WINDOW_S:
                self._times.popleft()
            window = min(_WINDOW_S, now - self._first)
            nan = float("nan")
            p50, p99 = np.quantile(self._latencies, (0.5, 0.99)) if self._latencies else (nan, nan)
            return Figures(
                seen=self._seen,
                reported=self._reported,
                judged=self._judged,
                decisions=dict(self._decisions),
                reasons=dict(self._reasons),
                late=self._late,
                missed=self._missed,
                seconds=self._last - self._first if self._reported else 0.0,
                rate=len(self._times) / window if self._first and window > 0 else 0.0,
                p50_ms=1000 * float(p50),
                p99_ms=1000 * float(p99),
                yield_share=self._decisions[Decision.OK] / self._reported if self._reported else nan,
                last_ng=self._last_ng,
            )
