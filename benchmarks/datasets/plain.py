"""Sets whose images are DICOM files, volumes or rows of a table, as ordinary image files in a cache.

Detectors and the audit read image files. A DICOM file becomes a grey PNG of 16 bits with its boxes where they were, a
volume some axial slices with their masks (see `volumes`), a row of a table a PNG. Each is written once; a source that
changes (time, size) is written anew under another name.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import get_ident
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError, ImageFileError
from anomaly.progress import active_bars
from benchmarks.datasets import dicom
from benchmarks.datasets.arrays import pixels
from benchmarks.datasets.examples import ANOMALOUS, NORMAL, TEST, UNKNOWN, Example, listed
from benchmarks.datasets.volumes import Slice, cut, is_volume

_WORKERS = 4


def cache_folder() -> Path:
    """Returns where images are written: below XDG_CACHE_HOME, or .cache of the user."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "anomaly-suite" / "images"


def slices_of(examples: Sequence[Example], limit: int | None = None, folder: Path | None = None) -> list[Example]:
    """Returns the slices of volumes in their place; other examples as they are.

    A slice of a normal volume is normal; one of a volume with a mask is anomalous if the mask marks any of its pixels,
    otherwise normal; all others are unknown. Split and group are those of the volume.

    Args:
        examples: images and volumes.
        limit: volumes at most of the test part, and of the others, evenly spaced; None for all.
        folder: where slices are written; `cache_folder` by default.

    Raises:
        DatasetError: volumes cannot be read; lists them.
    """
    volumes = [example for example in examples if is_volume(example)]
    if not volumes:
        return list(examples)
    if limit is not None:
        from benchmarks.image_sets import spaced  # here, since it loads torch

        tested, others = ([v for v in volumes if (v.split == TEST) is side] for side in (True, False))
        volumes = [*spaced(others, limit), *spaced(tested, limit)]
    place = folder or cache_folder()
    index, cutting = partial(_index, folder=place), partial(_slices, folder=place)
    found = _each(volumes, index, cutting, "volumes cut into slices", _WORKERS)
    return [*(e for e in examples if not is_volume(e)), *(one for slices in found for one in slices)]


def plain(examples: Sequence[Example], folder: Path | None = None, tables: bool = True) -> list[Example]:
    """Returns examples whose files are ordinary images, one for each; those that are already stay as they are.

    Args:
        examples: images, DICOM files and rows of tables; volumes go through `slices_of` first.
        folder: where images are written; `cache_folder` by default.
        tables: whether rows of tables become files; otherwise they stay rows.

    Raises:
        DatasetError: images cannot be read, for DICOM files with the code of the refusal; lists them.
    """
    place, found = folder or cache_folder(), list(examples)
    dicoms = [i for i, example in enumerate(found) if example.path.suffix.lower() in dicom.SUFFIXES]
    if dicoms:
        from medical.reading import PixelReader

        target = partial(_png_of_dicom, folder=place)
        with PixelReader() as reader:
            write = partial(_of_dicom, folder=place, reader=reader)
            written = _each([found[i] for i in dicoms], target, write, "DICOM files written as PNG", _WORKERS)
        for i, example in zip(dicoms, written, strict=True):
            found[i] = example
    rows = [i for i, example in enumerate(found) if tables and example.row is not None]
    target, write = partial(_png_of_row, folder=place), partial(_of_row, folder=place)
    for i, example in zip(rows, _each([found[i] for i in rows], target, write, "rows written as PNG", 1), strict=True):
        found[i] = example
    return found


def _index(example: Example, folder: Path) -> Path:
    return folder / _name(example.path, *example.masks) / "slices.json"


def _slices(example: Example, folder: Path) -> list[Example]:
    mask = next(iter(example.masks), None)
    index = _index(example, folder)
    place = index.parent
    if not index.is_file():
        marked = {one.position: _write_slice(place, one) for one in cut(example.path, mask)}
        _atomically(index, lambda path: path.write_text(json.dumps(marked), encoding="utf-8"))
    return [
        _slice(example, place, int(position), marked)
        for position, marked in json.loads(index.read_text(encoding="utf-8")).items()
    ]


def _slice(example: Example, place: Path, position: int, marked: bool | None) -> Example:
    label, kind = (NORMAL, "good") if example.label == NORMAL else (UNKNOWN, example.kind)
    if example.label == ANOMALOUS and marked is not None:
        label, kind = (ANOMALOUS, example.kind) if marked else (NORMAL, "good")
    masks = (place / f"{position:04}_mask.png",) if marked else ()
    return example._replace(path=place / f"{position:04}.png", label=label, kind=kind, masks=masks)


def _write_slice(place: Path, one: Slice) -> bool | None:
    _write(place / f"{one.position:04}.png", one.pixels)
    if one.marked is None:
        return None
    if one.marked.any():
        _write(place / f"{one.position:04}_mask.png", one.marked.astype(np.uint8) * 255)
    return bool(one.marked.any())


def _png_of_dicom(example: Example, folder: Path) -> Path:
    return folder / f"{_name(example.path)}.png"


def _of_dicom(example: Example, folder: Path, reader: Any) -> Example:
    target = _png_of_dicom(example, folder)
    if not target.is_file():
        picture = dicom.read_dicom(example.path, reader)
        _write(target, picture.pixels, picture.about)
    return example._replace(path=target)


def _png_of_row(example: Example, folder: Path) -> Path:
    return folder / _name(example.path) / f"{example.split}-{example.row:07}.png"


def _of_row(example: Example, folder: Path) -> Example:
    target = _png_of_row(example, folder)
    if not target.is_file():
        image = pixels(example)
        _write(target, image[..., 0] if image.shape[2] == 1 else image)
    return example._replace(path=target, row=None)


def _each(
    examples: Sequence[Example],
    target: Callable[[Example], Path],
    do: Callable[[Example], Any],
    what: str,
    workers: int,
) -> list[Any]:
    """Does it for every example, all or none: in threads and with a bar for those whose target is not there yet."""
    missing = [example for example in examples if not target(example).is_file()]
    failures: list[ImageFileError] = []

    def tried(example: Example) -> ImageFileError | None:
        try:
            do(example)
        except ImageFileError as error:
            return error
        return None

    if missing:
        with active_bars() as progress, ThreadPoolExecutor(min(workers, os.cpu_count() or 1)) as pool:
            step = progress(what, len(missing))
            for error in pool.map(tried, missing):
                failures += [error] if error is not None else []
                step(1)
    if failures:
        words = listed(list(map(str, failures)))
        raise DatasetError(f"{len(failures)} of {len(examples)} files cannot be used: {words}")
    return [do(example) for example in examples]


def _name(*paths: Path) -> str:
    """Returns a name that no other file has, nor this one after a change."""
    states = [(str(path.resolve()), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    stem = paths[0].name.partition(".")[0]
    return f"{stem}-{hashlib.sha256(repr(states).encode()).hexdigest()[:12]}"


def _write(path: Path, image: NDArray[Any], about: dict[str, str] | None = None) -> None:
    from PIL import Image, PngImagePlugin

    texts = PngImagePlugin.PngInfo()
    for name, value in (about or {}).items():
        texts.add_text(name, value)
    _atomically(path, lambda part: Image.fromarray(image).save(part, format="PNG", pnginfo=texts))


def _atomically(path: Path, write: Callable[[Path], Any]) -> None:
    part = path.with_name(f".{path.name}.{os.getpid()}.{get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(part)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise DatasetError(f"{path} cannot be written: {error.strerror or error}; set XDG_CACHE_HOME") from error
