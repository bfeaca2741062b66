"""Loaders of sets whose split and labels lie in a list: VisA, Real-IAD, MedIAnomaly, and the copies at hand here."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from anomaly.errors import DatasetError
from benchmarks.datasets.examples import (
    ANOMALOUS,
    NORMAL,
    TEST,
    TRAIN,
    UNKNOWN,
    Example,
    Region,
    box,
    require,
    require_files,
)

REALIAD_IMAGES, REALIAD_LISTS = "realiad_1024", "realiad_jsons/realiad_jsons_sv"
"""Resolution and protocol that the loader takes: 1024 px, single view."""


def rows_of(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Reads a CSV file with a header line.

    Raises:
        DatasetError: it cannot be read, or lacks a column.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path} is not a readable CSV file in UTF-8: {error}") from error
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise DatasetError(
            f"{path} lacks the columns {', '.join(missing)}; it has {', '.join(reader.fieldnames or ())}"
        )
    return rows


def visa(root: Path, category: str) -> list[Example]:
    """VisA: split_csv/1cls.csv names object, split, label, image and mask of the one-class protocol.

    Masks hold the number of the defect class in every pixel, not 255.

    Raises:
        DatasetError: the list or a file is missing.
    """
    require(root, ["split_csv/1cls.csv", category])
    columns = ("object", "split", "label", "image", "mask")
    rows = [row for row in rows_of(root / "split_csv/1cls.csv", columns) if row["object"] == category]
    files = [root / name for row in rows for name in (row["image"], row["mask"]) if name]
    require_files(root, files, f"files of {category} that the list names")
    found = []
    for row in rows:
        normal = row["label"] == "normal"
        masks = (root / row["mask"],) if row["mask"] else ()
        label, kind = (NORMAL, "good") if normal else (ANOMALOUS, "anomaly")
        found.append(Example(root / row["image"], row["split"], label, kind, category, masks=masks))
    return found


def real_iad(root: Path, category: str) -> list[Example]:
    """Real-IAD: realiad_jsons/realiad_jsons_sv/<category>.json lists the single-view protocol of the 1024-px images.

    The folder of a part ("S0001", five views) is the group.

    Raises:
        DatasetError: the list or a file is missing.
    """
    require(root, [f"{REALIAD_LISTS}/{category}.json", f"{REALIAD_IMAGES}/{category}"])
    lists = read_json(root / REALIAD_LISTS / f"{category}.json")
    base = root / REALIAD_IMAGES / category
    rows = [(split, row) for split in (TRAIN, TEST) for row in lists[split]]
    files = [base / name for _, row in rows for name in (row["image_path"], row.get("mask_path")) if name]
    require_files(root, files, f"files of {category} that the list names")
    found = []
    for split, row in rows:
        path, kind = base / row["image_path"], row["anomaly_class"]
        masks = (base / row["mask_path"],) if row.get("mask_path") else ()
        label, kind = (NORMAL, "good") if kind == "OK" else (ANOMALOUS, kind)
        found.append(Example(path, split, label, kind, category, masks=masks, group=path.parent.name))
    return found


def medianomaly_list(root: Path, category: str) -> list[Example]:
    """Four sets of MedIAnomaly: images/ and data.json with {"train": {"0": [...]}, "test": {"0": ..., "1": ...}}.

    Raises:
        DatasetError: the list or a file is missing.
    """
    base = root / category
    require(base, ["images", "data.json"])
    lists = read_json(base / "data.json")
    rows = [(TRAIN, NORMAL, name) for name in lists["train"]["0"]]
    rows += [(TEST, label, name) for label in (NORMAL, ANOMALOUS) for name in lists["test"][str(label)]]
    require_files(root, [base / "images" / name for _, _, name in rows], f"images of {category} that data.json names")
    return [
        Example(base / "images" / name, split, label, "abnormal" if label else "good", category)
        for split, label, name in rows
    ]


def isic2018(root: Path, category: str) -> list[Example]:
    """ISIC 2018 task 3 as MedIAnomaly takes it: naevi (NV) are normal, every other diagnosis is not.

    Only the naevi of the training part are to be learned from; its other images are `ANOMALOUS` and `TRAIN`.

    Raises:
        DatasetError: a table or an image is missing.
    """
    found = []
    for part, split in (("Training", TRAIN), ("Test", TEST)):
        stem = f"ISIC2018_Task3_{part}"
        folder, table = (
            root / category / f"{stem}_Input",
            root / category / f"{stem}_GroundTruth/{stem}_GroundTruth.csv",
        )
        require(root / category, [folder.name, table.relative_to(root / category).as_posix()])
        rows = rows_of(table, ("image", "NV"))
        require_files(root, [folder / f"{row['image']}.jpg" for row in rows], "images that the table names")
        for row in rows:
            kind = next(name for name, value in row.items() if name != "image" and float(value) == 1)
            label, kind = (NORMAL, "good") if kind == "NV" else (ANOMALOUS, kind)
            found.append(Example(folder / f"{row['image']}.jpg", split, label, kind, category))
    return found


def elpv(root: Path, category: str) -> list[Example]:
    """ELPV: src/elpv_dataset/data/labels.csv (image, probability of a defect, mono or poly), separated by blanks.

    0 is normal, 1 defective; 1/3 and 2/3 are doubtful and `UNKNOWN`. There is no official split: all are `TRAIN`.

    Raises:
        DatasetError: the table or an image is missing, or a line is not of the layout.
    """
    base = root / "src/elpv_dataset/data"
    require(root, ["src/elpv_dataset/data/labels.csv", "src/elpv_dataset/data/images"])
    lines = [line.split() for line in (base / "labels.csv").read_text(encoding="utf-8").splitlines() if line.strip()]
    require_files(root, [base / line[0] for line in lines], "images that labels.csv names")
    labels = {0.0: (NORMAL, "good"), 1.0: (ANOMALOUS, "defect")}
    found = []
    for name, probability, module in lines:
        label, kind = labels.get(float(probability), (UNKNOWN, f"probability {float(probability):.2f}"))
        found.append(Example(base / name, TRAIN, label, kind, module))
    return [example for example in found if example.category == category]


def nih_256(root: Path, category: str) -> list[Example]:
    """The 256-px copy of NIH ChestX-ray14 at hand: manifest.csv, boxes.csv, No_findings/, Pneumonia/.

    Learned from: No_findings without patients of the test part, unless RSNA's radiologists read the image as not
    normal. Tested: inside Pneumonia, RSNA class Normal against Lung Opacity, because the two folders differ in
    brightness and noise. What else is there is left out.

    Raises:
        DatasetError: a table or an image is missing.
    """
    require(root, ["manifest.csv", "boxes.csv", "No_findings", "Pneumonia"])
    rows = rows_of(root / "manifest.csv", ("img", "folder", "Patient ID", "rsna_class"))
    require_files(root, [root / row["folder"] / row["img"] for row in rows], "images that manifest.csv names")
    boxes: dict[str, list[Region]] = {}
    for name, region in _boxes(root / "boxes.csv"):
        boxes.setdefault(name, []).append(region)
    read = {"Normal": (NORMAL, "good"), "Lung Opacity": (ANOMALOUS, "Lung Opacity")}
    tested = [row for row in rows if row["folder"] == "Pneumonia" and row["rsna_class"] in read]
    patients = {row["Patient ID"] for row in tested}
    learned = [
        row
        for row in rows
        if row["folder"] == "No_findings" and row["Patient ID"] not in patients and row["rsna_class"] in ("", "Normal")
    ]
    found = [Example(root / r["folder"] / r["img"], TRAIN, NORMAL, "good", group=r["Patient ID"]) for r in learned]
    for row in tested:
        label, kind = read[row["rsna_class"]]
        regions = tuple(boxes.get(row["img"], ())) if label else ()
        path = root / row["folder"] / row["img"]
        found.append(Example(path, TEST, label, kind, regions=regions, group=row["Patient ID"]))
    return found


def _boxes(path: Path) -> Iterator[tuple[str, Region]]:
    for row in rows_of(path, ("img", "label", "x", "y", "w", "h", "source")):
        if row["source"].startswith("RSNA"):
            left, top, width, height = (float(row[key]) for key in ("x", "y", "w", "h"))
            yield row["img"], box(row["label"], left, top, width, height)


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DatasetError: it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} is no readable JSON: {error}") from error
