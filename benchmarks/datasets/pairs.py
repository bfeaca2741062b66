"""Loaders of sets in which every image has its mask or its boxes beside it under a name of the same pattern.

KolektorSDD, KolektorSDD2, Magnetic Tile, DAGM, DeepPCB, NEU-DET, BSData: layouts as their authors ship them.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from anomaly.errors import DatasetError
from benchmarks.datasets.examples import (
    ANOMALOUS,
    NORMAL,
    TEST,
    TRAIN,
    Example,
    Region,
    box,
    images_in,
    require,
    require_files,
)

DEEPPCB_KINDS = {1: "open", 2: "short", 3: "mousebite", 4: "spur", 5: "copper", 6: "pin-hole"}
NEU_KINDS = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")
MAGNETIC_TILE_KINDS = ("Blowhole", "Break", "Crack", "Fray", "Uneven")


def kolektor(root: Path, category: str) -> list[Example]:
    """KolektorSDD: kos01/Part0.jpg with kos01/Part0_label.bmp; an image is anomalous if its mask is not all 0.

    The official split is three folds over the 50 items, so every image is `TRAIN` and its item is the group.

    Raises:
        DatasetError: no image, or a mask is missing.
    """
    images = sorted(root.glob("kos*/Part*.jpg"))
    return _by_mask(root, images, [path.with_name(f"{path.stem}_label.bmp") for path in images], [TRAIN] * len(images))


def kolektor2(root: Path, category: str) -> list[Example]:
    """KolektorSDD2: train/10000.png with train/10000_GT.png, test alike; anomalous if the mask is not all 0.

    Raises:
        DatasetError: a folder or a mask is missing.
    """
    require(root, (TRAIN, TEST))
    images = [p for part in (TRAIN, TEST) for p in images_in(root / part) if not p.stem.endswith("_GT")]
    return _by_mask(root, images, [p.with_name(f"{p.stem}_GT.png") for p in images], [p.parent.name for p in images])


def magnetic_tile(root: Path, category: str) -> list[Example]:
    """Magnetic Tile: MT_<kind>/Imgs/x.jpg with x.png as its mask; MT_Free is normal. There is no official split.

    A name is "exp<exposure>_num_<number>"; the photographs of one tile cannot be told from it.

    Raises:
        DatasetError: a folder or a mask is missing.
    """
    folders = [f"MT_{kind}/Imgs" for kind in (*MAGNETIC_TILE_KINDS, "Free")]
    require(root, folders)
    images = [path for folder in folders for path in sorted((root / folder).glob("*.jpg"))]
    require_files(root, [path.with_suffix(".png") for path in images], "masks")
    found = []
    for path in images:
        kind = path.parts[-3].removeprefix("MT_").lower()
        free = kind == "free"
        masks = () if free else (path.with_suffix(".png"),)
        found.append(Example(path, TRAIN, NORMAL if free else ANOMALOUS, "good" if free else kind, masks=masks))
    return found


def dagm(root: Path, category: str) -> list[Example]:
    """DAGM: Class1/Train/0576.PNG, with Class1/Train/Label/0576_label.PNG (an ellipse) if there is a defect.

    Raises:
        DatasetError: a folder is missing or empty.
    """
    base = root / category
    require(base, [f"{part}/Label" for part in ("Train", "Test")])
    found = []
    for part, split in (("Train", TRAIN), ("Test", TEST)):
        images = sorted(path for path in (base / part).iterdir() if path.suffix.lower() == ".png")
        if not images:
            raise DatasetError(f"{base / part} holds no image")
        for path in images:
            mask = base / part / "Label" / f"{path.stem}_label{path.suffix}"
            marked = mask.is_file()
            label, kind = (ANOMALOUS, "defect") if marked else (NORMAL, "good")
            found.append(Example(path, split, label, kind, category, masks=(mask,) if marked else ()))
    return found


def deeppcb(root: Path, category: str) -> list[Example]:
    """DeepPCB: PCBData/trainval.txt and test.txt list pairs; the template is normal, the tested board has boxes.

    Raises:
        DatasetError: a list or a file is missing, or a line is not of the layout.
    """
    base = root / "PCBData"
    require(root, ["PCBData/trainval.txt", "PCBData/test.txt"])
    found: list[Example] = []
    for name, split in (("trainval.txt", TRAIN), ("test.txt", TEST)):
        lines = [line.split() for line in (base / name).read_text(encoding="utf-8").splitlines() if line.strip()]
        stems = [(base / image).with_suffix("") for image, _ in lines]
        boxes = [base / file for _, file in lines]
        images = [s.with_name(f"{s.name}_{what}.jpg") for s in stems for what in ("temp", "test")]
        require_files(root, [*images, *boxes], f"files that {name} names")
        for stem, file in zip(stems, boxes, strict=True):
            board = stem.parent.parent.name
            tested = stem.with_name(f"{stem.name}_test.jpg")
            found.append(Example(stem.with_name(f"{stem.name}_temp.jpg"), split, NORMAL, "good", group=board))
            found.append(Example(tested, split, ANOMALOUS, "defect", regions=_deeppcb_boxes(file), group=board))
    return found


def neu_det(root: Path, category: str) -> list[Example]:
    """NEU-DET: IMAGES/crazing_1.jpg with ANNOTATIONS/crazing_1.xml in Pascal VOC; every image shows defects.

    There is no normal image and no official split: every image is `TEST`.

    Raises:
        DatasetError: a folder or an annotation is missing, or it is not Pascal VOC.
    """
    require(root, ("IMAGES", "ANNOTATIONS"))
    images = images_in(root / "IMAGES")
    files = [root / "ANNOTATIONS" / f"{path.stem}.xml" for path in images]
    require_files(root, files, "annotations")
    if not images:
        raise DatasetError(f"{root / 'IMAGES'} holds no image")
    return [
        Example(path, TEST, ANOMALOUS, path.stem.rpartition("_")[0], regions=tuple(_voc_boxes(file)))
        for path, file in zip(images, files, strict=True)
    ]


def bsdata(root: Path, category: str) -> list[Example]:
    """BSData: data/x.jpg, label/x.json (labelme polygons of pitting) and image_data.json with the authors' split.

    An image without an annotation is normal. What image_data.json gives no split counts as `TRAIN`. The position on the
    spindle is the group.

    Raises:
        DatasetError: a folder or a named file is missing.
    """
    require(root, ("data", "label", "image_data.json"))
    rows = _json(root / "image_data.json")["images"]
    files = [root / "label" / row["annotations"] for row in rows if row["annotations"]]
    require_files(root, [root / "data" / row["filename"] for row in rows], "images that image_data.json names")
    require_files(root, files, "annotations")
    found = []
    for row in rows:
        path = root / "data" / row["filename"]
        regions = tuple(_labelme(root / "label" / row["annotations"])) if row["annotations"] else ()
        label, kind = (ANOMALOUS, "pitting") if regions else (NORMAL, "good")
        split = row["train_test_split"] or TRAIN
        found.append(Example(path, split, label, kind, regions=regions, group=_position(path.stem)))
    return found


def _position(stem: str) -> str:
    # 01_200828110014_277500_315_crop_2: number, time, place along the spindle, angle
    pieces = stem.split("_")
    return "_".join(pieces[2:4]) if len(pieces) > 4 else ""


def _by_mask(root: Path, images: list[Path], masks: list[Path], splits: list[str]) -> list[Example]:
    from anomaly.images import read_image

    if not images:
        raise DatasetError(f"{root} holds no image of this layout")
    require_files(root, masks, "masks")
    found = []
    for path, mask, split in zip(images, masks, splits, strict=True):
        marked = bool(read_image(mask).any())
        label, kind = (ANOMALOUS, "defect") if marked else (NORMAL, "good")
        group = path.parent.name if path.parent.name.startswith("kos") else ""
        found.append(Example(path, split, label, kind, masks=(mask,) if marked else (), group=group))
    return found


def _deeppcb_boxes(path: Path) -> tuple[Region, ...]:
    found = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        try:
            left, top, right, bottom, kind = (int(value) for value in line.split())
            found.append(box(DEEPPCB_KINDS[kind], left, top, right - left, bottom - top))
        except (ValueError, KeyError) as error:
            raise DatasetError(f"{path}: {line!r} is not 'x1 y1 x2 y2 kind' with kind 1 to 6") from error
    return tuple(found)


def _voc_boxes(path: Path) -> Iterator[Region]:
    try:
        tree = ElementTree.parse(path)  # noqa: S314 - a local file; entities are not expanded from outside
        for item in tree.iter("object"):
            sides = [float(item.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")]
            left, top, right, bottom = sides
            yield box(item.findtext("name", ""), left, top, right - left, bottom - top)
    except (ElementTree.ParseError, ValueError) as error:
        raise DatasetError(f"{path} is no Pascal VOC annotation: {error}") from error


def _labelme(path: Path) -> Iterator[Region]:
    for shape in _json(path)["shapes"]:
        yield Region(shape["label"], tuple((float(x), float(y)) for x, y in shape["points"]))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is no readable JSON: {error}") from error
