"""Data sets with known answers for the benchmarks: which images, on which canvas; and what scorers make of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from anomaly.detector import Scores
from anomaly.errors import DatasetError
from anomaly.evaluation import reduced, shortcut_values
from anomaly.images import ImageLoader, Sample, find_dataset, infer_input, read_mask
from anomaly.input_spec import Canvas, Images, InputSpec
from anomaly.metrics import auroc, image_metrics, pixel_metrics
from anomaly.scoring import BATCH, Scored
from benchmarks.environment import shared_file

SIZES = {"magnetic_tile": (256, 256), "elpv_mono": (256, 256), "bsdata": (192, 448)}
"""Canvas of each shared set, height and width in pixels."""

T = TypeVar("T")


@dataclass(frozen=True)
class ImageSet:
    """A data set of one benchmark run.

    Attributes:
        name: name of the set.
        input: canvas and raw frames; images are stretched to the canvas and grey is repeated to RGB.
        train: normal images to learn from, in the order in which they are learned.
        test: test images.
    """

    name: str
    input: InputSpec
    train: list[Path]
    test: list[Sample]

    def frames(self) -> Iterator[Images]:
        """Yields batches of raw training frames.

        Raises:
            DatasetError: a file cannot be used; a benchmark leaves none out.
        """
        loader = ImageLoader(self.train, self.input, BATCH)
        for batch in loader:
            yield batch.images
        _refuse_failures(loader)


def open_set(
    name: str, *, train: int | None = None, test: int | None = None, size: tuple[int, int] | None = None, seed: int = 0
) -> ImageSet:
    """Opens a shared set by name, or a folder in the layout of MVTec AD.

    Args:
        name: name in `SIZES`, or a folder.
        train: training images, drawn at random under `seed`; None for all, in random order.
        test: test images, evenly spaced over the kinds; None for all.
        size: height and width of the canvas; by default that of `SIZES`, or 256 x 256 for a folder.
        seed: seed of the order of the training images.

    Raises:
        DatasetError: no such set.
    """
    root = shared_file(f"data/industrial/{name}") if name in SIZES else Path(name)
    if not root.is_dir():
        raise DatasetError(f"{name} is neither a folder nor one of the shared sets {', '.join(SIZES)}")
    dataset = find_dataset(root)
    order = np.random.default_rng(seed).permutation(len(dataset.train))[:train]
    spec = infer_input(dataset.train, size or SIZES.get(name, (256, 256)), "stretch")
    return ImageSet(
        root.resolve().name,
        replace(spec, channels=3),
        [dataset.train[i] for i in order],
        dataset.test if test is None else spaced(dataset.test, test),
    )


@dataclass
class Outcome:
    """What several scorers said of the same test images, and the truth.

    Memory: one float32 map of canvas size per image and scorer.

    Attributes:
        labels: 1 for a defect, one per image.
        masks: defect pixels on the canvas; None for a defect without mask.
        scores: image scores of each scorer.
        maps: maps of each scorer.
        shortcuts: global numbers of each image that no detector is needed for.
    """

    labels: list[int] = field(default_factory=list)
    masks: list[npt.NDArray[np.bool_] | None] = field(default_factory=list)
    scores: dict[str, list[float]] = field(default_factory=dict)
    maps: dict[str, list[npt.NDArray[np.float32]]] = field(default_factory=dict)
    shortcuts: dict[str, list[float]] = field(default_factory=dict)

    def figures(self, scorer: str) -> dict[str, float]:
        """Returns image metrics, and pixel metrics where there is any mask; all on raw scores."""
        found = image_metrics(np.array(self.scores[scorer]), np.array(self.labels))
        pairs = [(m, mask) for m, mask in zip(self.maps[scorer], self.masks, strict=True) if mask is not None]
        if any(mask.any() for _, mask in pairs):
            found |= pixel_metrics([m for m, _ in pairs], [mask for _, mask in pairs])
        return found

    def shortcut_aurocs(self) -> dict[str, float]:
        """Returns the image AUROC of each single global number, whichever side is higher."""
        found = {name: auroc(np.array(values), np.array(self.labels)) for name, values in self.shortcuts.items()}
        return {name: max(value, 1 - value) for name, value in found.items()}


@torch.inference_mode()
def judge(images: ImageSet, scorers: Mapping[str, Callable[[Canvas], Scores]]) -> Outcome:
    """Scores the test images; every scorer sees the same canvas.

    Raises:
        DatasetError: a file cannot be used; a benchmark leaves none out.
    """
    outcome = Outcome()
    loader = ImageLoader([sample.path for sample in images.test], images.input, BATCH)
    by_path = {sample.path: sample for sample in images.test}
    for batch in loader:
        canvas = images.input.canvas(batch.images)
        for name, scorer in scorers.items():
            scores = scorer(canvas)
            outcome.scores.setdefault(name, []).extend(scores.score.tolist())
            outcome.maps.setdefault(name, []).extend(scores.map.numpy())
        for path, image in zip(batch.paths, batch.images, strict=True):
            sample = by_path[path]
            outcome.labels.append(sample.label)
            outcome.masks.append(_mask(sample, image.shape[-2:], images.input.size))
            for name, value in shortcut_values(Scored(path, image, 0.0, torch.zeros(1, 1))).items():
                outcome.shortcuts.setdefault(name, []).append(value)
    _refuse_failures(loader)
    return outcome


def _mask(sample: Sample, frame: Sequence[int], canvas: tuple[int, int]) -> npt.NDArray[np.bool_] | None:
    """Returns the mask on the canvas; None for a defect without a mask."""
    if sample.mask is None:
        return None if sample.label else reduced(None, canvas)
    return reduced(read_mask(sample.mask, frame[0], frame[1]), canvas)


def _refuse_failures(loader: ImageLoader) -> None:
    if loader.failures:
        raise DatasetError(f"{len(loader.failures)} image(s) cannot be used, e.g. {loader.failures[0]}")


def spaced(items: Sequence[T], count: int) -> list[T]:
    """Returns `count` items evenly spaced from the first to the last; all of them where there are no more."""
    chosen = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[i] for i in chosen]
