"""What `anomaly inspect init` chooses by looking at good images, and the reasons it gives."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from anomaly.errors import AnomalyError, DatasetError, ImageFileError, SettingError
from anomaly.fitting import Plan
from anomaly.progress import Progress
from inspection.geometry.errors import NotRegisteredError
from inspection.geometry.registration import Golden, Registered
from inspection.geometry.tiling import Tiling

if TYPE_CHECKING:
    from anomaly.images import ImageInfo
    from anomaly.input_spec import InputSpec

TILE = 256
_OVERLAP = 4  # neighbouring tiles share this part of their side
_SHRUNK = 4.0  # a frame that would be shrunk further than this, along each side, is tiled
_SEARCH_DEG = 15.0
_ROOM = 1.5  # limits of the registration lie this far beyond what good parts need
_LEAST_ANGLE, _LEAST_SHIFT_PX, _MOST_RESIDUAL = 1.0, 5.0, 0.95
_REGISTERED = 100  # good images by which the limits are chosen


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What a user wants of a recipe.

    Attributes:
        pixel_size_mm: side of a pixel on the part, millimetres.
        tile: side of a tile in pixels; 0 for no tiles; None to choose by the size of the frames.
        golden: image to register parts to; None for no registration.
        value_range: lowest and highest raw value; None for the full range of the files' depth.
        plan: hold-out, groups and rates.
    """

    pixel_size_mm: float
    tile: int | None = None
    golden: Path | None = None
    value_range: tuple[float, float] | None = None
    plan: Plan = field(default_factory=Plan)

    def __post_init__(self) -> None:
        """Refuses values that are not allowed, before anything is fitted."""
        if not (math.isfinite(self.pixel_size_mm) and self.pixel_size_mm > 0):
            raise SettingError.of("recipe", "pixel_size_mm", "above 0", self.pixel_size_mm)
        if self.tile and (not 64 <= self.tile <= 1024 or self.tile % 32):
            raise SettingError.of("recipe", "tile", "0, or a multiple of 32 from 64 to 1024", self.tile)


class Size(NamedTuple):
    """What the model sees at once.

    Attributes:
        input: frames or tiles, and the canvas that they come on.
        tiling: how frames are cut; None for not at all.
        why: lines for people.
    """

    input: "InputSpec"
    tiling: Tiling | None
    why: list[str]


def choose_size(paths: Sequence[Path], infos: Sequence["ImageInfo"], wishes: Wishes) -> Size:
    """Chooses between whole frames and tiles.

    Raises:
        DatasetError: the files mix depths or channels, or a frame is smaller than a tile.
        SettingError: float32 files, and no value range was given.
    """
    from anomaly.images import infer_input
    from anomaly.images.input_from_files import AUTO_AREA

    median = float(np.median([info.height * info.width for info in infos]))
    shrunk, tile = math.sqrt(median / AUTO_AREA), wishes.tile
    if tile is None:
        tile = TILE if shrunk > _SHRUNK else 0
    if not tile:
        # parts that are registered have the shape of the golden image
        spec = infer_input([wishes.golden] if wishes.golden else paths, value_range=wishes.value_range)
        height, width = spec.size
        why = f"Whole frames, scored at {height} x {width} px (H x W)"
        if shrunk > 1:
            why += f": {shrunk:.1f} pixels along each side become one, so defects smaller than about "
            why += f"{4 * shrunk:.0f} px are hard to see. --tile {TILE} would score every pixel, in "
            why += f"{_count(infos, TILE)} tiles a frame"
        return Size(spec, None, [f"{why}."])
    smallest = min(min(info.height, info.width) for info in infos)
    if smallest < tile:
        raise DatasetError(f"a frame has a side of {smallest} px, too short for tiles of {tile} px: choose --tile 0")
    spec = infer_input(paths, (tile, tile), value_range=wishes.value_range)
    asked = "as asked" if wishes.tile else f"whole frames would be shrunk {shrunk:.1f} times along each side"
    why = f"{_count(infos, tile)} tiles of {tile} px a frame ({asked}), at full resolution; the model learned from "
    return Size(spec, Tiling(tile, tile // _OVERLAP), [why + "tiles cut anywhere in the parts."])


class Placed(NamedTuple):
    """How good parts lie over the golden image.

    Attributes:
        golden: the golden image, with limits that good parts keep.
        why: lines for people.
    """

    golden: Golden
    why: list[str]

    def limits(self, pixel_size_mm: float) -> dict[str, Any]:
        """Returns what a recipe says of the limits."""
        return {
            "motion": self.golden.motion,
            "max_shift_mm": self.golden.max_shift_px * pixel_size_mm,
            "max_angle_deg": self.golden.max_angle_deg,
            "max_residual": self.golden.max_residual,
        }


def choose_registration(paths: Sequence[Path], golden: Path, progress: Progress) -> Placed:
    """Registers good images to the golden one, and chooses limits that leave them some room.

    Raises:
        DatasetError: fewer than half of them can be registered.
        ImageFileError: the golden image cannot be read.
    """
    from anomaly.images import read_image

    image = read_image(golden)
    free = Golden(image, "euclidean", math.inf, _SEARCH_DEG, _MOST_RESIDUAL)
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(_REGISTERED, len(paths))).astype(int))]
    advance = progress("registering good parts", len(chosen))
    found: list[Registered] = []
    failed: list[str] = []
    for path in chosen:
        try:
            found.append(free.register(read_image(path)))
        except (NotRegisteredError, ImageFileError) as error:
            failed.append(f"{path.name}: {error}")
        advance(1)
    if 2 * len(failed) > len(chosen):
        raise DatasetError(
            f"{len(failed)} of {len(chosen)} good images cannot be laid over {golden.name}, e.g. {failed[0]}: choose "
            "another golden image, or do without"
        )
    shift, angle, residual = np.max([[r.shift_px, abs(r.angle_deg), r.residual] for r in found], axis=0)
    limits = (
        math.ceil(max(_ROOM * shift, _LEAST_SHIFT_PX)),
        round(min(max(_ROOM * angle, _LEAST_ANGLE), 45.0), 2),
        round(min(max(_ROOM * residual, 0.05), _MOST_RESIDUAL), 3),
    )
    why = f"{len(found)} of {len(chosen)} good images were laid over {golden.name}: at most {shift:.1f} px off, "
    why += f"{angle:.2f} degrees, residual {residual:.3f}. The limits are {_ROOM} times that; what is beyond is "
    return Placed(Golden(image, "euclidean", *limits), [why + "NOT_REGISTERED, which no rate below counts."])


def readable(paths: Sequence[Path]) -> "list[ImageInfo]":
    """Returns the headers of the files that have one; the others surface as failures when they are read.

    Raises:
        DatasetError: no file has one.
    """
    from anomaly.images import image_info

    infos, errors = [], []
    for path in paths:
        try:
            infos.append(image_info(path))
        except AnomalyError as error:
            errors.append(error)
    if not infos:
        raise DatasetError(f"none of {len(paths)} image file(s) is readable, e.g. {errors[0]}")
    return infos


def _count(infos: Sequence["ImageInfo"], tile: int) -> int:
    height, width = (int(side) for side in np.median([info[:2] for info in infos], axis=0))
    tiling = Tiling(tile, tile // _OVERLAP)
    return len(list(tiling.tiles(max(height, tile), max(width, tile))))
