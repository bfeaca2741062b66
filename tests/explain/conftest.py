"""Toy scorers whose scores and gradients are known by hand."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from jaxtyping import install_import_hook
from torch import Tensor, nn
from torch.nn import functional as F

install_import_hook("explain", "beartype.beartype")

from anomaly.detector import Detector, Scorer, Scores  # noqa: E402
from anomaly.input_spec import Canvas, Images, InputSpec  # noqa: E402
from explain.subject import Subject  # noqa: E402
from explain.twin import Twin  # noqa: E402

SPEC = InputSpec(channels=1, dtype="float32", value_range=(0.0, 1.0), size=(32, 32))


@dataclass(frozen=True, kw_only=True)
class ToyDetector(Detector):
    name: ClassVar[str] = "toy"
    input: InputSpec = field(default=SPEC)

    def fit(self, images: Iterable[Images]) -> Scorer:
        raise NotImplementedError

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> Scorer:
        raise NotImplementedError


class WeightedSum(Scorer):
    """score = sum of weights * pixels; every attribution of it is known."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__(ToyDetector())
        self.weights = nn.Parameter(weights, requires_grad=False)

    def score_canvas(self, canvas: Canvas) -> Scores:
        values = canvas.pixels.mean(dim=1) * self.weights
        return Scores(values.sum(dim=(1, 2)), values)


class SquaredSum(Scorer):
    """score = (sum of the pixels) squared."""

    def __init__(self) -> None:
        super().__init__(ToyDetector())

    def score_canvas(self, canvas: Canvas) -> Scores:
        return Scores(canvas.pixels.sum(dim=(1, 2, 3)).square(), canvas.pixels[:, 0])


class Exponential(Scorer):
    """score = exp(8 * mean of the pixels)."""

    def __init__(self) -> None:
        super().__init__(ToyDetector())

    def score_canvas(self, canvas: Canvas) -> Scores:
        return Scores((8 * canvas.pixels.mean(dim=(1, 2, 3))).exp(), canvas.pixels[:, 0])


class TwoChannels(Scorer):
    """A 1 x 1 convolution of two channels on a grid of 4 x 4, rectified, and a weighted sum of the channels."""

    def __init__(self, inplace: bool = True) -> None:
        super().__init__(ToyDetector())
        self.pool = nn.AvgPool2d(8)
        self.convolution = nn.Conv2d(1, 2, 1, bias=False)
        self.relu = nn.ReLU(inplace=inplace)
        with torch.no_grad():
            self.convolution.weight.copy_(torch.tensor([2.0, -1.0]).view(2, 1, 1, 1))
        self.requires_grad_(False)
        self.fails = False

    def score_canvas(self, canvas: Canvas) -> Scores:
        features = self.relu(self.convolution(self.pool(canvas.pixels)))
        if self.fails:
            raise RuntimeError("as the test wants it")
        score = 3 * features[:, 0].sum(dim=(1, 2)) + 5 * features[:, 1].sum(dim=(1, 2))
        enlarged = F.interpolate(features.sum(dim=1, keepdim=True), size=canvas.pixels.shape[-2:])
        return Scores(score, enlarged[:, 0])


def subject_of(scorer: Scorer, image: Tensor, baseline: Tensor | None = None, **more: Any) -> Subject:
    """An image before a scorer with a given twin, black by default."""
    twin = Twin(torch.zeros_like(image) if baseline is None else baseline, "given")
    return Subject.of(scorer.eval(), image, twin, **more)


@pytest.fixture(scope="session")
def toys() -> SimpleNamespace:
    return SimpleNamespace(
        WeightedSum=WeightedSum,
        SquaredSum=SquaredSum,
        Exponential=Exponential,
        TwoChannels=TwoChannels,
        subject_of=subject_of,
    )


@pytest.fixture
def square() -> tuple[Scorer, Subject, np.ndarray]:
    """A score that is the mean of a square of 8 x 8 pixels, an image that is white there, and the square."""
    weights = torch.zeros(32, 32)
    weights[8:16, 16:24] = 1 / 64
    scorer = WeightedSum(weights)
    image = torch.full((1, 32, 32), 0.25)
    image[:, 8:16, 16:24] = 1.0
    return scorer, subject_of(scorer, image), (weights > 0).numpy()


@pytest.fixture
def hooks() -> Callable[[nn.Module], int]:
    """Counts the hooks that lie on a module and all that it holds."""

    def count(module: nn.Module) -> int:
        tables = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
        return sum(len(getattr(m, table)) for m in module.modules() for table in tables)

    return count
