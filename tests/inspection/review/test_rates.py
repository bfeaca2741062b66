import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from anomaly.calibration import Decision
from anomaly.errors import DatasetError, SettingError
from inspection.parts import Reason
from inspection.review.proposal import compare, propose
from inspection.review.rates import review_rates
from inspection.review.units import Unit, chance, sampled

OK, REVIEW, NG = Decision


def unit(k, decision, verdict=None, score=1.0, reason=Reason.SCORE, drawn=False, model="m"):
    judged = reason in (Reason.SCORE, Reason.DEFECTS)
    return Unit("run", f"p{k}", decision, reason, score if judged else None, verdict, model, 0.0 if drawn else 0.99)


def line(passed=1000, drawn_ok=98, drawn_ng=2, false_rejects=12, true_rejects=30, open_stopped=0):
    """A run: the drawn passed parts have a verdict, so have the stopped ones but for `open_stopped`."""
    kinds = [
        *[(OK, OK, True)] * drawn_ok,
        *[(OK, NG, True)] * drawn_ng,
        *[(OK, None, False)] * (passed - drawn_ok - drawn_ng),
        *[(REVIEW, OK, False)] * false_rejects,
        *[(NG, NG, False)] * true_rejects,
        *[(NG, None, False)] * open_stopped,
    ]
    return [unit(k, decision, verdict, drawn=drawn) for k, (decision, verdict, drawn) in enumerate(kinds)]


def test_by_hand():
    found = review_rates(line(), 0.1)
    assert (found.passed, found.sample.parts, found.known_escapes) == (1000, 100, 2)
    # 2 of 100 sampled: 20 of 1000 expected, and the exact interval by trying every number
    kept = [
        k for k in range(1001) if hypergeom.sf(1, 1000, k, 100) >= 0.025 and hypergeom.cdf(2, 1000, k, 100) >= 0.025
    ]
    assert found.escapes == (kept[0], kept[-1])
    assert found.bad_among_passed.value == pytest.approx(0.02)
    assert found.missed.value == pytest.approx(20 / 50)
    assert (found.missed.low, found.missed.high) == pytest.approx(
        (kept[0] / (kept[0] + 30), kept[-1] / (kept[-1] + 30))
    )
    assert found.false_rejects.value == pytest.approx(12 / (12 + 980))
    assert found.false_rejects.high == pytest.approx(12 / (12 + 1000 - kept[-1]))


def test_when_everything_is_reviewed_nothing_is_open():
    found = review_rates(line(passed=200, drawn_ok=195, drawn_ng=5), 1.0)
    for estimate in (found.false_rejects, found.missed, found.bad_among_passed):
        assert estimate.low == estimate.high
    assert found.escapes == (5, 5)


def test_what_has_no_verdict_widens_the_interval_at_both_ends():
    full, part = review_rates(line(), 0.1), review_rates(line(open_stopped=10), 0.1)
    assert part.false_rejects.low == full.false_rejects.low  # they may all be NG
    assert part.false_rejects.high > full.false_rejects.high
    assert part.missed.low < full.missed.low
    blanks = [u if k else Unit("run", "p0", OK, Reason.SCORE, 1.0, None, "m", 0.0) for k, u in enumerate(line())]
    assert review_rates(blanks, 0.1).escapes[1] > full.escapes[1]


def test_an_escape_outside_the_sample_is_certain_and_no_draw():
    units = line(drawn_ok=100, drawn_ng=0)
    units[500] = unit(500, OK, NG)
    found = review_rates(units, 0.1)
    assert found.escapes[0] == 1
    assert found.escapes[1] == review_rates(line(drawn_ok=100, drawn_ng=0), 0.1).escapes[1]


def test_without_a_sample_escapes_are_not_known():
    found = review_rates(line(drawn_ok=0, drawn_ng=0), 0.1)
    assert found.escapes == (0, 1000)
    assert found.missed.value is None
    assert found.missed.in_words().startswith("no estimate")


def test_parts_that_were_not_judged_are_no_false_rejects():
    units = [*line(), *(unit(5000 + k, NG, OK, reason=Reason.TIMEOUT) for k in range(50))]
    found = review_rates(units, 0.1)
    assert found.unjudged.ok == 50
    assert found.false_rejects == review_rates(line(), 0.1).false_rejects


def test_intervals_cover_the_truth_of_a_drawn_line():
    rng = np.random.default_rng(0)
    hits = np.zeros(3)
    for _ in range(150):
        bad = rng.random(1000) < 0.03
        drawn = rng.random(1000) < 0.15
        truth = [NG if b else OK for b in bad]
        units = [unit(k, OK, truth[k] if drawn[k] else None, drawn=bool(drawn[k])) for k in range(1000)] + [
            unit(2000 + k, NG, NG if k < 40 else OK) for k in range(50)
        ]
        found = review_rates(units, 0.15)
        true = bad.mean(), bad.sum() / (bad.sum() + 40), 10 / (10 + 1000 - bad.sum())
        for k, estimate in enumerate((found.bad_among_passed, found.missed, found.false_rejects)):
            hits[k] += estimate.low <= true[k] <= estimate.high
    assert (hits / 150 >= 0.93).all()


