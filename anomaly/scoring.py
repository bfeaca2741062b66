"""The main job, second half: files -> score, map, p-value and decision, streaming."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Shaped
from torch import Tensor

from anomaly.artifact import Artifact
from anomaly.calibration import Decision
from anomaly.detector import Scorer
from anomaly.errors import ImageFileError
from anomaly.images import ImageLoader

BATCH = 4
"""Images scored together; more are no faster on a CPU, and take more memory."""


@dataclass(frozen=True)
class Scored:
    """One scored image.

    Attributes:
        path: the image file.
        image: (C, h, w) raw frame.
        score: anomaly score.
        map: (H, W) float32 on the canvas, without padding.
    """

    path: Path
    image: Shaped[Tensor, "c h w"]
    score: float
    map: Float32[Tensor, "mh mw"]

    def map_on_image(self) -> Float32[np.ndarray, "h w"]:
        """Returns the map at the resolution of the raw frame."""
        size = (self.image.shape[-2], self.image.shape[-1])
        resized = torch.nn.functional.interpolate(self.map[None, None], size=size, mode="bilinear")
        return resized[0, 0].numpy()

    def pixels(self) -> Shaped[np.ndarray, "h w c"]:
        """Returns the raw frame with the channels last."""
        return self.image.permute(1, 2, 0).numpy()


@dataclass(frozen=True)
class Verdict:
    """What the calibration says of a score.

    Attributes:
        p_value: share of normals that score at least as high, in (0, 1].
        decision: OK, REVIEW or NG.
    """

    p_value: float
    decision: Decision


def score_files(
    scorer: Scorer, paths: Sequence[Path], failures: list[ImageFileError], batch_size: int = BATCH
) -> Iterator[Scored]:
    """Scores image files in order; decoding runs ahead in threads, never more than a few batches are held.

    Args:
        scorer: a fitted scorer.
        paths: image files.
        failures: receives the errors of files that could not be read; complete once the iterator ends.
        batch_size: images scored together; never changes a score.
    """
    loader = ImageLoader(paths, scorer.input, batch_size)
    for batch in loader:
        with torch.inference_mode():  # never around the yield: the mode would leak into the caller
            scores = scorer(batch.images)
        for path, image, score, anomaly_map in zip(batch.paths, batch.images, *scores, strict=True):
            height, width = scorer.input.covered(image.shape[-2], image.shape[-1])
            yield Scored(path, image, float(score), anomaly_map[:height, :width])
    failures.extend(loader.failures)


def judge(artifact: Artifact, score: float) -> Verdict:
    """Returns p-value and decision of a score."""
    p_value = float(np.asarray(artifact.calibration.p_value(score)).reshape(-1)[0])
    return Verdict(p_value, artifact.calibration.decide(score))
