"""Loaders of the chest X-ray collections with their tables of findings: NIH ChestX-ray14, RSNA, VinDr-CXR, CheXpert.

None of them says "healthy": normal is an image without a finding in its report (NIH, CheXpert) or to its readers (RSNA,
VinDr-CXR). Patients are groups wherever the table names them.
"""

import csv
from collections import defaultdict
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
    Region,
    box,
    listed,
    require,
    require_files,
)
from benchmarks.datasets.lists import read_json, rows_of

CHEXPERT_FINDINGS = (
    "Enlarged Cardiomediastinum",
    "Cardiomegaly",
    "Lung Opacity",
    "Lung Lesion",
    "Edema",
    "Consolidation",
    "Pneumonia",
    "Atelectasis",
    "Pneumothorax",
    "Pleural Effusion",
    "Pleural Other",
    "Fracture",
)
"""Observations that make an image anomalous; "Support Devices" does not."""


RSNA_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"
"""RSNA's own list: which image of NIH ChestX-ray14 each of its images was."""


def nih(root: Path, category: str) -> list[Example]:
    """NIH ChestX-ray14: Data_Entry_2017*.csv, train_val_list.txt, test_list.txt, BBox_List_2017.csv and images.

    The images lie in images/ or images_001/images/ to images_012/images/. Official split by patient.

    Raises:
        DatasetError: a table or an image is missing.
    """
    require(root, ["train_val_list.txt", "test_list.txt", "BBox_List_2017.csv"])
    tables = sorted(root.glob("Data_Entry_2017*.csv"))
    if not tables:
        raise DatasetError(f"{root} lacks Data_Entry_2017.csv (or Data_Entry_2017_v2020.csv)")
    files = {path.name: path for folder in sorted(root.glob("images*")) for path in folder.rglob("*.png")}
    lists = ((TRAIN, "train_val_list.txt"), (TEST, "test_list.txt"))
    splits = {name: split for split, file in lists for name in (root / file).read_text(encoding="utf-8").split()}
    rows = [
        r for r in rows_of(tables[0], ("Image Index", "Finding Labels", "Patient ID")) if r["Image Index"] in splits
    ]
    require_files(root, [files.get(n, root / "images" / n) for n in splits], "images that the lists of the split name")
    boxes = _nih_boxes(root / "BBox_List_2017.csv")
    found = []
    for row in rows:
        name, findings = row["Image Index"], row["Finding Labels"]
        label, kind = (NORMAL, "good") if findings == "No Finding" else (ANOMALOUS, findings)
        regions = tuple(boxes.get(name, ()))
        found.append(Example(files[name], splits[name], label, kind, regions=regions, group=row["Patient ID"]))
    return found


def rsna(root: Path, category: str) -> list[Example]:
    """RSNA Pneumonia (Kaggle, stage 2): two tables, stage_2_train_images/<patientId>.dcm; the test images lack labels.

    There is no official split of the labelled images: they are `TRAIN`, the others `TEST` and `UNKNOWN`. "patientId" is
    a name of the image. Who the patient is, is known where RSNA's list of the same images in NIH ChestX-ray14
    (`RSNA_MAPPING`) lies beside the tables: then the NIH patient is the group, otherwise the image is.

    Raises:
        DatasetError: a table or an image is missing, or the list of NIH images lacks some of them.
    """
    names = ("stage_2_train_labels.csv", "stage_2_detailed_class_info.csv")
    require(root, [*names, "stage_2_train_images"])
    boxes: dict[str, list[Region]] = defaultdict(list)
    for row in rows_of(root / names[0], ("patientId", "x", "y", "width", "height", "Target")):
        if row["Target"] == "1":
            sides = [float(row[key]) for key in ("x", "y", "width", "height")]
            boxes[row["patientId"]].append(box("Lung Opacity", *sides))
    kinds = {row["patientId"]: row["class"] for row in rows_of(root / names[1], ("patientId", "class"))}
    folder = root / "stage_2_train_images"
    require_files(root, [folder / f"{name}.dcm" for name in kinds], "images that the tables name")
    hidden = sorted((root / "stage_2_test_images").glob("*.dcm"))
    patients = _rsna_patients(root / RSNA_MAPPING, list(kinds))
    found = []
    for name, kind in kinds.items():
        label, kind = (NORMAL, "good") if kind == "Normal" else (ANOMALOUS, kind)
        regions = tuple(boxes[name])
        found.append(Example(folder / f"{name}.dcm", TRAIN, label, kind, regions=regions, group=patients[name]))
    return found + [
        Example(path, TEST, UNKNOWN, "unlabelled", group=patients.get(path.stem, path.stem)) for path in hidden
    ]


