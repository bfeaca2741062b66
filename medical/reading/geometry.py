"""Whether slices form a regular volume, and if not, why (PS3.3 C.7.6.2.1.1).

The verdict is that of `highdicom.get_volume_from_series` (0.28, default tolerances): one orientation, one grid, one
frame of reference, no position twice, gaps that differ from their mean by at most 1 %, slices stacked along their
normal within 1 - cos = 0.001. highdicom says only that a series is not regular; here the reason and its figures are
found. Nothing is loosened: a shear that is accepted is dropped silently later.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medical.refusals import Reason, Refusal

GAP_TOLERANCE = 0.01
PERPENDICULAR_TOLERANCE = 1e-3
_WHOLE = 0.05
"""Share of a gap by which it may differ from a whole multiple and still be said to miss whole slices."""


@dataclass(frozen=True)
class Plane:
    """Where one slice lies; None where its object does not state it.

    Attributes:
        orientation: direction cosines of rows and of columns.
        position: centre of the first pixel, LPS in mm.
        spacing: mm between rows, between columns.
        grid: rows and columns.
        frame_of_reference: its UID.
        acquisition: number of the acquisition.
        localiser: whether it is labelled as a localiser.
    """

    orientation: tuple[float, ...] | None
    position: tuple[float, ...] | None
    spacing: tuple[float, float] | None
    grid: tuple[int, int]
    frame_of_reference: str | None
    acquisition: int | None = None
    localiser: bool = False


@dataclass(frozen=True)
class Diagnosis:
    """What became of a set of slices.

    Attributes:
        order: indices of the slices by position, such that (slice, row, column) is right-handed; as given where they
            have no positions.
        irregular: why they are no volume; None where they are one, or a single slice.
        affine: (4, 4) slice, row, column -> LPS in mm; None where they are no volume or a single slice.
    """

    order: tuple[int, ...]
    irregular: Refusal | None
    affine: np.ndarray | None = None


def diagnose_planes(planes: Sequence[Plane]) -> Diagnosis:
    """Orders slices and says whether they form a regular volume.

    Args:
        planes: at least one.
    """
    if refusal := _incomplete(planes):
        return Diagnosis(tuple(range(len(planes))), refusal)
    normal = _normal(planes[0])
    positions = np.array([plane.position for plane in planes], dtype=np.float64)
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    found = tuple(int(index) for index in order)
    if len(planes) == 1:
        return Diagnosis(found, None)
    if refusal := _several(planes):
        return Diagnosis(found, refusal)
    if not _regular(positions[order], normal):
        return Diagnosis(found, _why(planes, positions, normal))
    return Diagnosis(found, None, _affine(planes[found[0]], along[order], normal))


def _incomplete(planes: Sequence[Plane]) -> Refusal | None:
    lacks = Counter(
        name
        for plane in planes
        for name, found in (
            ("orientation", plane.orientation is not None and _orthonormal(plane.orientation)),
            ("position", plane.position is not None),
            ("pixel spacing", plane.spacing is not None and min(plane.spacing) > 0),
            ("frame of reference", plane.frame_of_reference is not None),
        )
        if not found
    )
    if not lacks:
        return None
    words = ", ".join(f"{count} without a valid {name}" for name, count in lacks.items())
    return Refusal(Reason.NO_GEOMETRY, f"of {len(planes)} slice(s) {words}")


def _orthonormal(orientation: Sequence[float]) -> bool:
    """Direction cosines are unit vectors at right angles; files round them."""
    rows, columns = np.array(orientation[:3]), np.array(orientation[3:])
    return bool(
        abs(np.linalg.norm(rows) - 1) < 1e-2 and abs(np.linalg.norm(columns) - 1) < 1e-2 and abs(rows @ columns) < 1e-2
    )


def _normal(plane: Plane) -> np.ndarray:
    """Unit vector down x right: slices along it, rows and columns are right-handed, as highdicom orders volumes."""
    assert plane.orientation is not None
    normal = np.cross(plane.orientation[3:], plane.orientation[:3])
    return np.asarray(normal / np.linalg.norm(normal))


def _several(planes: Sequence[Plane]) -> Refusal | None:
    """What cannot share one grid, whatever the positions."""
    if len({plane.orientation for plane in planes}) > 1:
        scouts = sum(plane.localiser for plane in planes)
        if scouts:
            return Refusal(Reason.LOCALISER, f"{scouts} of {len(planes)} objects are localisers, in other orientations")
        return _mixed_orientation(planes)
    if (count := len({plane.frame_of_reference for plane in planes})) > 1:
        return Refusal(
            Reason.SEVERAL_ACQUISITIONS, f"the slices have {count} frames of reference: positions cannot be compared"
        )
    grids = Counter((plane.grid, plane.spacing) for plane in planes)
    if len(grids) > 1:
        shown = "; ".join(
            f"{count} of {grid[0]} x {grid[1]} at {spacing[0]:g} x {spacing[1]:g} mm"  # type: ignore[index]
            for (grid, spacing), count in grids.most_common(3)
        )
        return Refusal(Reason.MIXED_GRID, f"the slices have {len(grids)} grids: {shown}")
    return None


def _mixed_orientation(planes: Sequence[Plane]) -> Refusal:
    kinds = Counter(plane.orientation for plane in planes)
    first = max(planes, key=lambda plane: kinds[plane.orientation])
    main = _normal(first)
    off = max(_degrees(_normal(plane) @ main) for plane in planes)
    turned = max(_degrees(np.dot(plane.orientation[:3], first.orientation[:3])) for plane in planes)  # type: ignore[index]
    counts = ", ".join(str(count) for count in sorted(kinds.values(), reverse=True)[:5])
    return Refusal(
        Reason.MIXED_ORIENTATION,
        f"the slices have {len(kinds)} orientations ({counts} slices), up to {max(off, turned):.3g} degrees apart",
    )


def _degrees(cosine: float) -> float:
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _regular(positions: np.ndarray, normal: np.ndarray) -> bool:
    """Highdicom's rule, for two or more positions in order along the normal."""
    if len(np.unique(positions, axis=0)) < len(positions):
        return False
    gaps = np.diff(positions @ normal)
    if not np.isclose(gaps, gaps.mean(), rtol=GAP_TOLERANCE, atol=0).all():
        return False
    spans = positions[1:] - positions[0]
    cosines = spans @ normal / np.linalg.norm(spans, axis=1)
    return bool((np.abs(np.abs(cosines) - 1) < PERPENDICULAR_TOLERANCE).all())


