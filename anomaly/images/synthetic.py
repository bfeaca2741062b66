"""Synthetic parts: seedable images of normal and defective surfaces with exact masks, and whole data sets of them."""

import csv
from pathlib import Path
from zlib import crc32

import cv2
import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError, SettingError, UnknownNameError
from anomaly.images.header import Pixels
from anomaly.images.synthetic_defects import DEFECTS
from anomaly.images.synthetic_surfaces import SURFACES, Field, Surface
from anomaly.progress import Progress, silent

LOT = 25
"""Parts of one lot: this many consecutive seeds share exposure, light and tint, as parts of one run do."""

SERIALS = LOT * 10**6
"""Parts that one seed of a data set can number; part `serial` of it is drawn with seed * SERIALS + serial."""

VISIBLE = 1.5 / 255
"""Smallest change, as a fraction of full range, that counts as part of a defect; fainter tails are taken back."""

_GAMMAS = {  # per colour channel: what turns brightness into the colour of the material
    "brushed_metal": (1.02, 1.00, 0.96),
    "cast": (0.98, 1.02, 1.08),
    "woven_fabric": (1.35, 1.10, 0.80),
    "wafer": (1.15, 0.95, 0.70),
    "wafer_edge": (1.15, 0.95, 0.70),
}


def normal(
    surface: str,
    size: tuple[int, int],
    seed: int,
    dtype: str = "uint8",
    channels: int = 1,
) -> Pixels:
    """Draws a normal part.

    Parts differ in phase, small rotation, texture and sensor noise; exposure, light and tint differ from lot to lot.

    Args:
        surface: name in `SURFACES`.
        size: height and width in pixels, 64 or more each.
        seed: number of the part; the same seed gives the same image, `LOT` consecutive ones form a lot.
        dtype: "uint8" (0 to 255) or "uint16" (0 to 65535).
        channels: 1 grey, 3 RGB.

    Returns:
        (H, W, channels) of `dtype`.

    Raises:
        UnknownNameError: no such surface.
        SettingError: a size, seed, dtype or number of channels that is not allowed.
    """
    _check(surface, size, seed, dtype, channels)
    drawn = _drawn(surface, size, seed)
    return _quantised(_photographed(surface, drawn.albedo, seed, channels), dtype)


def defective(
    surface: str,
    defect: str,
    size: tuple[int, int],
    seed: int,
    dtype: str = "uint8",
    channels: int = 1,
) -> tuple[Pixels, NDArray[np.bool_]]:
    """Draws the part that `normal` draws for the same arguments, with a defect.

    Args:
        surface: name in `SURFACES`.
        defect: name in `DEFECTS` that this surface can have.
        size: height and width in pixels, 64 or more each.
        seed: number of the part.
        dtype: "uint8" (0 to 255) or "uint16" (0 to 65535).
        channels: 1 grey, 3 RGB.

    Returns:
        (H, W, channels) of `dtype`, and the (H, W) bool mask of exactly the pixels that differ from `normal`. None of
        them differs by less than about `VISIBLE`.

    Raises:
        UnknownNameError: no such surface or defect.
        SettingError: the surface cannot have this defect, or as `normal`.
    """
    _check(surface, size, seed, dtype, channels)
    if defect not in DEFECTS:
        raise UnknownNameError.among("defect", defect, DEFECTS)
    if surface not in DEFECTS[defect].surfaces:
        allowed = f"one that {surface} can have ({', '.join(defects_of(surface))})"
        raise SettingError.of("defective", "defect", allowed, defect)
    drawn = _drawn(surface, size, seed)
    changed = np.clip(DEFECTS[defect].apply(drawn, _rng(seed, surface, defect)), 0.02, 0.98)
    without = _photographed(surface, drawn.albedo, seed, channels)
    image = _photographed(surface, changed, seed, channels)
    faint = np.abs(image - without).max(axis=2, keepdims=True) < VISIBLE
    stored, original = _quantised(np.where(faint, without, image), dtype), _quantised(without, dtype)
    return stored, (stored != original).any(axis=2)


def defects_of(surface: str) -> tuple[str, ...]:
    """Returns the names of the defects that a surface can have."""
    return tuple(name for name, defect in DEFECTS.items() if surface in defect.surfaces)