def vindr(root: Path, category: str) -> list[Example]:
    """VinDr-CXR: annotations/annotations_{train,test}.csv, train/<image_id>.dicom, test/<image_id>.dicom.

    An image is normal if all its readers say "No finding", anomalous if none does, `UNKNOWN` if they disagree.

    Raises:
        DatasetError: a table or an image is missing.
    """
    found = []
    for split in (TRAIN, TEST):
        require(root, [f"annotations/annotations_{split}.csv", split])
        rows = rows_of(root / f"annotations/annotations_{split}.csv", ("image_id", "class_name", "x_min", "y_max"))
        marks: dict[str, list[dict[str, str]]] = defaultdict(list)
        for row in rows:
            marks[row["image_id"]].append(row)
        require_files(root, [root / split / f"{name}.dicom" for name in marks], "images that the tables name")
        for name, own in marks.items():
            clear = sum(row["class_name"] == "No finding" for row in own)
            label, kind = (NORMAL, "good") if clear == len(own) else (ANOMALOUS, "finding")
            if 0 < clear < len(own):
                label, kind = UNKNOWN, "readers disagree"
            found.append(Example(root / split / f"{name}.dicom", split, label, kind, regions=_vindr_boxes(own)))
    return found


def chexpert(root: Path, category: str) -> list[Example]:
    """CheXpert: train.csv and valid.csv with paths "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg".

    Normal: "No Finding" is 1. Anomalous: a finding is 1 (-1 is uncertain). Neither: `UNKNOWN`. Frontal views only.

    Raises:
        DatasetError: a table or an image is missing.
    """
    require(root, ["train.csv", "valid.csv"])
    found = []
    for name, split in (("train.csv", TRAIN), ("valid.csv", VALIDATION)):
        rows = rows_of(root / name, ("Path", "Frontal/Lateral", "No Finding", *CHEXPERT_FINDINGS))
        frontal = [row for row in rows if row["Frontal/Lateral"] == "Frontal"]
        paths = [root.joinpath(*Path(row["Path"]).parts[1:]) for row in frontal]
        require_files(root, paths, f"frontal images that {name} names")
        for path, row in zip(paths, frontal, strict=True):
            marked = [finding for finding in CHEXPERT_FINDINGS if row[finding] in ("1.0", "1")]
            label, kind = (ANOMALOUS, "|".join(marked)) if marked else (UNKNOWN, "uncertain")
            if row["No Finding"] in ("1.0", "1"):
                label, kind = NORMAL, "good"
            found.append(Example(path, split, label, kind, group=path.parts[-3]))
    return found


def _rsna_patients(mapping: Path, names: list[str]) -> dict[str, str]:
    """Returns image -> patient of NIH ChestX-ray14 ("00012345_001.png" is of 00012345); the image where unknown."""
    if not mapping.is_file():
        return {name: name for name in names}
    try:
        known = {row["subset_img_id"]: row["img_id"].partition("_")[0] for row in read_json(mapping)}
    except (KeyError, TypeError, AttributeError):
        raise DatasetError(f"{mapping} is no list of objects with subset_img_id and img_id") from None
    missing = [name for name in names if not known.get(name)]
    if missing:
        raise DatasetError(f"{mapping} lacks {len(missing)} of {len(names)} images: {listed(missing)}")
    return known


def _nih_boxes(path: Path) -> dict[str, list[Region]]:
    found: dict[str, list[Region]] = defaultdict(list)
    with path.open(newline="", encoding="utf-8-sig") as file:
        lines = csv.reader(file)
        next(lines, None)  # the header spreads "Bbox [x,y,w,h]" over four cells
        for line in lines:
            left, top, width, height = (float(value) for value in line[2:6])
            found[line[0]].append(box(line[1], left, top, width, height))
    return found


def _vindr_boxes(rows: list[dict[str, str]]) -> tuple[Region, ...]:
    found = []
    for row in rows:
        if row["x_min"]:
            left, top, right, bottom = (float(row[key]) for key in ("x_min", "y_min", "x_max", "y_max"))
            found.append(box(row["class_name"], left, top, right - left, bottom - top))
    return tuple(found)
