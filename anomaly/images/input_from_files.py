"""What input a folder of images suggests: channels, dtype and canvas size from the headers of the files."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np

from anomaly.errors import DatasetError, ImageFileError, SettingError
from anomaly.images.files import image_info
from anomaly.images.header import ImageInfo
from anomaly.input_spec import MAX_SIDE, MIN_SIDE, InputSpec

AUTO_AREA = 256 * 256
"""Pixels of a canvas whose size is chosen automatically."""
_STEP = 32


def infer_input(
    paths: Sequence[Path],
    size: tuple[int, int] | None = None,
    resize: Literal["pad", "stretch"] | None = None,
    value_range: tuple[float, float] | None = None,
) -> InputSpec:
    """Chooses the `InputSpec` for files that a model is to be fitted on, from their headers alone.

    Channels are those of the files; grey and RGB together give RGB. Headers that cannot be read are skipped here: the
    files surface as failures when they are loaded.

    Args:
        paths: the image files.
        size: height and width of the canvas in pixels. By default the median aspect ratio of the files at about
            256 x 256 pixels of area, less where the files are smaller, in multiples of 32.
        resize: "pad" (the default) or "stretch", as in `InputSpec`.
        value_range: lowest and highest raw value; by default the full range of the dtype (0..255, 0..65535).

    Raises:
        DatasetError: no file is readable, or the files mix depths or numbers of channels.
        SettingError: the files are float32 and `value_range` is not given; or a value that `InputSpec` refuses.
    """
    infos = _readable(paths)
    dtypes = {info.dtype: path for path, info in infos.items()}
    if len(dtypes) > 1:
        raise _mixed("dtypes", {str(dtype): path for dtype, path in dtypes.items()})
    channels = {info.channels: path for path, info in infos.items()}
    if len(channels) > 1 and set(channels) != {1, 3}:
        raise _mixed("numbers of channels", {f"{count} channel(s)": path for count, path in channels.items()})
    (dtype,) = dtypes
    if value_range is None:
        if dtype == "float32":
            allowed = "given for float32 files, e.g. (0, 1): the full range of a float says nothing"
            raise SettingError.of("infer_input", "value_range", allowed, value_range)
        value_range = (0.0, float(np.iinfo(dtype).max))
    return InputSpec(
        channels=max(channels),
        dtype=dtype,
        value_range=value_range,
        size=size or _canvas_size(list(infos.values())),
        resize=resize or "pad",
    )


def _readable(paths: Sequence[Path]) -> dict[Path, ImageInfo]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        results = list(pool.map(_info, paths))
    infos = {path: info for path, info in zip(paths, results, strict=True) if isinstance(info, ImageInfo)}
    if not infos:
        reasons = "".join(f"\n  {error}" for error in results[:3])
        raise DatasetError(f"none of {len(paths)} image file(s) is readable; give at least one.{reasons}")
    return infos


def _info(path: Path) -> ImageInfo | ImageFileError:
    try:
        return image_info(path)
    except ImageFileError as error:
        return error


def _mixed(what: str, examples: dict[str, Path]) -> DatasetError:
    listed = "".join(f"\n  {kind}: {path}" for kind, path in sorted(examples.items()))
    return DatasetError(f"the files mix {what}; one model takes one kind. Convert them or fit one model each.{listed}")


def _canvas_size(infos: list[ImageInfo]) -> tuple[int, int]:
    heights, widths = np.array([info[:2] for info in infos], dtype=np.float64).T
    area = min(AUTO_AREA, float(np.median(heights * widths)))
    aspect = float(np.exp(np.median(np.log(heights / widths))))
    return _nearest_step(sqrt(area * aspect)), _nearest_step(sqrt(area / aspect))


def _nearest_step(side: float) -> int:
    return min(MAX_SIDE, max(MIN_SIDE, round(side / _STEP) * _STEP))
