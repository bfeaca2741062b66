"""PNG, JPEG, BMP and WebP through Pillow; 16-bit PNG colour through imagecodecs, because Pillow cuts it to 8 bit."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from anomaly.errors import ImageFileError
from anomaly.images.header import ImageInfo, Pixels, check_size, upright, upright_info, without_alpha

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

_CHANNELS = {"1": 1, "L": 1, "LA": 1, "I;16": 1, "P": 3, "RGB": 3, "RGBA": 3}
_EXPANDED = {"1": "L", "P": "RGB"}
_WITH_ALPHA = {"1": "LA", "L": "LA", "LA": "LA", "P": "RGBA", "RGB": "RGBA", "RGBA": "RGBA"}
_PNG_END = b"IEND\xaeB`\x82"
_ORIENTATION = 0x0112


def info(path: Path) -> ImageInfo:
    """Returns what the header says; a PNG that holds its EXIF behind its pixels is described as stored.

    Raises:
        ImageFileError: the format or the size is not supported. Broken files raise whatever the decoder raises.
    """
    with _opened(path) as image:
        stored = ImageInfo(image.height, image.width, _CHANNELS[image.mode], "uint16" if _deep(image) else "uint8")
        return upright_info(stored, _orientation(image))


def read(path: Path) -> Pixels:
    """Returns (H, W, C) uint8 or uint16 exactly as stored, upright.

    Raises:
        ImageFileError: the format or the size is not supported. Broken files raise whatever the decoder raises.
    """
    with _opened(path) as image:
        if image.format == "PNG":
            _verify_png(path)
        colour = image.mode != "I;16" or "transparency" in image.info
        pixels = _decode_deep(path) if _deep(image) and colour else _expand(image)
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.shape[-1] in (2, 4):
            pixels = without_alpha(path, pixels)
        image.load()  # an EXIF behind the pixels is known only now
        return upright(pixels, _orientation(image))


@contextmanager
def _opened(path: Path) -> "Iterator[ImageFile]":
    # The plug-ins are called directly: `Image.open` holds a limit on pixels of its own, in a global that is not ours.
    from PIL import BmpImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

    plugins: dict[bytes, Callable[[BinaryIO], Any]] = {
        b"\x89PNG": PngImagePlugin.PngImageFile,
        b"\xff\xd8": JpegImagePlugin.JpegImageFile,
        b"BM": BmpImagePlugin.BmpImageFile,
        b"RIFF": WebPImagePlugin.WebPImageFile,
    }
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        plugin = next((plugin for magic, plugin in plugins.items() if head.startswith(magic)), None)
        if plugin is None:
            raise ImageFileError(path, "is not a PNG, JPEG, BMP, TIFF or WebP image; convert it to one, or remove it")
        with plugin(file) as image:
            check_size(path, image.height, image.width, len(image.getbands()))
            if getattr(image, "n_frames", 1) != 1:
                raise ImageFileError(path, f"is an animation of {image.n_frames} frames; save each as its own file")
            if image.mode not in _CHANNELS:
                raise ImageFileError(path, f"has the colour mode {image.mode}; convert it to grey or RGB")
            yield image


def _deep(image: "ImageFile") -> bool:
    return image.format == "PNG" and ";16" in str(image.tile[0].args)


def _decode_deep(path: Path) -> Pixels:
    from imagecodecs import png_decode

    pixels: Pixels = png_decode(path.read_bytes())
    return pixels


def _expand(image: "ImageFile") -> Pixels:
    modes = _WITH_ALPHA if "transparency" in image.info else _EXPANDED
    return np.array(image.convert(modes.get(image.mode, image.mode)))


def _orientation(image: "ImageFile") -> int:
    # The EXIF is asked for only where the file has one: to look for it, a PNG would decode its pixels.
    return int(image.getexif().get(_ORIENTATION, 1)) if "exif" in image.info else 1


def _verify_png(path: Path) -> None:
    # Decoding alone accepts a file that ends early, and does not look at the checksums.
    from PIL.PngImagePlugin import PngImageFile

    with path.open("rb") as file:
        if _PNG_END not in file.read()[-65536:]:
            raise ImageFileError(path, "is truncated: its end is missing; copy it again from its source, or remove it")
        file.seek(0)
        with PngImageFile(file) as image:
            image.verify()
