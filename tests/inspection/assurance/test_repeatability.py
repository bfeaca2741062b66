import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import f_oneway

from anomaly.calibration import Decision
from anomaly.errors import DatasetError, SettingError
from inspection.assurance.gauge import Verdict
from inspection.assurance.judgements import Judgement
from inspection.assurance.repeatability import repeatability


def repeats(*scores):
    return [
        Judgement(part=f"p{k}", appraiser="line", trial=str(trial), decision=Decision.OK, score=float(score))
        for k, own in enumerate(scores)
        for trial, score in enumerate(own)
    ]


def test_by_hand():
    found = repeatability(repeats((1, 3), (5, 5), (9, 13)), threshold=10.0)
    assert found.deviation == pytest.approx(np.sqrt((2 + 0 + 8) / 3))
    assert found.worst == ("p2", pytest.approx(np.sqrt(8)))
    assert found.room == pytest.approx(10 - (2 + 5) / 2)  # p2 has its mean above
    assert (found.flipped, found.open) == (("p2",), ("p1",))
    assert found.verdict() == Verdict.BAD


@given(st.lists(st.lists(st.floats(-50, 50), min_size=2, max_size=4), min_size=2, max_size=8))
def test_the_components_are_those_of_the_analysis_of_variance(scores):
    found = repeatability(repeats(*scores), threshold=100.0)
    sizes = np.array([len(own) for own in scores])
    within = sum(np.var(own) * len(own) for own in scores) / (sizes.sum() - len(sizes))
    assert found.deviation == pytest.approx(np.sqrt(within), abs=1e-9)
    if within > 1e-6 and len(set(sizes)) == 1:
        f = f_oneway(*scores).statistic
        assert found.between == pytest.approx(np.sqrt(max(0, (f - 1) * within / sizes[0])), abs=1e-6)


@given(st.floats(0.1, 100), st.floats(-100, 100))
def test_the_unit_of_the_score_does_not_matter(scale, shift):
    scores = np.array([[1.0, 1.2], [2.0, 1.9], [3.0, 3.3]])
    one = repeatability(repeats(*scores), 3.1)
    other = repeatability(repeats(*(scale * scores + shift)), scale * 3.1 + shift)
    assert other.ratio == pytest.approx(one.ratio, rel=1e-6)
    assert other.deviation == pytest.approx(scale * one.deviation, rel=1e-6)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        found = repeatability(repeats(*(rng.normal(size=(10, 1)) * 5 + rng.normal(size=(10, 3)))), 100.0)
        hits += found.low <= 1 <= found.high
    assert 0.91 <= hits / 300 <= 0.98


def test_decisions_alike_may_hide_a_weak_gauge():
    steady = repeatability(repeats((1.0, 1.01), (1.1, 1.11), (9.0, 9.01)), 5.0)
    weak = repeatability(repeats((1.0, 3.5), (3.6, 1.1), (9.0, 6.8)), 5.0)
    assert steady.flipped == weak.flipped == ()
    assert (steady.verdict(), weak.verdict()) == (Verdict.GOOD, Verdict.BAD)


def test_without_a_part_on_the_passing_side_there_is_no_room():
    found = repeatability(repeats((8, 9), (8, 8)), 5.0)
    assert (found.ratio, found.verdict()) == (None, Verdict.BAD)


def test_what_cannot_be_worked_out_is_refused():
    with pytest.raises(DatasetError, match="seen twice"):
        repeatability(repeats((1,), (2,)), 5.0)
    with pytest.raises(SettingError, match="finite"):
        repeatability(repeats((1, 2)), float("nan"))
    bare = [Judgement(part="p", appraiser="a", trial="1", decision=Decision.OK)]
    with pytest.raises(DatasetError, match="has no score"):
        repeatability(bare, 5.0)
