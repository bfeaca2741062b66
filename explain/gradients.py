"""Attributions by gradients along the way from a normal baseline to the image.

Their promise (completeness): the map adds up to the difference of the two scores. What is missing is measured.

Sources: Sundararajan, Taly, Yan, Axiomatic Attribution for Deep Networks (arXiv 1703.01365); Lundberg and Lee, A
Unified Approach to Interpreting Model Predictions (arXiv 1705.07874), section 4 and shap.GradientExplainer.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anomaly.errors import SettingError
from explain.explanation import Check, Explanation
from explain.subject import BATCH, Subject

COMPLETE = 0.1
"""Share of the difference of scores that may be missing."""


@dataclass(frozen=True, kw_only=True)
class IntegratedGradients:
    """The gradient, averaged on the straight way from the normal twin to the image, times their difference.

    Attributes:
        steps: points on the way (Gauss-Legendre), one gradient each.
    """

    name: ClassVar[str] = "ig"
    steps: int = 32

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 1 <= self.steps <= 4096:
            raise SettingError.of(self.name, "steps", "1 to 4096", self.steps)

    def explain(self, subject: Subject) -> Explanation:
        """Explains the score of a subject."""
        import captum.attr

        image, baseline = subject.image[None].clone(), subject.twin.image[None]
        found = captum.attr.IntegratedGradients(subject.score).attribute(
            image, baselines=baseline, n_steps=self.steps, method="gausslegendre", internal_batch_size=BATCH
        )
        settings = {**asdict(self), "baseline": f"normal twin: {subject.twin.kind}"}
        return _complete(self.name, subject, found, subject.scores(baseline).mean(), settings)


@dataclass(frozen=True, kw_only=True)
class GradientShap:
    """The gradient times the difference to a normal baseline, averaged over random baselines and points on the way.

    The baselines are the normal twin and the normal images that are given; no noise is added to the image.

    Attributes:
        samples: random points, one gradient each.
    """

    name: ClassVar[str] = "gradient_shap"
    samples: int = 32

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 1 <= self.samples <= 4096:
            raise SettingError.of(self.name, "samples", "1 to 4096", self.samples)

    def explain(self, subject: Subject) -> Explanation:
        """Explains the score of a subject."""
        import captum.attr

        baselines = torch.cat([subject.twin.image[None], subject.normals])
        image, shap = subject.image[None].clone(), captum.attr.GradientShap(subject.score)
        parts, left = [], self.samples
        with seeded(subject.seed):
            while left > 0:  # in small batches, so that memory does not grow with the samples
                count = min(BATCH, left)
                parts.append(count * shap.attribute(image, baselines=baselines, n_samples=count, stdevs=0.0).detach())
                left -= count
        found = torch.stack(parts).sum(dim=0) / self.samples
        settings = {**asdict(self), "baselines": len(baselines), "baseline": f"normal twin: {subject.twin.kind}"}
        return _complete(self.name, subject, found, subject.scores(baselines).mean(), settings)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Makes what captum draws repeatable; both global generators are as before afterwards."""
    before = np.random.get_state()  # noqa: NPY002 - captum draws from numpy's global generator
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002
            yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def _complete(
    name: str, subject: Subject, found: Float[Tensor, "1 c h w"], baseline: Tensor, settings: dict[str, object]
) -> Explanation:
    """Sums over channels and measures what is missing."""
    wanted = float(subject.scores(subject.image[None])[0] - baseline)
    missing = abs(float(found.double().sum()) - wanted) / max(abs(wanted), 1e-12)
    shown = found.detach()[0].sum(dim=0).float().numpy()
    return Explanation(name, shown, settings, Check("completeness", missing, COMPLETE))
