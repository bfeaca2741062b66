"""The contract: a `Detector` holds frozen settings, its `fit` returns a `Scorer`, a call of that returns `Scores`."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from anomaly.input_spec import Canvas, Images, InputSpec


class Scores(NamedTuple):
    """Anomaly scores of a batch: raw, unbounded, higher means more anomalous, for every detector.

    Attributes:
        score: (N,) float32, one anomaly score per image.
        map: (N, H, W) float32, one value per pixel of the canvas (`InputSpec.size`). Padding holds the smallest value
            that the image has; `InputSpec.on_image` takes a map back to the raw frame.
    """

    score: Float[Tensor, " n"]
    map: Float[Tensor, "n h w"]


class Scorer(nn.Module, ABC):
    """What a fit returns: raw frames in, `Scores` out. Everything after the file decoder happens in here.

    Batch size, order and sizes of the other images of a batch never change a score (beyond float rounding).
    Persistent buffers and parameters are the whole learned state; an artifact stores exactly them.
    """

    def __init__(self, detector: "Detector") -> None:
        """Remembers the settings that the scorer was fitted with."""
        super().__init__()
        self.detector = detector

    @property
    def input(self) -> InputSpec:
        """The raw frames that the scorer accepts."""
        return self.detector.input

    def forward(self, images: Images) -> Scores:
        """Scores raw frames.

        Args:
            images: (N, C, h, w), or a sequence of (C, h, w) of different sizes; values as `input` declares them.

        Raises:
            InputError: the frames do not fit `input`.
        """
        return self.score_canvas(self.input.canvas(images))

    @abstractmethod
    def score_canvas(self, canvas: Canvas) -> Scores:
        """Scores images that lie on the canvas already."""

    def description(self) -> dict[str, Any]:
        """Returns what `Detector.restore` needs besides settings and tensors; JSON-able."""
        return {}


@runtime_checkable
class Refittable(Protocol):
    """A scorer that can learn further normals without the images that it was fitted on."""

    def refitted(self, images: Iterable[Images]) -> Scorer:
        """Returns a scorer that has learned these normals too; this one stays as it is.

        Args:
            images: batches of further normal raw frames, as for `Detector.fit`.

        Raises:
            ArtifactError: the scorer comes from a model file that does not hold what this needs.
            InputError: a batch does not fit the input, or there is no image at all.
        """


@dataclass(frozen=True, kw_only=True)
class Detector(ABC):
    """Settings of one family of detectors; nothing else. There is no unfitted state.

    Attributes:
        input: the raw frames that the scorer will accept.
        seed: seed of everything random in the fit.
    """

    name: ClassVar[str]
    """Key of the class in `anomaly.catalog`."""

    input: InputSpec = field(default_factory=InputSpec)
    seed: int = 0

    @abstractmethod
    def fit(self, images: Iterable[Images]) -> Scorer:
        """Learns what normal looks like from batches of normal raw frames, never holding them all.

        Args:
            images: batches, each (N, C, h, w) or a sequence of (C, h, w); read once, in order.

        Raises:
            InputError: a batch does not fit `input`, or there is no image at all.
        """

    @abstractmethod
    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> Scorer:
        """Builds the scorer from its `state_dict` and its `description`; strict.

        Raises:
            ArtifactError: a tensor or an entry is missing, unknown or of the wrong shape.
        """
