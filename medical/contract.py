"""The input contract of a triage model: what kind of image it may be asked about. All else is refused, with a code.

The contract is learned from the headers of the normal studies of the training, never widened silently: a view, a body
part or an age group that occurred in no training study is refused. What a header does not say is "unknown"; it is
accepted only where it was unknown in training too, or where nothing was ever known.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from anomaly.errors import ArtifactError, SettingError
from medical.objects import UNKNOWN, Image, Instance, Unit, Volume
from medical.planes import plane_of
from medical.refusals import Reason, Refusal
from medical.vocabulary import is_term, shown

Geometry = Literal["image", "slices", "volume"]
"""What is scored as one: a single frame (projection X-ray), the slices of a volume one by one, or a volume whole."""

RARE = 0.01
"""A value that fewer patients of the training have than this share, or only one, is not taken into the contract."""
_SLACK = 0.10
_ADULT = 18


def age_group(age: float | None) -> str:
    """Returns "CHILD" (below 18 years), "ADULT" or "unknown"."""
    if age is None:
        return UNKNOWN
    return "CHILD" if age < _ADULT else "ADULT"


def view_of(instance: Instance) -> str:
    """Returns the view of a projection X-ray, or the plane of a slice: "AXIAL", "CORONAL", "SAGITTAL" or "OBLIQUE"."""
    return instance.view if instance.orientation is None else plane_of(instance.orientation)


_HEADER: tuple[tuple[str, Reason, Callable[[Instance], str]], ...] = (
    ("modalities", Reason.MODALITY, lambda instance: instance.modality),
    ("body_parts", Reason.BODY_PART, lambda instance: instance.body_part),
    ("views", Reason.VIEW, view_of),
    ("ages", Reason.AGE, lambda instance: age_group(instance.age)),
)
_WORDS = {Reason.MODALITY: "modality", Reason.BODY_PART: "body part", Reason.VIEW: "view", Reason.AGE: "age group"}


@dataclass(frozen=True, kw_only=True)
class Contract:
    """What a model may be asked about.

    Attributes:
        geometry: what is scored as one.
        modalities: allowed modalities, e.g. ("CR", "DX").
        body_parts: allowed body parts.
        views: allowed views, or planes of slices.
        ages: allowed age groups.
        spacing: lowest and highest distance of pixels in mm; None where no training image states it (then it is not
            checked).
        thickness: lowest and highest distance of slices in mm; None for single images.
        unit: unit of the values.
        window: lowest and highest value that the model sees, in that unit; values beyond are clipped to it, as a
            display window does. None for MR, where each volume has its own, see `medical.preparing`.
    """

    geometry: Geometry
    modalities: tuple[str, ...]
    body_parts: tuple[str, ...]
    views: tuple[str, ...]
    ages: tuple[str, ...]
    spacing: tuple[float, float] | None
    thickness: tuple[float, float] | None
    unit: Unit
    window: tuple[float, float] | None

    def __post_init__(self) -> None:
        """Refuses what no contract can be."""
        if self.geometry not in ("image", "slices", "volume"):
            raise SettingError.of("Contract", "geometry", "image, slices or volume", self.geometry)
        if self.window is not None and not self.window[0] < self.window[1]:
            raise SettingError.of("Contract", "window", "(low, high) with low < high", self.window)

    def refusal_of(self, instance: Instance) -> Refusal | None:
        """Returns why an object must not be analysed, as far as its header says; None where it may be."""
        for name, reason, value_of in _HEADER:
            allowed, value = getattr(self, name), value_of(instance)
            if value not in allowed:
                known = ", ".join(allowed)
                return Refusal(reason, f"the {_WORDS[reason]} is {shown(value)}; the model was trained on {known}")
        return self._spacing_refusal(instance)

    def refusal_of_pixels(self, found: Image | Volume) -> Refusal | None:
        """Returns why decoded pixels must not be analysed; None where they may be."""
        if found.unit != self.unit:
            return Refusal(Reason.VALUE_UNIT, f"values are in {found.unit!r}; the model was trained on {self.unit!r}")
        if isinstance(found, Image) and found.values.ndim == 3:
            return Refusal(Reason.PHOTOMETRIC, "a colour image; the model was trained on grey images")
        if isinstance(found, Volume) and self.thickness is not None:
            return _outside(found.spacing[0], self.thickness, "distance of slices")
        return None

    def _spacing_refusal(self, instance: Instance) -> Refusal | None:
        if self.spacing is None:
            return None
        if instance.spacing is None:
            low, high = self.spacing
            words = f"no attribute states the distance of pixels; the model was trained on {low:.3g} to {high:.3g} mm"
            return Refusal(Reason.SPACING, words)
        for distance in (instance.spacing.rows, instance.spacing.columns):
            if refusal := _outside(distance, self.spacing, "distance of pixels"):
                return refusal
        return None

    def rows(self) -> dict[str, str]:
        """Returns lines for people."""
        shown = {"analysed as": {"image": "single images", "slices": "slices of volumes"}.get(self.geometry, "volumes")}
        shown |= {"modality": ", ".join(self.modalities), "body part": ", ".join(self.body_parts)}
        shown |= {"view": ", ".join(self.views), "age group": ", ".join(self.ages)}
        for name, limits in (("pixel distance", self.spacing), ("slice distance", self.thickness)):
            shown[name] = f"{limits[0]:.3g} to {limits[1]:.3g} mm" if limits else "not checked"
        window = f", window {self.window[0]:g} to {self.window[1]:g}" if self.window else ""
        return shown | {"values": f"{self.unit}{window}"}

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Contract":
        """Reads what `to_dict` wrote.

        Raises:
            ArtifactError: a key is missing or unknown, or a value is not possible.
        """
        if set(data) != {field.name for field in fields(cls)}:
            raise ArtifactError(f"the stored input contract is damaged: it holds {sorted(data)}")
        try:
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
            return cls(**values)
        except SettingError as error:
            raise ArtifactError(f"the stored input contract is damaged: {error}") from error


def learned(
    instances: Iterable[tuple[str, Instance]], geometry: Geometry, unit: Unit, window: tuple[float, float] | None,
    thickness: Iterable[float] = (),
) -> Contract:  # fmt: skip
    """Makes the contract of training objects.

    Distances get a tenth of slack on either side. A value of which `RARE` holds is left out, so that a mislabelled
    study does not open the contract; the fit then does not learn from such objects either. What one patient alone has
    may be a name that was typed in there, and the contract is shown to everybody: without a value that several have,
    only terms of the standard are taken.

    Args:
        instances: (key of the patient, object) of the training.
        geometry: what is scored as one.
        unit: unit of the values.
        window: see `Contract`.
        thickness: distances of slices in mm of the training volumes.

    Raises:
        SettingError: there is no object, or no value of an attribute that can be taken.
    """
    listed = list(instances)
    if not listed:
        raise SettingError("an input contract needs at least one training object; got none")
    patients: dict[str, dict[str, set[str]]] = {name: {} for name, _, _ in _HEADER}
    for patient, instance in listed:
        for name, _, value_of in _HEADER:
            patients[name].setdefault(value_of(instance), set()).add(patient)
    total = len({patient for patient, _ in listed})
    sets = {}
    for name, reason, _ in _HEADER:
        sets[name] = _common({v: len(s) for v, s in patients[name].items()}, total)
        if not sets[name]:
            raise SettingError(
                f"no two patients of the training have the same {_WORDS[reason]}, and none has one of the standard's "
                "terms; a model needs several patients of one kind"
            )
    distances = [d for _, i in listed if i.spacing for d in (i.spacing.rows, i.spacing.columns)]
    complete = all(instance.spacing for _, instance in listed)
    return Contract(
        geometry=geometry,
        modalities=sets["modalities"],
        body_parts=sets["body_parts"],
        views=sets["views"],
        ages=sets["ages"],
        spacing=_range(distances) if complete else None,
        thickness=_range(list(thickness)),
        unit=unit,
        window=window,
    )


def _common(counts: Mapping[str, int], total: int) -> tuple[str, ...]:
    """Values in order of frequency; rare ones only where there are few patients altogether."""
    kept = {value: n for value, n in counts.items() if n >= max(RARE * total, 2)}
    kept = kept or {value: n for value, n in counts.items() if is_term(value)}
    return tuple(value for value, _ in Counter(kept).most_common())


def _range(values: list[float]) -> tuple[float, float] | None:
    return (min(values) * (1 - _SLACK), max(values) * (1 + _SLACK)) if values else None


def _outside(value: float, limits: tuple[float, float], what: str) -> Refusal | None:
    if limits[0] <= value <= limits[1]:
        return None
    words = f"the {what} is {value:.3g} mm; the model was trained on {limits[0]:.3g} to {limits[1]:.3g} mm"
    return Refusal(Reason.SPACING, words)
