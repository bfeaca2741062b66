"""Scan statistics of points on a wafer: where do more of them lie than chance puts there, along which structure?

Each scan lays windows of one shape over the wafer and compares the number of points in a window with the number that
uniform points would have there, (n - e) / sqrt(e + 1); its statistic is the largest of these. How large it gets by
chance is found by simulation (`signatures`), so the windows may overlap and need no theory.

Sources: Kulldorff, A Spatial Scan Statistic, 1997; Duda and Hart, Use of the Hough Transformation to Detect Lines and
Curves in Pictures, 1972; Clark and Evans, Distance to Nearest Neighbor as a Measure of Spatial Relationships, 1954.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from inspection.wafer.region import Points

RING_WIDTHS = (0.06, 0.12, 0.2)  # of the usable radius
EDGE_WIDTHS = (0.05, 0.1, 0.2)
CLUSTER_RADII = (0.06, 0.12, 0.25)
LINE_WIDTH = 0.025
LINE_LENGTHS = (0.25, 0.6, 2.0)
_ANGLES = 90
_APART = 10.0  # between strips on the common axis: farther than any stretch reaches
_FEWEST_ON_A_LINE = 4
_CELLS = 64  # of a side of the grid on which the share of a disc is known
_SECTORS = 12
_FILLED = 6  # of the sectors a ring or an edge must have points in


class Found(NamedTuple):
    """The most conspicuous window of a scan.

    Attributes:
        statistic: excess of points in it, in deviations.
        members: (n,) bool, the points in it.
        shape: what the window is, for people and pictures: see each scan.
    """

    statistic: float
    members: NDArray[np.bool_]
    shape: tuple[float, ...]


class Reference(NamedTuple):
    """What a large uniform sample of the region says of how many points belong into a window.

    Attributes:
        radii: distances of its points from the centre, ascending.
        shares: for each radius of a cluster the (_CELLS, _CELLS) share of points in a disc about each cell.
    """

    radii: NDArray[np.float64]
    shares: NDArray[np.float64]


def reference(points: Points) -> Reference:
    """Prepares a uniform sample."""
    import cv2

    density, _, _ = np.histogram2d(points[:, 1], points[:, 0], bins=_CELLS, range=[[-1, 1], [-1, 1]])
    middles = (np.arange(_CELLS) + 0.5) * (2 / _CELLS) - 1
    discs = [
        cv2.filter2D(
            density / len(points),
            cv2.CV_64F,
            (np.hypot(*np.meshgrid(middles, middles)) <= radius).astype(np.float64),
            borderType=cv2.BORDER_CONSTANT,
        )
        for radius in CLUSTER_RADII
    ]
    return Reference(np.sort(np.hypot(points[:, 0], points[:, 1])), np.stack(discs))


def scan_edge(points: Points, uniform: Reference) -> Found:
    """Annuli that end at the outermost place; shape: (inner radius, outer radius)."""
    outer = float(uniform.radii[-1])
    return _annuli(points, uniform, [(outer - width, outer + 1e-9) for width in EDGE_WIDTHS])


def scan_ring(points: Points, uniform: Reference) -> Found:
    """Annuli anywhere between centre and edge; shape: (inner radius, outer radius)."""
    outer = float(uniform.radii[-1])
    windows = [
        (start, start + width)
        for width in RING_WIDTHS
        for start in np.arange(0.1, outer - EDGE_WIDTHS[0] - width, width / 3).tolist()
    ]
    return _annuli(points, uniform, windows)


def _annuli(points: Points, uniform: Reference, windows: list[tuple[float, float]]) -> Found:
    radius = np.hypot(points[:, 0], points[:, 1])
    sector = np.floor((np.arctan2(points[:, 1], points[:, 0]) / (2 * np.pi) + 0.5) * _SECTORS).astype(int) % _SECTORS
    bounds = np.array(windows)
    inside = (radius >= bounds[:, :1]) & (radius < bounds[:, 1:])
    share = np.diff(np.searchsorted(uniform.radii, bounds), axis=1)[:, 0] / len(uniform.radii)
    filled = np.zeros((len(bounds), _SECTORS), bool)
    window, point = np.nonzero(inside)
    filled[window, sector[point]] = True
    excess = _excess(inside.sum(axis=1), len(points) * share)
    excess[filled.sum(axis=1) < _FILLED] = 0.0  # an arc is no ring
    best = int(np.argmax(excess))
    return Found(float(excess[best]), inside[best], windows[best])


def scan_cluster(points: Points, uniform: Reference) -> Found:
    """Discs about each point; shape: (x, y, radius)."""
    from scipy.spatial import cKDTree

    tree = cKDTree(points)
    cells = np.clip(((points + 1) * (_CELLS / 2)).astype(int), 0, _CELLS - 1)
    best = Found(0.0, np.zeros(len(points), bool), (0.0, 0.0, 0.0))
    for radius, shares in zip(CLUSTER_RADII, uniform.shares, strict=True):
        counts = tree.query_ball_point(points, radius, return_length=True)
        expected = (len(points) - 1) * shares[cells[:, 1], cells[:, 0]]
        excess = _excess(counts - 1.0, expected)  # the point in the middle is there anyway
        at = int(np.argmax(excess))
        if excess[at] > best.statistic:
            members = np.hypot(*(points - points[at]).T) <= radius
            best = Found(float(excess[at]), members, (float(points[at, 0]), float(points[at, 1]), radius))
    return best


def scan_line(points: Points, uniform: Reference) -> Found:
    """Straight strips of a few lengths, at any angle; shape: (x, y of one end, x, y of the other).

    For each angle the points are put into strips (two grids, half a strip apart), and along the strips the densest
    stretch of each length is found. All strips of all angles stand behind one another on one axis, so one sort and
    one search per length do it.
    """
    count = len(points)
    density = count / (math.pi * float(uniform.radii[-1]) ** 2)
    angles = np.repeat(np.arange(_ANGLES) * (math.pi / _ANGLES), 2)[:, None]  # each with two grids of strips
    along = points[:, 0] * np.cos(angles) + points[:, 1] * np.sin(angles)
    across = points[:, 1] * np.cos(angles) - points[:, 0] * np.sin(angles)
    strip = np.floor(across / LINE_WIDTH + np.tile([[0.0], [0.5]], (_ANGLES, 1)))
    key = along + _APART * strip + (_APART * 4 / LINE_WIDTH) * np.arange(len(angles))[:, None]
    order = np.argsort(key.ravel(), kind="stable")
    keys = key.ravel()[order]
    chord = 2 * np.sqrt(np.clip(1 - across.ravel()[order] ** 2, 0.01, 1))
    best = Found(0.0, np.zeros(count, bool), (0.0, 0.0, 0.0, 0.0))
    for length in LINE_LENGTHS:
        last = np.searchsorted(keys, keys + length, side="right")
        found = last - np.arange(len(keys)) - 1.0  # the first point is there anyway
        excess = _excess(found, density * LINE_WIDTH * np.minimum(length, chord))
        excess[found < _FEWEST_ON_A_LINE - 1] = 0.0
        at = int(np.argmax(excess))
        if excess[at] > best.statistic:
            chosen = order[at : last[at]]
            best = Found(float(excess[at]), _mask(chosen % count, count), _ends(points[chosen % count]))
    return best


def clark_evans(points: Points, area: float) -> float:
    """Returns the ratio of the mean distance to the nearest neighbour to that of random points: below 1 clustered.

    Args:
        points: at least two points.
        area: area of the region in the unit of the points, squared.
    """
    from scipy.spatial import cKDTree

    distances, _ = cKDTree(points).query(points, k=2)
    return float(distances[:, 1].mean() / (0.5 / math.sqrt(len(points) / area)))


def _excess(counts: NDArray[np.float64], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    excess: NDArray[np.float64] = (counts - expected) / np.sqrt(expected + 1)
    return excess


def _mask(chosen: NDArray[np.intp], count: int) -> NDArray[np.bool_]:
    mask = np.zeros(count, bool)
    mask[chosen] = True
    return mask


def _ends(members: Points) -> tuple[float, ...]:
    """First and last of points in order along a line."""
    return (*members[0].tolist(), *members[-1].tolist())
