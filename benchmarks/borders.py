"""Where a difference to PatchCore's maps comes from: the border of the 3 x 3 average, and scores relative to position.

PatchCore averages features over 3 x 3 neighbours and counts zeros beyond the border, which shrinks features there by a
third, and distances with them. Ours counts existing neighbours only and standardises each score by what is normal at
its position (docs/adr/0001). Here memory_bank is fitted in all four combinations on the same images.
"""

import argparse
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.nn import functional as F

from anomaly.images import ImageLoader
from anomaly.options import DetectorOptions
from benchmarks.environment import facts, shared_file
from benchmarks.image_sets import judge, open_set
from benchmarks.tables import markdown

FIGURES = ("image_auroc", "pixel_auroc", "pixel_ap", "aupro_0.3")
WEIGHTS = "weights/resnet18_layers1to3_bnfolded.safetensors"
_AVERAGE = F.avg_pool2d


def zeros_counted(m: torch.Tensor, size: int, stride: int, padding: int, count_include_pad: bool) -> torch.Tensor:
    """Averages as PatchCore does, whatever was asked for at the border."""
    return _AVERAGE(m, size, stride=stride, padding=padding, count_include_pad=True)


def figures(relative: bool, zeros: bool, name: str, images: int | None, bank: int) -> dict[str, float]:
    """Fits one combination and returns its figures on all test images.

    Args:
        relative: whether scores are standardised by position.
        zeros: whether the average counts zeros beyond the border.
        name: of the set.
        images: training images; None for all.
        bank: patches in the bank.
    """
    chosen = open_set(name, train=images, test=None, seed=0)
    settings = [f"bank_size={bank}", f"relative={str(relative).lower()}"]
    options = DetectorOptions("memory_bank", "resnet18", "", Path(shared_file(WEIGHTS)), settings, 0)
    patched: Any = mock.patch.object(F, "avg_pool2d", zeros_counted) if zeros else nullcontext()
    with patched:
        batches = (batch.images for batch in ImageLoader(chosen.train, chosen.input, 4))
        scorer = options.build(chosen.input).fit(batches).eval()
        return judge(chosen, {"ours": scorer.score_canvas}).figures("ours")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", default="magnetic_tile", help="a set with masks")
    parser.add_argument("--images", type=int, default=200, help="training images")
    parser.add_argument("--bank", type=int, default=2048, help="patches in the bank")
    options = parser.parse_args()
    rows = []
    for relative in (True, False):
        for zeros in (False, True):
            found = figures(relative, zeros, options.set, options.images, options.bank)
            shown = ("by position" if relative else "as they are", "zeros counted" if zeros else "neighbours only")
            rows.append((*shown, *(f"{found[name]:.3f}" for name in FIGURES)))
    print(markdown(("scores", "border of the average", *FIGURES), rows, texts=2))
    print(" | ".join(f"{name}: {value}" for name, value in facts().items()))


if __name__ == "__main__":
    main()
