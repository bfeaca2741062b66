"""A quick look at what features are worth for anomaly detection, cheap enough to run during training.

Not a benchmark: few images, one detector (PCA residual), one fixed choice of test images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from anomaly.errors import ImageFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Features = Callable[[Tensor], list[Tensor]]

SIZES = {"magnetic_tile": (256, 256), "bsdata": (192, 448), "elpv_mono": (256, 256)}
KEPT_VARIANCE = 0.99
TOP_SHARE = 0.01


@dataclass(frozen=True)
class ProbeSet:
    """Images of one data set in memory.

    Attributes:
        name: Name of the set.
        train: Normal images, (N, 3, H, W) uint8.
        test: Test images, (M, 3, H, W) uint8.
        defect: Which of them are defects, (M,) bool.
        masks: Defect pixels, (M, H, W) bool; empty where the set has none.
    """

    name: str
    train: Tensor
    test: Tensor
    defect: NDArray[np.bool_]
    masks: NDArray[np.bool_]


def load_probe_sets(root: Path, *, train: int = 60, test: int = 30) -> list[ProbeSet]:
    """Loads evenly spaced images of the development sets below ``root/data/industrial``.

    Args:
        root: Folder of development data (ANOMALY_SHARED).
        train: Normal training images of each set.
        test: Normal test images, and as many defects, of each set.

    Returns:
        The sets that are there; an empty list where there are none.
    """
    folders = {name: root / "data" / "industrial" / name for name in SIZES}
    return [_load(name, folder, train, test) for name, folder in folders.items() if folder.is_dir()]


def _load(name: str, folder: Path, train: int, test: int) -> ProbeSet:
    size = SIZES[name]
    good = _spaced(sorted((folder / "test" / "good").iterdir()), test)
    bad = _spaced(sorted(p for p in folder.glob("test/*/*") if p.parent.name != "good"), test)
    masks = np.zeros((0, *size), dtype=np.bool_)
    if (folder / "ground_truth").is_dir():
        masks = np.zeros((len(good) + len(bad), *size), dtype=np.bool_)
        for i, path in enumerate(bad, start=len(good)):
            mask = folder / "ground_truth" / path.parent.name / f"{path.stem}_mask.png"
            masks[i] = _read(mask, size)[0].numpy() > 127
    return ProbeSet(
        name,
        torch.stack([_read(p, size) for p in _spaced(sorted((folder / "train" / "good").iterdir()), train)]),
        torch.stack([_read(p, size) for p in (*good, *bad)]),
        np.array([False] * len(good) + [True] * len(bad)),
        masks,
    )


def _spaced(paths: list[Path], count: int) -> list[Path]:
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(count, len(paths))).round().astype(int)]


def _read(path: Path, size: tuple[int, int]) -> Tensor:
    import cv2

    image = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
    if image is None:
        raise ImageFileError(path, "cannot be decoded; needed to probe a backbone")
    shrinks = image.shape[0] > size[0]
    image = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return torch.from_numpy(image).permute(2, 0, 1).contiguous()


@torch.inference_mode()
def probe(backbone: Features, sets: list[ProbeSet], *, batch: int = 4) -> dict[str, float]:
    """Scores the sets with the residual of a PCA on the features of normal images.

    Args:
        backbone: Maps images (N, 3, H, W) float32 in [0, 1] to two maps, the first twice as fine as the second.
        sets: What to score.
        batch: Images per forward pass.

    Returns:
        ``image_auroc_<set>`` and, where masks exist, ``pixel_auroc_<set>``, then the means ``image_auroc`` and
        ``pixel_auroc`` over the sets.
    """
    figures: dict[str, float] = {}
    for data in sets:
        maps = _residuals(backbone, data, batch)
        flat = maps.flatten(1)
        scores = flat.topk(max(1, round(flat.shape[1] * TOP_SHARE))).values.mean(1)
        figures[f"image_auroc_{data.name}"] = _auroc(scores.numpy(), data.defect)
        if len(data.masks):
            fine = F.interpolate(maps[:, None], size=data.masks.shape[1:], mode="bilinear", align_corners=False)
            figures[f"pixel_auroc_{data.name}"] = _auroc(fine.flatten().numpy(), data.masks.ravel())
    for kind in ("image_auroc", "pixel_auroc"):
        values = [value for name, value in figures.items() if name.startswith(kind)]
        if values:
            figures[kind] = sum(values) / len(values)
    return figures


def _residuals(backbone: Features, data: ProbeSet, batch: int) -> Tensor:
    total, outer, count = torch.zeros(()), torch.zeros(()), 0
    for start in range(0, len(data.train), batch):
        rows = _features(backbone, data.train[start : start + batch]).permute(0, 2, 3, 1).flatten(0, 2)
        total, outer, count = total + rows.double().sum(0), outer + (rows.T @ rows).double(), count + len(rows)
    mean = total / count
    values, vectors = torch.linalg.eigh(outer / count - mean[:, None] * mean)
    rest = values.cumsum(0) <= (1 - KEPT_VARIANCE) * values.sum()  # the smallest come first
    basis, centre = vectors[:, rest].float(), mean.float()
    maps = []
    for start in range(0, len(data.test), batch):
        rows = _features(backbone, data.test[start : start + batch]).permute(0, 2, 3, 1) - centre
        maps.append((rows @ basis).square().sum(-1))
    return torch.cat(maps)


def _features(backbone: Features, images: Tensor) -> Tensor:
    x = (images.float() / 255).contiguous(memory_format=torch.channels_last)
    fine, coarse = (F.avg_pool2d(m, 3, 1, 1, count_include_pad=False) for m in backbone(x))
    return torch.cat([fine, F.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)], 1)


def _auroc(scores: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    from scipy.stats import rankdata

    ranks = rankdata(scores)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    return float((ranks[positive].sum() - positives * (positives + 1) / 2) / (positives * negatives))