verdicts = st.sampled_from([None, OK, NG])
units = st.lists(st.tuples(st.sampled_from(Decision), verdicts, st.booleans()), min_size=1, max_size=60)


@given(units, st.randoms())
def test_order_does_not_matter_and_estimates_lie_within(rows, random):
    made = [unit(k, decision, verdict, drawn=drawn) for k, (decision, verdict, drawn) in enumerate(rows)]
    shuffled = made[:]
    random.shuffle(shuffled)
    found = review_rates(made, 0.5)
    assert found == review_rates(shuffled, 0.5)
    for estimate in (found.false_rejects, found.missed, found.bad_among_passed):
        assert 0 <= estimate.low <= estimate.high <= 1


def test_the_sample_is_a_fixed_share_and_larger_ones_contain_it():
    found = [Unit("r", f"{k}.png", OK, Reason.SCORE, 1.0, None, "m", chance(f"{k}.png")) for k in range(20_000)]
    small, large = ({u.part for u in sampled(found, share)} for share in (0.02, 0.05))
    assert small < large
    assert 0.017 < len(small) / 20_000 < 0.023
    assert len(sampled(found, 1.0)) == 20_000


def test_impossible_questions_are_refused():
    with pytest.raises(DatasetError, match="no part"):
        review_rates([], 0.1)
    with pytest.raises(SettingError, match="ok_share"):
        review_rates(line(), 0)


def scored_line(rng, normals=1500, defects=60, share=0.3, review=2.2, ng=3.2):
    """Normals with standard normal scores, defects far above but for a few; reviewed as `review export` asks."""
    scores = np.append(rng.normal(size=normals), rng.normal(4, 1.2, size=defects))
    found = []
    for k, score in enumerate(scores):
        truth, decision = OK if k < normals else NG, NG if score > ng else REVIEW if score > review else OK
        drawn = bool(rng.random() < share)
        known = truth if drawn or decision != OK else None
        found.append(unit(k, decision, known, float(score), drawn=drawn))
    return found


def test_proposed_thresholds_keep_their_promise_on_new_normals():
    from scipy.stats import norm

    rng, broken = np.random.default_rng(1), 0
    for _ in range(60):
        made = propose(scored_line(rng), 0.3, review_rate=0.05, ng_rate=0.01)
        broken += norm.sf(made.calibration.review.value) > 0.05 or norm.sf(made.calibration.ng.value) > 0.01
    assert broken <= 4
    assert made.calibration.review.value < 2.2  # 5 % instead of the 1.4 % of the old threshold
    assert made.taken_off > 0


def test_new_thresholds_are_compared_part_by_part():
    units = [
        unit(0, OK, OK, 1.0),
        unit(1, REVIEW, OK, 2.0),
        unit(2, REVIEW, NG, 2.1),
        unit(3, OK, NG, 1.5),
        unit(4, NG, NG, 9.0),
        unit(5, REVIEW, OK, 0.5, reason=Reason.DEFECTS),
        unit(6, NG, None, reason=Reason.TIMEOUT),
    ]
    from anomaly.calibration import calibrate

    found = compare(units, calibrate([0.0, 2.5, 3.0], review_rate=0.9, ng_rate=0.1))
    assert found.new_escapes == ("p2",)
    assert found.saved == ("p1",)  # p5 keeps its defects
    assert found.new_catches == found.lost == ()
    assert found.worse
    assert found.known[NG, NG, NG] == 1
    assert sum(found.all.values()) == 6
    lower = compare(units, calibrate([0.0, 1.2, 3.0], review_rate=0.9, ng_rate=0.1))
    assert (lower.new_catches, lower.new_escapes) == (("p3",), ())


def test_thresholds_are_not_proposed_without_the_verdicts_they_need():
    with pytest.raises(DatasetError, match=r"1 stopped part\(s\) have no verdict, the first is p1042"):
        propose(line(open_stopped=1), 0.1)
    with pytest.raises(DatasetError, match="2 models"):
        propose([*line(), unit(9, OK, model="other")], 0.1)
    with pytest.raises(DatasetError, match="which leaves no normal"):
        propose(line(drawn_ok=0, drawn_ng=0, false_rejects=0), 0.1)
    with pytest.raises(DatasetError, match="none of 1 parts was judged"):
        propose([unit(0, NG, OK, reason=Reason.ERROR)], 0.1)
