"""What `anomaly triage check` finds: every object with its code, every series with its geometry; no patient data."""

import csv
import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from anomaly.progress import Progress, silent
from medical.objects import Instance, RefusedFile, Series
from medical.outcome import DISCLAIMER
from medical.reading.classes import SOP_CLASSES, class_name, syntax_name
from medical.reading.inventory import FileEntry, Inventory
from medical.reading.reader import PixelReader
from medical.reading.series import diagnose
from medical.refusals import Reason, Refusal, RefusedError

READABLE, VOLUME, IMAGES = "OK", "VOLUME", "IMAGES"
NOTHING = (str(Reason.NO_IMAGE), str(Reason.RESULT))
"""Codes of objects that are nothing to analyse."""


@dataclass(frozen=True)
class ObjectRow:
    """One file.

    Attributes:
        file: name below the path that was given.
        object: name of its SOP class; "" where unknown, as everywhere below.
        modality: as the header says.
        size: "rows x columns".
        frames: number of frames; None where unknown.
        transfer_syntax: short name.
        decoder: package and version that decoded it.
        code: "OK", or why it is not analysed.
        detail: words to the code.
    """

    file: str
    object: str
    modality: str
    size: str
    frames: int | None
    transfer_syntax: str
    decoder: str
    code: str
    detail: str


@dataclass(frozen=True)
class SeriesRow:
    """One series.

    Attributes:
        number: from 1, in the order in which they were found.
        modality: of its objects.
        objects: their number.
        first: file of its first slice.
        code: VOLUME, IMAGES (no volume was to be expected), or why it is no volume.
        detail: size and spacing of the volume, or words to the code.
    """

    number: int
    modality: str
    objects: int
    first: str
    code: str
    detail: str


@dataclass(frozen=True)
class Survey:
    """What was found.

    Attributes:
        objects: one row for each file.
        series: one row for each series of readable headers.
    """

    objects: tuple[ObjectRow, ...]
    series: tuple[SeriesRow, ...]

    @property
    def others(self) -> int:
        """Number of files that are nothing to analyse: no images, or results that were computed from images."""
        return sum(row.code in NOTHING for row in self.objects)

    @property
    def refused(self) -> int:
        """Number of files that are images, or may be, and cannot be analysed."""
        return sum(row.code not in (READABLE, *NOTHING) for row in self.objects)

    def summary(self) -> str:
        """Returns one paragraph for people."""
        codes = Counter(row.code for row in self.objects if row.code not in (READABLE, *NOTHING))
        why = ", ".join(f"{count} {code}" for code, count in codes.most_common())
        kinds = Counter(row.code for row in self.series)
        geometry = ", ".join(f"{count} {code}" for code, count in kinds.most_common())
        readable = len(self.objects) - self.refused - self.others
        others = f", {self.others} are no images" if self.others else ""
        return (
            f"{len(self.objects)} objects: {readable} can be analysed, "
            f"{self.refused} cannot{f' ({why})' if why else ''}{others}. "
            f"{len(self.series)} series{f': {geometry}' if geometry else ''}."
        )


def survey(inventory: Inventory, pixels: PixelReader, progress: Progress = silent) -> Survey:
    """Decodes every frame of an inventory once, to know what can be analysed.

    Args:
        inventory: what was found.
        pixels: decodes.
        progress: told of every file.
    """
    names = {entry.found.path: entry.name for entry in inventory.files}
    advance = progress("Decoding", len(inventory.files))
    series = [one for study in inventory.studies for one in study.series]
    slices = {i.uid for one in series for i in one.instances if _geometry(one)[0] == VOLUME}
    rows = []
    for entry in inventory.files:
        rows.append(_object_row(entry, pixels, slices))
        advance(1)
    return Survey(tuple(rows), tuple(_series_row(number, one, names) for number, one in enumerate(series, 1)))


def _object_row(entry: FileEntry, pixels: PixelReader, slices: set[str]) -> ObjectRow:
    about, decoder = entry.about, ""
    refusal: Refusal | None = None
    if isinstance(entry.found, RefusedFile):
        refusal = entry.found.refusal
    else:
        try:
            decoder = pixels.check(entry.found, entry.found.uid in slices)
        except RefusedError as error:
            refusal = error.refusal
    sized = about["rows"] is not None and about["columns"] is not None
    return ObjectRow(
        entry.name,
        class_name(about["sop_class"]),
        about["modality"] or "",
        f"{about['rows']} x {about['columns']}" if sized else "",
        about["frames"] if sized else None,
        syntax_name(about["transfer_syntax"]),
        decoder,
        READABLE if refusal is None else str(refusal.reason),
        "" if refusal is None else refusal.detail,
    )


def _series_row(number: int, series: Series, names: dict[Path, str]) -> SeriesRow:
    code, detail = _geometry(series)
    first = series.instances[0]
    return SeriesRow(number, first.modality, len(series.instances), names[first.path], code, detail)


def _geometry(series: Series) -> tuple[str, str]:
    if series.irregular is not None:
        return str(series.irregular.reason), series.irregular.detail
    first = series.instances[0]
    size = f"{first.rows} x {first.columns}"
    if _enhanced(first) and first.frames > 1:
        return VOLUME, f"{first.frames} x {size}, one object"
    affine = diagnose(series.instances).affine
    if affine is None:
        return IMAGES, ""
    spacing = " x ".join(f"{length:.4g}" for length in np.linalg.norm(affine[:3, :3], axis=0))
    return VOLUME, f"{len(series.instances)} x {size}, {spacing} mm"


def _enhanced(instance: Instance) -> bool:
    return SOP_CLASSES[instance.sop_class].use == "multiframe volume"


def write_json(found: Survey, path: Path) -> None:
    """Writes objects, series and summary."""
    content = {"disclaimer": DISCLAIMER, "summary": found.summary()} | asdict(found)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def write_csv(found: Survey, path: Path) -> None:
    """Writes the objects, one a line."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(ObjectRow.__dataclass_fields__))
        writer.writeheader()
        writer.writerows(asdict(row) for row in found.objects)
