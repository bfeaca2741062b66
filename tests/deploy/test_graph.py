"""The graph judges as the calibration does, bit for bit at the thresholds."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.artifact import Artifact, MapCalibration, Training
from anomaly.calibration import calibrate
from anomaly.deploy.graph import ScoringGraph
from anomaly.deploy.manifest import DECISIONS, Frame
from anomaly.detector import Scorer, Scores
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.input_spec import InputSpec


class FirstPixel(Scorer):
    """Scores an image by its first pixel, whatever that is."""

    def score_canvas(self, canvas) -> Scores:
        return Scores(canvas.pixels[:, 0, 0, 0], canvas.pixels[:, 0])


def graph_for(held_out) -> tuple[ScoringGraph, Artifact]:
    spec = InputSpec(channels=1, dtype="float32", value_range=(0.0, 1.0), size=(32, 32))
    scorer = FirstPixel(SubspaceDetector(input=spec))
    calibration = calibrate(held_out, review_rate=0.4, ng_rate=0.2, confidence=0.5)
    training = Training(images=1, held_out=len(held_out), fingerprint="", created="")
    artifact = Artifact(scorer, calibration, MapCalibration(0.0, calibration.ng), training)
    return ScoringGraph(
        artifact, Frame(channels=1, height=32, width=32, dtype="float32", value_range=(0.0, 1.0))
    ), artifact


values = st.floats(0, 1, width=64)


@settings(max_examples=60, deadline=None)
@given(st.lists(values, min_size=5, max_size=20), st.lists(values, min_size=1, max_size=5))
def test_graph_and_calibration_judge_alike_at_and_beside_every_held_out_score(held_out, others):
    graph, artifact = graph_for(held_out)
    near = np.array(held_out, dtype=np.float32)
    scores = np.concatenate([near, np.nextafter(near, np.float32(-1)), np.nextafter(near, np.float32(2)), others])
    scores = scores.astype(np.float32).clip(0, 1)
    frames = torch.from_numpy(scores)[:, None, None, None].expand(-1, 1, 32, 32)
    score, _, p_value, decision = graph(frames)
    wanted = artifact.calibration.p_value(score.numpy())
    assert np.allclose(p_value.numpy(), wanted, rtol=1e-6)
    assert [DECISIONS[code] for code in decision] == [d.value for d in artifact.calibration.decide_all(score.numpy())]


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_a_score_that_is_not_finite_is_never_ok(broken):
    graph, _ = graph_for([0.1, 0.2, 0.3, 0.4])
    graph.scorer.score_canvas = lambda canvas: Scores(torch.full((2,), broken), canvas.pixels[:, 0])
    _, _, p_value, decision = graph(torch.zeros(2, 1, 32, 32))
    assert decision.tolist() == [2, 2]
    assert torch.allclose(p_value, torch.tensor(0.2))


def test_interleaved_frames_are_the_same_frames():
    graph, artifact = graph_for([0.1, 0.2, 0.3, 0.4])
    frame = Frame(channels=1, height=32, width=32, dtype="float32", value_range=(0.0, 1.0), layout="NHWC")
    planes = torch.rand(3, 1, 32, 32)
    for a, b in zip(graph(planes), ScoringGraph(artifact, frame)(planes.permute(0, 2, 3, 1)), strict=True):
        assert torch.equal(a, b)
