"""Small fitted models and their exported graphs, made once a session."""

from functools import cache

import numpy as np
import pytest
import torch

from anomaly import catalog
from anomaly.artifact import Artifact, MapCalibration, Training
from anomaly.calibration import calibrate
from anomaly.deploy.export import frame_of
from anomaly.deploy.graph import ScoringGraph
from anomaly.deploy.onnx import to_onnx
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

SMALL = {
    "autoencoder": {"resolution": 64, "widths": [4, 8], "code": 16, "steps": 10, "batch": 4},
    "feature_autoencoder": {"steps": 20, "channels": 32, "widths": [16, 16, 16]},
    "feature_transformer": {"steps": 10, "width": 32, "depth": 2, "heads": 2},
    "memory_bank": {"bank_size": 256},
    "student": {"steps": 10, "width": 32, "batch": 4},
}
GREY = InputSpec(channels=1, size=(64, 96))


@cache
def small_artifact(name: str, spec: InputSpec) -> Artifact:
    """A model with thresholds in the middle of its scores, so that all three decisions occur."""
    detector = catalog.build(catalog.detector_class(name), {"input": spec} | SMALL.get(name, {}))
    scorer = detector.fit([sample_images(spec, 6, seed=1), sample_images(spec, 6, seed=2)]).eval()
    with torch.inference_mode():
        scores = scorer(sample_images(spec, 20, seed=3))
    calibration = calibrate(scores.score.numpy(), review_rate=0.5, ng_rate=0.2)
    highest = calibrate(scores.map.amax(dim=(1, 2)).numpy())
    training = Training(images=12, held_out=20, fingerprint="0" * 64, created="2026-01-01T00:00:00+00:00")
    return Artifact(scorer, calibration, MapCalibration(float(scores.map.median()), highest.ng), training)


@cache
def small_graph(name: str, spec: InputSpec, size=None, layout="NCHW", batch=(1, 8)):
    """The ONNX model of a detector, in fp32."""
    artifact = small_artifact(name, spec)
    return to_onnx(ScoringGraph(artifact, frame_of(artifact, size, layout, batch)))


@pytest.fixture(scope="session")
def artifact_of():
    return small_artifact


@pytest.fixture(scope="session")
def graph_of():
    return small_graph


@pytest.fixture(scope="session")
def grey() -> InputSpec:
    return GREY


@pytest.fixture
def grey_frames() -> np.ndarray:
    return sample_images(GREY, 5, seed=4).numpy()
