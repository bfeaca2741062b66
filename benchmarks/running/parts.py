"""From a word on the command line to the experiments behind it: sets, copies at hand, folders, products of a tree.

Four kinds of words: a shared development set (`detector_sets.SETS`), a public set of which a copy is at hand
(`anomaly bench datasets`), NAME=FOLDER for a public set in the layout of its authors, and a folder in the layout of
MVTec AD, either one product (train/good below it) or a folder of products. Each product is an experiment of its own.
DICOM files, volumes and tables of images become image files in a cache; sets without a test part get one by group.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomaly.errors import DatasetError, UnknownNameError
from anomaly.images import Sample, infer_input, read_image
from benchmarks.datasets import ANOMALOUS, NORMAL, TEST, TRAIN, Example, find_set, load, load_copy, truth
from benchmarks.datasets.plain import plain, slices_of
from benchmarks.datasets.registry import SETS as PUBLIC
from benchmarks.datasets.splits import with_test_part
from benchmarks.detector_sets import SETS, Protocol, open_protocol
from benchmarks.image_sets import ImageSet, spaced

CANVAS = (256, 256)
"""Height and width of the canvas of every set that has none of its own."""


class Part(NamedTuple):
    """One experiment.

    Attributes:
        data: the word that it comes from.
        category: product, organ or subset; empty where the set has only one.
    """

    data: str
    category: str = ""

    @property
    def dataset(self) -> str:
        """Name of the set for tables."""
        name, _, folder = self.data.partition("=")
        return name if folder or name in SETS or name in PUBLIC else Path(name).resolve().name

    @property
    def title(self) -> str:
        """Name of the experiment for people."""
        return f"{self.dataset} {self.category}".strip()


def find_parts(words: Sequence[str]) -> list[Part]:
    """Returns the experiments behind words, in their order.

    Raises:
        DatasetError: a folder is not there or has another layout.
        UnknownNameError: neither a set nor a folder.
    """
    return [part for word in words for part in _parts(word)]


def _parts(word: str) -> list[Part]:
    name, _, folder = word.partition("=")
    if folder:
        return [Part(word, category) for category in find_set(name).categories]
    if word in SETS:
        return [Part(word)]
    if word in PUBLIC:
        return [Part(word, category) for category in sorted({example.category for example in load_copy(word)})]
    root = Path(word)
    if not root.is_dir():
        raise UnknownNameError.among("data set, and no folder,", word, {*SETS, *PUBLIC})
    if (root / "train").is_dir():
        return [Part(word)]
    products = sorted(found.name for found in root.iterdir() if (found / "train" / "good").is_dir())
    if not products:
        raise DatasetError(f"{root} holds neither train/good nor products with train/good below them")
    return [Part(word, product) for product in products]


def open_part(part: Part, limit: int | None, seed: int, folder: Path | None) -> Protocol:
    """Opens an experiment: what is learned from, what is tested, on which canvas.

    Args:
        part: the experiment.
        limit: training and test images at most, the latter evenly spaced over the kinds; None for all.
        seed: seed of the order of the training images.
        folder: where masks may be drawn for sets whose marks are no files of masks; None leaves those out.

    Raises:
        DatasetError: the set is not there, lacks something, or has no split for this.
    """
    name, _, root = part.data.partition("=")
    if root or (name in PUBLIC and name not in SETS):
        examples = load(name, Path(root), part.category) if root else load_copy(name)
        return _of_examples(part, examples, limit, seed, folder)
    where = part.data if part.data in SETS else str(Path(part.data) / part.category)
    return open_protocol(where, limit, seed, folder)


def _of_examples(
    part: Part, examples: Sequence[Example], limit: int | None, seed: int, folder: Path | None
) -> Protocol:
    examples, split = with_test_part(examples)
    examples = slices_of(examples, limit)
    learned = [example for example in examples if example.split == TRAIN and example.label == NORMAL]
    tested = [example for example in examples if example.split == TEST and example.label in (NORMAL, ANOMALOUS)]
    found = {example.label for example in tested}
    if not learned or len(found) < 2:
        raise DatasetError(
            f"{part.title} cannot be run ({split}): there are {len(learned)} normal training images and {len(tested)} "
            f"test images of {len(found)} of the two classes. Arrange it as train/good, test/good, "
            "test/<kind> and give that folder"
        )
    order = np.random.default_rng(seed).permutation(len(learned))[:limit]
    tested.sort(key=lambda example: (example.label, example.kind))
    learned = plain([learned[index] for index in order])
    tested = plain(tested if limit is None else spaced(tested, limit))
    soft = PUBLIC[part.data.partition("=")[0]].soft_masks
    samples = [
        Sample(example.path, example.label, example.kind, _mask(example, index, soft, folder))
        for index, example in enumerate(tested)
    ]
    train = [example.path for example in learned]
    spec = replace(infer_input(train, CANVAS, "stretch"), channels=3)
    groups = {example.path: example.group for example in (*learned, *tested) if example.group}
    return Protocol(ImageSet(part.title, spec, train, samples), split, {}, groups=groups)


def _mask(example: Example, index: int, soft: bool, folder: Path | None) -> Path | None:
    if folder is None or example.label == NORMAL:
        return None
    import cv2

    height, width = read_image(example.path).shape[:2]
    marked = truth(example, height, width, soft)
    if marked is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{index:06d}_mask.png"
    cv2.imwrite(str(path), marked.astype(np.uint8) * 255)
    return path
