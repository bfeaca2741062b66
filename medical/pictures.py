"""Training from pictures (PNG, TIFF, ...): research sets seldom come as DICOM. A manifest says what a header would.

Pictures are for training alone; what is triaged is DICOM. A picture gets the SOP class "" and UIDs made of its name.
"""

import csv
import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from anomaly.errors import DatasetError, ImageFileError
from medical.objects import UNKNOWN, Image, Instance, Series, Spacing, Study, Volume
from medical.pseudonyms import Pseudonyms
from medical.refusals import Reason, RefusedError

REQUIRED, OPTIONAL = ("file", "patient"), ("view", "sex", "age", "spacing")
"""Columns of a manifest: path below its folder; key of the patient; View Position; "M" or "F"; years; mm per pixel."""


def read_manifest(manifest: Path, modality: str, body_part: str, pseudonyms: Pseudonyms) -> list[Study]:
    """Makes one study of each picture that a manifest names.

    Args:
        manifest: CSV file with the columns `REQUIRED` and any of `OPTIONAL`; paths are relative to its folder.
        modality: of all pictures, as DICOM has it, e.g. "DX".
        body_part: of all pictures, e.g. "CHEST".
        pseudonyms: make the keys of the patients.

    Raises:
        DatasetError: the manifest cannot be read, lacks a column, names a file twice or one that is not there.
    """
    try:
        with manifest.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or ()
            listed = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{manifest} cannot be read: {error}") from error
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise DatasetError(
            f"{manifest} must have the columns {', '.join(REQUIRED)} and may have {', '.join(OPTIONAL)}; it lacks "
            f"{', '.join(missing)} and has {', '.join(columns)}"
        )
    if not listed:
        raise DatasetError(f"{manifest} names no picture")
    names = [row["file"] for row in listed]
    if len(set(names)) < len(names):
        raise DatasetError(f"{manifest} names {len(names) - len(set(names))} file(s) twice")
    absent = [name for name in names if not (manifest.parent / name).is_file()]
    if absent:
        raise DatasetError(f"{manifest} names {len(absent)} file(s) that are not there, the first {absent[0]!r}")
    return [_study(manifest, row, modality.upper(), body_part.upper(), pseudonyms) for row in listed]


class PictureReader:
    """Decodes pictures, as `medical.reading.PixelReader` decodes DICOM objects."""

    def image(self, instance: Instance, frame: int = 1) -> Image:
        """Returns a grey picture with its whole range of values mapped to 0..1.

        Raises:
            RefusedError: the file cannot be decoded, or is coloured.
        """
        from anomaly.images import read_image

        try:
            pixels = read_image(instance.path)
        except ImageFileError as error:
            raise RefusedError(Reason.DAMAGED, error.reason) from None
        if pixels.dtype.kind != "u":
            raise RefusedError(Reason.PIXELS, f"values are {pixels.dtype}; a picture must hold 8 or 16 bits a value")
        if pixels.shape[-1] > 1 and (pixels != pixels[..., :1]).any():
            raise RefusedError(Reason.PHOTOMETRIC, "a colour image; a radiograph must be grey")
        values = pixels[..., 0].astype(np.float32) / np.iinfo(pixels.dtype).max
        return Image(instance, frame, values, np.ones(values.shape, dtype=bool), "stored", "picture")

    def volume(self, series: Series) -> Volume:
        """Refuses: pictures are no volumes.

        Raises:
            RefusedError: always.
        """
        raise RefusedError(Reason.NO_GEOMETRY, "pictures have no geometry; train on volumes from DICOM")


def _study(manifest: Path, row: Mapping[str, str], modality: str, body_part: str, pseudonyms: Pseudonyms) -> Study:
    path = manifest.parent / row["file"]
    study, series, uid = (_uid(row["file"], part) for part in ("study", "series", "image"))
    spacing = _number(manifest, row, "spacing")
    instance = Instance(
        path=path,
        sop_class="",
        uid=uid,
        series=series,
        study=study,
        transfer_syntax="",
        modality=modality,
        body_part=body_part,
        view=row["view"].upper() if row.get("view") else UNKNOWN,
        laterality=UNKNOWN,
        sex=row.get("sex") or UNKNOWN,
        age=_number(manifest, row, "age"),
        scanner=UNKNOWN,
        priority=UNKNOWN,
        acquired=None,
        photometric="MONOCHROME2",
        rows=0,
        columns=0,
        frames=1,
        bits=0,
        image_type=(),
        spacing=Spacing(spacing, spacing, "manifest") if spacing else None,
        orientation=None,
        position=None,
        frame_of_reference=None,
        acquisition=None,
        number=None,
    )
    return Study(study, pseudonyms.of(row["patient"]), (Series(series, study, (instance,)),))


def _number(manifest: Path, row: Mapping[str, str], column: str) -> float | None:
    if not row.get(column):
        return None
    try:
        return float(row[column])
    except ValueError:
        raise DatasetError(f"{manifest}: {column} must be a number; got {row[column]!r}") from None


def _uid(name: str, part: str) -> str:
    """A UID after PS3.5 B.2 that depends on the name alone."""
    digest = hashlib.sha256(f"{part}|{name}".encode()).digest()[:16]
    return f"2.25.{int.from_bytes(digest, 'big')}"
