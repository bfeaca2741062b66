"""Frames as a viewer would show them: the window of the object, letters of orientation, square pixels."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from explain.twin import Twin
from explain.view import View
from medical.objects import Instance, Volume
from medical.results.layers import source_frames
from medical.results.picture import Edges, edges_of, has_window, render
from medical.results.settings import ResultError
from medical.results.sources import read_header

NO_LETTERS = "The object does not say how the patient lies in the picture, so no letters are shown."
NO_WINDOW = "The object states no display window: its values are shown from their 0.5 to their 99.5 percentile."
OTHERS = "The normal content comes from images of other patients and is not shown."
DIFFERENCES = (
    "The maps of integrated gradients and GradientSHAP are gradients times the difference from that content, so its "
    "outlines may show in them."
)
"""Note on methods whose maps are not free of the content that is not shown."""
ON_THE_GRID = ("R", "L", "A", "P")
"""Letters of a volume on the grid of a model: rows run to posterior, columns to left."""
KNOTS = 256

Picture = UInt8[np.ndarray, "_ _ 3"]


@dataclass(frozen=True, eq=False)
class Shades:
    """Which grey each value is shown with, learned from a frame and its picture; the window, whatever made it.

    Attributes:
        values: (k,) ascending.
        greys: (k,) 0 to 255.
    """

    values: Float64[np.ndarray, " k"]
    greys: Float64[np.ndarray, " k"]

    @classmethod
    def of(cls, frame: Float32[np.ndarray, "h w"], picture: Picture) -> "Shades":
        """Compares a frame with its picture, pixel by pixel; medians of `KNOTS` groups of equal size."""
        values, greys = frame.ravel(), picture.mean(axis=2).ravel()
        groups = np.array_split(np.argsort(values, kind="stable"), min(KNOTS, values.size))
        pairs = {float(np.median(values[group])): float(np.median(greys[group])) for group in groups}
        return cls(np.array(list(pairs)), np.array(list(pairs.values())))

    def __call__(self, frame: Float[np.ndarray, "h w"]) -> Picture:
        """Returns the picture of another frame with values of the same kind."""
        grey = np.interp(frame, self.values, self.greys).round().astype(np.uint8)
        return np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2))


@dataclass(frozen=True, eq=False)
class Drawn:
    """A frame, drawn.

    Attributes:
        picture: RGB, one pixel per pixel of the frame.
        shades: how values became grey.
        edges: letters.
        aspect: height of a pixel over its width.
        notes: what has to be said of the picture.
        place: where it is found in a viewer, e.g. "instance number 12"; empty where nothing says so.
    """

    picture: Picture
    shades: Shades
    edges: Edges
    aspect: float
    notes: tuple[str, ...] = field(default=())
    place: str = ""

    def view(self, words: str, twin: Twin) -> View:
        """Returns how a part is shown: without its twin where that is made of images of other patients."""
        others = bool(twin.sources)
        beside = None if others else self._square(self.shades(twin.image[0].numpy()))
        notes = (*self.notes, OTHERS) if others else self.notes
        return View(words, self._square(self.picture), beside, edges=self.edges, notes=notes)

    def _square(self, picture: Picture) -> Picture:
        """Stretches the shorter side of the pixels, so that they become square."""
        if abs(self.aspect - 1) < 0.01:
            return picture
        height, width = picture.shape[:2]
        size = (width, round(height * self.aspect)) if self.aspect > 1 else (round(width / self.aspect), height)
        return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)


def draw_image(instance: Instance, frame: int, values: Float32[np.ndarray, "h w"]) -> Drawn:
    """Draws one frame of an object.

    Args:
        instance: the object.
        frame: 1-based.
        values: of that frame, not windowed.

    Raises:
        ResultError: the object cannot be read any more.
        AnomalyError: the frame cannot be decoded any more.
    """
    return _draw(instance, _header(instance), frame, values)


def draw_slice(volume: Volume, index: int, values: Float32[np.ndarray, "h w"]) -> Drawn:
    """Draws one slice of a volume from the object and frame that it was read from.

    Args:
        volume: with its sources.
        index: of the slice, from 0.
        values: of that slice, not windowed.

    Raises:
        ResultError: an object cannot be read any more, or lies elsewhere than the slice.
        AnomalyError: the frame cannot be decoded any more.
    """
    headers = [_header(instance) for instance in volume.instances]
    header, frame = source_frames(volume.affine, headers)[index]
    instance = next(one for one in volume.instances if one.uid == str(header.SOPInstanceUID))
    return _draw(instance, header, frame, values)


def draw_on_grid(
    volume: Volume, scaled: Float32[np.ndarray, "d h w"], placed: Float32[np.ndarray, "h w"], voxel: Sequence[float]
) -> Drawn:
    """Draws a slice of a volume that was resampled for the model, with the window of the middle slice of its source.

    Args:
        volume: the source.
        scaled: its values in the unit of the model, not windowed.
        placed: the slice on the grid of the model.
        voxel: mm along (D, H, W) of that grid.

    Raises:
        ResultError: as `draw_slice`.
        AnomalyError: as `draw_slice`.
    """
    middle = len(scaled) // 2
    source = draw_slice(volume, middle, scaled[middle])
    notes = tuple(note for note in source.notes if note != NO_LETTERS)
    resampled = f"The volume is shown as the model sees it: resampled to voxels of {voxel[1]:g} x {voxel[2]:g} mm."
    return Drawn(source.shades(placed), source.shades, ON_THE_GRID, voxel[1] / voxel[2], (*notes, resampled))


def _draw(instance: Instance, header: Any, frame: int, values: Float32[np.ndarray, "h w"]) -> Drawn:
    picture = render(instance.path, frame)
    edges, aspect = edges_of(header, frame)
    notes = [] if any(edges) else [NO_LETTERS]
    notes += [] if has_window(header) else [NO_WINDOW]
    number = header.get("InstanceNumber")
    place = f"frame {frame}" if instance.frames > 1 else f"instance number {int(number)}" if number else ""
    return Drawn(picture, Shades.of(values, picture), edges, aspect, tuple(notes), place)


def _header(instance: Instance) -> Any:
    header = read_header(instance.path)
    if header is None or str(header.get("SOPInstanceUID")) != instance.uid:
        raise ResultError("an object is gone, cannot be read or was exchanged since its analysis; analyse it again")
    return header
