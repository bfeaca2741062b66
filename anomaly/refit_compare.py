"""Old model against new one, on images that neither has fitted, before one takes the other's place.

One comparison that suggests itself says nothing: the new thresholds come from the held-out new normals, so the new
false-alarm rate on these is what their ranks make it, whatever the scorer. What can be measured there is the old
model's rate (the reason to refit, or not) and how well both scorers tell these normals from copies with a planted
defect. False alarms of both models are measured where a labelled data set is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64, Shaped
from torch import Tensor

from anomaly.artifact import Artifact
from anomaly.calibration import Calibration, Decision
from anomaly.detector import Scorer
from anomaly.errors import ImageFileError
from anomaly.images import Sample
from anomaly.images.synthetic_defects import DEFECTS
from anomaly.images.synthetic_surfaces import Surface
from anomaly.metrics import auroc
from anomaly.progress import Progress, silent
from anomaly.scoring import score_files

PLANTED = ("scratch", "pit", "stain")
"""Defects that can be planted in any image."""
BOUND = 0.02
"""Largest loss of AUROC, and largest rise of a share of wrong decisions, that is accepted by default."""
_CHANCE = 0.05
_LEAST_SIDE = 32

Values = Float64[np.ndarray, " _"]


@dataclass(frozen=True)
class Figure:
    """One figure of both models.

    Attributes:
        what: in words.
        count: images behind it.
        old: of the old model.
        new: of the new one.
        worse: whether the new one is worse beyond the bound.
        note: what to know about it.
    """

    what: str
    count: int
    old: float
    new: float
    worse: bool = False
    note: str = ""

    def in_words(self) -> str:
        """One line of a table."""
        remarks = [remark for remark in ("WORSE" if self.worse else "", self.note) if remark]
        return "  ".join([f"  {self.what:54} {self.count:6} {self.old:8.4f} {self.new:8.4f}", *remarks])


def compare_on_normals(
    old: Artifact,
    new: Artifact,
    paths: Sequence[Path],
    failures: list[ImageFileError],
    bound: float = BOUND,
    progress: Progress = silent,
) -> list[Figure]:
    """Compares on new normals that only the new calibration has seen, and on copies of them with a planted defect.

    Args:
        old: the old model.
        new: the new model.
        paths: the new normals held out.
        failures: receives the errors of files that could not be used.
        bound: largest accepted loss of AUROC.
        progress: is told what is being done.
    """
    normals: list[list[float]] = [[], []]
    planted: list[list[float]] = [[], []]
    advance = progress("comparing on the new normals", len(paths))
    for scored in score_files(new.scorer, paths, failures):
        damaged = plant(scored.image, old.scorer.input.value_range, len(normals[1]))
        normals[1].append(scored.score)
        normals[0].append(_score(old.scorer, scored.image))
        planted[0].append(_score(old.scorer, damaged))
        planted[1].append(_score(new.scorer, damaged))
        advance(1)
    n = len(normals[0])
    found = []
    for word, decisions in (("not OK", (Decision.REVIEW, Decision.NG)), ("NG", (Decision.NG,))):
        threshold = new.calibration.ng if word == "NG" else new.calibration.review
        rate = float(np.mean([d in decisions for d in old.calibration.decide_all(normals[0])]))
        note = "(new: by construction, on average)"
        found.append(Figure(f"new normals held out: {word}", n, rate, threshold.marginal, note=note))
    labels = np.repeat([0, 1], n)
    before, after = (auroc(np.array(normals[k] + planted[k]), labels) for k in (0, 1))
    what = "new normals against copies with planted defects: AUROC"
    return [*found, Figure(what, 2 * n, before, after, bool(before - after > bound))]


def compare_on_samples(
    old: Artifact,
    new: Artifact,
    samples: Sequence[Sample],
    failures: list[ImageFileError],
    bound: float = BOUND,
    progress: Progress = silent,
) -> list[Figure]:
    """Compares on labelled images: AUROC, false alarms at both thresholds, defects that pass.

    A share of wrong decisions counts as worse if it rises by more than the bound and, by an exact sign test on the
    images that the models decide differently, by more than chance (5 %) does.

    Args:
        old: the old model.
        new: the new model.
        samples: test images of both classes.
        failures: receives the errors of files that could not be used.
        bound: largest accepted loss of AUROC and rise of a share.
        progress: is told what is being done.
    """
    by_path = {sample.path: sample.label for sample in samples}
    labels, scores = [], [[], []]  # type: tuple[list[int], list[list[float]]]
    advance = progress("comparing on the labelled images", len(samples))
    for scored in score_files(new.scorer, [sample.path for sample in samples], failures):
        labels.append(by_path[scored.path])
        scores[0].append(_score(old.scorer, scored.image))
        scores[1].append(scored.score)
        advance(1)
    known = np.array(labels)
    found = []
    if 0 < known.sum() < len(known):
        before, after = (auroc(np.array(values), known) for values in scores)
        found.append(Figure("labelled images: AUROC", len(known), before, after, bool(before - after > bound)))
    pairs = ((old.calibration, scores[0]), (new.calibration, scores[1]))
    good, bad = known == 0, known == 1
    for what, chosen, wrong in (
        ("labelled good images: not OK", good, (Decision.REVIEW, Decision.NG)),
        ("labelled good images: NG", good, (Decision.NG,)),
        ("labelled defects: OK", bad, (Decision.OK,)),
    ):
        if chosen.any():
            first, second = (_wrong(calibration, values, chosen, wrong) for calibration, values in pairs)
            found.append(_share(what, first, second, bound))
    return found


def plant(image: Shaped[Tensor, "c h w"], value_range: tuple[float, float], index: int) -> Shaped[Tensor, "c h w"]:
    """Returns a copy of a (C, h, w) raw frame with a procedural defect; the same for the same index.

    Its contrast is relative to the frame's own 0.5 and 99.5 percentiles; every channel changes alike.

    Args:
        image: the raw frame.
        value_range: lowest and highest raw value.
        index: chooses kind, place and strength.
    """
    values = image.to(torch.float32).numpy()
    grey = values.mean(axis=0)
    if min(grey.shape) < _LEAST_SIDE:
        return image.clone()
    low, high = (float(v) for v in np.percentile(grey, (0.5, 99.5)))
    extent = high - low if high > low else value_range[1] - value_range[0]
    albedo = (0.1 + 0.8 * np.clip((grey - low) / extent, 0, 1)).astype(np.float32)
    kind = DEFECTS[PLANTED[index % len(PLANTED)]]
    change = (kind.apply(Surface(albedo), np.random.default_rng([index, 7])) - albedo) * (extent / 0.8)
    damaged = np.clip(values + change[None], *value_range)
    if image.dtype != torch.float32:
        damaged = np.rint(damaged)
    return torch.from_numpy(damaged.astype(np.float32)).to(image.dtype)


def _score(scorer: Scorer, image: Shaped[Tensor, "c h w"]) -> float:
    with torch.inference_mode():
        return float(scorer(image[None]).score[0])


def _wrong(
    calibration: Calibration, scores: Sequence[float], chosen: Bool[np.ndarray, " n"], wrong: tuple[Decision, ...]
) -> Bool[np.ndarray, " m"]:
    decided = calibration.decide_all(np.array(scores)[chosen])
    return np.array([decision in wrong for decision in decided], dtype=bool)


def _share(what: str, old: Bool[np.ndarray, " m"], new: Bool[np.ndarray, " m"], bound: float) -> Figure:
    from scipy.stats import binomtest

    only_new, only_old = int((new & ~old).sum()), int((old & ~new).sum())
    differ = only_new + only_old
    chance = binomtest(only_new, differ, alternative="greater").pvalue if differ else 1.0
    before, after = float(old.mean()), float(new.mean())
    return Figure(what, len(old), before, after, bool(after - before > bound and chance < _CHANCE))
