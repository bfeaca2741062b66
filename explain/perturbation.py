"""Attributions by trying: regions are replaced by normal content, and the score is read again.

Sources: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks (arXiv 1311.2901) for occlusion;
Lundberg and Lee (arXiv 1705.07874) for KernelSHAP; Ribeiro, Singh, Guestrin, "Why Should I Trust You?" (arXiv
1602.04938) for LIME. All three are captum's; regions are cells of a grid.
"""

from dataclasses import asdict, dataclass
from typing import ClassVar

import torch
from jaxtyping import Shaped
from torch import Tensor

from anomaly.errors import SettingError
from explain.cells import Cells
from explain.explanation import Check, Explanation
from explain.gradients import COMPLETE, seeded
from explain.subject import BATCH, Subject
from explain.surrogate import WeightedRidge

GOOD_FIT = 0.5
"""Share of the variance that a surrogate must explain."""


@dataclass(frozen=True, kw_only=True)
class Occlusion:
    """How much the score falls where a sliding window shows the normal twin.

    Attributes:
        window: side of the window as a share of the shorter side of the image.
        overlap: windows that cover a pixel in each direction; 1 lays them side by side.
    """

    name: ClassVar[str] = "occlusion"
    window: float = 0.15
    overlap: int = 2

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 0 < self.window <= 0.5:
            raise SettingError.of(self.name, "window", "above 0 and at most 0.5", self.window)
        if not 1 <= self.overlap <= 8:
            raise SettingError.of(self.name, "overlap", "1 to 8", self.overlap)

    def explain(self, subject: Subject) -> Explanation:
        """Explains the score of a subject."""
        import captum.attr

        image, side = subject.image[None], max(1, round(self.window * min(subject.size)))
        stride = max(1, side // self.overlap)
        with torch.no_grad():
            found = captum.attr.Occlusion(subject.score).attribute(
                image,
                sliding_window_shapes=(image.shape[1], side, side),
                strides=(image.shape[1], stride, stride),
                baselines=subject.twin.image[None],
                perturbations_per_eval=BATCH,
            )
        settings = {**asdict(self), "window_px": side, "stride_px": stride, "shown instead": subject.twin.kind}
        return Explanation(self.name, found[0].mean(dim=0).float().numpy(), settings)


@dataclass(frozen=True, kw_only=True)
class KernelShap:
    """Shapley values of the cells of a grid, from random coalitions of cells that show the image, not the twin.

    Attributes:
        cells: cells along the shorter side.
        samples: coalitions that are tried; at least twice as many as there are cells, or the values are noise.
    """

    name: ClassVar[str] = "kernel_shap"
    cells: int = 7
    samples: int = 200

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        _check(self.name, self.cells, self.samples)

    def explain(self, subject: Subject) -> Explanation:
        """Explains the score of a subject."""
        import captum.attr

        cells, surrogate = Cells.over(subject.size, self.cells), WeightedRidge()
        shap = captum.attr.KernelShap(subject.score)
        shap.interpretable_model = surrogate  # captum's own needs scikit-learn
        with torch.no_grad(), seeded(subject.seed):
            values = shap.attribute(**_arguments(subject, cells, self.samples))[0]
        wanted = subject.scores(torch.stack([subject.image, subject.twin.image]))
        difference = float(wanted[0] - wanted[1])
        missing = abs(float(values.double().sum()) - difference) / max(abs(difference), 1e-12)
        settings = {**asdict(self), "grid": list(cells.grid), "baseline": f"normal twin: {subject.twin.kind}"}
        found = values[torch.from_numpy(cells.labels)].float().numpy()
        return Explanation(self.name, found, settings, Check("completeness", missing, COMPLETE))


@dataclass(frozen=True, kw_only=True)
class Lime:
    """Weights of a linear surrogate on cells of a grid that show the image or the twin, near the image weighing more.

    Attributes:
        cells: cells along the shorter side.
        samples: mixtures that are tried.
        penalty: weight of the squared weights of the surrogate, in units of the samples' weights.
    """

    name: ClassVar[str] = "lime"
    cells: int = 7
    samples: int = 200
    penalty: float = 0.01

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        _check(self.name, self.cells, self.samples)
        if not 0 <= self.penalty <= 1000:
            raise SettingError.of(self.name, "penalty", "0 to 1000", self.penalty)

    def explain(self, subject: Subject) -> Explanation:
        """Explains the score of a subject."""
        import captum.attr

        cells, surrogate = Cells.over(subject.size, self.cells), WeightedRidge(self.penalty)
        lime = captum.attr.Lime(subject.score, interpretable_model=surrogate, similarity_func=_nearness)
        with torch.no_grad(), seeded(subject.seed):
            values = lime.attribute(**_arguments(subject, cells, self.samples))[0]
        settings = {**asdict(self), "grid": list(cells.grid), "baseline": f"normal twin: {subject.twin.kind}"}
        found = values[torch.from_numpy(cells.labels)].float().numpy()
        return Explanation(self.name, found, settings, Check("fit", surrogate.explained, GOOD_FIT))


def _nearness(image: Tensor, mixture: Tensor, shown: Shaped[Tensor, "1 k"], **_: object) -> float:
    """Weighs a mixture by the share of cells that show the image."""
    away = 1 - shown.float().mean()
    return float(torch.exp(-away.square() / 0.5))


def _arguments(subject: Subject, cells: Cells, samples: int) -> dict[str, object]:
    return {
        "inputs": subject.image[None],
        "baselines": subject.twin.image[None],
        "feature_mask": torch.from_numpy(cells.labels)[None, None],
        "n_samples": samples,
        "perturbations_per_eval": BATCH,
        "return_input_shape": False,
    }


def _check(owner: str, cells: int, samples: int) -> None:
    if not 2 <= cells <= 32:
        raise SettingError.of(owner, "cells", "2 to 32 along the shorter side", cells)
    if not 8 <= samples <= 100_000:
        raise SettingError.of(owner, "samples", "8 to 100,000", samples)
