"""From training studies and a few wishes to the input contract and the detector's input; nothing guessed silently."""

from collections.abc import Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from anomaly.errors import SettingError
from anomaly.input_spec import InputSpec
from anomaly.volume_spec import VolumeSpec
from medical.contract import Contract, Geometry, learned
from medical.objects import Series, Study, Unit
from medical.preparing import Voxel

CROSS_SECTIONAL = ("CT", "MR", "PT")
WINDOWS = "brain 0,80; lung -1000,400; abdomen -160,240; bone -500,1300"


class Wishes(NamedTuple):
    """What the user says.

    Attributes:
        geometry: what is scored as one; None: single images for projection X-ray, slices for CT and MR.
        window: in HU, for CT; None elsewhere.
        voxel: of a model of whole volumes; None for the median of the training.
        size: canvas (height, width) of images and slices; None for 256 x 256.
    """

    geometry: Geometry | None = None
    window: tuple[float, float] | None = None
    voxel: Voxel | None = None
    size: tuple[int, int] | None = None


class Choice(NamedTuple):
    """What a fit needs besides a detector's own settings.

    Attributes:
        contract: of the model.
        voxel: of a model of whole volumes, else None.
        input: of the detector.
    """

    contract: Contract
    voxel: Voxel | None
    input: InputSpec | VolumeSpec


def choose(studies: Sequence[Study], wishes: Wishes) -> Choice:
    """Makes contract and input of training studies.

    Raises:
        SettingError: there is nothing to learn from, a wish does not go with the studies, or a wish is missing.
    """
    series = [one for study in studies for one in study.series]
    if not series:
        raise SettingError("there is no object to learn from; `anomaly triage check PATHS` says why")
    geometry = wishes.geometry or _usual(series)
    chosen = series if geometry == "image" else [one for one in series if _is_volume(one)]
    if not chosen:
        why = series[0].irregular or "single images"
        raise SettingError(
            f"none of {len(series)} series is a regular volume ({why}); `anomaly triage check PATHS` says it of each"
        )
    unit = _unit(chosen)
    window = _window(unit, geometry, wishes.window)
    distances = [distance for one in chosen if (distance := slice_distance(one)) is not None]
    patients = {study.uid: study.patient for study in studies}
    instances = ((patients[one.study], instance) for one in chosen for instance in one.instances)
    contract = learned(instances, geometry, unit, window, distances if geometry != "image" else ())
    low, high = window or (0.0, 1.0)
    if geometry == "volume":
        spec = VolumeSpec(channels=1, dtype="float32", value_range=(low, high), unit=unit)
        return Choice(contract, wishes.voxel or _voxel(chosen), spec)
    if wishes.voxel is not None:
        raise SettingError("--voxel goes with --as volume; images and slices are not resampled")
    size = wishes.size or (256, 256)
    return Choice(contract, None, InputSpec(channels=1, dtype="float32", value_range=(low, high), unit=unit, size=size))


def slice_distance(series: Series) -> float | None:
    """Returns the mean distance in mm of the slices of a regular series; None where positions do not tell."""
    first, last = series.instances[0], series.instances[-1]
    if len(series.instances) < 2 or first.orientation is None or first.position is None or last.position is None:
        return None
    normal = np.cross(first.orientation[:3], first.orientation[3:])
    length = abs(float(normal @ (np.array(last.position) - np.array(first.position))))
    return length / (len(series.instances) - 1)


def _is_volume(series: Series) -> bool:
    several = len(series.instances) > 1 or series.instances[0].frames > 1
    return several and series.irregular is None


def _usual(series: Sequence[Series]) -> Geometry:
    modalities = {instance.modality for one in series for instance in one.instances}
    if modalities <= set(CROSS_SECTIONAL):
        return "slices"
    if not modalities & set(CROSS_SECTIONAL):
        return "image"
    raise SettingError(
        f"the studies mix {', '.join(sorted(modalities))}; say with --as image, slices or volume what is to be scored, "
        "or fit one model for each kind"
    )


def _unit(series: Sequence[Series]) -> Unit:
    units: set[Unit] = {"HU" if instance.modality == "CT" else "stored" for one in series for instance in one.instances}
    if len(units) > 1:
        raise SettingError(
            "the studies mix CT with other modalities, whose values have another unit; fit one model each"
        )
    return units.pop()


def _window(unit: Unit, geometry: Geometry, window: tuple[float, float] | None) -> tuple[float, float] | None:
    if unit == "HU" and window is None:
        raise SettingError(f"CT needs --window LOW,HIGH in HU: what the model is to look at, e.g. {WINDOWS}")
    if unit != "HU" and window is not None:
        raise SettingError(
            "--window goes with CT, whose values are Hounsfield units; other values have no fixed meaning"
        )
    return window if unit == "HU" else (0.0, 1.0) if geometry == "image" else None


def _along_body(sizes: Voxel, orientation: Sequence[float]) -> Voxel:
    """(slices, rows, columns) -> (inferior-superior, anterior-posterior, right-left), each axis to the nearest."""
    right, down = np.array(orientation[:3]), np.array(orientation[3:])
    closeness = np.abs([np.cross(right, down), down, right])  # of slices, rows, columns to x, y, z
    nearest = max(permutations(range(3)), key=lambda axes: sum(closeness[i, axis] for i, axis in enumerate(axes)))
    along = {axis: size for axis, size in zip(nearest, sizes, strict=True)}
    return along[2], along[1], along[0]


def _voxel(series: Sequence[Series]) -> Voxel:
    """The median voxel of the training along the axes of `Voxel`; slices are usually thicker than their pixels."""
    sizes = []
    for one in series:
        spacing, distance = one.instances[0].spacing, slice_distance(one)
        if spacing is not None and distance is not None:
            orientation = one.instances[0].orientation
            assert orientation is not None  # a distance was found
            sizes.append(_along_body((distance, spacing.rows, spacing.columns), orientation))
    if not sizes:
        raise SettingError("no series states the size of its voxels; say it with --voxel")
    depth, height, width = np.median(np.array(sizes), axis=0).tolist()
    return round(depth, 3), round(height, 3), round(width, 3)
