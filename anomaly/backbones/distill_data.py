"""Photographs, augmented crops and cached teacher targets for the distillation.

Everything random is drawn from ``(seed, index of the crop)``, so a cache that was interrupted goes on where it stopped
and is the same as one that was not.
"""

from __future__ import annotations

import csv
import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from anomaly.errors import DatasetError, SettingError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    U8 = NDArray[np.uint8]

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})
SHORT_SIDE, LONG_SIDE, MIN_SIDE = 400, 800, 200
HELD_OUT_SHARE = 0.02


@dataclass(frozen=True)
class Photograph:
    """One decoded photograph inside the flat cache.

    Attributes:
        sha256: Hash of the original file.
        name: Path relative to the folder; its first part is the source.
        height: Rows in the cache, pixels.
        width: Columns in the cache, pixels.
        offset: First byte in the cache.
        held_out: Whether it is kept for validation.
    """

    sha256: str
    name: str
    height: int
    width: int
    offset: int
    held_out: bool

    @property
    def source(self) -> str:
        """First folder of the name."""
        return self.name.split("/", 1)[0]


@dataclass(frozen=True)
class PhotoStore:
    """Decoded photographs in one memory-mapped file."""

    photographs: tuple[Photograph, ...]
    pixels: U8

    def image(self, photograph: Photograph) -> U8:
        """Returns the RGB pixels, (H, W, 3) uint8."""
        size = photograph.height * photograph.width * 3
        flat = self.pixels[photograph.offset : photograph.offset + size]
        return flat.reshape(photograph.height, photograph.width, 3)

    def pick(self, rng: np.random.Generator, *, held_out: bool) -> Photograph:
        """Draws a photograph; sources weigh as the square root of their size, so that none drowns the others."""
        pools = self._pools[held_out]
        weights = np.sqrt([len(pool) for pool in pools])
        pool = pools[int(rng.choice(len(pools), p=weights / weights.sum()))]
        return pool[int(rng.integers(len(pool)))]

    @cached_property
    def _pools(self) -> dict[bool, list[list[Photograph]]]:
        pools: dict[bool, dict[str, list[Photograph]]] = {False: {}, True: {}}
        for photograph in self.photographs:
            pools[photograph.held_out].setdefault(photograph.source, []).append(photograph)
        return {held_out: [parts[source] for source in sorted(parts)] for held_out, parts in pools.items()}


def prepare_photographs(folder: Path, cache: Path) -> PhotoStore:
    """Decodes a folder of photographs once into ``cache`` (``photographs.u8`` and ``photographs.csv``).

    Files that do not decode, are smaller than 200 px or repeat an earlier file are left out. About 2 % are held out,
    chosen by their hash. Larger ones are shrunk to a shorter side of 400 px.

    Args:
        folder: Photographs, searched through all subfolders.
        cache: Folder for the result; an existing result is used as it is.

    Returns:
        The decoded photographs.

    Raises:
        DatasetError: If no photograph is usable, or none is held out.
    """
    table, blob = cache / "photographs.csv", cache / "photographs.u8"
    if not table.exists():
        cache.mkdir(parents=True, exist_ok=True)
        rows: list[Photograph] = []
        with blob.open("wb") as out:
            for digest, name, image in _usable(folder):
                held_out = int(digest[:8], 16) % 1000 < 1000 * HELD_OUT_SHARE
                rows.append(Photograph(digest, name, image.shape[0], image.shape[1], out.tell(), held_out))
                out.write(image.tobytes())
        if not rows:
            msg = f"folder must hold photographs of at least {MIN_SIDE} px; found none in {folder}"
            raise DatasetError(msg)
        partial = table.with_suffix(".part")
        with partial.open("w", newline="") as out_csv:
            writer = csv.writer(out_csv)
            writer.writerow(["sha256", "name", "height", "width", "offset", "held_out"])
            writer.writerows([r.sha256, r.name, r.height, r.width, r.offset, int(r.held_out)] for r in rows)
        partial.replace(table)
    with table.open(newline="") as source:
        photographs = tuple(
            Photograph(
                r["sha256"], r["name"], int(r["height"]), int(r["width"]), int(r["offset"]), r["held_out"] == "1"
            )
            for r in csv.DictReader(source)
        )
    if len({photograph.held_out for photograph in photographs}) < 2:
        kept = "all" if photographs[0].held_out else "none"
        msg = (
            f"{folder} must hold more photographs: about {HELD_OUT_SHARE:.0%} are held out by their hash; it is "
            f"{kept} of {len(photographs)}"
        )
        raise DatasetError(msg)
    return PhotoStore(photographs, np.memmap(blob, dtype=np.uint8, mode="r"))