def _affine(first: Plane, along: np.ndarray, normal: np.ndarray) -> np.ndarray:
    assert first.orientation is not None
    assert first.spacing is not None
    affine = np.eye(4)
    affine[:3, 0] = normal * (along[-1] - along[0]) / (len(along) - 1)
    affine[:3, 1] = np.array(first.orientation[3:]) * first.spacing[0]
    affine[:3, 2] = np.array(first.orientation[:3]) * first.spacing[1]
    affine[:3, 3] = first.position
    return affine


def _why(planes: Sequence[Plane], positions: np.ndarray, normal: np.ndarray) -> Refusal:
    """The reason why positions of one orientation are not regular; the first of these that holds."""
    scouts = sum(plane.localiser for plane in planes)
    if 0 < scouts < len(planes):
        return Refusal(Reason.LOCALISER, f"{scouts} of {len(planes)} objects are localisers")
    return (
        _acquisitions(planes, positions, normal)
        or _duplicates(positions, normal)
        or _tilt(positions, normal)
        or _gaps(positions, normal)
    )


def _acquisitions(planes: Sequence[Plane], positions: np.ndarray, normal: np.ndarray) -> Refusal | None:
    """Slices that lie well within each acquisition, but not together; or a stack that is there several times."""
    numbers = [plane.acquisition for plane in planes]
    groups = [positions[[n == number for n in numbers]] for number in dict.fromkeys(numbers)]
    if len(groups) > 1 and _twice(positions, normal) and not any(_twice(group, normal) for group in groups):
        return Refusal(Reason.SEVERAL_ACQUISITIONS, f"{len(groups)} acquisitions lie at the same positions")
    sorted_groups = [group[np.argsort(group @ normal)] for group in groups]
    if len(groups) > 1 and all(len(group) > 1 and _regular(group, normal) for group in sorted_groups):
        return Refusal(Reason.SEVERAL_ACQUISITIONS, f"{len(groups)} acquisitions are regular each, but not together")
    places = Counter(tuple(position) for position in positions.tolist())
    times = set(places.values())
    if len(places) > 1 and len(times) == 1 and (count := times.pop()) > 1:
        return Refusal(
            Reason.SEVERAL_ACQUISITIONS,
            f"each of {len(places)} positions is there {count} times: several stacks in one",
        )
    return None


