"""What the reader makes of DICOM files: instances (headers), series and studies; images and volumes (pixels).

An `Instance` holds the few attributes that decide whether and how an object is analysed, and nothing that names the
patient; results copy the patient from the file itself.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32

from medical.refusals import Refusal

Unit = Literal["HU", "stored"]
"""Unit of a value: Hounsfield units; or "stored": the range that the stored bits (after the modality LUT) can express,
mapped to 0..1, brighter is higher, whatever the photometric interpretation says."""

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Spacing:
    """Distance of pixel centres.

    Attributes:
        rows: mm from one row to the next, i.e. vertically.
        columns: mm from one column to the next, i.e. horizontally.
        source: attribute that it comes from, e.g. "PixelSpacing" or "ImagerPixelSpacing" (at the detector, not in the
            patient).
    """

    rows: float
    columns: float
    source: str


@dataclass(frozen=True)
class Instance:
    """One DICOM object that passed the header checks.

    Attributes:
        path: the file.
        sop_class: SOP Class UID.
        uid: SOP Instance UID; like the two below, valid after PS3.5 section 9.1.
        series: Series Instance UID.
        study: Study Instance UID.
        transfer_syntax: Transfer Syntax UID.
        modality: e.g. "CT"; as all text below in upper case, "unknown" where the attribute is missing or empty;
            here also where it is no defined term of the standard.
        body_part: Body Part Examined, or the meaning of the anatomic region in enhanced objects.
        view: View Position, e.g. "PA".
        laterality: Image Laterality or Laterality: "L", "R", "B" or "U".
        sex: Patient's Sex: "M", "F" or "O".
        age: patient's age in years, from Patient's Age or the dates of birth and study; None where unknown.
        scanner: manufacturer and model name.
        priority: Requested Procedure Priority of the site: "STAT", "HIGH", "ROUTINE", "MEDIUM" or "LOW".
        acquired: study date and time, ISO 8601 without offset; None where unknown. Only for sorting.
        photometric: Photometric Interpretation.
        rows: height in pixels.
        columns: width in pixels.
        frames: number of frames, 1 or more.
        bits: Bits Stored.
        image_type: Image Type, e.g. ("ORIGINAL", "PRIMARY", "AXIAL").
        spacing: distance of pixels; None where nothing states it.
        orientation: Image Orientation (Patient), six direction cosines; None where missing (projection X-ray).
        position: Image Position (Patient) in mm; None where missing.
        frame_of_reference: its UID; None where missing.
        acquisition: Acquisition Number, for telling acquisitions apart; None where missing.
        number: Instance Number; None where missing. Never used for sorting slices.
    """

    path: Path
    sop_class: str
    uid: str
    series: str
    study: str
    transfer_syntax: str
    modality: str
    body_part: str
    view: str
    laterality: str
    sex: str
    age: float | None
    scanner: str
    priority: str
    acquired: str | None
    photometric: str
    rows: int
    columns: int
    frames: int
    bits: int
    image_type: tuple[str, ...]
    spacing: Spacing | None
    orientation: tuple[float, float, float, float, float, float] | None
    position: tuple[float, float, float] | None
    frame_of_reference: str | None
    acquisition: int | None
    number: int | None


@dataclass(frozen=True)
class RefusedFile:
    """A file that was not taken, or an instance of which the pixels could not be used.

    Attributes:
        path: the file; for people at the machine, never for logs.
        refusal: why.
        study: Study Instance UID where the header could be read and it is valid; else None.
        kind: name of its SOP class; "" where unknown.
    """

    path: Path
    refusal: Refusal
    study: str | None = None
    kind: str = ""


def kinds_of(files: Iterable[RefusedFile]) -> dict[str, int]:
    """Returns the names of the SOP classes of some files and how many there are of each, most first."""
    return dict(Counter(one.kind for one in files).most_common())


def in_words(kinds: Mapping[str, int]) -> str:
    """Returns what some files are, for people: "2 x Basic Text SR, 1 x Segmentation"."""
    return ", ".join(f"{count} x {kind}" for kind, count in kinds.items())


@dataclass(frozen=True)
class Series:
    """Instances of one series, slices in order of position where they have one.

    Attributes:
        uid: Series Instance UID.
        study: Study Instance UID.
        instances: at least one.
        irregular: why these slices are no volume; None where they are one, or where no volume was to be expected
            (projection X-ray, a single frame).
    """

    uid: str
    study: str
    instances: tuple[Instance, ...]
    irregular: Refusal | None = None


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        uid: Study Instance UID.
        patient: key of the patient for splits and groups: a keyed hash, never the identifier itself.
        series: its series.
        refused: files of the study that were not taken.
    """

    uid: str
    patient: str
    series: tuple[Series, ...]
    refused: tuple[RefusedFile, ...] = ()

    @property
    def instances(self) -> tuple[Instance, ...]:
        """All instances, series by series."""
        return tuple(instance for series in self.series for instance in series.instances)


@dataclass(frozen=True)
class Image:
    """Pixels of one frame.

    Attributes:
        instance: where they come from.
        frame: 1-based frame number.
        values: (H, W) float32 in `unit`; colour images (H, W, 3) in 0..1. Padding holds the lowest valid value.
        valid: (H, W), False where the pixel is padding.
        unit: what a value means.
        decoder: plugin and versions that decoded it, e.g. "pylibjpeg 2.1.0 + openjpeg 2.6.0"; "none" for native pixels.
    """

    instance: Instance
    frame: int
    values: Float32[np.ndarray, "h w *c"]
    valid: Bool[np.ndarray, "h w"]
    unit: Unit
    decoder: str


@dataclass(frozen=True)
class Volume:
    """Voxels of a regular series or of an enhanced multi-frame object.

    Attributes:
        instances: where they come from; one per slice, or the one multi-frame object.
        values: (D, H, W) float32 in `unit`; D runs along the normal of the slices, H down rows, W along columns.
        valid: (D, H, W), False where the voxel is padding.
        affine: (4, 4) float64: voxel indices (d, h, w, 1) -> patient coordinates in mm, DICOM's LPS.
        unit: what a value means.
        decoder: as in `Image`.
    """

    instances: tuple[Instance, ...]
    values: Float32[np.ndarray, "d h w"]
    valid: Bool[np.ndarray, "d h w"]
    affine: Float[np.ndarray, "4 4"]
    unit: Unit
    decoder: str

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance of voxel centres in mm along (D, H, W)."""
        return tuple(float(length) for length in np.linalg.norm(self.affine[:3, :3], axis=0))  # type: ignore[return-value]