def write_dataset(
    root: Path,
    surface: str,
    train: int,
    good: int,
    defective: int,
    size: tuple[int, int],
    seed: int,
    dtype: str = "uint8",
    channels: int = 1,
    progress: Progress = silent,
) -> None:
    """Writes a data set in the layout of `find_dataset`: PNG images, masks, and manifest.csv (file, label, kind, lot).

    File names are serial numbers. Training and test parts come from different lots; within the test lots good and
    defective parts are mixed, and the kinds of defect take turns.

    Args:
        root: folder to create; it must not hold anything yet.
        surface: name in `SURFACES`.
        train: number of normal images to learn from.
        good: number of normal test images.
        defective: number of defective test images.
        size: height and width in pixels.
        seed: seed of the whole set.
        dtype: "uint8" or "uint16".
        channels: 1 grey, 3 RGB.
        progress: is told what is being done.

    Raises:
        DatasetError: `root` is not empty.
        UnknownNameError: no such surface.
        SettingError: as `normal`.
    """
    _check(surface, size, seed, dtype, channels)
    if root.exists() and any(root.iterdir()):
        raise DatasetError(f"{root} is not empty; name a folder that does not exist yet")
    kinds = defects_of(surface)
    test = ["good"] * good + [kinds[n % len(kinds)] for n in range(defective)]
    np.random.default_rng(seed).shuffle(test)
    first_test = -(-train // LOT) * LOT
    parts = [("train", serial, "good") for serial in range(train)]
    parts += [("test", first_test + n, kind) for n, kind in enumerate(test)]
    advance = progress("generating parts", len(parts))
    rows = []
    for part in parts:
        rows.append(_write_part(root, surface, *part, size, seed, dtype, channels))
        advance(1)
    with (root / "manifest.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("file", "label", "kind", "lot"), *rows])


def _write_part(
    root: Path,
    surface: str,
    split: str,
    serial: int,
    kind: str,
    size: tuple[int, int],
    seed: int,
    dtype: str,
    channels: int,
) -> tuple[str, int, str, str]:
    part_seed = seed * SERIALS + serial
    name = f"{split}/{kind}/{serial:06d}.png"
    if kind == "good":
        _write_png(root / name, normal(surface, size, part_seed, dtype, channels))
    else:
        image, mask = defective(surface, kind, size, part_seed, dtype, channels)
        _write_png(root / name, image)
        _write_png(root / f"ground_truth/{kind}/{serial:06d}_mask.png", mask[..., None] * np.uint8(255))
    return name, int(kind != "good"), kind, f"lot{serial // LOT:03d}"


def _write_png(path: Path, pixels: Pixels) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    _, png = cv2.imencode(".png", pixels[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 1])
    path.write_bytes(png.tobytes())


def _check(surface: str, size: tuple[int, int], seed: int, dtype: str, channels: int) -> None:
    if surface not in SURFACES:
        raise UnknownNameError.among("surface", surface, SURFACES)
    if len(size) != 2 or min(size) < 64:
        raise SettingError.of("synthetic image", "size", "(height, width), 64 or more each", size)
    if seed < 0:
        raise SettingError.of("synthetic image", "seed", "0 or more", seed)
    if dtype not in ("uint8", "uint16"):
        raise SettingError.of("synthetic image", "dtype", "'uint8' or 'uint16'", dtype)
    if channels not in (1, 3):
        raise SettingError.of("synthetic image", "channels", "1 or 3", channels)


def _rng(seed: int, *purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, *(crc32(word.encode()) for word in purpose)])


def _drawn(surface: str, size: tuple[int, int], seed: int) -> Surface:
    return SURFACES[surface](_rng(seed, surface), *size)


def _photographed(surface: str, albedo: Field, seed: int, channels: int) -> NDArray[np.float32]:
    """Returns (H, W, channels) float32, 0 to 1: the part in the light of its lot, as a noisy sensor sees it."""
    lot, part = _rng(seed // LOT, "light"), _rng(seed, "camera")
    height, width = albedo.shape
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    slope_y, slope_x, dome = lot.normal(0, (0.035, 0.035, 0.025)) + part.normal(0, 0.008, 3)
    exposure = 1 + lot.normal(0, 0.03) + part.normal(0, 0.012)
    light = (exposure + slope_y * y + slope_x * x + dome * (1 - x * x - y * y)).astype(np.float32)
    tint = 1 + lot.normal(0, 0.008, 3)
    gammas = _GAMMAS[surface] if channels == 3 else (1.0,)
    noise = part.standard_normal((height, width, channels), dtype=np.float32) * np.float32(0.011)
    bands = [
        albedo if gamma == 1 else np.float32(tint[c]) * albedo ** np.float32(gamma) for c, gamma in enumerate(gammas)
    ]
    image: NDArray[np.float32] = np.stack(bands, axis=2) * light[..., None] + noise
    return image


def _quantised(image: NDArray[np.float32], dtype: str) -> Pixels:
    full = np.float32(np.iinfo(dtype).max)
    stored: Pixels = np.rint(np.clip(image, 0, 1) * full).astype(dtype)
    return stored
