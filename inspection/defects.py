"""Anomaly map of a part -> defects with place, size in millimetres, severity and p-value.

Blobs are found on the map of the whole frame, stitched where it was tiled, so a defect across tiles is one defect.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from anomaly.calibration import Decision
from inspection.components import Component, centroid, components
from inspection.parts import Defect
from inspection.recipe.sections import DefectsSection


@dataclass(frozen=True)
class DefectFinder:
    """How defects are found in a map.

    Attributes:
        threshold: map value; only what is strictly above counts.
        p_value: peak of a defect -> share of good parts whose map anywhere scores as high.
        rules: least area and severity classes.
        pixel_size_mm: side of a pixel, millimetres.
    """

    threshold: float
    p_value: Callable[[float], float]
    rules: DefectsSection
    pixel_size_mm: float

    def find(self, anomaly_map: NDArray[np.float32], judged: NDArray[np.bool_]) -> tuple[Defect, ...]:
        """Returns the defects of a part, the most severe first.

        Args:
            anomaly_map: (H, W) on the pixels of the frame.
            judged: (H, W) where defects count.
        """
        pixel_mm2 = self.pixel_size_mm**2
        least = max(1, int(np.ceil(self.rules.min_area_mm2 / pixel_mm2 - 1e-9)))
        above = (anomaly_map > self.threshold) & judged
        found = [self._defect(region, anomaly_map[region.window]) for region in components(above, least)]
        ranks = [severity.name for severity in self.rules.severity]
        found.sort(key=lambda defect: (ranks.index(defect.severity), defect.peak), reverse=True)
        return tuple(replace(defect, id=number) for number, defect in enumerate(found, 1))

    def decision(self, defects: Sequence[Defect]) -> Decision:
        """Returns the hardest decision that the classes of some defects bring about; OK without any."""
        decisions = {severity.name: Decision(severity.decision) for severity in self.rules.severity}
        order = tuple(Decision)
        return max((decisions[defect.severity] for defect in defects), key=order.index, default=Decision.OK)

    def _defect(self, region: Component, values: NDArray[np.float32]) -> Defect:
        scores = values[region.inside]
        peak, area_mm2 = float(scores.max()), region.area * self.pixel_size_mm**2
        row, column = centroid(region.inside.astype(np.float64), region.top, region.left)
        length, width = sides(region.inside)
        return Defect(
            id=1,
            x_mm=column * self.pixel_size_mm,
            y_mm=row * self.pixel_size_mm,
            box_px=region.box,
            area_mm2=area_mm2,
            length_mm=length * self.pixel_size_mm,
            width_mm=width * self.pixel_size_mm,
            peak=peak,
            mean=float(scores.mean(dtype=np.float64)),
            p_value=self.p_value(peak),
            severity=self.rules.of(peak, area_mm2).name,
        )


def sides(inside: NDArray[np.bool_]) -> tuple[float, float]:
    """Returns longer and shorter side, in pixels, of the smallest rectangle at any angle that holds some pixels.

    Args:
        inside: (h, w) mask; pixels are squares, so a single one has sides of 1.
    """
    import cv2

    rows = np.flatnonzero(inside.any(axis=1))
    first = inside[rows].argmax(axis=1)
    last = inside.shape[1] - inside[rows, ::-1].argmax(axis=1)
    corners = [(x, y) for x in (first, last) for y in (rows, rows + 1)]
    points = np.concatenate([np.column_stack([x, y]) for x, y in corners]).astype(np.float32)
    _, (a, b), _ = cv2.minAreaRect(points)
    return float(max(a, b)), float(min(a, b))
