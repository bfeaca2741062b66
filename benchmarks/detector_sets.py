"""The sets of the table of detectors, industrial and medical, each with its protocol.

The chest X-rays of NIH follow `shared/data/README.md`: No_findings and Pneumonia differ in brightness and noise, so the
two folders are never scored against each other. Learned from: No_findings without patients of the test part and without
images that RSNA's radiologists read as not normal. Tested: inside Pneumonia, RSNA class Normal against Lung Opacity;
pairs of one view only (`within_strata`), because AP against PA alone tells the classes apart. Their boxes are masks.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomaly.images import Sample, groups_from_manifest, infer_input
from anomaly.metrics import auroc
from benchmarks.environment import shared_file
from benchmarks.image_sets import SIZES, ImageSet, open_set, spaced

MEDICAL = {"cxr_kermany": (224, 224), "cxr_nih_256": (256, 256)}
SETS = (*SIZES, *MEDICAL)
_TEST = {"Normal": 0, "Lung Opacity": 1}
_SIDE = 256


@dataclass(frozen=True)
class Protocol:
    """A set of the table.

    Attributes:
        images: what is learned from and tested.
        split: one line about where the split comes from.
        strata: test image -> group; only images of one group are compared by `image_auroc_strata`. Empty for none.
        boxes: whether the masks are filled boxes.
        groups: image -> patient or lot, where only those are independent of each other; empty for images.
    """

    images: ImageSet
    split: str
    strata: dict[Path, str]
    boxes: bool = False
    groups: dict[Path, str] = field(default_factory=dict)


def open_protocol(name: str, limit: int | None, seed: int, folder: Path | None) -> Protocol:
    """Opens a set of `SETS`, or a folder in the layout of MVTec AD.

    Args:
        name: name in `SETS`, or a folder.
        limit: training and test images at most, the latter evenly spaced over the kinds; None for all.
        seed: seed of the order of the training images.
        folder: where masks made of boxes may be written; None leaves them out.

    Raises:
        DatasetError: no such set.
    """
    if name == "cxr_nih_256":
        return _nih(shared_file(f"data/medical/{name}"), limit, seed, folder)
    where = str(shared_file(f"data/medical/{name}")) if name in MEDICAL else name
    images = open_set(where, train=limit, test=limit, size=MEDICAL.get(name), seed=seed)
    groups: dict[Path, str] = {}
    if name in MEDICAL:
        patients = groups_from_manifest(Path(where) / "manifest.csv", "patient")
        groups = {path: patients[path.name] for path in (*images.train, *(sample.path for sample in images.test))}
    return Protocol(images, "folders train/good and test/* of the set", {}, groups=groups)


class _Row(NamedTuple):
    path: Path
    patient: str
    view: str
    read: str


def _nih(root: Path, limit: int | None, seed: int, folder: Path | None) -> Protocol:
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = [
            _Row(root / r["folder"] / r["img"], r["Patient ID"], r["View Position"], r["rsna_class"])
            for r in csv.DictReader(file)
        ]
    tested = [row for row in rows if row.path.parent.name == "Pneumonia" and row.read in _TEST]
    patients = {row.patient for row in tested}
    learned = [
        row
        for row in rows
        if row.path.parent.name == "No_findings" and row.patient not in patients and row.read in ("", "Normal")
    ]
    tested.sort(key=lambda row: (_TEST[row.read], row.view, row.path.name))
    if limit is not None:
        tested = spaced(tested, limit)
    order = np.random.default_rng(seed).permutation(len(learned))[:limit]
    masks = _box_masks(root / "boxes.csv", folder) if folder else {}
    samples = [Sample(row.path, _TEST[row.read], row.read, masks.get(row.path.name)) for row in tested]
    spec = replace(infer_input([row.path for row in learned], MEDICAL["cxr_nih_256"], "stretch"), channels=3)
    images = ImageSet("cxr_nih_256", spec, [learned[i].path for i in order], samples)
    groups = {row.path: row.patient for row in (*learned, *tested)}
    split = "No_findings without test patients and abnormal reads; Pneumonia: RSNA Normal against Lung Opacity"
    return Protocol(images, split, {row.path: row.view for row in tested}, boxes=True, groups=groups)


def _box_masks(path: Path, folder: Path) -> dict[str, Path]:
    """Draws the boxes of RSNA's radiologists, one mask per image, and returns name of the image -> mask."""
    import cv2

    masks: dict[str, np.ndarray] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if not row["source"].startswith("RSNA"):
                continue
            x, y, w, h = (round(float(row[key])) for key in ("x", "y", "w", "h"))
            mask = masks.setdefault(row["img"], np.zeros((_SIDE, _SIDE), np.uint8))
            mask[y : y + h, x : x + w] = 255
    folder.mkdir(parents=True, exist_ok=True)
    files = {name: folder / f"{Path(name).stem}_mask.png" for name in masks}
    for name, mask in masks.items():
        cv2.imwrite(str(files[name]), mask)
    return files


def within_strata(scores: Sequence[float], labels: Sequence[int], strata: Sequence[str]) -> float | None:
    """Returns the AUROC over pairs of one stratum only; None where no stratum has both classes."""
    values, truth, groups = np.array(scores), np.array(labels), np.array(strata)
    found, pairs = 0.0, 0
    for group in sorted(set(strata)):
        own = groups == group
        count = int((truth[own] == 1).sum()) * int((truth[own] == 0).sum())
        if count:
            found += count * auroc(values[own], truth[own])
            pairs += count
    return found / pairs if pairs else None


def box_hits(maps: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns how often the highest pixel of a map lies in a box: of its own image, and of another one.

    The second is what the usual place of the boxes alone is worth: the mean over all other images' boxes.

    Args:
        maps: (H, W) maps of images with boxes.
        masks: (H, W) bool, their boxes.
    """
    peaks = [np.unravel_index(int(values.argmax()), values.shape) for values in maps]
    inside = np.array([[mask[peak] for mask in masks] for peak in peaks])
    own = float(np.diag(inside).mean())
    others = inside[~np.eye(len(maps), dtype=bool)]
    return own, float(others.mean()) if others.size else own
