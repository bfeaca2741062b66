"""The risk that a patient's name is part of the picture: what the header says, and marks that look like text.

A header that says nothing is no proof (PS3.3 C.7.6.1.1.5, Burned In Annotation is optional), and neither is the search
for text, which looks for rows of small, flat, high-contrast marks of equal height. Both only ever raise the flag.
"""

from collections.abc import Callable
from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float, Float32
from pydicom.dataset import Dataset

Grey = Float32[np.ndarray, "h w"]

HIGHEST, LOWEST = 60, 5
"""Height of a character in pixels, at most and at least."""
CONTRAST = 0.35
"""Least contrast of a character with what surrounds it, as a share of the range of the picture."""
CHARACTERS = 4
"""So many marks in a row make a line of text."""
CAPTURED = ("7", "7.1", "7.2", "7.3", "7.4", "3.1", "6.1", "6.2")
"""Ends of the SOP Class UIDs of secondary capture and ultrasound, whose pixels come with text as a rule."""
MODALITIES = ("US", "OT", "SC", "ES", "XC", "DOC", "GM", "OP")
SCREENS = ("SCREEN", "SCREEN SAVE", "SCREENSAVE", "SCREENSHOT")


class Risk(StrEnum):
    """Why pixels may show who the patient is."""

    SAID = "BURNED_IN_SAID"
    FACE_SAID = "FEATURES_SAID"
    CAPTURED = "CAPTURED"
    TEXT_FOUND = "TEXT_FOUND"
    NOT_CHECKED = "NOT_CHECKED"


WORDS = {
    Risk.SAID: "the header says that text is burned into the pixels",
    Risk.FACE_SAID: "the header says that the pixels show recognisable features",
    Risk.CAPTURED: "ultrasound, secondary capture or screen shot: such pixels hold text as a rule",
    Risk.TEXT_FOUND: "marks that look like text were found in the pixels",
    Risk.NOT_CHECKED: "the pixels could not be looked at",
}


def said_risks(header: Dataset) -> set[Risk]:
    """Returns the risks that the header tells of."""
    found = set()
    if str(header.get("BurnedInAnnotation", "")).upper() == "YES":
        found.add(Risk.SAID)
    if str(header.get("RecognizableVisualFeatures", "")).upper() == "YES":
        found.add(Risk.FACE_SAID)
    uid = str(header.get("SOPClassUID", "")).removeprefix("1.2.840.10008.5.1.4.1.1.")
    kinds = header.get("ImageType") or []
    screen = any(str(kind).upper() in SCREENS for kind in ([kinds] if isinstance(kinds, str) else kinds))
    if uid in CAPTURED or screen or str(header.get("Modality", "")).upper() in MODALITIES or "ConversionType" in header:
        found.add(Risk.CAPTURED)
    return found


def lines_of_text(values: Float32[np.ndarray, "h w *c"]) -> int:
    """Returns how many rows of marks look like text.

    Args:
        values: a frame in grey, or in colour, in any unit.
    """
    channels = values[..., None] if values.ndim == 2 else values
    return max(_lines(np.ascontiguousarray(channels[..., channel])) for channel in range(channels.shape[-1]))


def _lines(grey: Grey) -> int:
    import cv2

    low, high = float(grey.min()), float(grey.max())
    if not low < high:
        return 0
    scaled = ((grey - low) * (255 / (high - low))).astype(np.uint8)
    kernel = np.ones((2 * (HIGHEST // 4) + 1,) * 2, np.uint8)
    modes: tuple[Callable[..., np.ndarray], ...] = (
        lambda: cv2.morphologyEx(scaled, cv2.MORPH_TOPHAT, kernel),
        lambda: cv2.morphologyEx(scaled, cv2.MORPH_BLACKHAT, kernel),
    )
    return sum(_rows(_characters(mode() > CONTRAST * 255, scaled)) for mode in modes)


def _characters(marks: Bool[np.ndarray, "h w"], scaled: np.ndarray) -> Float[np.ndarray, "n 4"]:
    """Left, right, top, bottom of the marks that have the size, density and flatness of characters."""
    import cv2

    count, labels, stats, _ = cv2.connectedComponentsWithStats(marks.astype(np.uint8), connectivity=8)
    found = []
    for index in range(1, count):
        left, top, width, height, area = (int(value) for value in stats[index])
        if not (LOWEST <= height <= HIGHEST and width <= 1.5 * height and area / (width * height) >= 0.12):
            continue
        inside = labels[top : top + height, left : left + width] == index
        levels = np.bincount(scaled[top : top + height, left : left + width][inside] >> 3, minlength=32)
        if np.convolve(levels, [1, 1]).max() >= 0.4 * area:
            found.append((left, left + width, top, top + height))
    return np.array(found, np.float64).reshape(-1, 4)


def _rows(boxes: Float[np.ndarray, "n 4"]) -> int:
    """Counts chains of neighbours on one base line with like heights."""
    boxes = boxes[np.argsort(boxes[:, 0])]
    chains: list[list[np.ndarray]] = []
    for box in boxes:
        for chain in chains:
            if _follows(chain[-1], box):
                chain.append(box)
                break
        else:
            chains.append([box])
    return sum(len(chain) >= CHARACTERS for chain in chains)


def _follows(last: np.ndarray, box: np.ndarray) -> bool:
    one, other = last[3] - last[2], box[3] - box[2]
    tall = max(one, other)
    near = -0.2 * tall <= box[0] - last[1] <= 1.0 * tall
    return bool(near and abs(box[3] - last[3]) <= 0.25 * tall and min(one, other) >= 0.6 * tall)
