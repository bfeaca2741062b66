"""Defects of many frames -> defects of one wafer: what overlapping frames saw twice is one defect.

The rule. Defects of DIFFERENT frames whose bounding boxes, each grown by half of `tolerance_um` on every side, touch
are the same defect, and so on through chains (a scratch across three frames is one). Defects of one frame are never
merged directly: the frame itself shows that they are apart.

The parts of a merged defect are taken in order of completeness, the one farthest from the border of its own frame
first; each adds only the share of its box that no earlier part's frame sees. So area and mean severity count nothing
twice, a defect that one frame sees whole keeps exactly that frame's position and area, and one that is cut by every
frame gets the sum of its pieces. Box: the union. Peak: the highest. p-value: the smallest. Class: that of the part with
the highest peak; frame and image: those of the most complete part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from anomaly.errors import SettingError
from inspection.wafer.defects import WaferDefect
from inspection.wafer.geometry import WaferGeometry
from inspection.wafer.stage import FrameView

Box = tuple[float, float, float, float]
"""(left, bottom, right, top) in wafer coordinates, micrometres."""


def merge_frames(
    geometry: WaferGeometry, defects: Sequence[WaferDefect], views: Mapping[str, FrameView], tolerance_um: float
) -> tuple[WaferDefect, ...]:
    """Merges the defects of all frames of a wafer; see the module for the rule.

    Args:
        geometry: the die grid.
        defects: defects of all frames; `frame` names a key of `views`; the boxes are centred on their middle.
        views: frame name -> what the frame sees.
        tolerance_um: largest gap between the boxes of one defect in two frames, micrometres, 0 or more; about one
            pixel, or what the stage is off by.

    Returns:
        Defects numbered from 1, from the bottom row of dies to the top, each from the left.

    Raises:
        SettingError: a negative tolerance, or a defect of an unknown frame.
    """
    if tolerance_um < 0:
        raise SettingError.of("merge_frames", "tolerance_um", "0 or more", tolerance_um)
    if unknown := {defect.frame for defect in defects} - set(views):
        raise SettingError.of("merge_frames", "frame of a defect", f"one of {sorted(views)}", sorted(unknown)[0])
    boxes = [_box(defect) for defect in defects]
    merged = [_merged(geometry, [defects[i] for i in group], views) for group in _groups(defects, boxes, tolerance_um)]
    order = sorted(merged, key=lambda d: (d.die.row, d.die.column, d.die_y_um, d.die_x_um))
    return tuple(replace(defect, id=number) for number, defect in enumerate(order, start=1))


def _groups(defects: Sequence[WaferDefect], boxes: Sequence[Box], tolerance: float) -> list[list[int]]:
    """Connected components of "touches in another frame"; a sweep along x keeps it from being quadratic."""
    parent = list(range(len(defects)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    order = sorted(range(len(defects)), key=lambda i: boxes[i][0])
    open_boxes: list[int] = []
    for i in order:
        open_boxes = [j for j in open_boxes if boxes[j][2] + tolerance >= boxes[i][0]]
        for j in open_boxes:
            apart = boxes[j][1] > boxes[i][3] + tolerance or boxes[i][1] > boxes[j][3] + tolerance
            if not apart and defects[i].frame != defects[j].frame:
                parent[root(i)] = root(j)
        open_boxes.append(i)
    groups: dict[int, list[int]] = {}
    for i in range(len(defects)):
        groups.setdefault(root(i), []).append(i)
    return list(groups.values())


def _merged(geometry: WaferGeometry, parts: list[WaferDefect], views: Mapping[str, FrameView]) -> WaferDefect:
    if len(parts) == 1:
        return parts[0]
    parts = sorted(parts, key=lambda d: (-_distance_to_border(d, views[d.frame]), d.frame, d.id))
    weights = []
    for index, part in enumerate(parts):
        seen = [_footprint(views[earlier.frame]) for earlier in parts[:index] if earlier.frame != part.frame]
        weights.append(part.area_um2 * _share_outside(_box(part), seen))
    area = sum(weights)
    if area == 0:  # points without an area: the most complete one stands for all
        weights, area = [1.0] + [0.0] * (len(parts) - 1), 1.0
    boxes = [_box(part) for part in parts]
    left, bottom = min(box[0] for box in boxes), min(box[1] for box in boxes)
    right, top = max(box[2] for box in boxes), max(box[3] for box in boxes)
    p_values = [part.p_value for part in parts if part.p_value is not None]
    return WaferDefect.at(
        geometry,
        sum(w * part.x_um for w, part in zip(weights, parts, strict=True)) / area,
        sum(w * part.y_um for w, part in zip(weights, parts, strict=True)) / area,
        id=parts[0].id,
        size_x_um=right - left,
        size_y_um=top - bottom,
        area_um2=sum(w for w, part in zip(weights, parts, strict=True) if part.area_um2 > 0),
        peak=max(part.peak for part in parts),
        mean=sum(w * part.mean for w, part in zip(weights, parts, strict=True)) / area,
        p_value=min(p_values, default=None),
        class_number=max(parts, key=lambda part: part.peak).class_number,
        frame=parts[0].frame,
        image=parts[0].image,
    )


def _box(defect: WaferDefect) -> Box:
    half_x, half_y = defect.size_x_um / 2, defect.size_y_um / 2
    return defect.x_um - half_x, defect.y_um - half_y, defect.x_um + half_x, defect.y_um + half_y


def _footprint(view: FrameView) -> Box:
    return view.box_um(0, 0, view.height, view.width)


def _distance_to_border(defect: WaferDefect, view: FrameView) -> float:
    """Gap between the box of a defect and the border of its frame, micrometres."""
    box, frame = _box(defect), _footprint(view)
    return min(box[0] - frame[0], box[1] - frame[1], frame[2] - box[2], frame[3] - box[3])


def _share_outside(box: Box, covers: Sequence[Box]) -> float:
    """Share of a box outside the union of some others."""
    total = (box[2] - box[0]) * (box[3] - box[1])
    if total == 0:
        return 0.0 if any(c[0] <= box[0] <= c[2] and c[1] <= box[1] <= c[3] for c in covers) else 1.0
    xs = sorted({box[0], box[2], *(x for c in covers for x in (c[0], c[2]) if box[0] < x < box[2])})
    ys = sorted({box[1], box[3], *(y for c in covers for y in (c[1], c[3]) if box[1] < y < box[3])})
    outside = 0.0
    for x0, x1 in pairwise(xs):
        for y0, y1 in pairwise(ys):
            x, y = (x0 + x1) / 2, (y0 + y1) / 2
            if not any(c[0] < x < c[2] and c[1] < y < c[3] for c in covers):
                outside += (x1 - x0) * (y1 - y0)
    return outside / total
