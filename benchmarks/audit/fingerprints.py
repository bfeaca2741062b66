"""What is known of an image without looking for a defect: global numbers, traits of its file, a perceptual hash.

Perceptual hash: signs of the low frequencies of the discrete cosine transform against their median (Zauner,
Implementation and Benchmarking of Perceptual Image Hash Functions, 2010), here 64 bits of 64 x 64 grey pixels: it
survives resizing, compression and changes of brightness and contrast.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError, ImageFileError
from anomaly.progress import Progress, silent
from benchmarks.datasets.arrays import pixels
from benchmarks.datasets.dicom import AGE, PREFIX
from benchmarks.datasets.examples import Example, listed

BITS, THUMB = 64, 32
_SIDE, _LOW = 64, 8
_NAMED = ("Make", "Model", "Software", "Artist", "ImageDescription")
_EXTRAS = ("comment", "dpi", "gamma", "icc_profile", "progressive")
_TIMES = ("DateTimeOriginal", "DateTime")
_TIME_FORMAT = "%Y:%m:%d %H:%M:%S"


class Fingerprint(NamedTuple):
    """What is known of one image.

    Attributes:
        numbers: global numbers; what does not apply to the file is left out.
        traits: properties that are the same or not, as text.
        exact: SHA-256 of shape, dtype and pixels.
        signs: (64,) int8, -1 or 1, the perceptual hash.
        thumb: (32, 32) float32, grey, mean 0 and length 1; all 0 for a flat image.
    """

    numbers: dict[str, float]
    traits: dict[str, str]
    exact: str
    signs: NDArray[np.int8]
    thumb: NDArray[np.float32]


def fingerprints(examples: Sequence[Example], progress: Progress = silent) -> list[Fingerprint]:
    """Reads images and returns what is known of each; all of them or none.

    Memory: about 5 kB per image.

    Raises:
        DatasetError: images cannot be read; lists them.
    """
    step = progress("images", len(examples))
    found: list[Fingerprint] = []
    failures: list[str] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1), thread_name_prefix="audit") as pool:
        for one in pool.map(_fingerprint, examples):
            step(1)
            if isinstance(one, ImageFileError):
                failures.append(str(one))
            else:
                found.append(one)
    if failures:
        raise DatasetError(f"{len(failures)} of {len(examples)} images cannot be read: {listed(failures)}")
    return found


def of_pixels(image: NDArray[Any]) -> Fingerprint:
    """Returns what is known of an image without its file.

    Args:
        image: (H, W, C), any real dtype.
    """
    import cv2

    height, width, channels = image.shape
    weights = np.full(channels, 1 / channels, np.float32)
    grey = (image.reshape(-1, channels).astype(np.float32) @ weights).reshape(height, width)
    low = cv2.dct(cv2.resize(grey, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))[:_LOW, :_LOW].ravel()
    low[0] = 0.0  # brightness
    small = cv2.resize(grey, (THUMB, THUMB), interpolation=cv2.INTER_AREA)
    small = small - small.mean()
    length = float(np.linalg.norm(small))
    numbers = {
        "mean grey": float(grey.mean()),
        "contrast": float(grey.std()),
        "gradient across": float(np.abs(np.diff(grey, axis=1)).mean()) if width > 1 else 0.0,
        "gradient down": float(np.abs(np.diff(grey, axis=0)).mean()) if height > 1 else 0.0,
        "image height": float(height),
        "image width": float(width),
    }
    exact = hashlib.sha256(f"{image.shape}{image.dtype}".encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
    signs = np.where(low > np.median(low[1:]), 1, -1).astype(np.int8)
    size = {"image size": f"{height} x {width} x {channels}"}
    return Fingerprint(numbers, size, exact, signs, small / length if length > 0 else small)


def _fingerprint(example: Example) -> Fingerprint | ImageFileError:
    try:
        found = of_pixels(pixels(example))
    except ImageFileError as error:
        return error
    if example.row is None:
        numbers, traits = of_file(example.path)
        return found._replace(numbers=found.numbers | numbers, traits=found.traits | traits)
    return found


def of_file(path: Path) -> tuple[dict[str, float], dict[str, str]]:
    """Returns numbers and traits of an image file: size, format, compression tables, metadata."""
    from PIL import Image, UnidentifiedImageError
    from PIL.ExifTags import TAGS

    numbers = {"file size": float(path.stat().st_size)}
    try:
        with Image.open(path) as image:
            exif = {TAGS.get(tag, str(tag)): str(value) for tag, value in image.getexif().items()}
            tables = getattr(image, "quantization", None)
            texts = {key: str(value) for key, value in getattr(image, "text", {}).items()}
            traits = {"file format": f"{image.format} {image.mode}"}
            extras = [name for name in _EXTRAS if name in image.info]
    except (UnidentifiedImageError, OSError, ValueError):
        return numbers, {"file format": "unknown"}
    if tables:
        numbers["compression table sum"] = float(sum(sum(table) for table in tables.values()))
        traits["compression table"] = hashlib.sha256(repr(sorted(tables.items())).encode()).hexdigest()[:8]
    for key in [key for key in texts if key.startswith(PREFIX)]:  # what `plain` kept of a DICOM header
        traits[key] = texts.pop(key)
    if AGE in traits:
        numbers[AGE] = float(traits.pop(AGE))
    named = [f"{name}={value}" for name, value in sorted((exif | texts).items()) if name in _NAMED]
    traits["metadata"] = "; ".join([*sorted({*exif, *texts} - set(_NAMED)), *extras, *named]) or "none"
    numbers["metadata entries"] = float(len(exif) + len(texts) + len(extras))
    moment = next((exif[name] for name in _TIMES if name in exif), None)
    if moment and (seconds := _seconds(moment)) is not None:
        numbers["time of the photograph"] = seconds
    return numbers, traits


def _seconds(moment: str) -> float | None:
    try:
        return datetime.strptime(moment, _TIME_FORMAT).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None
