"""Wraps chest X-rays that come as PNG or JPEG into DICOM, so that triage can be tried and measured on real objects.

    python examples/wrap_xrays.py kermany DATA/cxr_kermany --out kermany
    python examples/wrap_xrays.py nih DATA/cxr_nih_256 --out nih

writes train/ (normal studies), test/ (normal and abnormal ones) and labels.csv, each image as a study of its own: a
Secondary Capture with modality DX, body part, and view, sex and age where the set knows them. The pixels are copied as
they are. labels.csv holds study, label, view, and three shortcuts of the picture: single numbers that know nothing of
disease (mean grey, mean horizontal gradient, size of the file). Then:

    anomaly triage fit nih/train -o chest.safetensors
    anomaly triage run chest.safetensors nih/test --out worklist
    anomaly triage evaluate worklist/worklist.json --labels nih/labels.csv --by view

Protocols. Kermany: the folders of the set, patients are disjoint; normal against pneumonia. NIH: learned from
"No findings" without patients of the test part and without images that RSNA's radiologists read as not normal; tested
inside "Pneumonia" alone, RSNA class Normal against Lung Opacity: the two folders differ in brightness and noise.
"""

import argparse
import csv
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from highdicom.sc import SCImage
from pydicom.uid import UID

TESTED = {"Normal": "normal", "Lung Opacity": "abnormal"}


class Picture(NamedTuple):
    """A picture of a set: where it lies, whose it is, what it shows."""

    path: Path
    part: str
    label: str
    patient: str
    view: str = ""
    sex: str = ""
    age: str = ""


def kermany(root: Path) -> Iterator[Picture]:
    """Children's chest X-rays: Kermany et al., 2018, 10.17632/rscbjbr9sj.2."""
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            part, kind = Path(row["path"]).parts[:2]
            yield Picture(root / row["path"], part, "normal" if kind == "good" else "abnormal", row["patient"])


def nih(root: Path) -> Iterator[Picture]:
    """NIH ChestX-ray14: Wang et al., 2017; classes of the RSNA Pneumonia Detection Challenge: Shih et al., 2019."""
    with (root / "manifest.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    tested = [row for row in rows if row["folder"] == "Pneumonia" and row["rsna_class"] in TESTED]
    patients = {row["Patient ID"] for row in tested}
    for row in rows:
        known = (row["Patient ID"], row["View Position"], row["Patient Gender"], row["Patient Age"])
        path = root / row["folder"] / row["img"]
        if row["folder"] == "No_findings":
            if row["Patient ID"] not in patients and row["rsna_class"] in ("", "Normal"):
                yield Picture(path, "train", "normal", *known)
        elif row["rsna_class"] in TESTED:
            yield Picture(path, "test", TESTED[row["rsna_class"]], *known)


SHORTCUTS = ("mean grey", "mean gradient", "file size")
SETS = {"kermany": kermany, "nih": nih}


def wrap(picture: Picture, source: str) -> SCImage:
    """Returns the picture as a Secondary Capture; equal pictures get equal UIDs."""
    pixels = cv2.imread(str(picture.path), cv2.IMREAD_GRAYSCALE)
    if pixels is None:
        raise SystemExit(f"{picture.path} cannot be read as a picture")
    made = SCImage(
        pixel_array=pixels,
        photometric_interpretation="MONOCHROME2",
        bits_allocated=8,
        coordinate_system="PATIENT",
        study_instance_uid=_uid(source, picture, "study"),
        series_instance_uid=_uid(source, picture, "series"),
        sop_instance_uid=_uid(source, picture, "image"),
        series_number=1,
        instance_number=1,
        manufacturer="public data set",
        patient_id=f"{source}-{picture.patient}",
        patient_sex=picture.sex or None,
        patient_orientation=("L", "F"),
    )
    made.Modality = "DX"
    made.BodyPartExamined = "CHEST"
    made.ViewPosition = picture.view
    made.SeriesDescription = f"public data set {source}"
    made.BurnedInAnnotation = "NO"
    if picture.age:
        made.PatientAge = f"{int(picture.age):03d}Y"
    return made


def _uid(source: str, picture: Picture, level: str) -> str:
    """A UID after PS3.5 B.2, from the names alone."""
    digest = hashlib.sha256(f"{source}|{picture.path.name}|{level}".encode()).digest()[:16]
    return UID(f"2.25.{int.from_bytes(digest, 'big')}")


def main() -> None:
    """Wraps a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=SETS)
    parser.add_argument("folder", type=Path, help="folder of the set, as shared/data/README.md describes it")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--limit", type=int, help="pictures of each part and label at most, evenly spaced")
    arguments = parser.parse_args()
    pictures = list(SETS[arguments.set](arguments.folder))
    if arguments.limit:
        pictures = _spaced(pictures, arguments.limit)
    rows = []
    for picture in pictures:
        made = wrap(picture, arguments.set)
        path = arguments.out / picture.part / f"{made.StudyInstanceUID[5:21]}.dcm"
        path.parent.mkdir(parents=True, exist_ok=True)
        made.save_as(path)
        if picture.part == "test":
            rows.append([made.StudyInstanceUID, picture.label, picture.view or "unknown", *_shortcuts(picture, made)])
    with (arguments.out / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["study", "label", "view", *SHORTCUTS])
        writer.writerows(rows)
    print(f"{len(pictures)} studies in {arguments.out}; {len(rows)} to be tested are listed in labels.csv")


def _shortcuts(picture: Picture, made: SCImage) -> tuple[float, float, int]:
    pixels = made.pixel_array.astype(np.float32)
    return float(pixels.mean()), float(np.abs(np.diff(pixels, axis=1)).mean()), picture.path.stat().st_size


def _spaced(pictures: list[Picture], limit: int) -> list[Picture]:
    kept = []
    for key in sorted({(picture.part, picture.label) for picture in pictures}):
        group = [picture for picture in pictures if (picture.part, picture.label) == key]
        chosen = np.unique(np.linspace(0, len(group) - 1, min(limit, len(group))).round().astype(int))
        kept += [group[index] for index in chosen]
    return kept


if __name__ == "__main__":
    main()
