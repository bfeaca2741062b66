"""Loaders of sets in which folders say what an image is: the tree of MVTec AD, its relatives, folders of classes.

Layouts as their authors ship them; `anomaly bench datasets NAME` prints each one.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

from anomaly.errors import DatasetError
from benchmarks.datasets.examples import (
    ANOMALOUS,
    NORMAL,
    TEST,
    TRAIN,
    UNKNOWN,
    VALIDATION,
    Example,
    images_in,
    listed,
    require,
)

Masks = Callable[[Path, Path], tuple[Path, ...]]
"""Called with the folder of the masks of a kind and an image; returns its masks, empty if there is none."""

_SUFFIXES = (".png", ".bmp", ".jpg", ".jpeg", ".tif", ".tiff")


def mvtec(root: Path, category: str, good: str = "good", validation: bool = False, loco: bool = False) -> list[Example]:
    """Finds train/good, test/good, test/<kind> and ground_truth/<kind>, below the folder of the category.

    Args:
        root: folder of the set.
        category: its folder, empty if `root` is it.
        good: name of the folders of normal images.
        validation: whether there is validation/good.
        loco: whether an image has a folder of masks rather than one file.

    Raises:
        DatasetError: a folder is missing or empty, or masks are missing.
    """
    base = root / category
    require(base, [f"{TRAIN}/{good}", f"{TEST}/{good}", *([f"{VALIDATION}/{good}"] if validation else [])])
    found = _folder(base / TRAIN / good, TRAIN, category)
    if validation:
        found += _folder(base / VALIDATION / good, VALIDATION, category)
    found += _folder(base / TEST / good, TEST, category)
    kinds = sorted(f.name for f in (base / TEST).iterdir() if f.is_dir() and f.name != good)
    if not kinds:
        raise DatasetError(f"{base / TEST} lacks the folders of anomalies; there is only {good}")
    for kind in kinds:
        masks = _masks_in_folder if loco else _mask_beside
        found += _folder(base / TEST / kind, TEST, category, kind, base / "ground_truth" / kind, masks)
    return found


def mvtec_masks_needed(root: Path, category: str, good: str = "good", **options: bool) -> list[Example]:
    """The same for sets whose anomalous images all have masks.

    Raises:
        DatasetError: as `mvtec`, or there is no folder of masks.
    """
    require(root / category, ["ground_truth"])
    return mvtec(root, category, good, **options)


def mvtec2(root: Path, category: str) -> list[Example]:
    """MVTec AD 2: test_public has answers; test_private and test_private_mixed have none.

    Raises:
        DatasetError: a folder is missing or empty, or masks are missing.
    """
    base = root / category
    public = base / "test_public"
    require(base, ["train/good", "validation/good", *(f"test_public/{n}" for n in ("good", "bad", "ground_truth/bad"))])
    found = _folder(base / "train/good", TRAIN, category) + _folder(base / "validation/good", VALIDATION, category)
    found += _folder(public / "good", TEST, category)
    found += _folder(public / "bad", TEST, category, "bad", public / "ground_truth/bad", _mask_beside)
    for name in ("test_private", "test_private_mixed"):
        if (base / name).is_dir():
            found += [Example(path, TEST, UNKNOWN, name, category) for path in images_in(base / name)]
    return found


def bmad(root: Path, category: str) -> list[Example]:
    """BMAD: good and Ungood below train, valid and test; sets with masks have folders img and anomaly_mask (or label).

    Raises:
        DatasetError: a folder is missing or empty, or masks are missing.
    """
    base = root / category
    require(base, [f"{TRAIN}/good", *(f"{part}/{label}" for part in ("valid", TEST) for label in ("good", "Ungood"))])
    found = _folder(_images_of(base / TRAIN / "good"), TRAIN, category)
    for part, split in (("valid", VALIDATION), (TEST, TEST)):
        found += _folder(_images_of(base / part / "good"), split, category)
        folder = base / part / "Ungood"
        masks = next((folder / name for name in ("anomaly_mask", "label") if (folder / name).is_dir()), None)
        found += _folder(_images_of(folder), split, category, "Ungood", masks, _mask_beside if masks else None)
    return found


def classes(root: Path, category: str, normal: str, kinds: tuple[str, ...]) -> list[Example]:
    """Finds train/<class> and test/<class>, and val/<class> where it is.

    Args:
        root: folder of the set.
        category: its folder, empty if `root` is it.
        normal: the class of normal images.
        kinds: the other classes.

    Raises:
        DatasetError: a folder is missing or empty.
    """
    base = root / category
    parts = {TRAIN: TRAIN, TEST: TEST} | ({"val": VALIDATION} if (base / "val").is_dir() else {})
    require(base, [f"{part}/{name}" for part in parts for name in (normal, *kinds)])
    found: list[Example] = []
    for part, split in parts.items():
        found += _folder(base / part / normal, split, category)
        for kind in kinds:
            found += _folder(base / part / kind, split, category, kind)
    return [example._replace(group=patient(example.path)) for example in found]


def patient(path: Path) -> str:
    """Returns the patient in a file name of Kermany's sets, empty where it has another form.

    "CNV-1016042-1.jpeg" and "person1_bacteria_2.jpeg" name the patient; "NORMAL2-IM-0130-0001.jpeg" does too.
    """
    pieces = path.stem.replace("_", "-").split("-")
    if pieces[0].startswith("person"):
        return pieces[0]
    if "IM" in pieces[:2] and len(pieces) > pieces.index("IM") + 1:
        return "-".join(pieces[: pieces.index("IM") + 2])
    return "-".join(pieces[:2]) if len(pieces) == 3 and pieces[1].isdigit() else ""


def medianomaly_folders(root: Path, category: str, names: Mapping[str, str], masks: str = "") -> list[Example]:
    """The two sets of MedIAnomaly that are folders.

    Args:
        root: folder of the set.
        category: folder of Camelyon16 or BraTS2021.
        names: folder -> kind; the first is the one to learn from.
        masks: folder of masks, named like the images with "seg" in place of "flair".

    Raises:
        DatasetError: a folder is missing or empty, or masks are missing.
    """
    base = root / category
    require(base, [*names, *([masks] if masks else [])])
    found: list[Example] = []
    for number, (folder, kind) in enumerate(names.items()):
        truth = base / masks if masks and kind != "good" else None
        found += _folder(base / folder, TEST if number else TRAIN, category, kind, truth, _mask_of_flair)
    return found


def _folder(
    folder: Path, split: str, category: str, kind: str = "good", truth: Path | None = None, masks: Masks | None = None
) -> list[Example]:
    """Returns the images of a folder; with `truth`, all of them must have masks there if that folder is there."""
    images = images_in(folder)
    if not images:
        raise DatasetError(f"{folder} holds no image")
    label = NORMAL if kind == "good" else ANOMALOUS
    if truth is None or masks is None or not truth.is_dir():
        return [Example(path, split, label, kind, category) for path in images]
    found = [masks(truth, path) for path in images]
    missing = [path.name for path, files in zip(images, found, strict=True) if not files]
    if missing:
        raise DatasetError(f"{truth} lacks the masks of {len(missing)} of {len(images)} images: {listed(missing)}")
    return [Example(p, split, label, kind, category, masks=m) for p, m in zip(images, found, strict=True)]


def _images_of(folder: Path) -> Path:
    return folder / "img" if (folder / "img").is_dir() else folder


def _mask_beside(truth: Path, image: Path) -> tuple[Path, ...]:
    names = (f"{image.stem}{end}{suffix}" for end in ("_mask", "") for suffix in _SUFFIXES)
    return tuple(path for path in (truth / name for name in names) if path.is_file())[:1]


def _masks_in_folder(truth: Path, image: Path) -> tuple[Path, ...]:
    folder = truth / image.stem
    return tuple(images_in(folder)) if folder.is_dir() else ()


def _mask_of_flair(truth: Path, image: Path) -> tuple[Path, ...]:
    path = truth / image.name.replace("flair", "seg")
    return (path,) if path.is_file() else ()
