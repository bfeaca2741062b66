"""The parity gate: an export ships only if it scores like the model it was made from.

Two runtimes score the same raw frames, one by one and in a batch. Scores are raw and of any size, so a difference is
measured as a share of what matters for the decision: the distance of the score from a typical normal score, and at
least the distance from there to the NG threshold. 0.001 means: a thousandth of the way to an alarm.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from anomaly.deploy.manifest import Frames, Manifest
from anomaly.deploy.runtime import Runtime, Scores

BATCH = 8
"""Frames of the batch that is compared where the export takes more than one."""


@dataclass(frozen=True)
class Bounds:
    """The largest differences that are accepted, as shares (see above).

    Attributes:
        score_max: of any score.
        score_mean: of the scores on average.
        map_max: of any pixel of a map.
        map_mean: of the pixels on average.
        decisions: share of the frames whose decision may change, besides scores that lie at a threshold (nearer than
            `score_max`).
        auroc_drop: image AUROC that may be lost on a given data set.
    """

    score_max: float
    score_mean: float
    map_max: float
    map_mean: float
    decisions: float
    auroc_drop: float


BOUNDS: Mapping[str, Bounds] = {
    "fp32": Bounds(score_max=1e-3, score_mean=2e-4, map_max=5e-3, map_mean=2e-4, decisions=0.0, auroc_drop=0.0005),
    "fp16": Bounds(score_max=2e-2, score_mean=5e-3, map_max=5e-2, map_mean=5e-3, decisions=0.0, auroc_drop=0.002),
    "int8": Bounds(score_max=0.25, score_mean=0.1, map_max=0.75, map_mean=0.1, decisions=0.1, auroc_drop=0.01),
}


@dataclass(frozen=True)
class Parity:
    """How far an export is from its model.

    Attributes:
        frames: number of frames that were compared, by kind; each in every one of the batches.
        batches: lengths of the batches that were compared.
        score_max: largest difference of a score, as a share.
        score_mean: mean difference of the scores, as a share.
        score_absolute: largest difference of a score, in its own unit.
        map_max: largest difference of a pixel, as a share.
        map_mean: mean difference of the pixels, as a share.
        map_absolute: largest difference of a pixel, in its own unit.
        p_value_max: largest difference of a p-value.
        decisions_changed: decisions that changed though their score does not lie at a threshold.
        decisions_at_threshold: decisions that changed and whose score lies at a threshold.
    """

    frames: Mapping[str, int]
    batches: tuple[int, ...]
    score_max: float
    score_mean: float
    score_absolute: float
    map_max: float
    map_mean: float
    map_absolute: float
    p_value_max: float
    decisions_changed: int
    decisions_at_threshold: int

    def beyond(self, bounds: Bounds) -> list[str]:
        """Returns what lies beyond the bounds, a line each; none if the gate holds."""
        measured = asdict(self)
        names = ("score_max", "score_mean", "map_max", "map_mean")
        lines = [
            f"{name} is {measured[name]:.3g}, at most {limit:g} is allowed"
            for name in names
            if not measured[name] <= (limit := getattr(bounds, name))  # also true for NaN
        ]
        count = sum(self.frames.values()) * len(self.batches)
        if self.decisions_changed > bounds.decisions * count:
            lines.append(f"{self.decisions_changed} of {count} decisions changed, {bounds.decisions:.0%} are allowed")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """Returns every figure, JSON-able."""
        return asdict(self)


def compare(reference: Runtime, export: Runtime, inputs: Mapping[str, Frames], score_max: float) -> Parity:
    """Scores frames with both runtimes and measures the differences; never holds more than a few maps.

    Args:
        reference: the model itself; takes the frames one by one.
        export: takes the same frames, one by one and, where it can, in batches of `BATCH`.
        inputs: kind -> frames.
        score_max: share within which a score counts as lying at a threshold.
    """
    frames = np.concatenate(list(inputs.values()))
    batches = tuple(sorted({1, min(BATCH, export.frame.batch[1])}))
    rows = []
    for start in range(0, len(frames), BATCH):
        chunk = frames[start : start + BATCH]
        wanted = _one_by_one(reference, chunk)
        for got in (_one_by_one(export, chunk), export(chunk)) if len(batches) > 1 else (_one_by_one(export, chunk),):
            rows += _differences(wanted, got, reference.manifest, score_max)
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    return Parity(
        frames={kind: len(group) for kind, group in inputs.items()},
        batches=batches,
        score_max=float(table["score"].max()),
        score_mean=float(table["score"].mean()),
        score_absolute=float(table["score_absolute"].max()),
        map_max=float(table["map_max"].max()),
        map_mean=float(table["map_mean"].mean()),
        map_absolute=float(table["map_absolute"].max()),
        p_value_max=float(table["p_value"].max()),
        decisions_changed=int(table["changed"].sum()),
        decisions_at_threshold=int(table["at_threshold"].sum()),
    )


def _differences(wanted: Scores, got: Scores, manifest: Manifest, score_max: float) -> list[dict[str, float]]:
    """Returns the differences of each frame."""
    spread = _spread(manifest.ng, manifest.score_typical)
    scale = np.maximum(spread, np.abs(wanted.score - manifest.score_typical))
    score = np.abs(got.score - wanted.score)
    map_scale = np.maximum(
        _spread(manifest.map_threshold, manifest.map_typical), np.abs(wanted.map - manifest.map_typical)
    )
    maps = np.abs(got.map - wanted.map)
    limits = np.array([manifest.review, manifest.ng])
    near = (np.abs(wanted.score[:, None] - limits) <= score_max * scale[:, None]).any(axis=1)
    changed = got.decision != wanted.decision
    columns = {
        "score": score / scale,
        "score_absolute": score,
        "map_max": (maps / map_scale).max(axis=(1, 2)),
        "map_mean": (maps / map_scale).mean(axis=(1, 2)),
        "map_absolute": maps.max(axis=(1, 2)),
        "p_value": np.abs(got.p_value - wanted.p_value),
        "changed": changed & ~near,
        "at_threshold": changed & near,
    }
    return [{name: float(column[i]) for name, column in columns.items()} for i in range(len(score))]


def _spread(threshold: float, typical: float) -> float:
    """Distance from a typical normal value to the threshold; where there is none, a thousandth of the value."""
    return max(threshold - typical, 1e-3 * abs(threshold), 1e-6)


def _one_by_one(runtime: Runtime, frames: Frames) -> Scores:
    return Scores.joined([runtime(frame[None]) for frame in frames])
