"""The peers of the latency benchmark: anomalib's ONNX and OpenVINO exports, made by its `to_onnx` and `to_openvino`.

A ResNet-18 with the shared weights, everything else at anomalib's defaults, but for two things that only help it: the
batch is fixed at 1 (by default its Patchcore is exported for exactly two images), and Patchcore's bank is a random draw
of its patches instead of a coreset, because only the number of patches counts for the time and the coreset of 1 % takes
minutes. Scores of these models mean nothing; `benchmarks.against_anomalib` compares quality.
"""

import contextlib
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from anomaly.deploy.manifest import Frames

PATCHCORE, PADIM = "anomalib Patchcore", "anomalib Padim"
BANKS = (2048, 20480)
_BATCH = 8


class Peer(NamedTuple):
    """One exported model.

    Attributes:
        name: the model, with the size of its bank.
        runtime: "ONNX Runtime" or "OpenVINO".
        file: what anomalib wrote.
    """

    name: str
    runtime: str
    file: Path


def export_peers(images: Frames, weights: Path, folder: Path) -> Iterator[Peer]:
    """Fits and exports Patchcore (two sizes of the bank) and Padim, one after the other.

    Args:
        images: (N, 1, H, W) uint8 grey frames to learn from; N x H x W / 64 patches must fill the largest bank.
        weights: safetensors file of a timm ResNet-18 with `features_only`.
        folder: where the files go.

    Raises:
        ImportError: anomalib is not installed.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with _quietly():
        from anomalib.models import Padim, Patchcore

    planes = torch.from_numpy(_as_float(images))
    size = (images.shape[2], images.shape[3])
    with _quietly():
        patchcore = _with_weights(
            Patchcore(backbone="resnet18", layers=["layer2", "layer3"], pre_trained=False), weights
        )
        patches = torch.vstack(list(_learned(patchcore, planes)))
        patchcore.model.embedding_store.clear()
    order = torch.randperm(len(patches), generator=torch.Generator().manual_seed(0))
    for bank in BANKS:
        with _quietly():
            patchcore.model.memory_bank = patches[order[:bank]].clone()
            files = _exported(patchcore, size, folder / f"patchcore-{bank}")
        yield from (Peer(f"{PATCHCORE}, {bank:,} patches", runtime, file) for runtime, file in files.items())
    with _quietly():
        padim = _with_weights(Padim(backbone="resnet18", pre_trained=False), weights)
        for _ in _learned(padim, planes):
            pass
        padim.model.fit()
        files = _exported(padim, size, folder / "padim")
    yield from (Peer(PADIM, runtime, file) for runtime, file in files.items())


def open_peer(peer: Peer, threads: int) -> Callable[[Frames], Any]:
    """Opens an exported model with the settings that ours get; returns raw uint8 frame -> label.

    The frame becomes what anomalib's inferencer makes of it: RGB, float32 in [0, 1], planes.
    """
    if peer.runtime == "OpenVINO":
        import openvino

        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        request = openvino.Core().compile_model(peer.file, "CPU", settings).create_infer_request()
        return lambda frame: request.infer([_as_float(frame)], share_inputs=True)["pred_label"]
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.inter_op_num_threads, options.intra_op_num_threads = 1, threads
    session = onnxruntime.InferenceSession(peer.file, options, providers=["CPUExecutionProvider"])
    outputs = [output.name for output in session.get_outputs()]
    label = outputs.index("pred_label")
    return lambda frame: session.run(outputs, {"input": _as_float(frame)})[label]


def _as_float(frames: Frames) -> Frames:
    return np.repeat(frames.astype(np.float32) / np.float32(255), 3, axis=1)


def _with_weights(model: Any, weights: Path) -> Any:
    from safetensors.torch import load_file

    model.model.feature_extractor.feature_extractor.load_state_dict(load_file(weights), strict=True)
    return model


@torch.no_grad()
def _learned(model: Any, images: torch.Tensor) -> Iterator[torch.Tensor]:
    model.model.train()
    model.model.feature_extractor.eval()
    for start in range(0, len(images), _BATCH):
        yield model.model(model.pre_processor(images[start : start + _BATCH]))


def _exported(model: Any, size: tuple[int, int], folder: Path) -> dict[str, Path]:
    model.eval()
    fixed: dict[str, Any] = {"dynamic_axes": {}, "verbose": False}
    return {
        "ONNX Runtime": model.to_onnx(folder, input_size=size, **fixed),
        "OpenVINO": model.to_openvino(folder, input_size=size, onnx_kwargs=fixed),
    }


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silences the chatter of anomalib and of torch's exporter; what fails still raises."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # noqa: PTH123
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
