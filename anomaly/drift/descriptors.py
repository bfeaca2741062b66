"""Image-level numbers that a light, a lens or a camera moves, while a local defect hardly does.

Every number is a median, a quantile or a trimmed mean over the image: what covers less than a tenth of it, as defects
do, is cut off or carries no weight of its own. Contrast, sharpness and the slopes of the light are ratios, so that a
dimmer lamp moves the brightness and not all of them.
"""

import hashlib
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Float32, Float64, Shaped
from torch import Tensor

from anomaly.backbones import Backbone
from anomaly.detector import Scorer
from anomaly.detectors.embedding import feature_maps
from anomaly.drift.reference import SIDE, Thumbnail
from anomaly.input_spec import Canvas

GLOBAL = ("brightness", "contrast", "sharpness", "light across", "light down")
COLOUR = "colour"
SHIFT = ("shift across", "shift down")
DIRECTIONS = 16
"""Random directions on which the median patch feature of an image is kept."""
EMBEDDING = tuple(f"embedding {k}" for k in range(DIRECTIONS))
TRIM = 0.1
"""Share of the pixels that is cut off at an end."""
_COARSE = 4
_FLOOR = 1e-6
_DIGITS = 6

Grey = Float32[np.ndarray, "h w"]


def names(scorer: Scorer) -> tuple[str, ...]:
    """Returns the names of the numbers that `describe` gives for the images of a scorer."""
    colour = (COLOUR,) if scorer.input.channels > 1 else ()
    return GLOBAL + colour + (EMBEDDING if _backbone(scorer) is not None else ()) + SHIFT


class Description(NamedTuple):
    """What is kept of one raw frame.

    Attributes:
        values: the numbers that `names` lists, but for the shift.
        thumbnail: the frame as it lies on the canvas: 64 x 64 grey, stretched to its own 0.5 to 99.5 percentiles.
    """

    values: tuple[float, ...]
    thumbnail: Thumbnail

    def row(self, template: Thumbnail) -> tuple[float, ...]:
        """Returns all numbers that `names` lists.

        `shift ...` is the displacement against the template by phase correlation, as a share of the side. It means
        something where parts lie alike, and is noise (of one kind for all images) where they do not.
        """
        return (*self.values, *(_rounded(value) for value in _shift(self.thumbnail, template)))


def describe(scorer: Scorer, image: Shaped[Tensor, "c h w"]) -> Description:
    """Describes one raw frame.

    All numbers are taken on the canvas, without its padding, and rounded to six digits, so that those that went
    through a model file compare with fresh ones. `brightness`: trimmed mean, 0 to 1 of the value range. `contrast`:
    distance of the 10 % and the 90 % quantile over the brightness. `sharpness`: log2 of the trimmed mean difference of
    neighbours over that of pixels 4 apart. `light ...`: trimmed mean of the right (lower) half minus that of the left
    (upper), over the brightness. `colour`: trimmed mean of the first channel minus that of the last, over the
    brightness. `embedding ...`: median patch feature of the scorer's own backbone in fixed random directions.

    Args:
        scorer: a fitted scorer; its input decides canvas and range. Scorers without a backbone have no embedding.
        image: (C, h, w) raw frame.

    Raises:
        InputError: the frame does not fit the scorer's input.
    """
    with torch.inference_mode():
        canvas = scorer.input.canvas(image[None])
        height, width = canvas.sizes[0]
        pixels = canvas.pixels[0, :, :height, :width].cpu().numpy()
        found = _global(pixels)
        backbone = _backbone(scorer)
        if backbone is not None:
            found += _embedded(backbone, canvas).tolist()
    return Description(tuple(map(_rounded, found)), _small(pixels.mean(axis=0)))


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _backbone(scorer: Scorer) -> Backbone | None:
    found = getattr(scorer, "backbone", None)
    return found if isinstance(found, Backbone) else None


def _global(pixels: Float32[np.ndarray, "c h w"]) -> list[float]:
    grey = pixels.mean(axis=0)
    brightness = _trimmed(grey) + _FLOOR
    low, high = np.quantile(grey, (TRIM, 1 - TRIM))
    fine = _lower(np.abs(np.diff(grey, axis=0))) + _lower(np.abs(np.diff(grey, axis=1)))
    coarse = _lower(_apart(grey)) + _lower(_apart(grey.T))
    middle_row, middle_column = grey.shape[0] // 2, grey.shape[1] // 2
    down = _trimmed(grey[middle_row:]) - _trimmed(grey[:middle_row])
    across = _trimmed(grey[:, middle_column:]) - _trimmed(grey[:, :middle_column])
    found = [brightness, (high - low) / brightness, np.log2((fine + _FLOOR) / (coarse + _FLOOR))]
    found += [across / brightness, down / brightness]
    if len(pixels) > 1:
        found.append((_trimmed(pixels[0]) - _trimmed(pixels[-1])) / brightness)
    return [float(value) for value in found]


def _apart(grey: Grey) -> Float32[np.ndarray, "_ _"]:
    return np.asarray(np.abs(grey[_COARSE:] - grey[:-_COARSE]))


def _trimmed(values: Float32[np.ndarray, "..."]) -> float:
    """Mean between the 10 % and the 90 % quantile."""
    low, high = np.quantile(values, (TRIM, 1 - TRIM))
    return float(values[(values >= low) & (values <= high)].mean(dtype=np.float64))


def _lower(values: Float32[np.ndarray, "..."]) -> float:
    """Mean of what does not exceed the 90 % quantile."""
    return float(values[values <= np.quantile(values, 1 - TRIM)].mean(dtype=np.float64))


def _small(grey: Grey) -> Thumbnail:
    low, high = np.quantile(grey, (0.005, 0.995))
    shown = np.clip((grey - low) / max(high - low, _FLOOR), 0, 1) * 255
    small = cv2.resize(shown.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    return np.asarray(small.round(), dtype=np.uint8)


def _shift(small: Thumbnail, template: Thumbnail) -> tuple[float, float]:
    """Displacement across and down against the template, as a share of the side.

    Source: Kuglin, Hines, The phase correlation image alignment method, 1975.
    """
    window = cv2.createHanningWindow((SIDE, SIDE), cv2.CV_32F)
    (across, down), _ = cv2.phaseCorrelate(template.astype(np.float32), small.astype(np.float32), window)
    return float(across) / SIDE, float(down) / SIDE


def _embedded(backbone: Backbone, canvas: Canvas) -> Float64[np.ndarray, " _"]:
    medians = []
    for features in feature_maps(backbone, canvas):
        inside = canvas.inside((features.shape[2], features.shape[3]))[0]
        medians.append(features[0][:, inside].median(dim=1).values.double())
    median = torch.cat(medians).cpu().numpy()
    return np.asarray(median @ _directions(len(median)))


def _directions(dims: int) -> Float64[np.ndarray, "_ _"]:
    """Signs that are the same on every machine and with every version of a library, scaled to keep lengths.

    Source: Achlioptas, Database-friendly random projections, 2003.
    """
    content = np.frombuffer(hashlib.shake_256(b"anomaly drift").digest(dims * DIRECTIONS // 8), np.uint8)
    signs = np.unpackbits(content).astype(np.float64).reshape(dims, DIRECTIONS) * 2 - 1
    return np.asarray(signs / np.sqrt(DIRECTIONS))
