"""Procedural surfaces: how normal looks, before light and camera.

Every surface is a function `(rng, height, width) -> Surface` of a random generator and a size in pixels. Features have
a fixed size in pixels: a larger image shows more of the part, not a magnified one.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly.images.synthetic_fabric import PITCH, Fault, weave
from anomaly.images.synthetic_wafer import DieFault, die_fault, wafer_albedo

Field: TypeAlias = NDArray[np.float32]
"""(H, W) float32."""


class Surface(NamedTuple):
    """One drawn part.

    Attributes:
        albedo: (H, W) float32, brightness in 0.1 to 0.9.
        refit: draws the same part again with a structural fault ("missing" or "misplaced"), placed by the generator;
            None where the surface has no structures.
    """

    albedo: Field
    refit: Callable[[str, np.random.Generator], Field] | None = None


def brushed_metal(rng: np.random.Generator, height: int, width: int) -> Surface:
    """Draws sheet metal: long streaks along x, a few degrees off, in a soft sheen."""
    side = height + width // 8 + 16
    streaks = np.zeros((side, width), np.float32)
    for length, strength in ((400.0, 0.030), (90.0, 0.045), (20.0, 0.035), (5.0, 0.020)):
        noise = smooth_noise(rng, side, width, 1.0, length)
        streaks += strength * noise
    angle = np.deg2rad(rng.uniform(-2.0, 2.0))
    shear = np.array([[1, 0, 0], [np.tan(angle), 1, (side - height) / 2 - np.tan(angle) * width / 2]], np.float32)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    streaks = cv2.warpAffine(streaks, shear, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    sheen = 0.10 * np.exp(-(((y - rng.uniform(-0.6, 0.6)) / rng.uniform(0.5, 0.9)) ** 2))
    return Surface(_bounded(0.52 + sheen + streaks))


def cast(rng: np.random.Generator, height: int, width: int) -> Surface:
    """Draws sand-cast metal: a rough relief of several grain sizes, lit from one side."""
    relief = 1.2 * smooth_noise(rng, height, width, 40.0, 40.0) + 0.9 * smooth_noise(rng, height, width, 12.0, 12.0)
    for sigma, strength in ((1.0, 0.30), (2.2, 0.75)):
        grain = cv2.GaussianBlur(rng.standard_normal((height, width), dtype=np.float32), (0, 0), sigma)
        relief += strength * 2 * np.sqrt(np.pi) * sigma * grain
    angle = np.deg2rad(rng.normal(-60, 8))
    kernel = np.array([[0, np.sin(angle), 0], [np.cos(angle), 0, -np.cos(angle)], [0, -np.sin(angle), 0]], np.float32)
    slope = cv2.filter2D(relief, cv2.CV_32F, kernel)
    return Surface(_bounded(0.45 + 0.115 * slope / (1 + 0.35 * np.abs(slope)) + 0.028 * relief))


def woven_fabric(rng: np.random.Generator, height: int, width: int) -> Surface:
    """Draws a plain weave of yarns that wander a little and differ in shade."""
    u, v = _turned_grid(rng, height, width, np.deg2rad(1.5))
    u = u / np.float32(PITCH) + 0.10 * smooth_noise(rng, height, width, 24.0, 60.0)
    v = v / np.float32(PITCH) + 0.10 * smooth_noise(rng, height, width, 60.0, 24.0)
    fibres = 0.022 * smooth_noise(rng, height, width, 1.3, 1.3)
    tones = rng.normal(0, 0.020, (2, 64)).astype(np.float32)

    def faulty(kind: str, fault_rng: np.random.Generator) -> Field:
        y, x = _middle(fault_rng, height, width)
        shift = float(fault_rng.choice([-1, 1]) * fault_rng.uniform(0.35, 0.6))
        fault = Fault(kind, float(u[y, x]), int(v[y, x]), fault_rng.uniform(2.5, 7), shift)
        return _bounded(weave(u, v, tones, fault) + fibres)

    return Surface(_bounded(weave(u, v, tones, None) + fibres), faulty)


def wafer(rng: np.random.Generator, height: int, width: int) -> Surface:
    """Draws dies on a grid with blocks, memory arrays and pads inside, and streets between them."""
    return _wafer(rng, height, width, edge=False)


def wafer_edge(rng: np.random.Generator, height: int, width: int) -> Surface:
    """Draws dies as `wafer`, with the round edge of the wafer across a corner."""
    return _wafer(rng, height, width, edge=True)


def _wafer(rng: np.random.Generator, height: int, width: int, edge: bool) -> Surface:
    u, v = _turned_grid(rng, height, width, np.deg2rad(0.5))
    film = 0.020 * smooth_noise(rng, height, width, 90.0, 90.0)
    tones = rng.normal(0, 0.012, (64, 64)).astype(np.float32)
    beyond = _beyond_edge(rng, height, width) if edge else None

    def lit(fault: DieFault | None) -> Field:
        albedo = wafer_albedo(u, v, tones, fault) + film
        return _bounded(albedo if beyond is None else albedo + beyond * (0.12 - albedo))

    def faulty(kind: str, fault_rng: np.random.Generator) -> Field:
        at = _middle(fault_rng, height, width, end=0.5 if edge else 0.75)
        return lit(die_fault(kind, at, u, v, fault_rng))

    return Surface(lit(None), faulty)


def _beyond_edge(rng: np.random.Generator, height: int, width: int) -> Field:
    radius = 2.5 * max(height, width)
    angle = np.deg2rad(45 + rng.normal(0, 6))
    reach = radius - (0.36 + rng.uniform(-0.03, 0.03)) * min(height, width)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    away = np.hypot(y - height / 2 + reach * np.sin(angle), x - width / 2 + reach * np.cos(angle)) - radius
    outside: Field = np.clip(away + 0.5, 0, 1, dtype=np.float32)
    return outside


def smooth_noise(rng: np.random.Generator, height: int, width: int, grain_y: float, grain_x: float) -> Field:
    """Returns (H, W) float32 noise of mean about 0 and deviation about 1, smooth over `grain` pixels."""
    rows, columns = round(height / grain_y) + 3, round(width / grain_x) + 3
    coarse = rng.standard_normal((rows, columns), dtype=np.float32)
    shift = rng.uniform(0, 1, 2)
    step = np.array([[1 / grain_x, 0, 0.5 + shift[0]], [0, 1 / grain_y, 0.5 + shift[1]]], np.float32)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    noise: Field = cv2.warpAffine(coarse, step, (width, height), flags=flags, borderMode=cv2.BORDER_REFLECT)
    return noise


def _turned_grid(rng: np.random.Generator, height: int, width: int, spread: float) -> tuple[Field, Field]:
    """Returns pixel coordinates turned by up to `spread` radians and shifted at random, all positive."""
    angle = rng.uniform(-spread, spread)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    y, x = np.arange(height, dtype=np.float32)[:, None], np.arange(width, dtype=np.float32)
    shift = (rng.uniform(0, 200, 2) + 0.1 * (height + width)).astype(np.float32)
    return cos * x + sin * y + shift[0], cos * y - sin * x + shift[1]


def _middle(rng: np.random.Generator, height: int, width: int, end: float = 0.75) -> tuple[int, int]:
    """Returns row and column of a pixel away from the border, between a quarter and `end` of each side."""
    return int(rng.uniform(0.25, end) * height), int(rng.uniform(0.25, end) * width)


def _bounded(albedo: NDArray[np.floating[Any]]) -> Field:
    bounded: Field = np.clip(albedo, 0.1, 0.9, dtype=np.float32)
    return bounded


SURFACES: dict[str, Callable[[np.random.Generator, int, int], Surface]] = {
    "brushed_metal": brushed_metal,
    "cast": cast,
    "woven_fabric": woven_fabric,
    "wafer": wafer,
    "wafer_edge": wafer_edge,
}
"""Name of a surface -> function that draws it."""

STRUCTURED = ("woven_fabric", "wafer", "wafer_edge")
"""Surfaces made of structures, of which one can be missing or misplaced."""
