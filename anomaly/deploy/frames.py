"""Raw frames for the parity gate and for the calibration of int8: from files, or generated."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from anomaly.deploy.manifest import Frame, Frames
from anomaly.errors import DatasetError, InputError
from anomaly.images import ImageLoader
from anomaly.input_spec import InputSpec

NORMAL = 8
"""Normal frames that are compared, and defective ones made from them."""


def frames_from_files(paths: Sequence[Path], spec: InputSpec, frame: Frame, most: int) -> Frames:
    """Reads up to `most` files, spread evenly over the list, as the camera would give them.

    Raises:
        DatasetError: no file can be read.
        InputError: a file has another size than the frame; the message says which `--size` it needs.
    """
    chosen = [paths[i] for i in np.unique(np.linspace(0, len(paths) - 1, min(most, len(paths))).round().astype(int))]
    loader = ImageLoader(chosen, spec, 1)
    found = []
    for batch in loader:
        image = np.asarray(batch.images[0])
        if image.shape[1:] != (frame.height, frame.width):
            raise InputError(
                f"{batch.paths[0]} has {image.shape[1]} x {image.shape[2]} px, the export takes {frame.height} x "
                f"{frame.width}: export with --size {image.shape[1]}x{image.shape[2]}, or give frames of the camera"
            )
        found.append(image)
    if not found:
        raise DatasetError(f"none of {len(chosen)} files can be used: {loader.failures[0]}")
    return in_layout(np.stack(found), frame)


def parity_frames(frame: Frame, normal: Frames | None, seed: int = 0) -> dict[str, Frames]:
    """Returns normal, defective and extreme frames.

    Args:
        frame: what a frame must be.
        normal: normal frames of the part; None for a generated texture.
        seed: of everything random.
    """
    random = np.random.default_rng(seed)
    shape = (frame.channels, frame.height or 0, frame.width or 0)
    low, high = frame.value_range
    kind = np.dtype(frame.dtype)

    def raw(unit: np.ndarray) -> Frames:
        values = low + unit * (high - low)
        return in_layout((values if kind.kind == "f" else values.round()).astype(kind), frame)

    rows, columns = np.mgrid[: shape[1], : shape[2]]
    if normal is None:
        waves = [
            np.sin(rows * random.uniform(0.02, 0.3) + columns * random.uniform(0.02, 0.3) + random.uniform(0, 6))
            for _ in range(NORMAL)
        ]
        noise = random.normal(0, 0.02, (NORMAL, *shape))
        normal = raw(np.clip(0.45 + 0.12 * np.stack(waves)[:, None] + noise, 0, 1))
    normal = normal[:NORMAL]
    defective = _as_planes(normal, frame).copy()
    for image in defective:
        top, left = random.integers(0, max(1, shape[1] * 2 // 3)), random.integers(0, max(1, shape[2] * 2 // 3))
        spot = image[:, top : top + max(4, shape[1] // 6), left : left + max(4, shape[2] // 6)]
        spot[...] = np.array(random.choice([low, high])).astype(kind)
        spot[:, ::3] = np.array((low + high) / 2).astype(kind)
    checks = np.broadcast_to(((rows // 8 + columns // 8) % 2).astype(float), shape)
    extreme = [np.zeros(shape), np.ones(shape), random.random(shape), checks]
    return {"normal": normal, "defective": in_layout(defective, frame), "extreme": raw(np.stack(extreme))}


def in_layout(planes: Frames, frame: Frame) -> Frames:
    """Returns (N, C, H, W) frames in the layout of the camera, C-contiguous."""
    return np.ascontiguousarray(planes if frame.layout == "NCHW" else planes.transpose(0, 2, 3, 1))


def _as_planes(frames: Frames, frame: Frame) -> Frames:
    return frames if frame.layout == "NCHW" else frames.transpose(0, 3, 1, 2)
