"""Makes the reference of a model from the calibration normals, in one pass and bounded memory."""

import hashlib
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped
from torch import Tensor

from anomaly.detector import Scorer
from anomaly.drift.descriptors import Description, describe, names
from anomaly.drift.reference import SCORE, Reference
from anomaly.errors import CalibrationError

MOST = 500
"""Normals that are kept at most: about 0.1 MB. Which ones depends on their content alone."""
_TEMPLATE = 10


class _Normal(NamedTuple):
    key: bytes
    score: float
    description: Description


class ReferenceMaker:
    """Collects one image of each group of calibration normals; memory: 4 kB for each of at most 1,000.

    A tenth of them becomes the template of the position and nothing else, since a normal that is part of the template
    would lie closer to it than later images do.
    """

    def __init__(self, scorer: Scorer) -> None:
        """Begins without any normal."""
        self._scorer = scorer
        self._chosen: dict[str, _Normal] = {}

    def add(self, image: Shaped[Tensor, "c h w"], score: float, group: str) -> None:
        """Takes a (C, h, w) raw frame with its score; of a group, where only groups are independent, one is kept."""
        key = hashlib.blake2b(image.cpu().contiguous().numpy().tobytes(), digest_size=8).digest()
        held = self._chosen.get(group)
        if held is None or key < held.key:
            self._chosen[group] = _Normal(key, score, describe(self._scorer, image))
        if len(self._chosen) >= 2 * MOST:
            self._chosen = dict(self._ordered()[:MOST])

    def reference(self) -> Reference:
        """Returns the reference.

        Raises:
            CalibrationError: no normal was added.
        """
        normals = [normal for _, normal in self._ordered()[:MOST]]
        if not normals:
            raise CalibrationError("a reference needs at least one normal that the fit has not seen")
        first = max(1, len(normals) // _TEMPLATE)
        template = (
            np.mean([normal.description.thumbnail for normal in normals[:first]], axis=0).round().astype(np.uint8)
        )
        rest = normals[first:] or normals
        rows = tuple((n.score, *n.description.row(template)) for n in rest)
        return Reference((SCORE, *names(self._scorer)), rows, template.tobytes())

    def _ordered(self) -> list[tuple[str, _Normal]]:
        return sorted(self._chosen.items(), key=lambda item: item[1].key)
