"""From pixels of a frame to wafer coordinates: where the stage stood, how the wafer lies, how large a pixel is."""

import math
from dataclasses import dataclass

from anomaly.errors import SettingError


@dataclass(frozen=True, kw_only=True)
class Alignment:
    """How a wafer lies on the stage and how the camera looks at it.

    The camera sees the stage from above: image columns grow with stage x, image rows grow against stage y.

    Attributes:
        pixel_um: width and height of a pixel on the wafer, micrometres.
        center_um: stage position at which the centre of the wafer is in the centre of a frame, micrometres.
        angle_deg: angle of the wafer's x axis from the stage's x axis, degrees, counterclockwise.
    """

    pixel_um: tuple[float, float]
    center_um: tuple[float, float] = (0.0, 0.0)
    angle_deg: float = 0.0

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if len(self.pixel_um) != 2 or not all(0 < side < math.inf for side in self.pixel_um):
            raise SettingError.of("Alignment", "pixel_um", "(width, height), above 0 each", self.pixel_um)
        if len(self.center_um) != 2 or not all(math.isfinite(value) for value in self.center_um):
            raise SettingError.of("Alignment", "center_um", "(x, y), finite", self.center_um)
        if not -180 <= self.angle_deg <= 180:
            raise SettingError.of("Alignment", "angle_deg", "-180 to 180", self.angle_deg)

    def to_wafer(self, stage_um: tuple[float, float]) -> tuple[float, float]:
        """Returns wafer coordinates of a stage position, micrometres."""
        dx, dy = stage_um[0] - self.center_um[0], stage_um[1] - self.center_um[1]
        cos, sin = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        return cos * dx + sin * dy, cos * dy - sin * dx

    def to_stage(self, x_um: float, y_um: float) -> tuple[float, float]:
        """Returns the stage position of a point in wafer coordinates, micrometres: the inverse of `to_wafer`."""
        cos, sin = math.cos(math.radians(self.angle_deg)), math.sin(math.radians(self.angle_deg))
        return self.center_um[0] + cos * x_um - sin * y_um, self.center_um[1] + sin * x_um + cos * y_um


@dataclass(frozen=True, kw_only=True)
class FrameView:
    """What one frame sees of the wafer.

    Attributes:
        frame: name of the frame, e.g. its file or number; traced through to every defect.
        stage_um: stage position of the centre of the frame, micrometres.
        height: rows of the frame.
        width: columns of the frame.
        alignment: how the wafer lies on the stage.
    """

    frame: str
    stage_um: tuple[float, float]
    height: int
    width: int
    alignment: Alignment

    def to_wafer(self, row: float, column: float) -> tuple[float, float]:
        """Returns wafer coordinates of a point of the frame, micrometres.

        Args:
            row: rows from the top edge of the frame; the middle of the first pixel is 0.5.
            column: columns from the left edge; the middle of the first pixel is 0.5.
        """
        px, py = self.alignment.pixel_um
        x = self.stage_um[0] + (column - self.width / 2) * px
        y = self.stage_um[1] - (row - self.height / 2) * py
        return self.alignment.to_wafer((x, y))

    def to_frame(self, x_um: float, y_um: float) -> tuple[float, float]:
        """Returns row and column of a point in wafer coordinates: the inverse of `to_wafer`."""
        px, py = self.alignment.pixel_um
        x, y = self.alignment.to_stage(x_um, y_um)
        return self.height / 2 - (y - self.stage_um[1]) / py, (x - self.stage_um[0]) / px + self.width / 2

    def box_um(self, top: float, left: float, bottom: float, right: float) -> tuple[float, float, float, float]:
        """Returns (left, bottom, right, top) in wafer coordinates of the box around a rectangle of the frame."""
        corners = [self.to_wafer(row, column) for row in (top, bottom) for column in (left, right)]
        xs, ys = [x for x, _ in corners], [y for _, y in corners]
        return min(xs), min(ys), max(xs), max(ys)

    def shift_px(self, dx_um: float, dy_um: float) -> tuple[float, float]:
        """Returns how many rows and columns of the frame a step in wafer coordinates is."""
        here, there = self.to_frame(0.0, 0.0), self.to_frame(dx_um, dy_um)
        return there[0] - here[0], there[1] - here[1]
