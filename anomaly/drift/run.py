"""The job: image files in the order of time -> a verdict with its reasons."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from anomaly.artifact import Artifact
from anomaly.drift.compare import Change, Numbers
from anomaly.drift.descriptors import describe
from anomaly.drift.monitor import ALL_SCORES, Alarm, Monitor, Monitoring, wealth
from anomaly.drift.reference import SCORE, Reference
from anomaly.errors import ArtifactError, DatasetError, ImageFileError
from anomaly.progress import Progress, silent
from anomaly.scoring import score_files

ORDERS = ("name", "modified")


class Outcome(StrEnum):
    """What became of the input."""

    NO_DRIFT = "NO DRIFT"
    DRIFT = "DRIFT"
    MANY_ANOMALIES = "MANY ANOMALIES"


@dataclass(frozen=True)
class DriftResult:
    """What a run has shown.

    Attributes:
        paths: the images that could be used, in the order of time.
        rows: (n, k) score and descriptors.
        numbers: the same beside the reference, for charts.
        monitor: the tests with their traces.
        settings: what was allowed.
        alarms: tests that raised an alarm, the earliest first.
        changes: all numbers since the change began, or over the whole run without an alarm.
        outcome: NO DRIFT without an alarm; MANY ANOMALIES where only the scores of all images have changed and
            nothing else has moved; else DRIFT.
    """

    paths: tuple[Path, ...]
    rows: Float64[np.ndarray, "n k"]
    numbers: Numbers
    monitor: Monitor
    settings: Monitoring
    alarms: tuple[Alarm, ...]
    changes: tuple[Change, ...]
    outcome: Outcome

    @property
    def since(self) -> int:
        """Index of the image with which the change began; 0 without an alarm."""
        return self.alarms[0].since if self.alarms else 0

    @property
    def moved(self) -> list[Change]:
        """Descriptors of which most images lie where hardly any normal does, the farthest first."""
        found = [change for change in self.changes if change.moved and change.name != SCORE]
        return sorted(found, key=lambda change: -abs(change.shift))

    def headline(self) -> str:
        """One line for people: outcome, since when, which statistic."""
        if not self.alarms:
            return f"NO DRIFT in {len(self.paths)} images"
        first = self.alarms[0]
        where = f"since image {first.since + 1} of {len(self.paths)} (alarm at image {first.image + 1})"
        return f"{self.outcome} {where}: {', '.join(alarm.name for alarm in self.alarms)}"

    def in_words(self) -> list[str]:
        """Lines for people: what the outcome rests on and what it means."""
        aside = len(self.paths) - sum(self.monitor.passed)
        lines = [
            f"{aside} of {len(self.paths)} images set aside as suspected anomalies (score {self.monitor.level:.4g} or "
            "more, as a tenth of normal images).",
        ]
        if self.alarms:
            lines.append(f"The change began about with {self.paths[self.since]}.")
            lines += [
                f"Moved: {c.name}, median {c.reference:.4g} -> {c.present:.4g} ({c.shift:+.1f} deviations)"
                for c in self.moved
            ]
            lines.append(self._meaning())
        rate, tests = 100 * self.settings.alarm_rate, len(self.monitor.names)
        lines.append(
            f"If nothing had changed, the probability of any alarm over the whole run, however long, would be at most "
            f"{rate:g} % ({tests} tests together; images must be independent draws, as the calibration images are)."
        )
        return lines

    def _meaning(self) -> str:
        if self.outcome is Outcome.MANY_ANOMALIES:
            return (
                "More images score high than the allowed share of anomalies explains, but light, lens, position and "
                "embedding are where they were: look for defects before you look for the camera."
            )
        if self.moved or {alarm.name for alarm in self.alarms} - {SCORE, ALL_SCORES}:
            return "The images themselves have changed: check light, lens and camera, then refit on accepted normals."
        return (
            "Scores have changed while light, lens, position and embedding have not: the parts have changed, or "
            "there are anomalies too faint to be set aside."
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as one JSON-able object; images count from 1."""
        first = self.alarms[0] if self.alarms else None
        traces = {name: wealth(trace) for name, trace in self.monitor.traces.items()}
        return {
            "outcome": self.outcome.value,
            "since_image": first and first.since + 1,
            "since_file": first and str(self.paths[first.since]),
            "alarms": [{"test": a.name, "image": a.image + 1, "since_image": a.since + 1} for a in self.alarms],
            "moved": [change.name for change in self.moved],
            "images": len(self.paths),
            "set_aside": len(self.paths) - sum(self.monitor.passed),
            "set_aside_from_score": self.monitor.level,
            "settings": asdict(self.settings),
            "log10_alarm_level": float(wealth([self.monitor.log_level])[0]),
            "changes": [asdict(change) for change in self.changes],
            "rows": [
                {
                    "path": str(path),
                    "passed": self.monitor.passed[k],
                    "values": dict(zip(self.numbers.names, map(float, self.numbers.run[k]), strict=True)),
                    "log10_wealth": {name: round(float(trace[k]), 4) for name, trace in traces.items()},
                }
                for k, path in enumerate(self.paths)
            ],
        }


