"""The contract as an executable suite: every detector passes `check_detector`, ours and third parties' alike."""

from collections.abc import Sequence
from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from anomaly import catalog
from anomaly.artifact import Artifact, MapCalibration, Training, load, save
from anomaly.calibration import calibrate
from anomaly.detector import Detector, Scorer, Scores
from anomaly.errors import ArtifactError, InputError
from anomaly.input_spec import DTYPES, InputSpec

ABSOLUTE, RELATIVE = 1e-4, 1e-4
"""Bounds for scores that must be equal but for float rounding."""


def check_detector(detector: Detector, folder: Path, *, images: int = 12, differentiable: bool = True) -> None:
    """Checks that a detector keeps the contract of `anomaly.detector`; raises AssertionError where it does not.

    Args:
        detector: settings with a small canvas (64 to 128 px keep the check fast) and any number of channels.
        folder: an empty folder for the model file.
        images: how many normal images it learns from.
        differentiable: whether gradients must reach the image; False for foreign models that switch them off within.
    """
    _check_settings(detector)
    normals = sample_images(detector.input, images, seed=1)
    scorer = detector.fit(_batches(normals))
    test = sample_images(detector.input, 5, seed=2)
    test[0] = with_square(test[0], detector.input)
    with torch.inference_mode():
        scores = scorer(test)
    _check_scores(scores, detector.input, 5)
    assert int(scores.score.argmax()) == 0, "an image with a foreign square must score highest"
    _check_batches(scorer, test, scores)
    _check_sizes(scorer)
    _check_refusals(scorer, detector)
    _check_repeat(detector, normals, test, scores)
    _check_storage(scorer, folder / "model.safetensors", test, scores)
    if differentiable:
        _check_gradient(scorer, test)


