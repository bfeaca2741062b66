"""A synthetic wafer under a stage: dies of one product, seen frame by frame, with defects at known places.

The die is that of `anomaly.images.synthetic_wafer`, repeated over a round wafer with its edge. Every wafer lies a
little differently on the stage, dies differ in tone, every frame has its own noise and exposure; the camera vignettes.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import SettingError
from anomaly.images.synthetic_wafer import DIE, wafer_albedo
from inspection.wafer.geometry import WaferGeometry, centred
from inspection.wafer.stage import Alignment, FrameView

KINDS = ("particle", "pit", "scratch")
_AHEAD = 64 * 4  # dies added on both axes, so that indices on the wafer are positive and tones repeat evenly
_TRIES = 20_000  # places that are tried for all defects together
_OUTSIDE = 0.12  # brightness beyond the edge


class Planted(NamedTuple):
    """A defect that was drawn.

    Attributes:
        kind: "particle" (a bright spot), "pit" (a dark one) or "scratch" (a straight dark line).
        x_um: middle in wafer coordinates, micrometres.
        y_um: middle in wafer coordinates, micrometres.
        length_um: length of a scratch, or the standard deviation of a spot, micrometres.
        angle: direction of a scratch, radians.
        contrast: change of brightness in the middle, as a share of full range.
    """

    kind: str
    x_um: float
    y_um: float
    length_um: float
    angle: float
    contrast: float


@dataclass(frozen=True, kw_only=True)
class SyntheticWafer:
    """Settings of a wafer; the same settings give the same frames.

    Attributes:
        seed: number of the wafer.
        defects: defects to plant, of all kinds in turn; none of them nearer to another than one die.
        diameter_mm: diameter of the wafer, millimetres.
        pixel_um: size of a pixel, micrometres.
        frame_px: side of the square frames, pixels.
        overlap_px: pixels that neighbouring frames share.
    """

    seed: int = 0
    defects: int = 0
    diameter_mm: float = 300.0
    pixel_um: float = 100.0
    frame_px: int = 512
    overlap_px: int = 12

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if self.seed < 0:
            raise SettingError.of("SyntheticWafer", "seed", "0 or more", self.seed)
        if not 0 <= self.defects <= 200:
            raise SettingError.of("SyntheticWafer", "defects", "0 to 200", self.defects)
        if not 0 <= self.overlap_px < self.frame_px / 2:
            raise SettingError.of("SyntheticWafer", "overlap_px", "0 to below half a frame", self.overlap_px)

    @property
    def geometry(self) -> WaferGeometry:
        """The die grid."""
        pitch = (DIE[1] * self.pixel_um, DIE[0] * self.pixel_um)
        return WaferGeometry(
            pitch_um=pitch, origin_um=centred(pitch), diameter_mm=self.diameter_mm, edge_exclusion_mm=3.0
        )

    @property
    def alignment(self) -> Alignment:
        """How this wafer lies: up to 2 pixels off, turned by up to 0.02 degrees."""
        rng = np.random.default_rng([self.seed, 1])
        x, y = rng.uniform(-2, 2, 2) * self.pixel_um
        pixel = (self.pixel_um, self.pixel_um)
        return Alignment(pixel_um=pixel, center_um=(float(x), float(y)), angle_deg=float(rng.uniform(-0.02, 0.02)))

    @property
    def views(self) -> tuple[FrameView, ...]:
        """The frames that cover the wafer, row by row from the top, back and forth as a stage moves."""
        step = (self.frame_px - self.overlap_px) * self.pixel_um
        count = math.ceil((self.geometry.diameter_um - self.overlap_px * self.pixel_um) / step)
        places = [(i - (count - 1) / 2) * step for i in range(count)]
        views: list[FrameView] = []
        for row, y in enumerate(reversed(places)):
            for x in places if row % 2 == 0 else reversed(places):
                name = f"frame{len(views):03d}"
                side = self.frame_px
                views.append(FrameView(frame=name, stage_um=(x, y), height=side, width=side, alignment=self.alignment))
        return tuple(views)

    @property
    def planted(self) -> tuple[Planted, ...]:
        """The defects, where they really are.

        Raises:
            SettingError: the wafer has no room for so many, each a die and a half from the next.
        """
        rng = np.random.default_rng([self.seed, 2])
        reach = self.geometry.usable_radius_um - 2 * max(self.geometry.pitch_um)
        apart = 1.5 * max(self.geometry.pitch_um)
        found: list[Planted] = []
        for _ in range(_TRIES):
            if len(found) == self.defects:
                return tuple(found)
            radius, angle = reach * math.sqrt(rng.random()), rng.uniform(0, 2 * math.pi)
            x, y = radius * math.cos(angle), radius * math.sin(angle)
            kind = KINDS[len(found) % len(KINDS)]
            length = rng.uniform(15, 40) if kind == "scratch" else rng.uniform(1.2, 2.5)
            sign = 1 if kind == "particle" else -1
            planted = Planted(
                kind, x, y, length * self.pixel_um, rng.uniform(0, math.pi), sign * rng.uniform(0.25, 0.5)
            )
            if all(math.hypot(x - other.x_um, y - other.y_um) > apart for other in found):
                found.append(planted)
        allowed = f"at most about {len(found)} on a wafer of {self.diameter_mm:g} mm"
        raise SettingError.of("SyntheticWafer", "defects", allowed, self.defects)

    def frames(self) -> Iterator[tuple[FrameView, NDArray[np.uint8]]]:
        """Yields what the camera sees: view and (H, W) uint8 frame."""
        tones = np.random.default_rng([self.seed, 3]).normal(0, 0.012, (64, 64)).astype(np.float32)
        planted = self.planted
        for number, view in enumerate(self.views):
            yield view, self._photograph(number, view, tones, planted)

    def _photograph(
        self, number: int, view: FrameView, tones: NDArray[np.float32], defects: tuple[Planted, ...]
    ) -> NDArray[np.uint8]:
        rows = np.arange(view.height, dtype=np.float64)[:, None] + 0.5
        columns = np.arange(view.width, dtype=np.float64)[None] + 0.5
        (x0, y0), (x_row, y_row), (x_col, y_col) = view.to_wafer(0, 0), view.to_wafer(1, 0), view.to_wafer(0, 1)
        x = x0 + rows * (x_row - x0) + columns * (x_col - x0)
        y = y0 + rows * (y_row - y0) + columns * (y_col - y0)
        origin, pixel = self.geometry.origin_um, self.pixel_um
        u = ((x - origin[0]) / pixel - 0.5 + _AHEAD * DIE[1]).astype(np.float32)  # the middle of pixel 0 is 0 there
        v = (_AHEAD * DIE[0] - (y - origin[1]) / pixel - 0.5).astype(np.float32)
        albedo = wafer_albedo(u, v, tones, None)
        for planted in defects:
            _draw(albedo, view, planted, pixel)
        beyond = np.clip((np.hypot(x, y) - self.geometry.radius_um) / pixel + 0.5, 0, 1).astype(np.float32)
        albedo += beyond * (_OUTSIDE - albedo)
        rng = np.random.default_rng([self.seed, 4, number])
        far = (rows / view.height - 0.5) ** 2 + (columns / view.width - 0.5) ** 2
        light = (1 + rng.normal(0, 0.008) - 0.10 * far).astype(np.float32)
        noise = rng.standard_normal(albedo.shape, dtype=np.float32) * np.float32(0.011)
        seen: NDArray[np.uint8] = np.rint(np.clip(albedo * light + noise, 0, 1) * 255).astype(np.uint8)
        return seen


def _draw(albedo: NDArray[np.float32], view: FrameView, planted: Planted, pixel: float) -> None:
    """Adds a defect to the part of a frame that shows it."""
    row, column = view.to_frame(planted.x_um, planted.y_um)
    size = planted.length_um / pixel
    reach = math.ceil((size / 2 + 8) if planted.kind == "scratch" else 6 * size)
    top, left = max(0, int(row) - reach), max(0, int(column) - reach)
    bottom, right = min(view.height, int(row) + reach + 1), min(view.width, int(column) + reach + 1)
    if top >= bottom or left >= right:
        return
    dy = np.arange(top, bottom)[:, None] + 0.5 - row
    dx = np.arange(left, right)[None] + 0.5 - column
    albedo[top:bottom, left:right] += planted.contrast * _profile(dy, dx, planted, size)


def _profile(dy: NDArray[Any], dx: NDArray[Any], planted: Planted, size: float) -> NDArray[np.float32]:
    """Share of the contrast at offsets in pixels from the middle, 0 to 1."""
    if planted.kind == "scratch":
        along = np.cos(planted.angle) * dx - np.sin(planted.angle) * dy
        across = np.sin(planted.angle) * dx + np.cos(planted.angle) * dy
        past = np.clip(np.abs(along) - size / 2, 0, None)
        squared, spread = across**2 + past**2, 0.8
    else:
        squared, spread = dx**2 + dy**2, size
    profile: NDArray[np.float32] = np.exp(-squared / (2 * spread**2)).astype(np.float32)
    return profile
