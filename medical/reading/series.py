"""Instances -> series: sorted, and diagnosed where a volume was to be expected."""

from collections.abc import Mapping, Sequence
from typing import Any

from medical.objects import Instance, Series
from medical.reading.classes import SOP_CLASSES
from medical.reading.geometry import Diagnosis, Plane, diagnose_planes
from medical.refusals import Reason, Refusal

_LOCALISER = "LOCALIZER"
Planes = tuple[Plane, ...]


def plane_of(instance: Instance) -> Plane:
    """Returns where a single-frame instance lies."""
    spacing = instance.spacing
    stated = spacing is not None and spacing.source == "PixelSpacing"
    return Plane(
        instance.orientation,
        instance.position,
        (spacing.rows, spacing.columns) if stated and spacing is not None else None,
        (instance.rows, instance.columns),
        instance.frame_of_reference,
        instance.acquisition,
        _LOCALISER in instance.image_type,
    )


def planes_of(instance: Instance, frames: Sequence[Mapping[str, Any]]) -> Planes:
    """Returns where the frames of an enhanced instance lie, from what the worker says of them."""

    def tuple_of(found: Sequence[float] | None) -> tuple[float, ...] | None:
        return None if found is None else tuple(found)

    return tuple(
        Plane(
            tuple_of(frame["orientation"]),
            tuple_of(frame["position"]),
            tuple_of(frame["spacing"]),  # type: ignore[arg-type]
            (instance.rows, instance.columns),
            instance.frame_of_reference,
            frame["acquisition"],
            _LOCALISER in instance.image_type,
        )
        for frame in frames
    )


def diagnose(instances: Sequence[Instance], frames: Planes | None = None) -> Diagnosis:
    """Orders the instances of one series and says why they are no volume.

    Args:
        instances: at least one.
        frames: of an enhanced instance; its frames are then what is ordered.

    Returns:
        The diagnosis; not irregular where no volume was to be expected: one slice, projection X-ray, other images.
    """
    if frames is not None and len(instances) == 1:
        return diagnose_planes(frames) if len(frames) > 1 else Diagnosis((0,), None)
    uses = {SOP_CLASSES[instance.sop_class].use for instance in instances}
    if uses == {"slice"}:
        found = diagnose_planes([plane_of(instance) for instance in instances])
        return found if len(instances) > 1 else Diagnosis((0,), None)
    order = sorted(range(len(instances)), key=lambda i: (instances[i].number or 0, instances[i].uid))
    irregular = None
    if "multiframe volume" in uses or "slice" in uses:
        irregular = Refusal(
            Reason.SEVERAL_ACQUISITIONS, f"{len(instances)} objects, some of them volumes of their own, in one series"
        )
    return Diagnosis(tuple(order), irregular)


def as_series(instances: Sequence[Instance], frames: Planes | None = None) -> Series:
    """Returns the series of the instances, sorted by position where they have one, with what makes it irregular."""
    found = diagnose(instances, frames)
    ordered = instances if frames is not None and len(instances) == 1 else [instances[i] for i in found.order]
    return Series(instances[0].series, instances[0].study, tuple(ordered), found.irregular)
