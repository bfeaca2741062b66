"""The normal twin of an image: the same part as it should have looked.

Faithfulness is measured by replacing regions of an image by NORMAL content: grey, black or blurred patches are unknown
to a detector of anomalies and would themselves be anomalies. Where the content comes from, best first:

- nearest normal patches: a mosaic of windows from normal images that are given. Each window is the one, out of all
  images and small displacements, that fits the image best where they agree best (mean of the smallest 70 % of the
  differences after brightness has been matched, so that a defect does not choose its own like), blended with its
  neighbours. It needs images that lie roughly alike, or textures without a place of their own; repeated structures out
  of phase leave seams, and a defect that fills most of four windows by four (a quarter of the shorter side) leaves
  its brightness.
- nearest normal image: the one whole normal image that fits best in the same way. It has no seams within and does not
  lie quite as the image does, so it is taken only where the mosaic is stranger than half way between the two, as
  happens where no two normals lie alike (chest X-rays).
- reconstruction: what an autoencoder makes of the image. Blurred, and a large defect may be reconstructed in part.
- blur: the image itself, smoothed strongly. Not normal content at all; a last resort that is called out.

How normal a twin is can be measured: its score. `Faithfulness` refuses to judge by a twin that is no better than the
image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from anomaly.detector import Scorer
from anomaly.errors import ImageFileError, InputError, SettingError
from anomaly.images import ImageLoader
from anomaly.input_spec import InputSpec

MOST_NORMALS = 24
"""Normal images that are used; more are no better and take longer."""
MOST_BASELINES = 8
"""Normal images that serve as further baselines of methods that average over several."""
WINDOWS = 14
"""Windows of the mosaic along the shorter side."""
_PER_WINDOW = 4
_REACH = 2
_AGREEING = 0.7
_BLUR = 1 / 10
_AROUND = 1.5


@dataclass(frozen=True, eq=False)
class Twin:
    """The same part as it should have looked.

    Attributes:
        image: (C, h, w) float32, raw values, registered with the image pixel by pixel.
        kind: "nearest normal patches", "nearest normal image", "reconstruction", "blur" or "given".
        sources: names of the normal images it was made from, most used first; empty for the last three kinds.
    """

    image: Float[Tensor, "c h w"]
    kind: str
    sources: tuple[str, ...] = ()

    @property
    def normal(self) -> bool:
        """Whether its content is meant to be normal; a blur is not."""
        return self.kind != "blur"


@dataclass(frozen=True, eq=False)
class Normals:
    """Normal images to compare with.

    Attributes:
        names: file names.
        images: (C, h, w) raw frames, sizes may differ.
    """

    names: tuple[str, ...]
    images: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        """Refuses an empty set."""
        if not self.images or len(self.names) != len(self.images):
            raise InputError(f"there must be a normal image and a name for each; got {len(self.images)} images")

    @classmethod
    def read(cls, paths: Sequence[Path], spec: InputSpec, failures: list[ImageFileError]) -> "Normals":
        """Reads at most 24 of the files, evenly spaced.

        Raises:
            InputError: none of them can be used.
        """
        chosen = np.linspace(0, len(paths) - 1, min(MOST_NORMALS, len(paths))).round().astype(int)
        loader = ImageLoader([paths[i] for i in chosen], spec, 1)
        found = [(batch.paths[0].name, batch.images[0]) for batch in loader]
        failures.extend(loader.failures)
        if not found:
            raise InputError(f"none of the {len(paths)} normal images could be read, e.g. {loader.failures[0]}")
        return cls(tuple(name for name, _ in found), tuple(image for _, image in found))

    def resized(self, height: int, width: int) -> Float[Tensor, "k c h w"]:
        """Returns all images in one size, float32."""
        return torch.stack([_resized(image.float(), (height, width)) for image in self.images])


def make_twin(
    scorer: Scorer, image: Tensor, normals: Normals | None, score: Callable[[Tensor], Tensor] | None = None
) -> Twin:
    """Makes the best twin that can be had: from normals if given, else by reconstruction, else by blur.

    Args:
        scorer: the fitted scorer.
        image: (C, h, w) raw frame.
        normals: normal images.
        score: (N, C, h, w) frames -> (N,) scores, where they are not those of the scorer: of slices of a volume.
    """
    if normals is not None:
        patches, whole = (make(image, normals, scorer.input.value_range) for make in (nearest_patches, nearest_image))
        with torch.no_grad():
            frames = torch.stack([image.float(), patches.image, whole.image])
            own, seamed, other = (score(frames) if score else scorer(frames).score).tolist()
        return patches if seamed <= max(other, (own + other) / 2) else whole
    if hasattr(scorer, "reconstruct"):
        return reconstruction(scorer, image)
    return blurred(image)


def blurred(image: Shaped[Tensor, "c h w"]) -> Twin:
    """Returns the image smoothed by a Gaussian of a tenth of its shorter side."""
    pixels = image.float().permute(1, 2, 0).numpy()
    sigma = _BLUR * min(pixels.shape[:2])
    smooth = cv2.GaussianBlur(pixels, (0, 0), sigma, borderType=cv2.BORDER_REFLECT)
    smooth = smooth.reshape(pixels.shape)  # OpenCV drops an axis of one channel
    return Twin(torch.from_numpy(smooth).permute(2, 0, 1).contiguous(), "blur")


def reconstruction(scorer: Scorer, image: Shaped[Tensor, "c h w"]) -> Twin:
    """Returns what an autoencoder makes of the image, at the size of the image.

    Raises:
        SettingError: the scorer does not reconstruct images.
    """
    reconstruct = getattr(scorer, "reconstruct", None)
    if reconstruct is None:
        raise SettingError.of("reconstruction", "scorer", "one that reconstructs images", scorer.detector.name)
    with torch.no_grad():
        made = reconstruct(image[None])[0]
    size = (image.shape[-2], image.shape[-1])
    covered, canvas = scorer.input.covered(*size), scorer.input.size
    rows, columns = (max(1, round(m * c / f)) for m, c, f in zip(made.shape[-2:], covered, canvas, strict=True))
    low, high = scorer.input.value_range
    frame = low + _resized(made[:, :rows, :columns], size).clamp(0, 1) * (high - low)
    return Twin(frame, "reconstruction")


def nearest_image(image: Shaped[Tensor, "c h w"], normals: Normals, value_range: tuple[float, float]) -> Twin:
    """Returns the whole normal image that fits best where it agrees best; arguments as for `nearest_patches`."""
    frame = image.float()
    pool = normals.resized(frame.shape[-2], frame.shape[-1])
    grid = _PER_WINDOW * WINDOWS
    away = F.adaptive_avg_pool2d(pool, grid) - F.adaptive_avg_pool2d(frame, grid)
    away = (away - away.flatten(2).median(dim=2).values[..., None, None]).abs().mean(dim=1).flatten(1)
    best = int(away.sort(dim=1).values[:, : round(_AGREEING * away.shape[1])].mean(dim=1).argmin())
    brighter = (frame - pool[best]).flatten(1).median(dim=1).values[:, None, None]
    return Twin((pool[best] + brighter).clamp(*value_range), "nearest normal image", (normals.names[best],))


def nearest_patches(image: Shaped[Tensor, "c h w"], normals: Normals, value_range: tuple[float, float]) -> Twin:
    """Returns a mosaic of the normal windows that fit the image best; see the head of this file.

    Args:
        image: (C, h, w) raw frame.
        normals: normal images, which are stretched to the size of the frame.
        value_range: lowest and highest raw value; what brightness matching overshoots is cut off.
    """
    frame = image.float()
    size = (frame.shape[-2], frame.shape[-1])
    pool = normals.resized(*size)
    cell = max(1, round(min(size) / WINDOWS))
    grid = (max(1, round(size[0] / cell)), max(1, round(size[1] / cell)))
    chosen, shifts = _choose(frame, pool, grid)
    mosaic = _paste(frame, pool, grid, chosen, shifts)
    used = np.bincount(chosen.flatten(), minlength=len(pool))
    order = [int(i) for i in np.argsort(-used) if used[i]]
    return Twin(mosaic.clamp(*value_range), "nearest normal patches", tuple(normals.names[i] for i in order))


def _choose(
    frame: Tensor, pool: Tensor, grid: tuple[int, int]
) -> tuple[Int[np.ndarray, "gh gw"], Int[np.ndarray, "gh gw 2"]]:
    """Returns which image, and which displacement in quarters of a window, fits each window best."""
    small = grid[0] * _PER_WINDOW, grid[1] * _PER_WINDOW
    target = _windows(_resized(frame.mean(dim=0, keepdim=True), small))
    steps = range(-_REACH * 2, _REACH * 2 + 1, 2)
    tiny = torch.cat([_resized(one.mean(dim=0, keepdim=True), small) for one in pool])[:, None]
    margin = _REACH * 2
    padded = F.pad(tiny, (margin,) * 4, mode="replicate")
    best = torch.full((grid[0] * grid[1],), torch.inf)
    found = torch.zeros(grid[0] * grid[1], 3, dtype=torch.long)
    kept = round(_AGREEING * target.shape[-1])
    for down in steps:
        for right in steps:
            shifted = padded[:, :, margin + down :, margin + right :][:, :, : small[0], : small[1]]
            for index, one in enumerate(shifted):
                windows = _windows(one)
                difference = target - windows
                difference = (difference - difference.median(dim=1, keepdim=True).values).abs()
                cost = difference.sort(dim=1).values[:, :kept].mean(dim=1)
                better = cost < best
                best = torch.where(better, cost, best)
                found[better] = torch.tensor([index, down, right])
    table = found.view(*grid, 3).numpy()
    return table[..., 0], table[..., 1:]


def _windows(small: Float[Tensor, "1 h w"]) -> Float[Tensor, "cells values"]:
    """Returns windows of two cells around each cell's middle."""
    side = 2 * _PER_WINDOW
    padded = F.pad(small[None], (_PER_WINDOW // 2,) * 4, mode="replicate")
    return F.unfold(padded, side, stride=_PER_WINDOW)[0].T


def _paste(
    frame: Tensor,
    pool: Tensor,
    grid: tuple[int, int],
    chosen: Int[np.ndarray, "gh gw"],
    shifts: Int[np.ndarray, "gh gw 2"],
) -> Tensor:
    """Lays the chosen windows over each other with weights that fall off to their rims.

    Brightness is matched over a wider area, which a defect does not fill.
    """
    height, width = frame.shape[-2:]
    total, weights = torch.zeros_like(frame), torch.zeros(height, width)
    for place in np.ndindex(grid):
        top, bottom, left, right = _area(place, grid, (height, width), 0.5)
        down = round(shifts[place][0] * height / grid[0] / _PER_WINDOW)
        across = round(shifts[place][1] * width / grid[1] / _PER_WINDOW)
        source = pool[int(chosen[place])]
        around = _area(place, grid, (height, width), _AROUND)
        difference = frame[:, around[0] : around[1], around[2] : around[3]] - _moved(source, around, (down, across))
        brighter = difference.flatten(1).median(dim=1).values
        patch = _moved(source, (top, bottom, left, right), (down, across))
        weight = _hat(bottom - top)[:, None] * _hat(right - left)[None]
        total[:, top:bottom, left:right] += weight * (patch + brighter[:, None, None])
        weights[top:bottom, left:right] += weight
    return total / weights


def _moved(source: Tensor, area: tuple[int, int, int, int], by: tuple[int, int]) -> Tensor:
    """Returns an area of an image after a displacement; beyond the image its border is repeated."""
    top, bottom, left, right = area
    rows = torch.arange(top + by[0], bottom + by[0]).clamp(0, source.shape[1] - 1)
    columns = torch.arange(left + by[1], right + by[1]).clamp(0, source.shape[2] - 1)
    return source[:, rows][:, :, columns]


def _area(
    place: tuple[int, ...], grid: tuple[int, int], size: tuple[int, int], margin: float
) -> tuple[int, int, int, int]:
    """Returns top, bottom, left and right in pixels of a cell with a margin, in cells, around it."""
    (row, column), (high, wide) = place, (size[0] / grid[0], size[1] / grid[1])
    top, left = max(0, round((row - margin) * high)), max(0, round((column - margin) * wide))
    bottom, right = round((row + 1 + margin) * high), round((column + 1 + margin) * wide)
    return top, min(size[0], bottom), left, min(size[1], right)


def _hat(count: int) -> Float[Tensor, " n"]:
    """Weights above 0 that rise to the middle and fall again."""
    return torch.sin((torch.arange(count) + 0.5) * torch.pi / count).square()


def _resized(image: Float[Tensor, "c h w"], size: tuple[int, int]) -> Float[Tensor, "c th tw"]:
    if tuple(image.shape[-2:]) == size:
        return image
    return F.interpolate(image[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
