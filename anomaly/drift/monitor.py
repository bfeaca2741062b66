"""Sequential monitoring: several martingales, one false-alarm rate for all of them over the whole run.

Images that score as high as the strangest tenth of the reference are set aside: they are suspected defects. Defects
must not look like drift, so two kinds of questions are asked apart:

- of the images that pass: have their score, their descriptors, their embedding kept the distribution that the
  passing part of the reference has? Passing is the same condition on both sides, so this comparison is exact however
  many images are set aside. It is made safe against few anomalies that pass.
- of all images ("all scores"): have the scores kept their distribution? This one is made safe against the whole
  allowed share of anomalies, and costs power for it, but sees a change after which hardly any image passes.

Each of the m tests may raise a false alarm with probability alarm_rate / m over the whole run.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from anomaly.drift.descriptors import EMBEDDING
from anomaly.drift.martingale import DistanceMartingale, RankMartingale, start_of_rise
from anomaly.drift.reference import Reference
from anomaly.errors import CalibrationError, SettingError

ALL_SCORES, EMBEDDED = "all scores", "embedding"
LEAST = 10
"""Normals that a reference needs."""
_SORTED_OUT = 0.1


@dataclass(frozen=True, kw_only=True)
class Monitoring:
    """What may happen without being drift, and how often an alarm may be false.

    Attributes:
        alarm_rate: probability of any false alarm over a whole run, however long, in (0, 1).
        anomalies: largest share of anomalies among the images that is no drift, in [0, 1).
        missed: largest share of anomalies among the images that pass as normal, in [0, 0.5].
    """

    alarm_rate: float = 0.01
    anomalies: float = 0.10
    missed: float = 0.02

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 0 < self.alarm_rate < 1:
            raise SettingError.of("Monitoring", "alarm_rate", "in (0, 1)", self.alarm_rate)
        if not 0 <= self.anomalies < 1:
            raise SettingError.of("Monitoring", "anomalies", "at least 0 and below 1", self.anomalies)
        if not 0 <= self.missed <= 0.5:
            raise SettingError.of("Monitoring", "missed", "in [0, 0.5]", self.missed)


@dataclass(frozen=True)
class Alarm:
    """A test that reached its level.

    Attributes:
        name: of the test.
        image: index of the image at which it did, from 0.
        since: index of the image with which the change began, as far as the wealth shows it.
    """

    name: str
    image: int
    since: int


class Monitor:
    """Feeds images in the order of time to every test.

    Attributes:
        names: of the tests: "score", one per descriptor, "embedding" where there is one, "all scores".
        level: scores from here on are set aside; an order statistic of the reference.
        log_level: natural logarithm of the wealth at which a test raises its alarm.
        traces: natural logarithm of the wealth of each test after each image.
        passed: whether each image passed, i.e. was not set aside.
    """

    def __init__(self, reference: Reference, settings: Monitoring) -> None:
        """Prepares the tests.

        Raises:
            CalibrationError: the reference holds too few normals.
        """
        values = reference.values
        if len(values) < LEAST:
            raise CalibrationError(
                f"monitoring needs {LEAST} normals in the reference; this model keeps {len(values)}: "
                "hold more out (--hold-out), or fit on more images"
            )
        scores = np.sort(values[:, 0])
        rank = len(values) - max(1, int(_SORTED_OUT * len(values)))
        self.level = float(scores[rank - 1])
        passing = values[values[:, 0] < self.level]
        self._plain = [k for k, name in enumerate(reference.names) if name not in EMBEDDING]
        self._embedded = [k for k, name in enumerate(reference.names) if name in EMBEDDING]
        self.names = tuple(reference.names[k] for k in self._plain)
        self._ranks = [RankMartingale(passing[:, k], settings.missed) for k in self._plain]
        self._distance = DistanceMartingale(passing[:, self._embedded], settings.missed) if self._embedded else None
        self._all_scores = RankMartingale(values[:, 0], settings.anomalies)
        self.names += ((EMBEDDED,) if self._embedded else ()) + (ALL_SCORES,)
        self.log_level = math.log(len(self.names) / settings.alarm_rate)
        self.traces: dict[str, list[float]] = {name: [] for name in self.names}
        self.passed: list[bool] = []

    def add(self, row: Sequence[float], content: bytes) -> None:
        """Takes the next image.

        Args:
            row: score and descriptors, as the columns of the reference.
            content: the bytes of the raw frame; they, and no clock, draw the numbers that break ties.
        """
        values = np.asarray(row, dtype=np.float64)
        passes = bool(values[0] < self.level)
        self.passed.append(passes)
        self._all_scores.step(float(values[0]), _uniform(content, len(values) + 1))
        if passes:
            for k, test in zip(self._plain, self._ranks, strict=True):
                test.step(float(values[k]), _uniform(content, k))
            if self._distance is not None:
                self._distance.step(values[self._embedded], _uniform(content, len(values)))
        logs = [test.log_wealth for test in self._ranks]
        logs += [self._distance.log_wealth] if self._distance is not None else []
        for name, log_wealth in zip(self.names, [*logs, self._all_scores.log_wealth], strict=True):
            self.traces[name].append(log_wealth)

    def alarms(self) -> list[Alarm]:
        """Returns the tests that have reached their level at some image, in the order of their alarms."""
        found = []
        for name, trace in self.traces.items():
            over = np.flatnonzero(np.array(trace) >= self.log_level)
            if over.size:
                alarm = int(over[0])
                found.append(Alarm(name, alarm, start_of_rise(trace, alarm)))
        return sorted(found, key=lambda alarm: alarm.image)


def _uniform(content: bytes, purpose: int) -> float:
    digest = hashlib.blake2b(content, digest_size=8, key=purpose.to_bytes(4, "little")).digest()
    return int.from_bytes(digest, "little") / 2**64


def wealth(trace: Sequence[float]) -> Float64[np.ndarray, " n"]:
    """Returns a trace in powers of ten, as charts show it."""
    return np.asarray(trace, dtype=np.float64) / math.log(10)
