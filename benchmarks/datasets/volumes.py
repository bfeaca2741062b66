"""Volumes of brain MRI in NIfTI (IXI, BraTS): their loaders, and their axial slices as pictures with masks.

nibabel turns volume and mask to the closest axes of RAS+ before a slice is taken, so both follow the same flips. A
slice is shown as radiologists see it: anterior up, the patient's right on the left. Grey values have no unit in MRI:
the percentiles of the whole volume that `medical.preparing` takes for triage become 0 and 255.

Which slices: `SLICES` of them, evenly spaced over `BAND` of the extent from inferior to superior; in BraTS, with 155
slices, those are 60, 65, ..., 100. Neither the mask nor the label has a say in it.
"""

import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError, ImageFileError
from benchmarks.datasets.examples import ANOMALOUS, NORMAL, TRAIN, UNKNOWN, VALIDATION, Example, require_files

SUFFIXES = (".nii", ".nii.gz")
SLICES, BAND = 9, (0.39, 0.65)
BRATS_SEQUENCES = ("flair", "t1", "t1ce", "t2")
_SAME_PLACE = 1e-3


class Slice(NamedTuple):
    """One axial slice.

    Attributes:
        position: its number from inferior to superior, from 0.
        pixels: (H, W) uint8, anterior up, the patient's right on the left.
        marked: (H, W) bool, what the mask marks; None without a mask.
    """

    position: int
    pixels: NDArray[np.uint8]
    marked: NDArray[np.bool_] | None


def ixi(root: Path, category: str) -> list[Example]:
    """IXI: IXI002-Guys-0828-T1.nii.gz and so on, one folder (or any) per sequence; healthy volunteers, no split.

    Raises:
        DatasetError: no volume of this sequence.
    """
    paths = sorted(root.rglob(f"IXI*-{category}.nii.gz"))
    if not paths:
        raise DatasetError(f"{root} lacks volumes IXI*-{category}.nii.gz")
    return [Example(path, TRAIN, NORMAL, "good", category, group=path.name.partition("-")[0]) for path in paths]


def brats(root: Path, category: str) -> list[Example]:
    """BraTS 2021: BraTS2021_00000/BraTS2021_00000_{flair,t1,t1ce,t2,seg}.nii.gz; every patient has a tumour.

    A case without a segmentation is one of the validation part: `VALIDATION`, `UNKNOWN`.

    Raises:
        DatasetError: no case, or a case lacks the sequence.
    """
    cases = sorted(path for path in root.rglob("BraTS2021_*") if path.is_dir() and path.name[10:].isdigit())
    if not cases:
        raise DatasetError(f"{root} lacks folders BraTS2021_00000 and so on")
    paths = [case / f"{case.name}_{category}.nii.gz" for case in cases]
    require_files(root, paths, f"volumes {category}")
    found = []
    for case, path in zip(cases, paths, strict=True):
        mask = case / f"{case.name}_seg.nii.gz"
        known = mask.is_file()
        split, label, kind = (TRAIN, ANOMALOUS, "glioma") if known else (VALIDATION, UNKNOWN, "unlabelled")
        found.append(Example(path, split, label, kind, category, masks=(mask,) if known else (), group=case.name))
    return found


def is_volume(example: Example) -> bool:
    """Returns whether the file of an example is a volume."""
    return example.path.name.lower().endswith(SUFFIXES)


def cut(path: Path, mask: Path | None = None) -> list[Slice]:
    """Reads a volume, and its mask, and returns its slices from inferior to superior.

    Memory: the volume as float32, and the mask.

    Raises:
        ImageFileError: not NIfTI, damaged, not three-dimensional, without a stated orientation, with values that are
            not finite, or all of one value; or the mask lies elsewhere or has another size.
    """
    from medical.preparing import HIGHEST, LOWEST

    values, affine = _canonical(path, np.dtype(np.float32))
    if not np.isfinite(values).all():
        raise ImageFileError(path, "has voxels that are not finite")
    low, high = np.percentile(values, (LOWEST, HIGHEST))
    if not low < high:
        raise ImageFileError(path, f"has one value in {HIGHEST - LOWEST:g} % of its voxels")
    marks = None
    if mask is not None:
        marks, place = _canonical(mask, None)
        if marks.shape != values.shape or not np.allclose(place, affine, atol=_SAME_PLACE):
            raise ImageFileError(mask, f"is a mask of another place or size than {path.name}")
    found = []
    for position in positions(values.shape[2]):
        grey = np.rint(np.clip((values[:, :, position] - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        marked = None if marks is None else _as_seen(marks[:, :, position] != 0)
        found.append(Slice(position, _as_seen(grey), marked))
    return found


def positions(depth: int) -> list[int]:
    """Returns which slices of a volume of so many are taken, from inferior to superior."""
    places = np.linspace(*BAND, SLICES) * (depth - 1)
    return sorted(set(np.rint(places).astype(int).tolist()))


def _canonical(path: Path, dtype: np.dtype[Any] | None) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Returns the voxels (right, anterior, superior) and the affine; dtype None: as stored."""
    import nibabel

    try:
        image: Any = nibabel.load(path)
        header = image.header
        if len(image.shape) != 3:
            raise ImageFileError(path, f"is no volume of three dimensions; its shape is {image.shape}")
        if not (int(header["qform_code"]) or int(header["sform_code"])):
            raise ImageFileError(path, "states no orientation: qform and sform have the code 0")
        image = nibabel.as_closest_canonical(image)  # type: ignore[no-untyped-call]
        voxels = np.asanyarray(image.dataobj)
    except (nibabel.filebasedimages.ImageFileError, OSError, EOFError, zlib.error, ValueError, KeyError) as error:
        raise ImageFileError(path, f"is no readable NIfTI file ({type(error).__name__})") from None
    return voxels if dtype is None else voxels.astype(dtype), image.affine


def _as_seen(axial: NDArray[Any]) -> NDArray[Any]:
    """(right, anterior) -> rows from anterior to posterior, columns from the patient's right to the left."""
    return np.ascontiguousarray(axial[::-1, ::-1].T)