def monitor_files(
    artifact: Artifact,
    paths: Sequence[Path],
    settings: Monitoring,
    failures: list[ImageFileError],
    progress: Progress = silent,
) -> DriftResult:
    """Compares images with the calibration normals of a model, in the order given.

    Args:
        artifact: a model that keeps a reference.
        paths: image files in the order of time.
        settings: what is allowed and how often an alarm may be false.
        failures: receives the errors of files that could not be used.
        progress: is told what is being done.

    Raises:
        ArtifactError: the model keeps no reference.
        CalibrationError: its reference is too small.
        DatasetError: no file can be used.
    """
    reference = reference_of(artifact)
    monitor = Monitor(reference, settings)
    advance = progress("watching", len(paths))
    used: list[Path] = []
    rows: list[list[float]] = []
    for scored in score_files(artifact.scorer, paths, failures):
        row = [scored.score, *describe(artifact.scorer, scored.image).row(reference.thumbnail)]
        monitor.add(row, scored.image.numpy().tobytes())
        used.append(scored.path)
        rows.append(row)
        advance(1)
    if not rows:
        raise DatasetError(f"none of the {len(paths)} files can be used; the first: {failures[0]}")
    numbers = Numbers(reference, np.array(rows))
    alarms = tuple(monitor.alarms())
    since = alarms[0].since if alarms else 0
    changes = tuple(numbers.changes(since, np.array(monitor.passed), monitor.level))
    outcome = _outcome(alarms, changes)
    return DriftResult(tuple(used), np.array(rows), numbers, monitor, settings, alarms, changes, outcome)


def reference_of(artifact: Artifact) -> Reference:
    """Returns what the model keeps of its calibration normals.

    Raises:
        ArtifactError: it was fitted before models kept it.
    """
    if artifact.reference is None:
        raise ArtifactError(
            "this model keeps no reference of its calibration normals, so drift cannot be told: it was fitted by an "
            "earlier version. It still scores; fit it again to monitor drift"
        )
    return artifact.reference


def in_time_order(paths: Sequence[Path], order: str) -> list[Path]:
    """Orders files: "name" keeps the order in which they were listed, "modified" goes by their time of change."""
    key: dict[str, Callable[[Path], float]] = {"name": lambda path: 0.0, "modified": lambda path: path.stat().st_mtime}
    return sorted(paths, key=key[order])


def first_of_groups(paths: Sequence[Path], groups: Mapping[str, str]) -> list[Path]:
    """Keeps the first image of each group, where only groups are independent of each other.

    Raises:
        DatasetError: a file has no group.
    """
    missing = [path for path in paths if path.name not in groups]
    if missing:
        raise DatasetError(f"{len(missing)} of {len(paths)} files have no group; the first is {missing[0]}")
    seen: Counter[str] = Counter()
    kept = []
    for path in paths:
        seen[groups[path.name]] += 1
        if seen[groups[path.name]] == 1:
            kept.append(path)
    return kept


def _outcome(alarms: Sequence[Alarm], changes: Sequence[Change]) -> Outcome:
    if not alarms:
        return Outcome.NO_DRIFT
    higher = any(change.name == SCORE and change.shift > 0 for change in changes)
    only_high = higher and all(alarm.name == ALL_SCORES for alarm in alarms)
    moved = any(change.moved and change.name != SCORE for change in changes)
    return Outcome.MANY_ANOMALIES if only_high and not moved else Outcome.DRIFT
