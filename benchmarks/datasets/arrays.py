"""Loaders of tables of images (MedMNIST, MixedWM38, WM-811K); pixels of pictures and of rows of tables."""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError, ImageFileError
from benchmarks.datasets.examples import (
    ANOMALOUS,
    NORMAL,
    TEST,
    TRAIN,
    UNKNOWN,
    VALIDATION,
    Example,
    require,
)

MEDMNIST_NORMAL = {
    "octmnist": 3,
    "pneumoniamnist": 0,
    "breastmnist": 1,
    "retinamnist": 0,
    "adrenalmnist3d": 0,
    "vesselmnist3d": 0,
}
"""Number of the class that its authors call normal (or free of disease); the others have none, see the card."""

MIXEDWM38_KINDS = ("Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Scratch", "Random")
WM811K_FILE = "wm811k.npz"
_NO_PICTURES = (".nii", ".gz", ".dcm", ".dicom")


def medmnist(root: Path, category: str) -> list[Example]:
    """MedMNIST: <name>.npz with train_images, train_labels, val_* and test_*; the category is the name.

    Raises:
        DatasetError: the file is missing or of another layout.
    """
    path = root / f"{category}.npz"
    require(root, [path.name])
    parts = {"train": TRAIN, "val": VALIDATION, "test": TEST}
    tables = _tables(path, [f"{part}_labels" for part in parts])
    found = []
    for part, split in parts.items():
        for row, label in enumerate(tables[f"{part}_labels"]):
            found.append(Example(path, split, *_medmnist(category, label), category, row=row))
    return found


def mixedwm38(root: Path, category: str) -> list[Example]:
    """MixedWM38: Wafer_Map_Datasets.npz with arr_0 (maps, 52 x 52) and arr_1 (eight 0/1 labels). No official split.

    Raises:
        DatasetError: the file is missing or of another layout.
    """
    path = root / "Wafer_Map_Datasets.npz"
    require(root, [path.name])
    labels = _tables(path, ["arr_1"])["arr_1"]
    if labels.ndim != 2 or labels.shape[1] != len(MIXEDWM38_KINDS):
        raise DatasetError(f"{path}: arr_1 has the shape {labels.shape}; expected (maps, {len(MIXEDWM38_KINDS)})")
    found = []
    for row, marks in enumerate(labels):
        kind = "+".join(name for name, mark in zip(MIXEDWM38_KINDS, marks, strict=True) if mark)
        found.append(Example(path, TRAIN, ANOMALOUS if kind else NORMAL, kind or "good", row=row))
    return found


def wm811k(root: Path, category: str) -> list[Example]:
    """WM-811K: LSWMD.pkl, read without trusting it and written to wm811k.npz beside it on first use.

    Unlabelled wafers (638,507 of 811,457) are left out. The lot is the group; the official split cuts through lots.

    Raises:
        DatasetError: neither file is there, or the folder cannot be written.
    """
    from inspection.wafer.wm811k import FAILURES, UNLABELLED, WaferMaps, convert

    plain = root / WM811K_FILE
    if not plain.is_file():
        require(root, ["LSWMD.pkl"])
        convert(root / "LSWMD.pkl", plain)
    maps = WaferMaps.load(plain)
    splits = {0: TRAIN, 1: TEST}
    found = []
    for row in np.flatnonzero(maps.failures != UNLABELLED).tolist():
        failure, split = FAILURES[maps.failures[row]], splits.get(int(maps.splits[row]), TRAIN)
        label, kind = (NORMAL, "good") if failure == "none" else (ANOMALOUS, failure)
        found.append(Example(plain, split, label, kind, group=str(maps.lots[row]), row=row))
    return found


def pixels(example: Example) -> NDArray[Any]:
    """Reads one image of a set as stored.

    Returns:
        (H, W, C) as `anomaly.images.read_image`; for a row of a table the same. WM-811K has 0, 128 and 255 for no die,
        passed and failed; MixedWM38 has 0, 85 and 170 for them, and 255 for the value 3, which its authors do not
        explain.

    Raises:
        ImageFileError: the file cannot be read; the row is a volume; or it is a DICOM file or a volume, which `plain`
            makes pictures of.
    """
    if example.row is None:
        from anomaly.images import read_image

        if example.path.suffix.lower() in _NO_PICTURES:
            raise ImageFileError(
                example.path, "is a DICOM file or a volume; benchmarks.datasets.plain makes pictures of it"
            )
        return read_image(example.path)
    if example.path.name == WM811K_FILE:
        from inspection.wafer.wm811k import GREY

        return np.asarray(GREY[_wafers(example.path)[example.row]][..., None])
    if "arr_0" in (table := _images(example.path)):
        return np.asarray((table["arr_0"][example.row] * 85).astype(np.uint8)[..., None])
    image: NDArray[Any] = table[{TRAIN: "train", VALIDATION: "val", TEST: "test"}[example.split] + "_images"][
        example.row
    ]
    if image.ndim == 3 and image.shape[-1] != 3:
        raise ImageFileError(example.path, f"holds volumes of {image.shape} voxels, which are no images")
    return image if image.ndim == 3 else image[..., None]


def _medmnist(category: str, label: NDArray[Any]) -> tuple[int, str]:
    if category == "chestmnist":  # fourteen findings, 0 or 1
        return (ANOMALOUS, "finding") if label.any() else (NORMAL, "good")
    number = int(label[0])
    if category not in MEDMNIST_NORMAL:
        return UNKNOWN, f"class {number}"
    return (NORMAL, "good") if number == MEDMNIST_NORMAL[category] else (ANOMALOUS, f"class {number}")


def _tables(path: Path, names: list[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = [name for name in names if name not in file.files]
            if missing:
                raise DatasetError(f"{path} lacks the tables {', '.join(missing)}; it has {', '.join(file.files)}")
            return {name: file[name] for name in names}
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is no readable npz file: {error}") from error


@lru_cache(maxsize=1)
def _images(path: Path) -> dict[str, NDArray[Any]]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files if name == "arr_0" or name.endswith("_images")}


@lru_cache(maxsize=1)
def _wafers(path: Path) -> Any:
    from inspection.wafer.wm811k import WaferMaps

    return WaferMaps.load(path)
