"""Few images: a fit on a handful of normals also learns their flips and right-angle rotations.

A few images show a structure in a few orientations only; what is turned is then new and scores high. Right angles need
no interpolation, so a turned image has the texture of the original.

Source: Damm et al., AnomalyDINO (arXiv 2405.14529).
"""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from anomaly.input_spec import Images


def with_turned(images: Iterable[Images], limit: int, *, square: bool) -> Iterator[Images]:
    """Yields the batches as they come and, if the stream ends with at most `limit` images, turned copies after them.

    Nothing waits: a batch is passed on at once, and kept only while the stream may still prove short.

    Args:
        images: batches of raw frames, each (N, C, h, w) or a sequence of (C, h, w).
        limit: images up to which copies are made; memory holds no more raw frames than these.
        square: whether quarter turns keep a frame on its canvas; else only flips and half turns are made.
    """
    kept: list[Images] = []
    count = 0
    for batch in images:
        count += len(batch)
        if count <= limit:
            kept.append(batch)
        else:
            kept.clear()
        yield batch
    for quarters in range(4) if square else (0, 2):
        for flipped in (False, True):
            if quarters or flipped:
                for batch in kept:
                    yield _turned(batch, quarters, flipped=flipped)


def _turned(batch: Images, quarters: int, *, flipped: bool) -> Images:
    if not isinstance(batch, Tensor):
        return [torch.rot90(image.flip(-1) if flipped else image, quarters, (-2, -1)) for image in batch]
    return torch.rot90(batch.flip(-1) if flipped else batch, quarters, (-2, -1))
