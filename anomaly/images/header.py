"""What every decoder shares: the facts of a header, the limit on pixels, orientation and alpha."""

from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import ImageFileError

MAX_PIXELS = 512 * 1024 * 1024
"""Height times width above which a file is refused before it is decoded: it is broken or a decompression bomb.

Files of more than four channels may have as many values as four channels of this size.
"""

Pixels: TypeAlias = NDArray[Any]
"""(H, W, C) uint8, uint16 or float32."""


class ImageInfo(NamedTuple):
    """What the header of an image file says about the array that `read_image` returns.

    Attributes:
        height: rows in pixels, after the EXIF orientation.
        width: columns in pixels, after the EXIF orientation.
        channels: 1 grey, 3 RGB, or the bands of a TIFF; alpha is not counted.
        dtype: "uint8", "uint16" or "float32".
    """

    height: int
    width: int
    channels: int
    dtype: Literal["uint8", "uint16", "float32"]


def upright_info(info: ImageInfo, orientation: int) -> ImageInfo:
    """Returns `info` as it is after the EXIF `orientation` (1 to 8; anything else counts as 1)."""
    return info._replace(height=info.width, width=info.height) if 5 <= orientation <= 8 else info


def upright(pixels: Pixels, orientation: int) -> Pixels:
    """Returns the (H, W, C) `pixels` turned by the EXIF `orientation` (1 to 8; anything else counts as 1)."""
    if 5 <= orientation <= 8:
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def check_size(path: Path, height: int, width: int, channels: int) -> None:
    """Refuses what no camera delivers.

    Raises:
        ImageFileError: no pixel at all, or more than `MAX_PIXELS`.
    """
    if height < 1 or width < 1:
        raise ImageFileError(path, f"has no pixels ({height} x {width}); remove it or export it again")
    allowed = MAX_PIXELS * 4 // max(4, channels)
    if height * width > allowed:
        raise ImageFileError(
            path,
            f"claims {height} x {width} pixels, more than the {allowed:,} that are allowed; cut it into tiles, "
            "or remove it if it should be smaller: then its header is forged or broken",
        )


def without_alpha(path: Path, pixels: Pixels) -> Pixels:
    """Returns (H, W, C) `pixels` without their last channel, which is alpha and must carry nothing.

    Raises:
        ImageFileError: a pixel is not fully opaque.
    """
    opaque = 1.0 if pixels.dtype.kind == "f" else np.iinfo(pixels.dtype).max
    lowest = pixels[..., -1].min()
    if lowest != opaque:
        raise ImageFileError(
            path,
            f"has transparent pixels (alpha down to {lowest:g}, opaque is {opaque:g}); "
            "put it on the background that is meant and save it without alpha",
        )
    return pixels[..., :-1]
