"""False-alarm rates over whole runs, on many simulated streams, and delays after a change."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from anomaly.drift.martingale import TILTS, DistanceMartingale, Jumper, RankMartingale, Tilt, distances, start_of_rise

RATE = 0.1
STREAMS, LENGTH, REFERENCE = 160, 100, 12


def ever(test, values, rng):
    """Whether the wealth ever reaches 1 / RATE."""
    for value in values:
        test.step(value, float(rng.random()))
        if test.log_wealth >= -math.log(RATE):
            return True
    return False


def kept(alarms):
    """Whether a share of false alarms is compatible with a probability of at most RATE."""
    return binomtest(sum(alarms), len(alarms), RATE, alternative="greater").pvalue > 1e-3


DRAWS = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "heavy tails": lambda rng, n: rng.standard_t(1.5, n),
    "many ties": lambda rng, n: rng.integers(0, 4, n).astype(float),
}


@pytest.mark.parametrize("draw", DRAWS.values(), ids=DRAWS)
def test_false_alarms_over_whole_runs_stay_below_the_stated_rate_with_a_tiny_reference(draw):
    alarms = []
    for seed in range(STREAMS):
        rng = np.random.default_rng(seed)
        values = draw(rng, REFERENCE + LENGTH)
        alarms.append(ever(RankMartingale(values[:REFERENCE], missed=0.0), values[REFERENCE:], rng))
    assert kept(alarms)


def test_ranks_against_a_reference_that_never_grows_would_break_the_rate():
    """Why the reference grows: the same bets, and the accidental gaps of 12 fixed normals taken for a change."""
    alarms = []
    for seed in range(STREAMS):
        rng = np.random.default_rng(seed)
        reference, jumper, over = rng.standard_normal(REFERENCE), Jumper(0.0), False
        for value in rng.standard_normal(LENGTH):
            jumper.bet(int((reference > value).sum()), 0, REFERENCE, float(rng.random()))
            over |= jumper.log_wealth >= -math.log(RATE)
        alarms.append(over)
    assert not kept(alarms)


@pytest.mark.parametrize("share", [0.02, 0.1])
@pytest.mark.parametrize("side", [-50.0, 50.0])
def test_anomalies_up_to_the_stated_share_do_not_break_the_rate(share, side):
    alarms = []
    for seed in range(STREAMS // 2):
        rng = np.random.default_rng(seed)
        values = rng.standard_normal(60 + LENGTH)
        values[60:][rng.random(LENGTH) < share] = side
        alarms.append(ever(RankMartingale(values[:60], missed=share), values[60:], rng))
    assert kept(alarms)


def test_distances_keep_the_rate_too():
    alarms = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        vectors = rng.standard_normal((20 + 60, 6)) @ rng.standard_normal((6, 6))
        alarms.append(ever(DistanceMartingale(vectors[:20], missed=0.0), vectors[20:], rng))
    assert kept(alarms)


@pytest.mark.parametrize(("shift", "within"), [(5.0, 15), (-5.0, 15), (2.0, 40), (-2.0, 40)])
def test_a_change_is_found_within_few_images_and_dated(shift, within):
    for seed in range(6):
        rng = np.random.default_rng(seed)
        values = rng.standard_normal(60 + 150)
        values[60 + 100 :] += shift
        test, trace = RankMartingale(values[:60], missed=0.02), []
        for value in values[60:]:
            test.step(value, float(rng.random()))
            trace.append(test.log_wealth)
        alarm = next(k for k, wealth in enumerate(trace) if wealth >= math.log(1000))
        assert 100 <= alarm < 100 + within
        assert abs(start_of_rise(trace, alarm) - 100) <= 25


def test_a_turn_of_the_covariance_is_found_though_no_mean_moves():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((260, 4)) * (1.0, 1.0, 0.1, 0.1)
    vectors[160:] = vectors[160:, ::-1]
    assert ever(DistanceMartingale(vectors[:60], missed=0.02), vectors[60:], rng)


@given(st.floats(0, 1), st.sampled_from([0.0, 0.02, 0.1]))
def test_bets_are_bounded_as_their_insurance_says(p_value, missed):
    largest = np.abs(TILTS) / -np.expm1(-np.abs(TILTS))
    assert (Tilt(missed).factors(p_value) * (1 + missed * largest) <= largest * (1 + 1e-12)).all()


@pytest.mark.parametrize("missed", [0.0, 0.1])
def test_the_mean_of_every_bet_over_uniform_p_values_is_at_most_one(missed):
    grid = (np.arange(100_000) + 0.5) / 100_000
    means = np.array([Tilt(missed).factors(p) for p in grid[::20]]).mean(axis=0)
    largest = np.abs(TILTS) / -np.expm1(-np.abs(TILTS))
    assert np.allclose(means * (1 + missed * largest), 1, rtol=1e-3)


@settings(deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=30), st.integers(0, 6), st.floats(0, 0.999))
def test_smoothed_rank_by_counting(bag, value, uniform):
    test, jumper = RankMartingale(np.array(bag, dtype=float), 0.0), Jumper(0.0)
    test.step(float(value), uniform)
    jumper.bet(sum(b > value for b in bag), sum(b == value for b in bag), len(bag), uniform)
    assert test.log_wealth == jumper.log_wealth


def test_distances_are_those_of_scipy_when_nothing_is_shrunk(monkeypatch):
    from scipy.spatial.distance import mahalanobis

    from anomaly.drift import martingale

    monkeypatch.setattr(martingale, "_SHRINKAGE", 0.0)
    rng = np.random.default_rng(0)
    known, new = rng.standard_normal((40, 3)), rng.standard_normal((5, 3))
    inverse = np.linalg.inv(np.cov(known.T, bias=True))
    wanted = [mahalanobis(x, known.mean(axis=0), inverse) ** 2 for x in new]
    assert np.allclose(distances(new, known), wanted, rtol=1e-6)


def test_start_of_rise_by_hand():
    assert start_of_rise([0.5, -0.5, -1.0, 0.3, 2.0, 7.0], alarm=5) == 3
    assert start_of_rise([3.0, 7.0], alarm=1) == 0
