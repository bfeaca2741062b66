"""Every detector in the catalogue keeps the contract."""

from pathlib import Path

import pytest
import torch

from anomaly import catalog
from anomaly.input_spec import InputSpec
from anomaly.testing import check_detector, sample_images

SPECS = {
    "rgb": InputSpec(size=(96, 96)),
    "grey 12 bit in 16, rectangular": InputSpec(channels=1, dtype="uint16", value_range=(0.0, 4095.0), size=(64, 128)),
    "five bands, float": InputSpec(channels=5, dtype="float32", value_range=(-1.0, 2.0), size=(64, 64)),
}
AUTOENCODER = {"resolution": 32, "widths": [4, 8], "code": 16, "steps": 20, "batch": 4, "learning_rate": 0.01}
CASES = [
    ("autoencoder", {**AUTOENCODER, "resolution": 64}),
    ("autoencoder", {**AUTOENCODER, "network": "variational", "measure": "ssim"}),
    ("autoencoder", {**AUTOENCODER, "network": "denoising", "measure": "l1", "relative": False}),
    ("feature_autoencoder", {"steps": 60, "channels": 32, "widths": [16, 16, 16]}),
    ("feature_transformer", {"steps": 20, "width": 32, "depth": 2, "heads": 2}),
    ("gaussian", {"local_components": 16}),
    ("gaussian", {"prior": 3.0, "relative": False}),
    ("subspace", {}),
    ("subspace", {"score": "mahalanobis", "relative": False}),
    ("memory_bank", {"bank_size": 256}),
    ("memory_bank", {"bank_size": 64, "reduction": "k_means", "components": 16}),
    ("student", {"steps": 20, "width": 32, "batch": 4}),
]
FIRST = dict(reversed(CASES))
"""One case of each detector."""


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
@pytest.mark.parametrize(("name", "settings"), CASES, ids=[f"{name} {settings}" for name, settings in CASES])
def test_detector_keeps_the_contract(name, settings, spec, tmp_path: Path):
    check_detector(catalog.build(catalog.detector_class(name), {"input": spec} | settings), tmp_path)


@pytest.mark.parametrize("images", [3, 300])
@pytest.mark.parametrize(("name", "settings"), FIRST.items(), ids=FIRST)
def test_detector_keeps_the_contract_with_few_and_with_many_images(name, settings, images, tmp_path: Path):
    detector = catalog.build(catalog.detector_class(name), {"input": InputSpec(size=(64, 64))} | settings)
    check_detector(detector, tmp_path, images=images)


def test_every_detector_is_checked():
    assert {name for name, _ in CASES} == set(catalog.DETECTORS)


def test_check_detector_catches_a_score_that_depends_on_the_batch(tmp_path: Path, monkeypatch):
    detector = catalog.build(catalog.detector_class("subspace"), {"input": SPECS["rgb"]})
    scorer = detector.fit([sample_images(SPECS["rgb"], 8, seed=0)])
    honest = type(scorer).patch_scores
    monkeypatch.setattr(type(scorer), "patch_scores", lambda self, maps: honest(self, maps) / maps[0].amax())
    with pytest.raises(AssertionError, match="changed a score"):
        check_detector(detector, tmp_path)


def test_fitting_leaves_gradient_and_inference_mode_alone():
    detector = catalog.build(catalog.detector_class("subspace"), {"input": SPECS["rgb"]})
    modes = []

    def batches():
        for seed in range(3):
            yield sample_images(SPECS["rgb"], 2, seed)
            modes.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))

    detector.fit(batches())
    assert modes == [(True, False)] * 3
