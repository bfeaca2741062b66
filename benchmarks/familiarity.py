"""What does a triage model refuse as "not the kind of image that it was trained on"?

Learns from normal chest X-rays of one set as `anomaly triage fit` does (a quarter of the patients is held out), then
counts how many images are refused: normals and abnormals of the same set (each one is a loss), and other kinds of
images, which should all be refused: the same X-rays inverted, turned and upside down, X-rays of another source, parts
of machines, solar cells, slices of a head CT. Canvas, grid, components and margin of the check were chosen on these
sets, so the table shows what it can do, not what it will do elsewhere.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from anomaly.calibration import hold_out
from anomaly.images import find_dataset, read_image
from benchmarks.detector_sets import open_protocol
from benchmarks.environment import facts, shared_file
from benchmarks.tables import markdown

Picture = Float32[np.ndarray, "h w"]
OTHERS = ("magnetic_tile", "elpv_mono", "bsdata")
TURNS: dict[str, Callable[[Picture], Any]] = {
    "inverted": lambda picture: 1 - picture,
    "turned by 90 degrees": np.rot90,
    "turned by 180 degrees": lambda picture: np.rot90(picture, 2),
    "mirrored": np.fliplr,
    "lower half missing": lambda picture: picture[: len(picture) // 2],
}
MOST = 100


def grey(path: Path) -> Picture:
    """Returns a picture as the mean of its channels, 0 to 1."""
    pixels = read_image(path)
    return np.asarray(pixels.mean(axis=2) / np.iinfo(pixels.dtype).max, dtype=np.float32)


def head_slices() -> Iterator[Picture]:
    """Yields the slices of a real head CT in a brain window."""
    from pydicom import dcmread

    for path in sorted(shared_file("data/dicom/dcm_qa_ct").rglob("*.dcm")):
        made = dcmread(path)
        values = made.pixel_array.astype(np.float32) * float(made.RescaleSlope) + float(made.RescaleIntercept)
        yield np.clip(values / 80, 0, 1)


def layouts(pictures: Sequence[Picture] | Iterator[Picture]) -> Float32[np.ndarray, "n d"]:
    """Returns the layout of each picture."""
    from medical.familiarity import layout_of

    return np.stack([layout_of(torch.from_numpy(np.ascontiguousarray(one)).float()[None]) for one in pictures])


def rows(name: str, other: str, folder: Path) -> list[tuple[str, str, str, str]]:
    """Returns one row per kind of image: set, kind, number refused, and the middle distance over the limit."""
    from medical.familiarity import learn

    protocol = open_protocol(name, None, 0, folder)
    paths = sorted(protocol.images.train)
    fitted, held = hold_out([path.name for path in paths], seed=0)
    normals = [grey(paths[index]) for index in held]
    known = learn(layouts(grey(paths[index]) for index in fitted), layouts(normals))
    tested = protocol.images.test
    kinds: dict[str, Any] = {
        "normal": [grey(sample.path) for sample in tested if not sample.label],
        "abnormal": [grey(sample.path) for sample in tested if sample.label],
        **{turn: [make(one) for one in normals[:MOST]] for turn, make in TURNS.items()},
        f"X-rays of {other}": [
            grey(path) for path in sorted(open_protocol(other, None, 0, folder).images.train)[:MOST]
        ],
        "slices of a head CT": list(head_slices()),
    }
    for parts in OTHERS:
        good = sorted(find_dataset(shared_file(f"data/industrial/{parts}")).train)[:MOST]
        kinds[parts] = [grey(path) for path in good]
    found = []
    for kind, pictures in kinds.items():
        ratio = known.distance(layouts(pictures)) / known.limit
        found.append((name, kind, f"{(ratio > 1).sum()} of {len(ratio)}", f"{np.median(ratio):.2f}"))
    return found


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:  # the protocol of NIH draws masks of boxes
        masks = Path(temporary)
        found = rows("cxr_kermany", "cxr_nih_256", masks) + rows("cxr_nih_256", "cxr_kermany", masks)
    print(markdown(("learned from", "asked about", "refused", "middle distance / limit"), found, texts=2))
    print(" | ".join(f"{name}: {value}" for name, value in facts().items()))


if __name__ == "__main__":
    main()
