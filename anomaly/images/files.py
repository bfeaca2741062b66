"""Image files: list them, look at their headers, read them exactly as stored."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from anomaly.errors import DatasetError, ImageFileError
from anomaly.images import raster, tiff
from anomaly.images.header import ImageInfo, Pixels

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
"""Suffixes, in lower case, by which a folder is searched; a file itself is recognised by its content."""

_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def read_image(path: Path) -> Pixels:
    """Reads one image file exactly as stored: no scaling, no loss of depth.

    PNG (1 to 16 bit, grey, RGB, palette), JPEG, BMP, WebP and TIFF (8 and 16 bit, float32, any number of channels,
    planar or interleaved). Below 8 bit the full range becomes 0 to 255; palettes become RGB. The EXIF orientation is
    applied. An alpha channel that is opaque everywhere carries nothing and is dropped.

    Args:
        path: the file; its content decides the format, not its name.

    Returns:
        (H, W, C) uint8 (0 to 255), uint16 (0 to 65535) or float32 (any value), C-contiguous. C is 1 for grey, 3 for
        RGB, or the number of bands of the TIFF.

    Raises:
        ImageFileError: missing, empty, truncated, corrupt, larger than `MAX_PIXELS`, not an image, several pages,
            transparent pixels, CMYK or another kind that is not supported. The reason says what to do.
    """
    with _errors_named(path):
        return tiff.read(path) if _is_tiff(path) else raster.read(path)


def image_info(path: Path) -> ImageInfo:
    """Returns height, width, channels and dtype of what `read_image` would return, from the header alone.

    Raises:
        ImageFileError: as `read_image`, as far as a header shows it.
    """
    with _errors_named(path):
        return tiff.info(path) if _is_tiff(path) else raster.info(path)


def list_images(paths: Sequence[Path]) -> list[Path]:
    """Lists image files, each once.

    Args:
        paths: files, taken as they are, and folders, searched with all their subfolders by `IMAGE_SUFFIXES`. What
            starts with a dot is skipped.

    Returns:
        The files in the order of `paths`; those of a folder in natural order ("2.png" before "10.png").

    Raises:
        DatasetError: a path does not exist, or a folder holds no image.
    """
    found: dict[Path, None] = {}
    for path in paths:
        if not path.exists():
            raise DatasetError(f"{path} does not exist; check the path")
        images = images_below(path) if path.is_dir() else [path]
        if not images:
            raise DatasetError(f"{path} holds no image; expected files with {', '.join(IMAGE_SUFFIXES)}")
        found.update(dict.fromkeys(images))
    return list(found)


def images_below(folder: Path) -> list[Path]:
    """Returns the image files of a folder and its subfolders in natural order; empty if there is none."""
    files = (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and path.is_file()
    )
    return sorted(files, key=_natural)


def _natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    # Every odd piece of the split is a number; numbers compare by value, the rest by text without case.
    pieces = re.split(r"([0-9]+)", str(path).lower())
    return [(int(piece), "") if i % 2 else (0, piece) for i, piece in enumerate(pieces)], str(path)


def _is_tiff(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(4)
    if not head:
        raise ImageFileError(path, "is empty (0 bytes); copy it again from its source, or remove it")
    return head in _TIFF_HEADS


@contextmanager
def _errors_named(path: Path) -> Iterator[None]:
    """Turns whatever a decoder raises on a broken file (anything, in practice) into an error that names the file."""
    try:
        yield
    except ImageFileError:
        raise
    except FileNotFoundError as error:
        raise ImageFileError(path, "does not exist; check the path") from error
    except (PermissionError, IsADirectoryError) as error:
        raise ImageFileError(path, f"cannot be opened ({error.strerror}); check the path and the rights") from error
    except MemoryError as error:
        raise ImageFileError(path, "does not fit into memory; cut it into tiles") from error
    except Exception as error:
        reason = f"is corrupt or truncated ({error}); copy it again from its source, or remove it"
        raise ImageFileError(path, reason) from error
