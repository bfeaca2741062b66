"""A frame minus what its own dies usually show: the pattern goes, defects stay.

A patterned wafer is full of edges that hide a defect of two pixels. But the pattern repeats with the die pitch, so each
pixel is compared with the same place in the dies left, right, above and below; where one of them is out of sight, with
the die opposite to it, one further. The mean of the middle two of the four is the reference: one defective neighbour
does not move it. That is die-to-die comparison without cutting dies, so nothing is lost at the border of a frame.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import SettingError
from inspection.wafer.geometry import WaferGeometry
from inspection.wafer.stage import FrameView

if TYPE_CHECKING:
    import torch

    from anomaly.input_spec import InputSpec

_SLOTS = (((1, 0), (-2, 0)), ((-1, 0), (2, 0)), ((0, 1), (0, -2)), ((0, -1), (0, 2)))
"""(columns, rows) of the die to compare with, and of the one to take in its place."""


class Difference(NamedTuple):
    """A frame minus its reference.

    Attributes:
        pixels: (H, W) float32 raw values, 0 is "as usual", cut off at the contrast; 0 where there is no reference.
        judged: (H, W) bool, where the frame could be compared.
    """

    pixels: "torch.Tensor"
    judged: "torch.Tensor"


@dataclass(frozen=True, kw_only=True)
class FrameDifference:
    """How a frame is compared with itself.

    Attributes:
        contrast: differences beyond this many raw values, up or down, are cut off.
        margin_um: pixels nearer to the edge of the wafer than this are no reference, micrometres.
    """

    contrast: float = 64.0
    margin_um: float = 200.0

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if not 0 < self.contrast < np.inf:
            raise SettingError.of("FrameDifference", "contrast", "above 0", self.contrast)
        if not 0 <= self.margin_um < np.inf:
            raise SettingError.of("FrameDifference", "margin_um", "0 or more", self.margin_um)

    def input(self, size: tuple[int, int]) -> "InputSpec":
        """Returns the input of a detector of differences; `size` is height and width of its canvas in pixels."""
        from anomaly.input_spec import InputSpec

        span = (-self.contrast, self.contrast)
        return InputSpec(channels=1, dtype="float32", value_range=span, unit="grey value difference", size=size)

    def __call__(self, view: FrameView, frame: "torch.Tensor", geometry: WaferGeometry) -> Difference:
        """Compares a frame with itself.

        Args:
            view: what the frame shows.
            frame: (H, W) grey raw values, on any device.
            geometry: the die grid.
        """
        import torch

        pixels = frame.to(torch.float32)
        usable = torch.from_numpy(on_wafer(view, geometry.radius_um - self.margin_um)).to(pixels.device)
        references, valid = [], []
        for first, second in _SLOTS:
            value, known = self._shifted(view, pixels, usable, geometry, first)
            if not bool(known.all()):
                other, other_known = self._shifted(view, pixels, usable, geometry, second)
                value = torch.where(known, value, other)
                known = known | other_known
            references.append(value)
            valid.append(known)
        stack, known = torch.stack(references), torch.stack(valid)
        count = known.sum(dim=0)
        low = torch.where(known, stack, torch.inf).amin(dim=0)
        high = torch.where(known, stack, -torch.inf).amax(dim=0)
        total = torch.where(known, stack, 0.0).sum(dim=0)
        judged = (count >= 3) & usable
        reference = (total - low - high) / (count - 2).clamp(min=1)
        change = torch.where(judged, pixels - torch.where(judged, reference, 0.0), 0.0)
        return Difference(change.clamp(-self.contrast, self.contrast), judged)

    def _shifted(
        self,
        view: FrameView,
        pixels: "torch.Tensor",
        usable: "torch.Tensor",
        geometry: WaferGeometry,
        step: tuple[int, int],
    ) -> tuple["torch.Tensor", "torch.Tensor"]:
        """The frame as it is `step` dies further, and where that is known."""
        import torch

        dy, dx = view.shift_px(step[0] * geometry.pitch_um[0], step[1] * geometry.pitch_um[1])
        value, known = torch.zeros_like(pixels), torch.zeros_like(usable)
        here, there = _overlap(pixels.shape, _linear(dy), _linear(dx))
        known[here] = True
        for y, weight_y in _linear(dy):
            for x, weight_x in _linear(dx):
                source = there(y, x)
                value[here].add_(pixels[source], alpha=weight_y * weight_x)
                known[here] &= usable[source]
        return value, known


def on_wafer(view: FrameView, radius_um: float) -> NDArray[np.bool_]:
    """Returns the (H, W) mask of the pixels of a frame whose middle lies within a radius of the wafer's centre."""
    x0, y0 = view.to_wafer(0.5, 0.5)
    (x1, y1), (x2, y2) = view.to_wafer(1.5, 0.5), view.to_wafer(0.5, 1.5)
    rows, columns = np.arange(view.height)[:, None], np.arange(view.width)[None]
    x = x0 + rows * (x1 - x0) + columns * (x2 - x0)
    y = y0 + rows * (y1 - y0) + columns * (y2 - y0)
    inside: NDArray[np.bool_] = x * x + y * y <= radius_um * radius_um
    return inside


def _linear(shift: float) -> list[tuple[int, float]]:
    """Whole shifts and their weights; a hundredth of a pixel is as good as none."""
    whole = int(np.floor(shift))
    fraction = shift - whole
    if fraction < 0.01:
        return [(whole, 1.0)]
    if fraction > 0.99:
        return [(whole + 1, 1.0)]
    return [(whole, 1 - fraction), (whole + 1, fraction)]


def _overlap(
    shape: "torch.Size", rows: list[tuple[int, float]], columns: list[tuple[int, float]]
) -> tuple[tuple[slice, slice], Callable[[int, int], tuple[slice, slice]]]:
    """Returns where image[y + dy, x + dx] exists for all the whole shifts, and the source for each of them."""
    (top, bottom), (left, right) = (
        (max(0, -min(steps)), max(0, min(side, side - max(steps))))
        for side, steps in ((shape[0], [dy for dy, _ in rows]), (shape[1], [dx for dx, _ in columns]))
    )
    bottom, right = max(top, bottom), max(left, right)

    def there(dy: int, dx: int) -> tuple[slice, slice]:
        return slice(top + dy, bottom + dy), slice(left + dx, right + dx)

    return (slice(top, bottom), slice(left, right)), there
