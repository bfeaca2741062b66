"""Data sets on disk: the tree of MVTec AD with its masks, and manifests that say which files belong together."""

import csv
from pathlib import Path, PureWindowsPath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError, ImageFileError
from anomaly.images.files import images_below, read_image

GOOD = "good"
FILE_COLUMNS = ("file", "path", "img")
"""Columns of a manifest that may name the files; the first that is there does."""

_LAYOUT = """expected
  train/good/*.png                          normal images to learn from
  test/good/*.png                           normal images to test with
  test/<defect>/*.png                       anomalous images, one folder per kind
  ground_truth/<defect>/<stem>_mask.png     masks, all of a kind or none (any of the image formats)"""


class Sample(NamedTuple):
    """One test image.

    Attributes:
        path: the image file.
        label: 0 normal, 1 anomalous.
        kind: "good", or the name of the defect.
        mask: the mask file; None for normal images and for kinds without masks.
    """

    path: Path
    label: int
    kind: str
    mask: Path | None


class Dataset(NamedTuple):
    """A data set in the layout of MVTec AD.

    Attributes:
        train: normal images to learn from, in natural order.
        test: test images, kind by kind in the order of their names.
    """

    train: list[Path]
    test: list[Sample]


def find_dataset(root: Path) -> Dataset:
    """Finds the images and masks of a data set: train/good, test/good, test/<defect>, ground_truth/<defect>.

    The mask of "test/scratch/007.png" is "ground_truth/scratch/007_mask.png" or ".../007.png".

    Raises:
        DatasetError: the layout is another one, a folder is empty, or masks of a kind are missing in part.
    """
    train = _images(root, "train/good")
    test = [Sample(path, 0, GOOD, None) for path in _images(root, "test/good")]
    kinds = sorted(folder.name for folder in (root / "test").iterdir() if _is_kind(folder))
    if not kinds:
        raise DatasetError(f"{root / 'test'} holds no folder of defects; {_LAYOUT}")
    truth = root / "ground_truth"
    stray = [f.name for f in truth.iterdir() if _is_kind(f) and f.name not in kinds] if truth.is_dir() else []
    if stray:
        raise DatasetError(f"{truth} has masks for {', '.join(stray)}, test has only {', '.join(kinds)}; {_LAYOUT}")
    for kind in kinds:
        test.extend(_with_masks(_images(root, f"test/{kind}"), truth / kind))
    return Dataset(train, test)


def read_mask(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    """Reads a mask: a pixel is anomalous where any channel is above half of the full range.

    Args:
        path: the mask file; full range is 255 (8 bit), 65535 (16 bit) or 1 (float32).
        height: rows of the image that the mask belongs to.
        width: columns of that image.

    Returns:
        (height, width) bool.

    Raises:
        ImageFileError: as `read_image`; another size; or values that never reach half of the full range, though they
            are not all zero (a mask of 0 and 1 saved in 8 bit).
    """
    pixels = read_image(path).max(axis=2)
    if pixels.shape != (height, width):
        size = f"{pixels.shape[0]} x {pixels.shape[1]}"
        raise ImageFileError(path, f"is a mask of {size} for an image of {height} x {width}; export it in that size")
    full = 1.0 if pixels.dtype.kind == "f" else float(np.iinfo(pixels.dtype).max)
    mask: NDArray[np.bool_] = pixels > full / 2
    if pixels.any() and not mask.any():
        highest = float(pixels.max())
        raise ImageFileError(path, f"is a mask with values up to {highest:g} only; write 0 and {full:g}")
    return mask


def groups_from_manifest(path: Path, key: str) -> dict[str, str]:
    """Reads which files belong together (one patient, one lot), so that none is on both sides of a split.

    Args:
        path: CSV file with a header line and a column "file", "path" or "img".
        key: column that holds the group, e.g. "patient".

    Returns:
        Group of each file by its bare name, without folders.

    Raises:
        DatasetError: not readable, a column is missing, a cell is empty, or a file name occurs twice.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a readable CSV file in UTF-8: {error}") from error
    file_column = next((column for column in FILE_COLUMNS if column in columns), None)
    if file_column is None:
        raise DatasetError(f"{path} has no column {' or '.join(FILE_COLUMNS)}; it has: {', '.join(columns)}")
    if key not in columns:
        raise DatasetError(f"{path} has no column {key!r}; it has: {', '.join(columns)}")
    return _groups(path, [(row[file_column], row[key]) for row in rows])


def _groups(path: Path, rows: list[tuple[str | None, str | None]]) -> dict[str, str]:
    groups: dict[str, str] = {}
    for line, (file, group) in enumerate(rows, start=2):
        if not file or not group:
            raise DatasetError(f"{path}, row {line}: the file name or its group is empty; fill it in")
        name = PureWindowsPath(file).name  # takes both kinds of slashes
        if name in groups:
            raise DatasetError(f"{path}, row {line}: the file name {name!r} occurs twice; names must be unique")
        groups[name] = group
    return groups


def _is_kind(folder: Path) -> bool:
    return folder.is_dir() and folder.name != GOOD and not folder.name.startswith(".")


def _images(root: Path, folder: str) -> list[Path]:
    images = images_below(root / folder) if (root / folder).is_dir() else []
    if not images:
        raise DatasetError(f"{root / folder} holds no image; {_LAYOUT}")
    return images


def _with_masks(images: list[Path], folder: Path) -> list[Sample]:
    masks = {mask.stem: mask for mask in images_below(folder)} if folder.is_dir() else {}
    found = [masks.get(f"{image.stem}_mask") or masks.get(image.stem) for image in images]
    missing = [str(image) for image, mask in zip(images, found, strict=True) if mask is None]
    if masks and missing:
        listed = "".join(f"\n  {image}" for image in missing[:20])
        raise DatasetError(f"{folder} lacks the masks of {len(missing)} of {len(images)} image(s):{listed}")
    return [Sample(image, 1, folder.name, mask) for image, mask in zip(images, found, strict=True)]
