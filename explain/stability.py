"""Is a map about the model, and does it hold still?

- Randomised weights: an explanation of what a model has learned must change when the model forgets. The map is made
  again for a copy with random weights; a rank correlation of the cells near 1 means that the map shows the image.
  (Adebayo et al., Sanity Checks for Saliency Maps, arXiv 1810.03292.)
- Sensitivity: how much the map changes, relative to itself, when the image changes by noise that nobody would see
  (Yeh et al., arXiv 1901.09392; captum's `sensitivity_max`).
"""

import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from anomaly.detector import Scorer
from anomaly.detectors.memory_bank import MemoryBankDetector, MemoryBankScorer
from explain.cells import Cells
from explain.explanation import Explanation
from explain.gradients import seeded
from explain.methods import Method
from explain.subject import ImageScore, SliceScore, Subject

NOISE = 0.01
"""Largest change of a value, as a share of the value range."""
DRAWS = 2
"""Noisy images that are tried."""
UNCHANGED = 0.7
"""Rank correlation above which a map counts as unchanged by random weights."""


@dataclass(frozen=True)
class Stability:
    """How a map depends on the model and on noise.

    Attributes:
        randomised: rank correlation of the cells with those of a copy with random weights, -1 to 1; low is good.
        sensitivity: largest change of the map by invisible noise, relative to the map; 0 is best, above 1 the change is
            larger than the map.
    """

    randomised: float
    sensitivity: float

    @property
    def about_the_image(self) -> bool:
        """Whether the map hardly changes when the model forgets all it has learned."""
        return self.randomised > UNCHANGED


def randomised(scorer: Scorer, seed: int = 0) -> Scorer:
    """Returns a copy whose learned weights are shuffled within each tensor: the same values, nothing learned.

    Everything that the scorer stores is shuffled but the levels of the positions, whose pattern would otherwise be the
    only thing that changes a score.
    """
    forgotten = copy.deepcopy(scorer)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, tensor in forgotten.state_dict().items():
            if tensor.is_floating_point() and tensor.numel() > 1 and name != "level":
                order = torch.randperm(tensor.numel(), generator=generator)
                tensor.copy_(tensor.flatten()[order].view(tensor.shape))
    if isinstance(forgotten, MemoryBankScorer):  # which derives tensors from those that it stores
        forgotten = MemoryBankScorer(
            _settings(forgotten), forgotten.backbone, forgotten.level, forgotten.center, forgotten.basis, forgotten.bank
        ).eval()
    return forgotten


def _settings(scorer: MemoryBankScorer) -> MemoryBankDetector:
    settings = scorer.detector
    assert isinstance(settings, MemoryBankDetector)
    return settings


def stability(method: Method, explanation: Explanation, subject: Subject, forgotten: Scorer) -> Stability:
    """Explains again with a model that knows nothing, and with noise.

    Args:
        method: what made the explanation.
        explanation: the map.
        subject: what it explains.
        forgotten: `randomised` copy of the scorer.
    """
    cells = Cells.over(subject.size)
    other = method.explain(_before(subject, forgotten)).map
    return Stability(
        randomised=rank_correlation(cells.means(explanation.map), cells.means(other)),
        sensitivity=sensitivity(method, explanation, subject),
    )


def sensitivity(method: Method, explanation: Explanation, subject: Subject) -> float:
    """Returns captum's `sensitivity_max` of a method at an image; 0 for a map of zeros that stays one."""
    import captum.metrics

    low, high = subject.scorer.input.value_range
    radius = NOISE * (high - low)
    first = True

    def explained(images: Tensor | tuple[Tensor, ...]) -> tuple[Tensor]:
        nonlocal first
        if first:  # captum begins with the image itself, whose map is known
            first = False
            return (torch.from_numpy(explanation.map)[None],)
        noisy = images if isinstance(images, Tensor) else images[0]
        maps = [method.explain(_moved(subject, image.clamp(low, high))).map for image in noisy]
        return (torch.from_numpy(np.stack(maps)),)

    with seeded(subject.seed):
        found = captum.metrics.sensitivity_max(
            explained, subject.image[None], perturb_radius=radius, n_perturb_samples=DRAWS
        )
    return float(torch.nan_to_num(found[0], nan=0.0))


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Returns Spearman's rank correlation of two sets of values; 0 where one of them is constant."""
    from scipy.stats import rankdata

    a, b = rankdata(first), rankdata(second)
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])


def _before(subject: Subject, scorer: Scorer) -> Subject:
    """Returns the same image before another scorer."""
    if isinstance(subject.score, SliceScore):
        score = subject.score
        with torch.no_grad():
            found = scorer(score.volume[None]).map[0, score.index].numpy()
        other = SliceScore(scorer, score.volume, score.index)
        return replace(subject, scorer=scorer, score=other, anomaly_map=found)
    return _moved(replace(subject, scorer=scorer, score=ImageScore(scorer)), subject.image)


def _moved(subject: Subject, image: Tensor) -> Subject:
    """Returns another image of the same part."""
    if isinstance(subject.score, SliceScore):
        volume = subject.score.volume.clone()
        volume[:, subject.score.index] = image
        with torch.no_grad():
            found = subject.scorer(volume[None]).map[0, subject.score.index].numpy()
        return replace(subject, image=image, anomaly_map=found)
    with torch.no_grad():
        canvas_map = subject.scorer(image[None]).map[0]
    return replace(subject, image=image, anomaly_map=subject.scorer.input.on_image(canvas_map, *subject.size).numpy())
