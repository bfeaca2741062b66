"""The image of a summary: one frame as a viewer would show it, and the letters at its edges.

The frame is shown with its own window (PS3.3 C.11.2), photometric interpretation and palette; where no window is
stated, its values are stretched between two percentiles.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from anomaly.errors import AnomalyError
from medical.outcome import Analysed
from medical.results.flagged import frame_number
from medical.results.layers import frames_of, placed, planes_of
from medical.results.sources import UTF8, Sources

PERCENTILES = 0.5, 99.5
OBLIQUE = 0.35
"""A second letter is drawn for a direction whose cosine is larger: about 20 degrees."""
LETTERS = (("L", "R"), ("P", "A"), ("H", "F"))
"""Letters of +x, -x; +y, -y; +z, -z of the patient (PS3.3 C.7.6.1.1.1)."""
OPPOSITE = {"L": "R", "R": "L", "A": "P", "P": "A", "H": "F", "F": "H"}
Edges = tuple[str, str, str, str]
"""Letters at the left, right, upper and lower edge; empty where unknown."""


@dataclass(frozen=True)
class Shown:
    """What a summary shows of an analysed image or volume.

    Attributes:
        picture: (H, W, 3) uint8 RGB.
        plane: (H, W) float32 map of the frame; None where there is none or none may be shown.
        header: of the object that it comes from.
        frame: 1-based frame in a multi-frame object; None for single-frame objects.
        words: e.g. "slice 12 of 24, the middle one".
        edges: letters.
        aspect: height of a pixel over its width.
    """

    picture: UInt8[np.ndarray, "h w 3"]
    plane: Float32[np.ndarray, "h w"] | None
    header: Any
    frame: int | None
    words: str
    edges: Edges
    aspect: float


def shown(analysed: Analysed, sources: Sources, *, with_heatmaps: bool) -> Shown:
    """Chooses and renders a frame: of a volume the middle one; only with heatmaps the one where the map is highest.

    Args:
        analysed: image or volume.
        sources: headers of the study.
        with_heatmaps: whether the choice may depend on the map.

    Raises:
        AnomalyError: the frame cannot be decoded any more.
    """
    headers = sources.of(analysed)
    plane, words = None, ""
    if analysed.affine is None:
        header, frame = headers[0], analysed.frame or 1
        plane = analysed.map if with_heatmaps else None
        if analysed.instances[0].frames > 1:
            words = f"frame {frame} of {analysed.instances[0].frames}"
    else:
        header, frame, plane, words = _slice(analysed, headers, with_heatmaps)
    index = next(i for i, instance in enumerate(analysed.instances) if instance.uid == str(header.SOPInstanceUID))
    edges, aspect = edges_of(header, frame)
    several = frame_number(analysed) is not None or analysed.instances[index].frames > 1
    picture = render(analysed.instances[index].path, frame)
    return Shown(picture, plane, header, frame if several else None, words, edges, aspect)


def _slice(analysed: Analysed, headers: list[Any], with_heatmaps: bool) -> tuple[Any, int, Any, str]:
    if with_heatmaps and analysed.map is not None:
        planes = planes_of(analysed, headers)
        best = max(range(len(planes)), key=lambda i: float(planes[i].values.max()))
        words = f"slice {best + 1} of {len(planes)}, the one least like normal"
        return planes[best].header, planes[best].frame, planes[best].values, words
    frames = frames_of(headers)
    middle = len(frames) // 2
    return frames[middle][0], frames[middle][1], None, f"slice {middle + 1} of {len(frames)}, the middle one"


def render(path: Any, frame: int) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes one frame of a file as a viewer would show it.

    Raises:
        AnomalyError: it cannot be decoded.
    """
    from highdicom import Image
    from pydicom import dcmread

    try:
        dataset = dcmread(path)
        dataset.decode()
        dataset.SpecificCharacterSet = UTF8
        image = Image.from_dataset(dataset, copy=False)
        values = image.get_frame(
            frame,
            apply_real_world_transform=False,
            apply_voi_transform=None,
            voi_output_range=(0.0, 255.0),
            apply_icc_profile=False,
        )
    except Exception as error:  # decoders raise what they like, and their words may hold patient data
        raise AnomalyError(f"a frame cannot be decoded ({type(error).__name__})") from None
    grey: Any = np.asarray(values, np.float32)
    if grey.ndim == 2 and not has_window(dataset):
        low, high = (float(value) for value in np.percentile(grey, PERCENTILES))
        grey = np.asarray((grey - low) * (255 / ((high - low) or 1.0)), np.float32)
    elif grey.ndim == 3 and grey.max(initial=0) > 255:
        grey = grey / 257
    shades = np.clip(grey, 0, 255).round().astype(np.uint8)
    return np.ascontiguousarray(shades if shades.ndim == 3 else np.repeat(shades[..., None], 3, axis=2))


def has_window(dataset: Any) -> bool:
    """Returns whether an object states a window or a VOI LUT (PS3.3 C.11.2)."""
    shared = (dataset.get("SharedFunctionalGroupsSequence") or [{}])[0]
    per_frame = (dataset.get("PerFrameFunctionalGroupsSequence") or [{}])[0]
    top = "WindowCenter" in dataset or "VOILUTSequence" in dataset
    return top or "FrameVOILUTSequence" in shared or "FrameVOILUTSequence" in per_frame


def edges_of(header: Any, frame: int) -> tuple[Edges, float]:
    """Returns the letters of a frame (1-based), and the height of a pixel over its width."""
    if placed(header):
        several = "PerFrameFunctionalGroupsSequence" in header
        _, orientation, distances = frames_of([header])[frame - 1 if several else 0][2]
        right, down = letters(orientation[:3]), letters(orientation[3:])
        return (_opposite(right), right, _opposite(down), down), float(distances[0] / distances[1])
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing") or (1.0, 1.0)
    aspect = float(spacing[0]) / float(spacing[1])
    stated = header.get("PatientOrientation")
    if not stated or isinstance(stated, str) or len(stated) != 2:
        return ("", "", "", ""), aspect
    right, down = (str(value) for value in stated)
    if not set(right + down) <= set(OPPOSITE):
        return ("", "", "", ""), aspect
    return (_opposite(right), right, _opposite(down), down), aspect


def letters(direction: Any) -> str:
    """Returns the letters of a direction in the patient, the strongest first, e.g. "L" or "LP"."""
    order = sorted(range(3), key=lambda axis: -abs(direction[axis]))
    kept = [axis for place, axis in enumerate(order) if place == 0 or abs(direction[axis]) > OBLIQUE]
    return "".join(LETTERS[axis][0 if direction[axis] > 0 else 1] for axis in kept)


def _opposite(word: str) -> str:
    return "".join(OPPOSITE[letter] for letter in word)
