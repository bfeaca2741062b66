"""A model against a data set with known answers: metrics, decisions against promises, shortcuts beside them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from anomaly.artifact import Artifact
from anomaly.calibration import Calibration, Decision
from anomaly.errors import ImageFileError
from anomaly.images import Sample, read_mask
from anomaly.metrics import auroc, bootstrap_interval, image_metrics, pixel_metrics
from anomaly.progress import Progress, silent
from anomaly.scoring import Scored, judge, score_files

if TYPE_CHECKING:
    from anomaly.report import ResultWriter

_CHANCE = 0.01


@dataclass
class Evaluation:
    """Collects scored test images and sums them up.

    Maps are compared with masks on the canvas, where the model sees them: masks are reduced by area and binarised at
    more than one half. Memory: one float32 map and one mask of canvas size per image of a kind that has masks.

    Attributes:
        calibration: thresholds of the model.
    """

    calibration: Calibration
    scores: list[float] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    maps: list[npt.NDArray[np.float32]] = field(default_factory=list)
    masks: list[npt.NDArray[np.bool_]] = field(default_factory=list)
    shortcuts: dict[str, list[float]] = field(default_factory=dict)

    def add(self, scored: Scored, sample: Sample) -> npt.NDArray[np.bool_] | None:
        """Records a scored image; returns its mask at the resolution of the image, if it has one.

        Raises:
            ImageFileError: the mask cannot be used.
        """
        height, width = scored.image.shape[-2:]
        mask = read_mask(sample.mask, height, width) if sample.mask else None
        self.scores.append(scored.score)
        self.labels.append(sample.label)
        self.kinds.append(sample.kind)
        if mask is not None or sample.label == 0:
            self.maps.append(scored.map.numpy())
            self.masks.append(reduced(mask, (scored.map.shape[0], scored.map.shape[1])))
        for name, value in shortcut_values(scored).items():
            self.shortcuts.setdefault(name, []).append(value)
        return mask

    def metrics(self) -> dict[str, float]:
        """Returns image metrics, and pixel metrics where there is any mask.

        Raises:
            InputError: the scored images are not of both classes.
        """
        found = image_metrics(np.array(self.scores), np.array(self.labels))
        if any(mask.any() for mask in self.masks):
            found |= pixel_metrics(self.maps, self.masks)
        return found

    def interval(self, seed: int = 0) -> tuple[float, float]:
        """Returns the 95 % bootstrap interval of the image AUROC."""
        return bootstrap_interval(auroc, np.array(self.scores), np.array(self.labels), seed=seed)

    def shortcut_aurocs(self) -> dict[str, float]:
        """Returns the AUROC of single global numbers, whichever side is higher: what no detector is needed for."""
        labels = np.array(self.labels)
        found = {name: auroc(np.array(values), labels) for name, values in self.shortcuts.items()}
        return {name: max(value, 1 - value) for name, value in found.items()}

    def by_kind(self) -> Iterator[tuple[str, int, dict[Decision, int], float | None]]:
        """Yields kind, number of images, their decisions, and the image AUROC of the kind against the good ones."""
        scores, labels, kinds = np.array(self.scores), np.array(self.labels), np.array(self.kinds)
        for kind in sorted(set(self.kinds)):
            chosen = kinds == kind
            decisions = self.calibration.decide_all(scores[chosen])
            against = None
            if labels[chosen].all() and (labels == 0).any():
                both = chosen | (labels == 0)
                against = auroc(scores[both], labels[both])
            yield kind, int(chosen.sum()), {d: decisions.count(d) for d in Decision}, against

    def summary(self) -> dict[str, Any]:
        """Returns every figure, JSON-able; metrics are absent where the images are not of both classes."""
        found: dict[str, Any] = {"images": len(self.scores), "defective": sum(self.labels)}
        if 0 < sum(self.labels) < len(self.labels):
            found |= {"metrics": self.metrics(), "image_auroc_95": self.interval(), "shortcuts": self.shortcut_aurocs()}
        found["kinds"] = [
            {"kind": kind, "images": count, **decisions, "image_auroc": against}
            for kind, count, decisions, against in self.by_kind()
        ]
        return found

    def in_words(self) -> list[str]:
        """Returns the same as lines for people."""
        summary = self.summary()
        lines = [f"{summary['images']} test images, {summary['defective']} of them defective"]
        if "metrics" in summary:
            low, high = summary["image_auroc_95"]
            lines += [f"  {name:24} {value:.4f}" for name, value in summary["metrics"].items()]
            lines[1] += f"   (95 % interval {low:.3f} to {high:.3f})"
            lines += ["", "Shortcuts: image AUROC of one global number, no detector at all"]
            lines += [f"  {name:24} {value:.4f}" for name, value in summary["shortcuts"].items()]
        lines += ["", f"{'kind':16} {'images':>7} {'NG':>6} {'REVIEW':>7} {'OK':>6}   AUROC against good"]
        for kind in summary["kinds"]:
            against = "" if kind["image_auroc"] is None else f"{kind['image_auroc']:.4f}"
            counts = f"{kind['images']:7} {kind['NG']:6} {kind['REVIEW']:7} {kind['OK']:6}"
            lines.append(f"{kind['kind']:16} {counts}   {against}")
        return [*lines, "", "Promised of normal parts:", self.calibration.in_words(), *self._broken_promise()]

    def _broken_promise(self) -> list[str]:
        """Says so when the good test parts raise more false alarms than was promised, beyond chance."""
        from scipy.stats import binomtest

        scores = np.array(self.scores)[np.array(self.labels) == 0]
        alarms, promised = int((scores > self.calibration.ng.value).sum()), self.calibration.ng.guaranteed
        if not len(scores) or binomtest(alarms, len(scores), promised, alternative="greater").pvalue > _CHANCE:
            return []
        return [
            f"NOT KEPT: {alarms} of {len(scores)} good test parts are NG. They are not like the normals held out: "
            "parts of one lot, position or day were in both the fit and the calibration, or the test parts are from "
            "another source. Hold out by --group, and fit on normals like those to come."
        ]


def evaluate_samples(
    artifact: Artifact,
    samples: Sequence[Sample],
    writer: "ResultWriter | None",
    failures: list[ImageFileError],
    progress: Progress = silent,
) -> Evaluation:
    """Scores test images with known answers.

    Args:
        artifact: the model.
        samples: test images.
        writer: receives every result; None for figures only.
        failures: receives the errors of files that could not be used.
        progress: is told what is being done.
    """
    by_path = {sample.path: sample for sample in samples}
    evaluation = Evaluation(artifact.calibration)
    advance = progress("scoring", len(samples))
    for scored in score_files(artifact.scorer, [sample.path for sample in samples], failures):
        sample = by_path[scored.path]
        advance(1)
        try:
            mask = evaluation.add(scored, sample)
        except ImageFileError as error:
            failures.append(error)
            continue
        if writer is not None:
            verdict = judge(artifact, scored.score)
            writer.add(
                scored.path,
                scored.pixels(),
                scored.map_on_image(),
                scored.score,
                verdict.p_value,
                verdict.decision,
                sample.label,
                sample.kind,
                mask,
            )
    if writer is not None:
        for failure in failures:
            writer.failed(failure.path, failure.reason)
        writer.metrics = evaluation.summary().get("metrics", {})
    return evaluation


def shortcut_values(scored: Scored) -> dict[str, float]:
    """Returns global numbers of an image that may give a label away: brightness, sharpness, sizes."""
    pixels = scored.image.float().mean(dim=0)
    return {
        "mean grey": float(pixels.mean()),
        "mean gradient": float(pixels.diff(dim=1).abs().mean()) if pixels.shape[1] > 1 else 0.0,
        "file size": float(scored.path.stat().st_size),
        "image width": float(scored.image.shape[-1]),
    }


def reduced(mask: npt.NDArray[np.bool_] | None, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Returns a mask reduced by area to (height, width) and binarised at more than one half; empty for None."""
    if mask is None:
        return np.zeros(size, dtype=bool)
    import cv2

    shares = cv2.resize(mask.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_AREA)
    return np.asarray(shares > 0.5)
