"""A detector that learns a tone, so that what it was shown and what it must score are known by hand."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from anomaly.detector import Detector, Scorer, Scores
from anomaly.errors import InputError
from anomaly.fitting import Plan, fit_files
from anomaly.input_spec import Canvas, Images, InputSpec

SPEC = InputSpec(channels=1, size=(32, 32))
COUNT = 24


@dataclass(frozen=True, kw_only=True)
class ToneDetector(Detector):
    """Learns the mean tone and remembers which tones it was shown; a file is a tone, so it remembers the files."""

    name: ClassVar[str] = "tone"
    shown: list[int] = field(default_factory=list, compare=False)

    def fit(self, images: Iterable[Images]) -> "ToneScorer":
        for batch in images:
            self.shown.extend(int(image[0, 0, 0]) for image in batch)
        if not self.shown:
            raise InputError("no image")
        return ToneScorer(self, torch.tensor(float(np.mean(self.shown))))

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> "ToneScorer":
        raise NotImplementedError


class ToneScorer(Scorer):
    """Score: distance of the mean tone from the mean of the training; map: distance of each pixel."""

    def __init__(self, detector: ToneDetector, tone: Tensor) -> None:
        super().__init__(detector)
        self.register_buffer("tone", tone)

    def score_canvas(self, canvas: Canvas) -> Scores:
        distance = (255 * canvas.pixels[:, 0] - self.tone).abs()
        return Scores(distance.mean(dim=(1, 2)), distance)


def write_tone(path, tone, size=(32, 32)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size, tone, dtype=np.uint8)).save(path)
    return path


def tone_files(folder):
    """Writes a file for each tone from 100 on and returns their paths."""
    return [write_tone(folder / f"{n:03d}.png", 100 + n) for n in range(COUNT)]


def tone_of(path):
    return 100 + int(path.stem)


def fitted(paths, plan=None, **settings):
    detector, failures = ToneDetector(input=SPEC, **settings), []
    return fit_files(detector, paths, plan or Plan(), failures), detector.shown, failures