def _twice(positions: np.ndarray, normal: np.ndarray) -> int:
    """How many slices lie where another one lies, within 1 % of the usual gap."""
    gaps = np.diff(np.sort(positions @ normal))
    apart = gaps[gaps > 1e-4]
    usual = np.median(apart) if len(apart) else 1.0
    return int((gaps < GAP_TOLERANCE * usual).sum())


def _duplicates(positions: np.ndarray, normal: np.ndarray) -> Refusal | None:
    if not (count := _twice(positions, normal)):
        return None
    return Refusal(Reason.DUPLICATE_SLICE, f"{count} of {len(positions)} slices lie where another one lies")


def _tilt(positions: np.ndarray, normal: np.ndarray) -> Refusal | None:
    """Slices stacked along a line that is not their normal: shear, by a tilted gantry (C.8.2.1.1.4)."""
    ordered = positions[np.argsort(positions @ normal)]
    spans = ordered[1:] - ordered[0]
    cosines = spans @ normal / np.linalg.norm(spans, axis=1)
    if (np.abs(cosines - 1) < PERPENDICULAR_TOLERANCE).all():
        return None
    along = ordered @ normal
    sideways = ordered - np.outer(along, normal)
    centred = along - along.mean()
    slope = (centred @ (sideways - sideways.mean(axis=0))) / (centred @ centred)
    rest = np.linalg.norm(sideways - sideways.mean(axis=0) - np.outer(centred, slope), axis=1).max()
    angle = float(np.degrees(np.arctan(np.linalg.norm(slope))))
    gaps = np.diff(along)
    if rest > 0.1 * gaps.mean() or angle < 0.1:
        return Refusal(
            Reason.UNEVEN_SPACING, f"slices are shifted sideways against each other by up to {2 * rest:.3g} mm"
        )
    also = "" if np.isclose(gaps, gaps.mean(), rtol=GAP_TOLERANCE).all() else f"; gaps also differ: {_range(gaps)}"
    return Refusal(
        Reason.GANTRY_TILT, f"the slices are stacked {angle:.1f} degrees off their normal, as by a tilted gantry{also}"
    )


def _range(gaps: np.ndarray) -> str:
    return f"{gaps.min():.4g} to {gaps.max():.4g} mm"


def _gaps(positions: np.ndarray, normal: np.ndarray) -> Refusal:
    gaps = np.diff(np.sort(positions @ normal))
    usual = float(np.median(gaps))
    multiples = gaps / usual
    whole = multiples.round()
    if (np.abs(multiples - whole) < _WHOLE).all() and whole.min() >= 1 and whole.max() >= 2:
        missing = int((whole - 1).sum())
        where = f"{int((whole > 1).sum())} place(s)"
        return Refusal(
            Reason.MISSING_SLICE,
            f"{missing} slice(s) missing at {where}: gaps of {usual:.4g} mm and of {gaps.max():.4g} mm",
        )
    return Refusal(
        Reason.UNEVEN_SPACING,
        f"gaps between {len(positions)} slices differ: {_range(gaps)}; allowed is 1 % around {gaps.mean():.4g} mm",
    )
