"""Procedural defects: each changes the brightness of a surface somewhere."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly.images.synthetic_surfaces import STRUCTURED, SURFACES, Field, Surface, smooth_noise

Point: TypeAlias = NDArray[np.float64]
"""(2,) row and column in pixels."""


class Defect(NamedTuple):
    """A kind of defect.

    Attributes:
        apply: draws one on a surface; returns the changed (H, W) float32 brightness.
        surfaces: names of the surfaces that it can be on.
    """

    apply: Callable[[Surface, np.random.Generator], Field]
    surfaces: tuple[str, ...] = tuple(SURFACES)


def scratch(surface: Surface, rng: np.random.Generator) -> Field:
    """Draws one to three bent hairlines of varying depth, with a shadow beside a bright one."""
    height, width = surface.albedo.shape
    depth = np.zeros((height, width), np.float32)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        depth = np.maximum(depth, _hairline(rng, height, width))
    change = -depth
    if rng.random() < 0.6:
        change = depth.copy()
        change[1:] -= 0.5 * depth[:-1] * (1 - depth[1:])
    scratched: Field = surface.albedo + np.float32(_contrast(rng, 0.09, 0.40)) * change
    return scratched


def _hairline(rng: np.random.Generator, height: int, width: int) -> Field:
    length = rng.uniform(0.18, 0.75) * min(height, width)
    angle = rng.uniform(0, 2 * np.pi)
    along = np.array([np.cos(angle), np.sin(angle)])
    middle = _place(rng, height, width)[::-1]
    t = np.linspace(-1, 1, 24)[:, None]
    points = middle + along * t * length / 2 + along[::-1] * (1, -1) * (1 - t**2) * rng.normal(0, 0.09) * length
    line = np.zeros((height, width), np.uint8)
    shift = 4
    fixed = np.round(points * 2**shift).astype(np.int32)
    cv2.polylines(line, [fixed], isClosed=False, color=255, thickness=1, lineType=cv2.LINE_AA, shift=shift)
    width_px = rng.uniform(0.35, 1.1)
    profile = cv2.GaussianBlur(line.astype(np.float32), (0, 0), width_px)
    fade = 0.75 + 0.25 * smooth_noise(rng, height, width, 20.0, 20.0)
    return np.asarray(profile / profile.max() * np.clip(fade, 0.3, 1), np.float32)


def pit(surface: Surface, rng: np.random.Generator) -> Field:
    """Draws one to five holes: dark inside, with a bright rim on the side that faces the light."""
    albedo = surface.albedo.copy()
    height, width = albedo.shape
    contrast = _contrast(rng, 0.10, 0.38)
    centre, spread = _place(rng, height, width), 0.08 * min(height, width)
    for number in range(rng.choice([1, 1, 2, 3, 5])):
        here = centre + (number > 0) * rng.normal(0, spread, 2)
        radius = rng.uniform(1.8, 6.5)
        far, bearing = _polar(height, width, here)
        wobble = 1 + sum(rng.normal(0, 0.11) * np.cos(k * bearing + rng.uniform(0, 6.3)) for k in (2, 3, 5))
        edge = far / (radius * wobble)
        hole = 1 / (1 + np.exp(np.clip(radius * 2.2 * (edge - 0.85), -30, 30)))
        rim = np.exp(-(((edge - 1.12) * radius / 1.1) ** 2)) * np.clip(np.sin(bearing + 0.6), 0, 1)
        albedo += contrast * (0.45 * rim - hole).astype(np.float32)
    return albedo


def stain(surface: Surface, rng: np.random.Generator) -> Field:
    """Draws a flat irregular spot with a soft outline and a darker edge where it dried."""
    height, width = surface.albedo.shape
    radius = rng.uniform(0.05, 0.17) * min(height, width) + 3
    far, bearing = _polar(height, width, _place(rng, height, width))
    wobble = 1 + sum(rng.normal(0, 0.2) / k * np.cos(k * bearing + rng.uniform(0, 6.3)) for k in (1, 2, 3, 4))
    ragged = far / (radius * np.clip(wobble, 0.5, 2)) + 0.10 * smooth_noise(rng, height, width, radius / 3, radius / 3)
    softness = rng.uniform(0.05, 0.14)
    spot = 1 / (1 + np.exp(np.clip((ragged - 1) / softness, -30, 30)))
    dried = np.exp(-(((ragged - 0.93) / (1.5 * softness)) ** 2)) * rng.uniform(0, 0.8)
    contrast = _contrast(rng, 0.045, 0.16) * rng.choice([-1, -1, 1])
    return np.asarray(surface.albedo + contrast * (0.8 * spot + dried * (ragged < 1.6)), np.float32)


def missing(surface: Surface, rng: np.random.Generator) -> Field:
    """Leaves out a structure: a block of a die or all of them, a weft yarn over a few warps."""
    return _refitted(surface, "missing", rng)


def misplaced(surface: Surface, rng: np.random.Generator) -> Field:
    """Moves a structure: a block of a die by a few pixels, a yarn by about half its pitch."""
    return _refitted(surface, "misplaced", rng)


def _refitted(surface: Surface, fault: str, rng: np.random.Generator) -> Field:
    assert surface.refit is not None, "the table of defects names structured surfaces only"
    return surface.refit(fault, rng)


def _contrast(rng: np.random.Generator, low: float, high: float) -> float:
    """Returns a contrast between `low` and `high`, log-uniform: subtle ones are as likely as strong ones."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def _place(rng: np.random.Generator, height: int, width: int) -> Point:
    """Returns row and column of a point that keeps a distance from the border."""
    return rng.uniform(0.15, 0.85, 2) * (height, width)


def _polar(height: int, width: int, centre: Point) -> tuple[Field, Field]:
    """Returns distance in pixels and bearing in radians of every pixel as seen from a point."""
    dy = np.arange(height, dtype=np.float32)[:, None] - np.float32(centre[0])
    dx = np.arange(width, dtype=np.float32)[None] - np.float32(centre[1])
    return np.hypot(dy, dx), np.arctan2(dy, dx)


DEFECTS: dict[str, Defect] = {
    "scratch": Defect(scratch),
    "pit": Defect(pit),
    "stain": Defect(stain),
    "missing": Defect(missing, STRUCTURED),
    "misplaced": Defect(misplaced, STRUCTURED),
}
"""Name of a defect -> how it is drawn and on which surfaces."""
