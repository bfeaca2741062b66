"""The contract of `anomaly.deploy.runtime` as an executable suite, for our runtimes and third parties' alike.

Needs numpy alone, so it also runs where a model is deployed.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from anomaly.deploy.manifest import DECISIONS, Frames
from anomaly.deploy.runtime import Runtime, Scores
from anomaly.errors import InputError

SHARE = 1e-4
"""Largest difference of scores that must be equal but for float rounding, as a share of the largest score."""


def check_runtime(runtime: Runtime, frames: Frames) -> None:
    """Checks that a runtime keeps the contract; raises AssertionError where it does not.

    Args:
        runtime: a loaded model.
        frames: 3 raw frames or more that the model takes, not all alike.
    """
    kept = frames.copy()
    scores = runtime(frames)
    _check_outputs(runtime, scores, len(frames))
    _check_judgement(runtime, scores)
    before = Scores.of([values.copy() for values in scores])
    _same(runtime(frames), scores, "a second call gave other scores")
    runtime(frames[::-1].copy())
    assert all(np.array_equal(a, b) for a, b in zip(scores, before, strict=True)), "a call changed earlier results"
    assert np.array_equal(frames, kept), "a call changed its frames"
    singles = [runtime(frame) for frame in frames]
    _same(Scores.joined(singles), scores, "one frame at a time scored other than a batch")
    many = np.concatenate([frames] * (1 + 2 * runtime.frame.batch[1] // len(frames)))
    _same(runtime(many).first(len(frames)), scores, "a large batch scored differently")
    _same(runtime(np.asfortranarray(frames)), scores, "frames that are not contiguous scored differently")
    with ThreadPoolExecutor(4) as pool:
        for found in pool.map(runtime, [frames] * 8):
            _same(found, scores, "calls from several threads disturbed each other")
    runtime.warm_up(1)
    _check_refusals(runtime, frames)


def _check_outputs(runtime: Runtime, scores: Scores, count: int) -> None:
    types = (np.float32, np.float32, np.float32, np.int32)
    shapes = ((count,), (count, *runtime.manifest.canvas), (count,), (count,))
    for name, values, dtype, shape in zip(Scores._fields, scores, types, shapes, strict=True):
        assert values.dtype == dtype, f"{name} must be {np.dtype(dtype)}; got {values.dtype}"
        assert values.shape == shape, f"{name} must have shape {shape}; got {values.shape}"
    assert np.isfinite(scores.score).all(), "scores must be finite"
    assert np.isfinite(scores.map).all(), "maps must be finite"
    assert scores.decisions == [DECISIONS[code] for code in scores.decision], "decisions must be those of the codes"


def _check_judgement(runtime: Runtime, scores: Scores) -> None:
    manifest = runtime.manifest
    wanted = (scores.score > manifest.review).astype(int) + (scores.score > manifest.ng)
    assert np.array_equal(scores.decision, wanted), "a decision does not follow from its score and the thresholds"
    units = (manifest.calibrated_on + 1) * scores.p_value.astype(np.float64)
    assert np.allclose(units, units.round(), atol=1e-3), "a p-value must be a multiple of 1 / (n + 1)"
    assert ((scores.p_value > 0) & (scores.p_value <= 1)).all(), "p-values must lie above 0 and at most at 1"
    order = np.argsort(scores.score)
    assert (np.diff(scores.p_value[order]) <= 0).all(), "a higher score must not have a higher p-value"


def _check_refusals(runtime: Runtime, frames: Frames) -> None:
    frame = runtime.frame
    axis = 1 if frame.layout == "NCHW" else 3
    bad = {
        "another dtype": frames.astype(np.float64),
        "another number of channels": np.concatenate([frames, frames], axis=axis),
        "an empty batch": frames[:0],
        "five dimensions": frames[None],
    }
    if frame.height is not None:
        bad["another height"] = frames[:, :, :-1] if axis == 1 else frames[:, :-1]
    if np.dtype(frame.dtype).kind == "f":
        bad["NaN"] = np.full_like(frames, np.nan)
    for what, values in bad.items():
        message = _refusal(runtime, values)
        assert message is not None, f"{what} must be an InputError"
        assert frame.dtype in message, f"the error for {what} must name what is expected; got: {message}"


def _refusal(runtime: Runtime, frames: Frames) -> str | None:
    try:
        runtime(frames)
    except InputError as error:
        return str(error)
    return None


def _same(got: Scores, wanted: Scores, what: str) -> None:
    for name in ("score", "map"):
        a, b = getattr(got, name), getattr(wanted, name)
        difference = float(np.abs(a - b).max())
        assert difference <= SHARE * max(1.0, float(np.abs(b).max())), f"{what}: {name} by {difference:.3g}"
