"""Maps that need no attribution: the detector's own, an autoencoder's residual, and controls that know nothing.

A method that is no better than "random" or "edges" explains nothing; one that is no better than the anomaly map adds
nothing to what the detector shows anyway.
"""

from dataclasses import dataclass
from typing import ClassVar

import cv2
import numpy as np

from explain.cells import Cells
from explain.explanation import Explanation
from explain.subject import Subject
from explain.twin import reconstruction


@dataclass(frozen=True, kw_only=True)
class AnomalyMap:
    """The detector's own map: the control that every other method must beat."""

    name: ClassVar[str] = "anomaly_map"

    def explain(self, subject: Subject) -> Explanation:
        """Returns the map at the resolution of the image, above its smallest value."""
        values = subject.anomaly_map
        return Explanation(self.name, np.asarray(values - values.min(), dtype=np.float32))


@dataclass(frozen=True, kw_only=True)
class Residual:
    """What an autoencoder's reconstruction lacks: mean absolute difference over channels, in raw values."""

    name: ClassVar[str] = "residual"

    def explain(self, subject: Subject) -> Explanation:
        """Compares the image with its reconstruction.

        Raises:
            SettingError: the scorer does not reconstruct images.
        """
        made = reconstruction(subject.scorer, subject.image)
        found = (subject.image - made.image).abs().mean(dim=0).numpy()
        return Explanation(self.name, found.astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Edges:
    """Control: strength of the edges of the image (Sobel). It looks like many an explanation and knows no model."""

    name: ClassVar[str] = "edges"

    def explain(self, subject: Subject) -> Explanation:
        """Returns the magnitude of the gradient of the mean channel."""
        grey = subject.image.mean(dim=0).numpy()
        down, right = (cv2.Sobel(grey, cv2.CV_32F, dx, dy, ksize=3) for dx, dy in ((0, 1), (1, 0)))
        return Explanation(self.name, np.hypot(down, right).astype(np.float32))


@dataclass(frozen=True, kw_only=True)
class Random:
    """Control: random values of the cells, the same for every image of one size."""

    name: ClassVar[str] = "random"

    def explain(self, subject: Subject) -> Explanation:
        """Returns values from 0 to 1."""
        cells = Cells.over(subject.size)
        values = np.random.default_rng(subject.seed).random(cells.count)
        return Explanation(self.name, values[cells.labels].astype(np.float32), {"seed": subject.seed})
