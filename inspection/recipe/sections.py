"""The sections of a recipe that say how a part is inspected. Every key is explained in docs/recipes.md."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from anomaly.calibration import Decision
from anomaly.settings_file import Section

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(min_length=1)]
Point = tuple[NotNegative, NotNegative]
Polygon = Annotated[tuple[Point, ...], Field(min_length=3)]


class ModelSection(Section):
    """What scores the parts.

    Attributes:
        file: model file (.safetensors, .onnx or .xml), relative to the recipe.
        sha256: sha256 of that file; another file is refused.
        calibration: scores of good parts that the model has not learned from, relative to the recipe.
        calibration_sha256: sha256 of that file.
    """

    file: FileName
    sha256: Sha256
    calibration: FileName
    calibration_sha256: Sha256


class RuntimeSection(Section):
    """What runs the model, see `anomaly.deploy.load`.

    Attributes:
        device: "cpu", "cuda", "cuda:1", or a device of OpenVINO.
        provider: of ONNX Runtime: "cpu", "cuda" or "tensorrt"; by default what the device suggests.
        threads: CPU threads of one run; by default the runtime chooses.
        batch: views (frames or tiles) that go through the model together; never changes a score.
    """

    device: Annotated[str, Field(min_length=1)] = "cpu"
    provider: str | None = None
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    batch: Annotated[int, Field(ge=1, le=256)] = 8


class FrameSection(Section):
    """What the camera gives.

    Attributes:
        pixel_size_mm: side of a pixel on the part, millimetres.
        height: rows that every frame must have; by default any number.
        width: columns that every frame must have; by default any number.
    """

    pixel_size_mm: Positive
    height: Annotated[int, Field(ge=1)] | None = None
    width: Annotated[int, Field(ge=1)] | None = None


class RegionsSection(Section):
    """Where a part is judged; by default everywhere. With a golden image, places are places on that image.

    Attributes:
        unit: of the points of the polygons: "px" or "mm", from the left and the top edge.
        inspect: polygons [[x, y], ...] inside which parts are judged; without any, everywhere.
        ignore: polygons inside which nothing is judged, even within `inspect`.
        mask: image file relative to the recipe, of the size of the frame (or of the golden image): dark pixels are not
            judged.
        mask_sha256: sha256 of that file.
    """

    unit: Literal["px", "mm"] = "px"
    inspect: tuple[Polygon, ...] = ()
    ignore: tuple[Polygon, ...] = ()
    mask: FileName | None = None
    mask_sha256: Sha256 | None = None

    @model_validator(mode="after")
    def _checked(self) -> "RegionsSection":
        if (self.mask is None) != (self.mask_sha256 is None):
            raise ValueError("mask and mask_sha256 must be given together")
        return self


class RegistrationSection(Section):
    """How a part is laid over a golden image before it is scored.

    Attributes:
        golden: image file of a good part, relative to the recipe.
        golden_sha256: sha256 of that file.
        motion: "euclidean" (shift and rotation) or "similarity" (the scale changes too).
        max_shift_mm: a part that lies farther off, at the middle of the golden image, is NOT_REGISTERED.
        max_angle_deg: a part that is turned farther is NOT_REGISTERED; also how far is searched.
        max_residual: 1 - correlation with the golden image after registration, 0 (equal) to 1 (nothing in common); a
            part with more is NOT_REGISTERED.
    """

    golden: FileName
    golden_sha256: Sha256
    motion: Literal["euclidean", "similarity"] = "euclidean"
    max_shift_mm: Positive
    max_angle_deg: Annotated[float, Field(ge=0, le=45)] = 5.0
    max_residual: Annotated[float, Field(gt=0, le=1)]


class TilingSection(Section):
    """How large frames are cut for the model; by default they are not. The model must have learned from such tiles.

    Attributes:
        size: side of a tile in pixels.
        overlap: pixels that neighbouring tiles share; half of it is cut off each side of a tile where another goes on.
    """

    size: Annotated[int, Field(ge=32, le=4096)]
    overlap: Annotated[int, Field(ge=0, le=2048)]

    @model_validator(mode="after")
    def _checked(self) -> "TilingSection":
        if 2 * self.overlap > self.size:
            raise ValueError(f"overlap must be at most half of size, {self.size // 2}; got {self.overlap}")
        return self


class ThresholdsSection(Section):
    """Wanted false-reject rates; the thresholds follow from the calibration file.

    Attributes:
        review_rate: share of good parts that may be REVIEW or NG, in (0, 1).
        ng_rate: share of good parts that may be NG, in (0, 1), at most review_rate.
        confidence: probability with which the rates are kept, in (0, 1).
    """

    review_rate: Share = 0.10
    ng_rate: Share = 0.01
    confidence: Share = 0.95

    @model_validator(mode="after")
    def _checked(self) -> "ThresholdsSection":
        if self.ng_rate > self.review_rate:
            raise ValueError(f"ng_rate must be at most review_rate, {self.review_rate:g}; got {self.ng_rate:g}")
        return self


class SeverityClass(Section):
    """A class of defects.

    Attributes:
        name: what people call it.
        peak: a defect belongs to it if its highest anomaly score is at least this high.
        area_mm2: ... and its area at least this large.
        decision: what a part with such a defect is at least; "OK" only lists the defect.
    """

    name: Annotated[str, Field(min_length=1)]
    peak: Annotated[float, Field(allow_inf_nan=False)] | None = None
    area_mm2: NotNegative = 0.0
    decision: Literal["OK", "REVIEW", "NG"] = "REVIEW"

    def holds(self, peak: float, area_mm2: float) -> bool:
        """Whether a defect reaches the limits of the class."""
        return (self.peak is None or peak >= self.peak) and area_mm2 >= self.area_mm2


class DefectsSection(Section):
    """What is a defect and how bad it is.

    Attributes:
        min_area_mm2: smaller spots are no defects.
        severity: classes from mild to severe; a defect belongs to the last one whose limits it reaches. The first one
            has no limits, so that every defect belongs somewhere.
    """

    min_area_mm2: NotNegative = 0.0
    severity: Annotated[tuple[SeverityClass, ...], Field(min_length=1)] = (SeverityClass(name="defect"),)

    @model_validator(mode="after")
    def _checked(self) -> "DefectsSection":
        names = [severity.name for severity in self.severity]
        if len(set(names)) < len(names):
            raise ValueError(f"severity classes must have different names; got {', '.join(names)}")
        if self.severity[0].peak is not None or self.severity[0].area_mm2 > 0:
            raise ValueError(f"severity class {names[0]!r}, the first, must have no limits")
        return self

    @property
    def worst(self) -> Decision:
        """The hardest decision that a defect alone can bring about."""
        order = tuple(Decision)
        return max((Decision(severity.decision) for severity in self.severity), key=order.index)

    def of(self, peak: float, area_mm2: float) -> SeverityClass:
        """Returns the class of a defect."""
        return [severity for severity in self.severity if severity.holds(peak, area_mm2)][-1]
