"""Anomaly maps -> blobs, and where in the raw frame a blob really is.

A map is coarse: a backbone sees patches of several pixels, so a blob says that something is there rather than where
exactly. `locate` looks again at the pixels around the blob and takes the centroid of those that differ.
"""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inspection.components import centroid, components
from inspection.wafer.defects import Blob

_LOOKS = 6  # a scratch is followed this often
_MARGIN = 6  # pixels around a blob in which to look
_NOISE = 4.0  # a pixel differs where it is this many deviations off
_MAD = 1.4826  # median absolute deviation -> standard deviation of a normal distribution


def find_blobs(
    anomaly_map: NDArray[np.float32],
    threshold: float,
    mask: NDArray[np.bool_] | None = None,
    p_value: Callable[[float], float] | None = None,
) -> list[Blob]:
    """Finds connected regions above a threshold.

    Args:
        anomaly_map: (H, W) on the pixels of the frame.
        threshold: map value; only what is strictly above counts.
        mask: (H, W) where defects count; None for everywhere.
        p_value: peak -> p-value.

    Returns:
        Regions connected by edges or corners; the centroid is weighted by the excess over the threshold.
    """
    above = anomaly_map > threshold
    if mask is not None:
        above &= mask
    found = []
    for region in components(above):
        values, inside = anomaly_map[region.window], region.inside
        row, column = centroid(np.where(inside, values - threshold, 0), region.top, region.left)
        peak = float(values[inside].max())
        top, left, bottom, right = map(float, region.box)
        p = None if p_value is None else p_value(peak)
        box = (top, left, bottom, right)
        found.append(Blob(row, column, box, float(region.area), peak, float(values[inside].mean()), p))
    return found


def locate(difference: NDArray[np.float32], blob: Blob) -> Blob:
    """Places a blob by the pixels around it that differ; severities stay as they are.

    Args:
        difference: (H, W) frame minus its reference, as `FrameDifference` gives it.
        blob: a blob of the frame.

    Returns:
        The blob with centroid, box and area of the pixels that differ, or as it was where none clearly does.
    """
    box = blob.box
    for _ in range(_LOOKS):
        top, left = max(0, int(box[0]) - _MARGIN), max(0, int(box[1]) - _MARGIN)
        bottom = min(difference.shape[0], math.ceil(box[2]) + _MARGIN)
        right = min(difference.shape[1], math.ceil(box[3]) + _MARGIN)
        change = difference[top:bottom, left:right]
        change = np.abs(change - np.median(change))
        differs = _strongest(change, _NOISE * max(_MAD * float(np.median(change)), 1e-6))
        if not differs.any():
            return blob
        rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
        found = (
            float(top + rows[0]),
            float(left + columns[0]),
            float(top + rows[-1] + 1),
            float(left + columns[-1] + 1),
        )
        if found == box:
            break
        box = found  # it may go on beyond what was looked at
    # Equal weights place a scratch best, the differences themselves a spot; their root serves both.
    row, column = centroid(np.where(differs, np.sqrt(change), 0), top, left)
    return blob._replace(row=row, column=column, box=box, area=float(differs.sum()))


def _strongest(change: NDArray[np.float32], limit: float) -> NDArray[np.bool_]:
    """Pixels above a limit of the region that changed most in all, with those that lie within 3 pixels of it."""
    import cv2

    differs: NDArray[np.bool_] = change > limit
    near = cv2.dilate(differs.astype(np.uint8), np.ones((7, 7), np.uint8))
    count, labels = cv2.connectedComponents(near)
    sums = np.bincount(labels[differs], weights=change[differs], minlength=count)
    strongest: NDArray[np.bool_] = differs & (labels == int(np.argmax(sums)))
    return strongest
