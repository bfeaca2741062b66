"""TIFF through tifffile and imagecodecs: any number of channels, planar or interleaved, compressed or not."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from anomaly.errors import ImageFileError
from anomaly.images.header import ImageInfo, Pixels, check_size, upright, upright_info, without_alpha

if TYPE_CHECKING:
    from tifffile import TiffPage

MAX_CHANNELS = 512
_DTYPES = ("uint8", "uint16", "float32")
_PHOTOMETRICS = ("MINISBLACK", "RGB", "YCBCR")
_ALPHA = ("ASSOCALPHA", "UNASSALPHA")


def info(path: Path) -> ImageInfo:
    """Returns what the header says.

    Raises:
        ImageFileError: the kind or the size is not supported. Broken files raise whatever the decoder raises.
    """
    with _opened(path) as page:
        dtype = cast(Literal["uint8", "uint16", "float32"], str(page.dtype))
        channels = page.samplesperpixel - _has_alpha(page)
        return upright_info(ImageInfo(page.imagelength, page.imagewidth, channels, dtype), _orientation(page))


def read(path: Path) -> Pixels:
    """Returns (H, W, C) uint8, uint16 or float32 exactly as stored, upright.

    Raises:
        ImageFileError: the kind or the size is not supported. Broken files raise whatever the decoder raises.
    """
    with _opened(path) as page:
        _check_complete(path, page)
        pixels: Pixels = page.asarray()
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        elif page.axes == "SYX":
            pixels = pixels.transpose(1, 2, 0)
        if _has_alpha(page):
            pixels = without_alpha(path, pixels)
        return upright(pixels, _orientation(page))


@contextmanager
def _opened(path: Path) -> "Iterator[TiffPage]":
    from tifffile import TiffFile

    with TiffFile(path) as file:
        page: Any = file.pages[0]
        check_size(path, page.imagelength, page.imagewidth, page.samplesperpixel)
        if len(file.pages) > 1 or file.series[0].size != page.size:
            raise ImageFileError(
                path, "holds several pages; save each, or all as channels of one page, as its own file"
            )
        reason = _unsupported(page)
        if reason:
            raise ImageFileError(path, reason)
        yield page


def _unsupported(page: Any) -> str:
    photometric = page.photometric.name
    if photometric not in _PHOTOMETRICS:
        return f"stores its colours as {photometric}; convert it to grey (black is zero) or RGB"
    if str(page.dtype) not in _DTYPES or page.bitspersample < 8:
        kind = f"{page.bitspersample} bit, {page.dtype}"
        return f"has a sample format that is not supported ({kind}); convert it to 8 or 16 bit unsigned, or float32"
    if page.axes not in ("YX", "YXS", "SYX") or page.samplesperpixel > MAX_CHANNELS:
        return f"has the axes {page.axes} {page.shape}; save one image of at most {MAX_CHANNELS} channels"
    return ""


def _check_complete(path: Path, page: Any) -> None:
    # Some decoders fill up what a cut file lacks; an offset of zero means a strip that was never written.
    length = path.stat().st_size
    segments = zip(page.dataoffsets, page.databytecounts, strict=True)
    if any(offset == 0 or count == 0 or offset + count > length for offset, count in segments):
        raise ImageFileError(path, "is truncated: pixel data is missing; copy it again from its source, or remove it")


def _has_alpha(page: Any) -> bool:
    return bool(page.extrasamples) and page.extrasamples[-1].name in _ALPHA


def _orientation(page: Any) -> int:
    return int(page.tags.valueof("Orientation", default=1))
