"""The gate finds what differs, and lets pass what does not matter."""

import numpy as np
import pytest

from anomaly.deploy.manifest import Frame, Manifest
from anomaly.deploy.parity import BOUNDS, compare
from anomaly.deploy.runtime import Runtime, Scores

SCORES = np.array([0.0, 1.0, 2.0, 3.0, 50.0], np.float32)
FRAMES = {"normal": SCORES[:3, None, None, None], "extreme": SCORES[3:, None, None, None]}
MANIFEST = Manifest(
    target="eager",
    precision="fp32",
    frame=Frame(channels=1, height=1, width=1, dtype="float32", value_range=(-1e9, 1e9), batch=(1, 8)),
    canvas=(1, 1),
    covered=(1, 1),
    review=2.0,
    ng=3.0,
    calibrated_on=9,
    promise="",
    score_typical=1.0,
    map_typical=1.0,
    map_threshold=3.0,
    model={},
    parity={},
)


class Fake(Runtime):
    """Scores a frame by its only pixel, plus an error."""

    def __init__(self, error=0.0, map_error=0.0, only_in_batches=False):
        super().__init__(MANIFEST, "fake")
        self.error, self.map_error, self.only_in_batches = error, map_error, only_in_batches

    def run(self, batch):
        on = not self.only_in_batches or len(batch) > 1
        value = batch[:, 0, 0, 0]
        score = (value + on * self.error).astype(np.float32)
        decision = ((score > 2).astype(int) + (score > 3)).astype(np.int32)
        return Scores(score, (value + on * self.map_error)[:, None, None], np.full_like(score, 0.1), decision)


def test_equal_runtimes_do_not_differ():
    parity = compare(Fake(), Fake(), FRAMES, 1e-3)
    assert parity.beyond(BOUNDS["fp32"]) == []
    assert (parity.score_max, parity.map_max, parity.decisions_changed) == (0, 0, 0)
    assert parity.frames == {"normal": 3, "extreme": 2}
    assert parity.batches == (1, 8)


def test_differences_are_shares_of_the_way_to_an_alarm():
    parity = compare(Fake(), Fake(error=0.02, map_error=-0.1), FRAMES, 1e-3)
    # from the typical 1 to the threshold 3 are 2; the score 50 is 49 away
    assert parity.score_absolute == pytest.approx(0.02, rel=1e-3)
    assert parity.score_max == pytest.approx(0.01, rel=1e-3)
    assert parity.score_mean == pytest.approx((4 * 0.01 + 0.02 / 49) / 5, rel=1e-3)
    assert parity.map_max == pytest.approx(0.05, rel=1e-3)


def test_a_decision_that_flips_at_a_threshold_is_told_apart():
    near = compare(Fake(), Fake(error=1e-4), FRAMES, 1e-3)
    assert (near.decisions_changed, near.decisions_at_threshold) == (0, 4)  # scores 2 and 3, alone and in a batch
    assert near.beyond(BOUNDS["fp32"]) == []
    far = compare(Fake(), Fake(error=1.5), FRAMES, 1e-3)
    assert far.decisions_changed > 0


@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize(
    ("error", "named"),
    [
        ({"error": 2.0}, "score_max"),
        ({"error": np.nan}, "score_max"),
        ({"map_error": 9.0}, "map_max"),
        ({"map_error": np.nan}, "map_max"),
        ({"error": 2.0, "only_in_batches": True}, "score_max"),
        ({"error": 2.0}, "decisions changed"),
    ],
)
def test_what_differs_is_beyond_the_bounds(precision, error, named):
    lines = compare(Fake(), Fake(**error), FRAMES, 1e-3).beyond(BOUNDS[precision])
    assert any(named in line for line in lines)