def sample_images(spec: InputSpec, count: int, seed: int) -> Tensor:
    """Returns (count, C, H, W) raw frames of a smooth texture in the dtype and range of `spec`."""
    generator = torch.Generator().manual_seed(seed)
    height, width = spec.size
    coarse = torch.rand(count, spec.channels, height // 8, width // 8, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic").clamp(0, 1)
    noise = 0.02 * torch.randn(smooth.shape, generator=generator)
    return _raw((0.3 + 0.2 * smooth + noise).clamp(0, 1), spec)


def with_square(image: Tensor, spec: InputSpec) -> Tensor:
    """Returns a copy of a (C, H, W) frame with a bright, striped square in its middle."""
    low, high = spec.value_range
    changed = image.to(torch.float32).clone()
    height, width = image.shape[-2:]
    rows, columns = slice(height // 3, 2 * height // 3), slice(width // 3, 2 * width // 3)
    changed[:, rows, columns] = low + 0.95 * (high - low)
    changed[:, rows, columns][:, ::4] = low
    return changed.to(image.dtype)


def _raw(unit: Tensor, spec: InputSpec) -> Tensor:
    low, high = spec.value_range
    values = low + unit * (high - low)
    return values if spec.dtype == "float32" else values.round().to(DTYPES[spec.dtype])


def _batches(images: Tensor) -> Sequence[Tensor]:
    return [images[start : start + 5] for start in range(0, len(images), 5)]


def _check_settings(detector: Detector) -> None:
    try:
        detector.seed = 1
    except FrozenInstanceError:
        pass
    else:
        raise AssertionError("settings must be frozen")
    assert catalog.build(type(detector), asdict(detector)) == detector, "settings must survive asdict"


def _check_scores(scores: Scores, spec: InputSpec, count: int) -> None:
    assert scores.score.shape == (count,), f"score must be (N,); got {tuple(scores.score.shape)}"
    assert scores.map.shape == (count, *spec.size), f"map must be (N, H, W); got {tuple(scores.map.shape)}"
    assert scores.score.dtype == scores.map.dtype == torch.float32, "score and map must be float32"
    assert bool(torch.isfinite(scores.score).all() and torch.isfinite(scores.map).all()), "scores must be finite"


def _check_batches(scorer: Scorer, images: Tensor, scores: Scores) -> None:
    with torch.inference_mode():
        alone = [scorer(image[None]) for image in images]
        turned = scorer(images.flip(0))
        as_list = scorer(list(images))
        as_float = scorer(images.to(torch.float32))
    _same(torch.cat([s.score for s in alone]), scores.score, "batch size changed a score")
    _same(torch.cat([s.map for s in alone]), scores.map, "batch size changed a map")
    _same(turned.score.flip(0), scores.score, "order changed a score")
    _same(as_list.score, scores.score, "a list of images scored other than a batch")
    _same(as_float.score, scores.score, "float32 frames in the same range scored differently")


def _check_sizes(scorer: Scorer) -> None:
    spec = scorer.input
    half = replace(spec, size=(spec.size[0] // 2, spec.size[1]))
    whole, flat = sample_images(spec, 1, seed=3)[0], sample_images(half, 1, seed=4)[0]
    with torch.inference_mode():
        together = scorer([whole, flat])
        alone = scorer(flat[None])
    _same(together.score[1:], alone.score, "padding of a batch changed a score")
    _same(together.map[1:], alone.map, "padding of a batch changed a map")


def _check_refusals(scorer: Scorer, detector: Detector) -> None:
    spec = scorer.input
    image = sample_images(spec, 1, seed=5)
    bad = {
        "another number of channels": torch.cat([image, image], dim=1),
        "one image without a batch axis": image[0],
        "an empty batch": image[:0],
        "float64": image.to(torch.float64),
        "NaN": torch.full(image.shape, torch.nan),
        "values outside the range": torch.full(image.shape, spec.value_range[1] * 2 + 1),
    }
    for what, images in bad.items():
        try:
            scorer(images)
        except InputError:
            continue
        raise AssertionError(f"{what} must be an InputError")
    try:
        detector.fit([])
    except InputError:
        return
    raise AssertionError("a fit on no image must be an InputError")


def _check_repeat(detector: Detector, normals: Tensor, test: Tensor, scores: Scores) -> None:
    with torch.inference_mode():
        again = detector.fit(iter(_batches(normals)))(test)
    _same(again.score, scores.score, "a second fit with the same seed gave other scores")


def _check_storage(scorer: Scorer, path: Path, test: Tensor, scores: Scores) -> None:
    values = np.linspace(0.0, 1.0, 40).tolist()
    calibration = calibrate(values)
    training = Training(images=12, held_out=40, fingerprint="0" * 64, created="2026-01-01T00:00:00+00:00")
    save(path, Artifact(scorer, calibration, MapCalibration(0.5, calibration.ng), training))
    loaded = load(path)
    assert loaded.scorer.detector == scorer.detector, "settings must survive the model file"
    assert loaded.calibration == calibration, "the calibration must survive the model file"
    strides = [{key: value.stride() for key, value in one.state_dict().items()} for one in (scorer, loaded.scorer)]
    assert strides[0] == strides[1], "tensors must lie in memory as they will once loaded, or sums round differently"
    with torch.inference_mode():
        restored = loaded.scorer(test)
    assert torch.equal(restored.score, scores.score), "save -> load must give equal scores"
    assert torch.equal(restored.map, scores.map), "save -> load must give equal maps"
    content = path.read_bytes()
    for what, damaged in {"truncated": content[:-100], "tampered": content[:-8] + bytes(8)}.items():
        path.write_bytes(damaged)
        try:
            load(path)
        except ArtifactError:
            continue
        raise AssertionError(f"a {what} model file must be an ArtifactError")


def _check_gradient(scorer: Scorer, images: Tensor) -> None:
    leaf = images.to(torch.float32).requires_grad_()
    scorer(leaf).score.sum().backward()
    assert leaf.grad is not None, "the score must be differentiable with respect to the image"
    assert bool(torch.isfinite(leaf.grad).all() and leaf.grad.abs().sum() > 0), "the gradient must be finite and not 0"


def _same(got: Tensor, wanted: Tensor, what: str) -> None:
    difference = float((got - wanted).abs().max())
    assert torch.allclose(got, wanted, rtol=RELATIVE, atol=ABSOLUTE), f"{what}: by {difference:.3g}"
