import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest, hypergeom

from anomaly.errors import SettingError
from inspection.assurance.intervals import lot_count, percent, share


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.sampled_from([0.9, 0.95]))
def test_a_share_has_the_exact_interval_of_scipy(counted, confidence):
    count, of = counted
    reference = binomtest(count, of).proportion_ci(confidence, method="exact")
    found = share(count, of, confidence)
    assert (found.low, found.high) == pytest.approx((reference.low, reference.high), abs=1e-9)


def test_effectiveness_of_the_manuals_example():
    # AIAG MSA 4th edition, example of 50 parts: 42 parts right, printed as 84 % with the limits 71 % and 93 %
    found = share(42, 50)
    assert (round(found.low, 2), round(found.high, 2)) == (0.71, 0.93)
    assert found.in_words() == "84.0 % (42 of 50; 95 % interval 70.9 % to 92.8 %)"


def test_what_is_as_likely_as_the_limit_is_not_contradicted():
    assert lot_count(0, 1, 40) == (0, 39)  # one of 40 is drawn with a probability of exactly 0.025


@given(st.integers(1, 60), st.data())
def test_a_lot_is_bounded_as_the_hypergeometric_tails_say(lot, data):
    of = data.draw(st.integers(1, lot))
    count = data.draw(st.integers(0, of))
    low, high = lot_count(count, of, lot)
    kept = [
        inside
        for inside in range(lot + 1)
        if min(hypergeom.sf(count - 1, lot, inside, of), hypergeom.cdf(count, lot, inside, of)) > 0.025 - 1e-12
    ]
    assert (low, high) == (min(kept), max(kept))


def test_a_whole_lot_leaves_nothing_open_and_an_empty_sample_everything():
    assert lot_count(3, 40, 40) == (3, 3)
    assert lot_count(0, 0, 40) == (0, 40)


def test_a_large_lot_is_bounded_as_an_endless_source():
    low, high = lot_count(2, 100, 1_000_000)
    assert (low / 1e6, high / 1e6) == pytest.approx((share(2, 100).low, share(2, 100).high), rel=2e-3)


@pytest.mark.parametrize("values", [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(values):
    with pytest.raises(SettingError):
        share(*values)


def test_a_sample_larger_than_its_lot_is_refused():
    with pytest.raises(SettingError, match="at least the sample, 5"):
        lot_count(0, 5, 4)


def test_small_shares_do_not_become_zero():
    assert [percent(value) for value in (0, 0.00012, 0.0256, 1)] == ["0.0 %", "0.012 %", "2.6 %", "100.0 %"]