def _usable(folder: Path) -> Iterator[tuple[str, str, U8]]:
    import cv2
    from rich.progress import track

    seen: set[str] = set()
    files = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    for path in track(files, "decoding photographs"):
        data = path.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        if digest in seen or image is None or min(image.shape[:2]) < MIN_SIDE:
            continue
        seen.add(digest)
        height, width = image.shape[:2]
        scale = min(1.0, SHORT_SIDE / min(height, width), LONG_SIDE / max(height, width))
        if scale < 1:
            size = (max(1, round(width * scale)), max(1, round(height * scale)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        yield digest, path.relative_to(folder).as_posix(), np.ascontiguousarray(image[:, :, ::-1])


def make_crop(image: U8, rng: np.random.Generator, size: int, *, augment: bool = True) -> U8:
    """Cuts and alters one random crop.

    Args:
        image: RGB photograph, (H, W, 3) uint8.
        rng: Source of all randomness.
        size: Side of the crop in pixels.
        augment: Whether to change geometry and light as well; without, only the place and mild scale are random.

    Returns:
        The crop, (size, size, 3) uint8.
    """
    import cv2

    short = min(image.shape[:2])
    share = np.sqrt(rng.uniform(0.25, 1.0))
    if augment and rng.random() < 0.2:  # structures at a coarser scale than photographs show
        share = rng.uniform(0.15, 0.5)
    aspect = np.exp(rng.uniform(-0.2, 0.2)) if augment else 1.0
    height = int(np.clip(round(short * share * aspect), 24, image.shape[0]))
    width = int(np.clip(round(short * share / aspect), 24, image.shape[1]))
    top = int(rng.integers(image.shape[0] - height + 1))
    left = int(rng.integers(image.shape[1] - width + 1))
    crop = image[top : top + height, left : left + width]
    shrinks = min(height, width) > size
    crop = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    if not augment:
        return np.ascontiguousarray(crop, dtype=np.uint8)
    crop = np.rot90(crop, int(rng.integers(4)))
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    return _relight(crop, rng)


def _relight(crop: U8, rng: np.random.Generator) -> U8:
    import cv2

    x = np.ascontiguousarray(crop, dtype=np.float32) / 255
    if rng.random() < 0.25:
        x = np.repeat((x @ np.array([0.299, 0.587, 0.114], dtype=np.float32))[:, :, None], 3, axis=2)
    elif rng.random() < 0.25:
        x = x * np.exp(rng.uniform(-0.25, 0.25, 3)).astype(np.float32)
    if rng.random() < 0.15:
        x = cv2.GaussianBlur(x, (0, 0), float(rng.uniform(0.4, 1.6)))
    if rng.random() < 0.03:
        x = 1 - x
    if rng.random() < 0.3:
        x = np.power(np.clip(x, 0, 1), np.float32(np.exp(rng.uniform(-0.7, 0.7))))
    if rng.random() < 0.6:
        low = rng.random() < 0.25  # a flat, low-contrast picture, as of a uniform surface
        gain = np.exp(rng.uniform(np.log(0.12), np.log(0.4)) if low else rng.uniform(np.log(0.5), np.log(1.5)))
        mean = float(x.mean())
        x = (x - mean) * np.float32(gain) + np.float32(np.clip(mean + rng.uniform(-0.2, 0.2), 0.1, 0.9))
    if rng.random() < 0.2:
        x = x + rng.normal(0, rng.uniform(0.005, 0.04), x.shape).astype(np.float32)
    return np.asarray(np.clip(np.rint(x * 255), 0, 255), dtype=np.uint8)


@dataclass(frozen=True)
class Projection:
    """Whitened principal components of one standardised teacher map.

    Attributes:
        mean: Channel means, (C,) float32.
        matrix: From centred features to components of unit variance, (C, K) float32.
        variance: Variance of the components before whitening, (K,) float32, falling.
        total: Variance of all components, kept or not.
    """

    mean: Tensor
    matrix: Tensor
    variance: Tensor
    total: float

    @classmethod
    def fit(cls, features: Tensor, components: int) -> Projection:
        """Fits the projection on (N, C) float32 features."""
        mean, std = features.mean(0), features.std(0).clamp_min(1e-6)
        z = ((features - mean) / std).double()
        values, vectors = torch.linalg.eigh(z.T @ z / len(z))
        values, vectors = values.flip(0).clamp_min(1e-9), vectors.flip(1)
        kept = vectors[:, :components] / values[:components].sqrt()
        return cls(mean, (kept / std[:, None]).float(), values[:components].float(), float(values.sum()))

    def __call__(self, features: Tensor) -> Tensor:
        """Projects a map (N, C, H, W) to (N, H, W, K)."""
        return (features.permute(0, 2, 3, 1) - self.mean) @ self.matrix


@dataclass(frozen=True)
class TargetCache:
    """Crops and their whitened teacher targets in memory-mapped files.

    Attributes:
        crops: (N, S, S, 3) uint8.
        targets: For each teacher map (N, S / stride, S / stride, K) float16.
        projections: What made the targets.
    """

    crops: U8
    targets: tuple[NDArray[np.float16], ...]
    projections: tuple[Projection, ...]

    def batch(self, index: NDArray[np.int64]) -> tuple[Tensor, list[Tensor]]:
        """Reads images (n, 3, S, S) float32 in [0, 1] and targets (n, h, w, K) float32, channels last in memory."""
        crops = torch.from_numpy(self.crops[index]).permute(0, 3, 1, 2).float() / 255
        return crops, [torch.from_numpy(t[index]).float() for t in self.targets]


def build_targets(
    store: PhotoStore, teacher: nn.Module, cache: Path, *, count: int, size: int, components: tuple[int, ...], seed: int
) -> tuple[TargetCache, TargetCache]:
    """Computes crops and teacher targets once; an interrupted call goes on where it stopped.

    Args:
        store: The photographs.
        teacher: Maps images (N, 3, H, W) float32 in [0, 1] to a list of maps.
        cache: Folder for the files.
        count: Training crops; a further 1/50, at least 32, is made of held-out photographs.
        size: Side of a crop in pixels, a multiple of 16.
        components: Principal components kept of each map.
        seed: Seed of crops and augmentation.

    Returns:
        The training and the validation targets.

    Raises:
        SettingError: If the folder holds targets of other settings.
    """
    cache.mkdir(parents=True, exist_ok=True)
    projections = _projections(store, teacher, cache / "projection.safetensors", size, components, seed)
    parts = []
    for name, number, held_out in (("train", count, False), ("held_out", max(32, count // 50), True)):
        settings = {"count": number, "size": size, "components": list(components), "seed": seed}
        parts.append(_fill(store, teacher, cache / name, projections, settings, held_out=held_out))
    return parts[0], parts[1]


def _draw(store: PhotoStore, index: int, size: int, seed: int, *, held_out: bool) -> U8:
    rng = np.random.default_rng([seed, int(held_out), index])
    return make_crop(store.image(store.pick(rng, held_out=held_out)), rng, size)


def _teach(teacher: nn.Module, crops: U8) -> list[Tensor]:
    x = torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 255
    with torch.inference_mode():
        maps: list[Tensor] = teacher(x)
    return maps


def _projections(
    store: PhotoStore, teacher: nn.Module, path: Path, size: int, components: tuple[int, ...], seed: int
) -> tuple[Projection, ...]:
    from safetensors.torch import load_file, save_file

    if not path.exists():
        parts: list[list[Tensor]] = [[] for _ in components]
        for start in range(0, 320, 8):
            crops = np.stack([_draw(store, i, size, seed + 1, held_out=False) for i in range(start, start + 8)])
            for part, features in zip(parts, _teach(teacher, crops), strict=True):
                part.append(features.permute(0, 2, 3, 1).flatten(0, 2))
        fitted = [Projection.fit(torch.cat(p), k) for p, k in zip(parts, components, strict=True)]
        tensors = {
            f"{i}.{key}": torch.as_tensor(value).contiguous()
            for i, p in enumerate(fitted)
            for key, value in vars(p).items()
        }
        save_file(tensors, path.with_suffix(".part"))
        path.with_suffix(".part").replace(path)
    stored: dict[str, Tensor] = load_file(path)
    return tuple(
        Projection(stored[f"{i}.mean"], stored[f"{i}.matrix"], stored[f"{i}.variance"], float(stored[f"{i}.total"]))
        for i in range(len(components))
    )


def _fill(
    store: PhotoStore,
    teacher: nn.Module,
    folder: Path,
    projections: tuple[Projection, ...],
    settings: dict[str, Any],
    *,
    held_out: bool,
) -> TargetCache:
    from rich.progress import Progress

    folder.mkdir(exist_ok=True)
    state_path = folder / "state.json"
    state = json.loads(state_path.read_text()) if state_path.exists() else {**settings, "done": 0}
    if {key: state[key] for key in settings} != settings:
        msg = f"settings of the cached targets in {folder} must be {settings}; got {state}; name another folder"
        raise SettingError(msg)
    count, size, seed = settings["count"], settings["size"], settings["seed"]
    first = _teach(teacher, _draw(store, 0, size, seed, held_out=held_out)[None])
    sides = [m.shape[-1] for m in first]
    mode: Any = "r+" if (folder / "crops.u8").exists() else "w+"
    crops = np.memmap(folder / "crops.u8", np.uint8, mode, shape=(count, size, size, 3))
    targets = [
        np.memmap(folder / f"target{i}.f16", np.float16, mode, shape=(count, n, n, p.matrix.shape[1]))
        for i, (n, p) in enumerate(zip(sides, projections, strict=True))
    ]
    with Progress() as progress:
        task = progress.add_task(f"teacher targets, {folder.name}", total=count, completed=state["done"])
        for start in range(state["done"], count, 8):
            stop = min(start + 8, count)
            crops[start:stop] = np.stack([_draw(store, i, size, seed, held_out=held_out) for i in range(start, stop)])
            for target, projection, features in zip(
                targets, projections, _teach(teacher, crops[start:stop]), strict=True
            ):
                target[start:stop] = projection(features).half().numpy()
            if stop % 256 == 0 or stop == count:
                state_path.with_suffix(".part").write_text(json.dumps({**settings, "done": stop}))
                state_path.with_suffix(".part").replace(state_path)
            progress.update(task, completed=stop)
    return TargetCache(crops, tuple(targets), projections)
