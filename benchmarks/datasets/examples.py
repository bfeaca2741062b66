"""One image of a public data set, with what its authors say of it: split, label, where the defect is, whose it is."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError, ImageFileError

NORMAL, ANOMALOUS, UNKNOWN = 0, 1, -1
"""Labels; `UNKNOWN` where the authors keep the answer to themselves, or nobody has looked."""

TRAIN, VALIDATION, TEST = "train", "validation", "test"
_LISTED = 10


class Region(NamedTuple):
    """A marked region, as its authors marked it: a box is the polygon of its four corners.

    Attributes:
        kind: what is there; empty if the authors do not say.
        points: corners (x, y) in pixels of the image, x to the right, y down.
    """

    kind: str
    points: tuple[tuple[float, float], ...]


class Example(NamedTuple):
    """One image.

    Attributes:
        path: the file; several examples share one if it is a table of images.
        split: `TRAIN`, `VALIDATION` or `TEST` of the authors; `TRAIN` where they have none.
        label: `NORMAL`, `ANOMALOUS` or `UNKNOWN`.
        kind: "good", or what the anomaly is called.
        category: product, organ or subset; empty if the set has only one.
        masks: files of masks that together mark the anomaly; empty where there are none.
        regions: boxes and polygons that together mark it.
        group: what must not be on both sides of a split: patient, item, lot. Empty if unknown.
        row: row of the table of images; None where the file is the image.
    """

    path: Path
    split: str
    label: int
    kind: str
    category: str = ""
    masks: tuple[Path, ...] = ()
    regions: tuple[Region, ...] = ()
    group: str = ""
    row: int | None = None


def box(kind: str, left: float, top: float, width: float, height: float) -> Region:
    """Returns a box as a region; all in pixels."""
    right, bottom = left + width, top + height
    return Region(kind, ((left, top), (right, top), (right, bottom), (left, bottom)))


def truth(example: Example, height: int, width: int, above_half: bool) -> NDArray[np.bool_] | None:
    """Draws what the authors marked.

    Args:
        example: the image.
        height: rows of the image.
        width: columns of the image.
        above_half: whether masks have soft edges, so that only values above half of 255 count; otherwise every value
            but 0 counts, also a number of a class.

    Returns:
        (height, width) bool: all false for a normal image, None for another one that has no marks.

    Raises:
        ImageFileError: a mask cannot be read or has another size than the image.
    """
    from anomaly.images import read_image

    found = np.zeros((height, width), dtype=bool)
    if not (example.masks or example.regions):
        return found if example.label == NORMAL else None
    for path in example.masks:
        pixels = read_image(path).max(axis=2)
        if pixels.shape != found.shape:
            rows, columns = pixels.shape
            raise ImageFileError(path, f"is a mask of {rows} x {columns} for an image of {height} x {width}")
        found |= pixels > (127 if above_half else 0)
    if example.regions:
        import cv2

        canvas = np.zeros((height, width), np.uint8)
        outlines = [np.rint(np.array(region.points)).astype(np.int32) for region in example.regions]
        for outline in outlines:  # one by one: several at once would cancel out where they overlap
            cv2.fillPoly(canvas, [outline], 1)
        found |= canvas > 0
    return found


def images_in(folder: Path) -> list[Path]:
    """Returns the image files of a folder and its subfolders in natural order; empty if there is none."""
    from anomaly.images.files import images_below  # here, since it loads torch, which listing the sets must not

    return images_below(folder)


def require(root: Path, needed: Iterable[str]) -> None:
    """Refuses a folder that lacks files or folders.

    Raises:
        DatasetError: lists what is missing.
    """
    if not root.is_dir():
        raise DatasetError(f"{root.parent} lacks the folder {root.name}; check the path")
    missing = [name for name in needed if not (root / name).exists()]
    if missing:
        raise DatasetError(f"{root} lacks {listed(missing)}")


def require_files(root: Path, paths: Sequence[Path], what: str) -> None:
    """Refuses a set of which files are missing that its own lists name.

    Raises:
        DatasetError: counts and lists them.
    """
    missing = [path.relative_to(root).as_posix() for path in paths if not path.is_file()]
    if missing:
        raise DatasetError(f"{root} lacks {len(missing)} of {len(paths)} {what}: {listed(missing)}")


def listed(names: Sequence[str]) -> str:
    """Returns names with commas, the first ten of a long list."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more
