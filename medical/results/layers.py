"""Anomaly maps beside the source frames that they belong to, ready for segmentations and parametric maps.

A map is never trusted to lie where its array says: the place of every source frame (PS3.3 C.7.6.2.1.1) is computed from
the headers and compared with the geometry of the map; what does not agree to a twentieth of a voxel is refused. One
layer becomes one object: all slices of a series, one multi-frame object, or one image without a patient coordinate
system.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from medical.outcome import Analysed, Outcome
from medical.results.settings import ResultError
from medical.results.sources import Sources, one_orientation, without_patient

TOLERANCE = 0.05
"""Allowed distance of a frame from its place in the map, in voxels."""


@dataclass(frozen=True)
class Layer:
    """Maps of one object to be written.

    Attributes:
        key: identifies the layer among those of the study: a series or object UID, and the frame where it is one.
        header: of its first source object, with the patient.
        sources: headers for the libraries, without the patient: one per plane, or one multi-frame object.
        frames: 1-based frame numbers of the planes in the multi-frame object; empty for single-frame sources.
        values: (N, H, W) float32 map values, planes in the order of `sources` or of `frames`.
        marked: (N, H, W), where the map is above its contour.
        contour: lowest contour of its maps.
        scale: map values where colours begin and end.
        placed: whether the planes have places in the patient.
        voxel: mm along (planes, rows, columns); None where unknown, the first None for a single plane.
    """

    key: str
    header: Any
    sources: tuple[Any, ...]
    frames: tuple[int, ...]
    values: Float32[np.ndarray, "n h w"]
    marked: Bool[np.ndarray, "n h w"]
    contour: float
    scale: tuple[float, float]
    placed: bool
    voxel: tuple[float | None, float | None, float | None]

    @property
    def several_frames(self) -> bool:
        """Whether the source is a multi-frame object."""
        return bool(self.frames)


def layers(outcome: Outcome, sources: Sources) -> list[Layer]:
    """Sorts the maps of a study by the object that they will become.

    Raises:
        ResultError: a map has another size than its source, or lies elsewhere.
    """
    groups: dict[tuple[Any, ...], list[Analysed]] = defaultdict(list)
    for analysed in outcome.analysed:
        if analysed.map is not None:
            groups[_group(analysed, sources.of(analysed))].append(analysed)
    return [_layer("/".join(map(str, key[:2])), members, sources) for key, members in groups.items()]


def _group(analysed: Analysed, headers: Sequence[Any]) -> tuple[Any, ...]:
    """What may share an object: slices of one series and grid, frames of one multi-frame object."""
    first = headers[0]
    if not placed(first):
        return (str(first.SOPInstanceUID), analysed.frame or 1)
    if many_frames(first):
        return (str(first.SOPInstanceUID), "frames")
    if analysed.affine is not None:
        return (str(first.SeriesInstanceUID), str(headers[0].SOPInstanceUID))
    grid = (first.Rows, first.Columns, str(first.FrameOfReferenceUID))
    directions = tuple(round(float(cosine), 3) for cosine in first.ImageOrientationPatient)
    spacing = tuple(round(float(length), 4) for length in first.PixelSpacing)
    return (str(first.SeriesInstanceUID), f"{grid} {directions} {spacing}")


def placed(header: Any) -> bool:
    """Returns whether the object has a frame of reference and places in it."""
    from highdicom.spatial import get_image_coordinate_system

    return get_image_coordinate_system(header) is not None


def many_frames(header: Any) -> bool:
    """Returns whether the object is a multi-frame object, be it of one frame only."""
    return int(header.get("NumberOfFrames") or 1) > 1 or "PerFrameFunctionalGroupsSequence" in header


def _layer(key: str, members: Sequence[Analysed], sources: Sources) -> Layer:
    planes = [plane for analysed in members for plane in planes_of(analysed, sources.of(analysed))]
    header = planes[0].header
    several = many_frames(header)
    if several:
        planes.sort(key=lambda plane: plane.frame)
    is_placed = placed(header)
    voxel = _voxel(header, planes, is_placed)
    if not is_placed:
        libraries: tuple[Any, ...] = (_one_frame(header),)
    elif several:
        libraries = (shared_groups(without_patient(header)),)
    else:
        libraries = _with_thickness(one_orientation([plane.header for plane in planes]), voxel[0])
    return Layer(
        key=key,
        header=header,
        sources=libraries,
        frames=tuple(plane.frame for plane in planes) if several else (),
        values=np.stack([plane.values for plane in planes]),
        marked=np.stack([plane.values > plane.contour for plane in planes]),
        contour=min(analysed.contour for analysed in members),
        scale=(min(analysed.scale[0] for analysed in members), max(analysed.scale[1] for analysed in members)),
        placed=is_placed,
        voxel=voxel,
    )


@dataclass(frozen=True)
class Plane:
    """One plane of a map.

    Attributes:
        header: of its source object.
        frame: 1-based frame of the object.
        values: (H, W) float32.
        contour: values above it are marked.
    """

    header: Any
    frame: int
    values: Float32[np.ndarray, "h w"]
    contour: float


def planes_of(analysed: Analysed, headers: Sequence[Any]) -> list[Plane]:
    """Returns the planes of a map: slices in the order of the map, frames in the order of the file.

    Raises:
        ResultError: there is no map, or it has another size than its source, or lies elsewhere.
    """
    if analysed.map is None:
        raise ResultError("the outcome holds no map; regions need one: analyse with heatmaps")
    size = int(headers[0].Rows), int(headers[0].Columns)
    if analysed.map.shape[-2:] != size:
        raise ResultError(
            f"a map has {analysed.map.shape[-2:]} rows and columns, its source {size}; both must be equal"
        )
    if analysed.map.ndim == 2:
        return [Plane(headers[0], analysed.frame or 1, analysed.map, analysed.contour)]
    if analysed.affine is None:
        raise ResultError("a map of a volume needs the affine of its voxels; got None")
    frames = frames_of(headers)
    if len(frames) != len(analysed.map):
        raise ResultError(f"a map has {len(analysed.map)} planes, its source {len(frames)} frames; both must be equal")
    indices = _indices(analysed.affine, [geometry for _, _, geometry in frames])
    order = range(len(frames)) if many_frames(headers[0]) else np.argsort(indices)
    return [Plane(frames[i][0], frames[i][1], analysed.map[indices[i]], analysed.contour) for i in order]


Geometry = tuple[Float[np.ndarray, "3"], Float[np.ndarray, "6"], Float[np.ndarray, "2"]]
"""Image Position (Patient), Image Orientation (Patient) and Pixel Spacing of a frame."""


def frames_of(headers: Sequence[Any]) -> list[tuple[Any, int, Geometry]]:
    """Returns (header, 1-based frame, geometry) of every frame of slices or of one multi-frame object.

    Raises:
        ResultError: a frame has no place.
    """
    found = []
    for header in headers:
        shared = (header.get("SharedFunctionalGroupsSequence") or [None])[0]
        groups = header.get("PerFrameFunctionalGroupsSequence") or [None]
        for number, group in enumerate(groups, 1):
            try:
                position, orientation, spacing = (
                    _value(name, macro, group, shared, header)
                    for name, macro in (
                        ("ImagePositionPatient", "PlanePositionSequence"),
                        ("ImageOrientationPatient", "PlaneOrientationSequence"),
                        ("PixelSpacing", "PixelMeasuresSequence"),
                    )
                )
            except (AttributeError, TypeError):
                raise ResultError(
                    f"frame {number} has no position, orientation or spacing; a map has no place"
                ) from None
            found.append((header, number, (position, orientation, spacing)))
    return found


def source_frames(affine: Float[np.ndarray, "4 4"], headers: Sequence[Any]) -> list[tuple[Any, int]]:
    """Returns (header, 1-based frame) of each slice of a volume, in the order of its slices.

    Args:
        affine: of the volume, as in `medical.objects.Volume`.
        headers: of its objects.

    Raises:
        ResultError: a frame has no place, or lies elsewhere than every slice.
    """
    frames = frames_of(headers)
    indices = _indices(affine, [geometry for _, _, geometry in frames])
    return [(frames[place][0], frames[place][1]) for place in np.argsort(indices)]


def _value(name: str, macro: str, group: Any, shared: Any, header: Any) -> Float[np.ndarray, "_"]:
    for owner in (group, shared):
        if owner is not None and macro in owner:
            return np.array([float(v) for v in owner[macro].value[0].get(name)], float)
    return np.array([float(v) for v in getattr(header, name)], float)


def _indices(affine: Float[np.ndarray, "4 4"], geometries: Sequence[Geometry]) -> list[int]:
    """Plane of the map in which each frame lies; refuses a map that is not on the pixels of the frames."""
    indices = []
    inverse = np.linalg.inv(affine)
    for position, orientation, spacing in geometries:
        corners = np.array([position, position + orientation[3:] * spacing[0], position + orientation[:3] * spacing[1]])
        places = corners @ inverse[:3, :3].T + inverse[:3, 3]
        plane = round(float(places[0, 0]))
        expected = np.array([[plane, 0, 0], [plane, 1, 0], [plane, 0, 1]])
        away = float(np.abs(places - expected).max())
        if away > TOLERANCE:
            raise ResultError(
                f"a map lies {away:.2f} voxels away from the pixels of its source; at most {TOLERANCE} are allowed"
            )
        indices.append(plane)
    if sorted(indices) != list(range(len(indices))):
        raise ResultError("the planes of a map and the frames of its source do not match one to one")
    return indices


def shared_groups(header: Any) -> Any:
    """Moves orientation and pixel measures that all frames repeat to the shared groups, where highdicom looks."""
    from pydicom.dataset import Dataset

    shared = Dataset()
    shared.update((header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0])
    groups = header.get("PerFrameFunctionalGroupsSequence") or []
    for macro in ("PlaneOrientationSequence", "PixelMeasuresSequence"):
        if macro not in shared and groups and all(macro in group for group in groups):
            if any(group[macro].value[0] != groups[0][macro].value[0] for group in groups):
                raise ResultError("the frames of one map have several orientations or pixel spacings; one is needed")
            shared.add(groups[0][macro])
    if "SharedFunctionalGroupsSequence" in header:
        del header["SharedFunctionalGroupsSequence"]
    header.SharedFunctionalGroupsSequence = [shared]
    return header


def _one_frame(header: Any) -> Any:
    """A copy for the libraries that stands for one frame: they write maps of one frame only where there is no place.

    It calls itself a secondary capture, the one kind of image of which nothing else is expected; `point_at_frame` of
    the segmentation puts the kind right where it is repeated.
    """
    from pydicom.uid import SecondaryCaptureImageStorage

    made = without_patient(header)
    for name in ("SOPClassUID", "NumberOfFrames", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        if name in made:
            del made[name]
    made.SOPClassUID = SecondaryCaptureImageStorage
    return made


def _with_thickness(copies: Sequence[Any], distance: float | None) -> tuple[Any, ...]:
    """Slice Thickness is optional in sources and looked for by highdicom: the distance of the slices stands for it."""
    for copy in copies:
        if not copy.get("SliceThickness"):
            if "SliceThickness" in copy:
                del copy["SliceThickness"]
            copy.SliceThickness = None if distance is None else f"{distance:.10g}"[:16]
    return tuple(copies)


def _voxel(header: Any, planes: Sequence[Plane], is_placed: bool) -> tuple[float | None, float | None, float | None]:
    if not is_placed:
        spacing = header.get("PixelSpacing")
        return (None, float(spacing[0]), float(spacing[1])) if spacing else (None, None, None)
    frames = {(str(h.SOPInstanceUID), number): geometry for h, number, geometry in frames_of(_unique(planes))}
    geometries = [frames[str(plane.header.SOPInstanceUID), plane.frame] for plane in planes]
    normal = np.cross(geometries[0][1][:3], geometries[0][1][3:])
    places = np.sort([float(position @ normal) for position, _, _ in geometries])
    between = float(np.median(np.diff(places))) if len(places) > 1 else None
    return between, float(geometries[0][2][0]), float(geometries[0][2][1])


def _unique(planes: Sequence[Plane]) -> list[Any]:
    return list({str(plane.header.SOPInstanceUID): plane.header for plane in planes}.values())
