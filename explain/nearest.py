"""The nearest normal patch, in the eyes of the model: "this is what it should have looked like".

The patch where the anomaly map is highest is compared, by the features of the detector's own backbone, with every patch
of the normal images that are given. Model files keep features of normals at most, never their pictures, so the pictures
come from the caller.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from anomaly.detector import Scorer
from anomaly.detectors.embedding import EmbeddingScorer, embed
from explain.subject import Subject
from explain.twin import Normals

SIDE = 0.2
"""Side of the part that is shown, as a share of the shorter side of the image."""

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Nearest:
    """The strangest patch of an image and the normal patch that is most like it.

    Attributes:
        box: top, bottom, left, right of what is shown of the image, in pixels.
        name: the normal image.
        index: its number in `Normals`.
        normal_box: top, bottom, left, right of what is shown of it.
        distance: Euclidean distance of the features.
        typical: median distance of the other patches of the image to their nearest normal patch.
    """

    box: Box
    name: str
    index: int
    normal_box: Box
    distance: float
    typical: float


class PatchSearch:
    """Finds nearest normal patches; the features of the normal images are computed once.

    Memory: 4 bytes a feature, e.g. 24 images of 32 x 32 patches of 192 features: 19 MB.
    """

    def __init__(self, scorer: EmbeddingScorer, normals: Normals) -> None:
        """Computes the features of all patches of the normal images."""
        self._scorer, self._normals = scorer, normals
        with torch.no_grad():
            found = [self._features(image) for image in normals.images]
        self._inside = [inside.flatten() for _, inside in found]
        self._grid = found[0][0].shape[:2]
        self._bank = torch.cat([features.flatten(0, 1)[inside.flatten()] for features, inside in found])
        self._owners = [(k, int(p)) for k, inside in enumerate(self._inside) for p in inside.nonzero()[:, 0]]

    @classmethod
    def of(cls, scorer: Scorer, normals: Normals | None) -> "PatchSearch | None":
        """Returns a search where the detector has a backbone and there are normal images; else None."""
        if normals is None or not isinstance(scorer, EmbeddingScorer):
            return None
        return cls(scorer, normals)

    def nearest(self, subject: Subject) -> Nearest:
        """Finds the normal patch most like the one where the anomaly map of the subject is highest."""
        with torch.no_grad():
            features, inside = self._features(subject.image)
            distance, index = _closest(features.flatten(0, 1), self._bank)
        peak = np.unravel_index(int(subject.anomaly_map.argmax()), subject.anomaly_map.shape)
        cell = self._cell(peak, subject.size)
        owner, place = self._owners[int(index[cell])]
        size = (self._normals.images[owner].shape[-2], self._normals.images[owner].shape[-1])
        return Nearest(
            box=_box((int(peak[0]), int(peak[1])), subject.size),
            name=self._normals.names[owner],
            index=owner,
            normal_box=_box(self._pixel(place, size), size),
            distance=float(distance[cell]),
            typical=float(distance[inside.flatten()].median()),
        )

    def _features(self, image: Tensor) -> tuple[Float[Tensor, "h w d"], Tensor]:
        canvas = self._scorer.input.canvas(image[None].float())
        features = embed(self._scorer.backbone, canvas)[0]
        return features, canvas.inside((features.shape[0], features.shape[1]))[0]

    def _cell(self, pixel: tuple[np.intp, ...], size: tuple[int, int]) -> int:
        """Returns the number of the patch that a pixel of the frame belongs to."""
        spec = self._scorer.input
        covered = spec.covered(*size)
        row, column = (
            min(int((pixel[k] + 0.5) * covered[k] / size[k] * self._grid[k] / spec.size[k]), self._grid[k] - 1)
            for k in (0, 1)
        )
        return row * self._grid[1] + column

    def _pixel(self, cell: int, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the pixel of a frame in the middle of a patch."""
        spec = self._scorer.input
        covered, place = spec.covered(*size), divmod(cell, self._grid[1])
        row, column = (int((place[k] + 0.5) / self._grid[k] * spec.size[k] * size[k] / covered[k]) for k in (0, 1))
        return row, column


def _closest(queries: Float[Tensor, "q d"], bank: Float[Tensor, "m d"]) -> tuple[Tensor, Tensor]:
    """Returns distance and index of the nearest of the bank; in parts, so that the distances are never all held."""
    parts = [torch.cdist(part, bank).min(dim=1) for part in torch.split(queries, 256)]
    return torch.cat([part.values for part in parts]), torch.cat([part.indices for part in parts])


def _box(pixel: tuple[int, int], size: tuple[int, int]) -> Box:
    side = max(16, round(SIDE * min(size)))
    top = min(max(0, pixel[0] - side // 2), max(0, size[0] - side))
    left = min(max(0, pixel[1] - side // 2), max(0, size[1] - side))
    return top, min(size[0], top + side), left, min(size[1], left + side)
