import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import lfilter

from anomaly.errors import DatasetError, InputError, SettingError
from inspection.assurance.ewma import EwmaSettings, ewma_chart
from inspection.assurance.p_chart import Group, p_chart
from inspection.assurance.pictures import draw_ewma, draw_p_chart
from inspection.assurance.rules import Rule, alarms

# Montgomery, Introduction to Statistical Quality Control, example 7.1: orange juice cans, 30 samples of 50
CANS = [12, 15, 8, 10, 4, 7, 16, 9, 14, 10, 5, 6, 17, 12, 22, 8, 10, 5, 13, 11, 20, 18, 24, 15, 9, 12, 7, 13, 9, 6]


def groups(counts, sizes):
    return [Group(str(k), int(count), int(of)) for k, (count, of) in enumerate(zip(counts, sizes, strict=True))]


def test_the_orange_juice_cans():
    chart = p_chart(groups(CANS, [50] * 30), 30)
    assert chart.centre == pytest.approx(0.2313, abs=5e-5)
    binomial = 3 * np.sqrt(chart.centre * (1 - chart.centre) / 50)
    assert (chart.centre - binomial, chart.centre + binomial) == pytest.approx((0.0524, 0.4102), abs=1e-4)
    assert chart.sigma_z > 1  # samples 15 and 23 lie beyond the binomial limits: the book removes them with cause
    calm = [count for k, count in enumerate(CANS) if k not in (14, 22)]
    revised = p_chart(groups(calm, [50] * 28), 28)
    half = (revised.high[0] - revised.centre) / revised.sigma_z
    assert (revised.centre, half) == pytest.approx((0.2150, 0.3893 - 0.2150), abs=1e-4)


def test_limits_follow_the_size_of_each_group():
    chart = p_chart(groups([10, 20, 10, 40], [100, 200, 100, 400]), 4)
    assert chart.high - 0.1 == pytest.approx(3 * np.sqrt(0.1 * 0.9 / np.array([100, 200, 100, 400])))


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(40, 90)), min_size=4, max_size=30))
def test_counting_the_other_parts_mirrors_the_chart(rows):
    counts, sizes = np.array(rows).T
    if not 0 < counts[:3].sum() < sizes[:3].sum():
        return
    one, other = p_chart(groups(counts, sizes), 3), p_chart(groups(sizes - counts, sizes), 3)
    assert other.standardised == pytest.approx(-one.standardised, abs=1e-9)
    assert [(a.point, a.rule, not a.above) for a in one.alarms] == [(a.point, a.rule, a.above) for a in other.alarms]


def test_large_groups_that_vary_a_little_get_laneys_limits():
    rng = np.random.default_rng(0)
    shares = np.clip(rng.normal(0.02, 0.004, 60), 0.001, 1)
    chart = p_chart(groups(rng.binomial(20_000, shares), [20_000] * 60), 40)
    z = (chart.shares - chart.centre) / np.sqrt(chart.centre * (1 - chart.centre) / 20_000)
    expected = np.mean([abs(z[k] - z[k - 1]) for k in range(1, 40)]) / 1.128
    assert chart.sigma_z == pytest.approx(expected)
    assert 3.2 < chart.sigma_z < 5.2  # 0.004 / sqrt(0.02 * 0.98 / 20000), and the binomial part
    assert "varies more than binomially" in chart.kind
    assert Rule.BEYOND_LIMIT not in {alarm.rule for alarm in chart.alarms}


def test_binomial_groups_keep_the_binomial_limits():
    rng = np.random.default_rng(1)
    kept = [p_chart(groups(rng.binomial(500, 0.05, 40), [500] * 40), 40).sigma_z == 1 for _ in range(100)]
    assert 0.88 <= np.mean(kept) <= 1.0


def test_a_doubled_share_is_found_and_small_groups_are_said():
    rng = np.random.default_rng(2)
    counts = np.append(rng.binomial(400, 0.03, 30), rng.binomial(400, 0.09, 3))
    chart = p_chart(groups(counts, [400] * 33), 30)
    assert min(alarm.point for alarm in chart.alarms if alarm.rule == Rule.BEYOND_LIMIT) >= 30
    small = p_chart(groups([1, 0, 2, 1], [20] * 4), 3)
    assert any("groups are small: 20 parts, 100 are needed" in line for line in small.warnings())
    assert any("rest on 3 groups" in line for line in small.warnings())


def test_a_reference_without_counts_is_refused():
    with pytest.raises(DatasetError, match="no part counts"):
        p_chart(groups([0, 0, 3], [10] * 3), 2)
    with pytest.raises(SettingError, match="number of groups"):
        p_chart(groups([1, 1], [10] * 2), 3)
    with pytest.raises(SettingError):
        Group("x", 3, 2)


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([0, 3.1, 0], [(1, Rule.BEYOND_LIMIT, True)]),
        (
            [0, -3.1, -3.2],
            [(1, Rule.BEYOND_LIMIT, False), (2, Rule.BEYOND_LIMIT, False), (2, Rule.TWO_OF_THREE, False)],
        ),
        ([2.1, 0, 2.2, 0], [(2, Rule.TWO_OF_THREE, True)]),
        ([2.1, -2.2, 2.2], [(2, Rule.TWO_OF_THREE, True)]),
        ([1.1, 1.2, 0, 1.1, 1.2, 1.3], [(4, Rule.FOUR_OF_FIVE, True)]),
        ([0.1] * 10, [(8, Rule.NINE_ON_ONE_SIDE, True)]),
        ([0.1] * 8 + [-0.1] * 8, []),
        ([2.1, 0, 0, 2.1], []),
    ],
)
def test_run_rules(points, expected):
    assert [(a.point, a.rule, a.above) for a in alarms(np.array(points, dtype=float))] == expected


def test_how_often_the_rules_alarm_falsely():
    points = np.random.default_rng(3).normal(size=(300, 1000))
    first = [min((a.point for a in alarms(row)), default=1000) + 1 for row in points]
    assert 75 <= np.mean(first) <= 115  # Champ and Woodall: 91.8 with eight in a row


def single(values):
    """Groups of one part each."""
    return [[value] for value in values]


scores = st.lists(st.floats(0, 10, allow_subnormal=False), min_size=12, max_size=60)


@given(scores)
def test_a_rising_transformation_of_the_scores_changes_nothing(values):
    rounded = np.round(values, 6)
    one, other = ewma_chart(single(rounded), 10), ewma_chart(single(3 * rounded**3 + rounded + 5), 10)
    assert np.array_equal(one.values, other.values)
    assert one.alarms == other.alarms


def test_the_average_is_the_recursion_and_the_limits_are_exact():
    values = np.random.default_rng(4).normal(size=400)
    chart = ewma_chart(single(values), 400, EwmaSettings(weight=0.2, limit=2.962))
    ranks = np.argsort(np.argsort(values))
    from scipy.stats import norm

    expected = lfilter([0.2], [1, -0.8], norm.ppf((ranks + 0.5) / 400))
    assert chart.values == pytest.approx(expected)
    variances = np.cumsum(0.2**2 * 0.8 ** (2 * np.arange(400)))  # of a sum of independent terms
    assert chart.limits == pytest.approx(2.962 * np.sqrt(variances))


def test_one_false_alarm_in_about_500_parts():
    rng = np.random.default_rng(5)
    lengths = []
    for _ in range(150):
        chart = ewma_chart(single(rng.gamma(2, size=6000)), 4000)
        lengths.append(min((a.point - 3999 for a in chart.alarms if a.point >= 4000), default=2000))
    assert 400 <= np.mean(lengths) <= 600


def test_a_small_lasting_change_is_found_and_the_size_of_one_defect_moves_nothing():
    rng = np.random.default_rng(6)
    calm = rng.gamma(2, size=500)
    moved = ewma_chart(single(np.concatenate([calm, rng.gamma(2, size=60) * 1.6])), 500)
    assert any(alarm.point >= 500 and alarm.above for alarm in moved.alarms)
    small, huge = calm.copy(), calm.copy()
    small[400], huge[400] = calm[:300].max() + 0.01, 1e9
    assert np.array_equal(ewma_chart(single(small), 300).values, ewma_chart(single(huge), 300).values)


def test_groups_of_any_size_are_points_of_one_deviation():
    rng = np.random.default_rng(9)
    sizes = rng.integers(20, 200, 300)
    chart = ewma_chart([rng.gamma(2, size=size) for size in sizes], 300, EwmaSettings(weight=1.0, limit=3.0))
    assert chart.sigma_z == 1
    assert 0.9 < chart.values.std() < 1.1
    assert len(chart.alarms) <= 4


def test_groups_that_vary_more_than_their_parts_get_wider_limits():
    rng = np.random.default_rng(10)
    chart = ewma_chart([rng.normal(rng.normal(0, 0.3), 1, size=200) for _ in range(120)], 80)
    assert 3.0 < chart.sigma_z < 5.5  # sqrt(1 + 200 * 0.09) = 4.4, less what the mixture takes away
    assert "the groups of the reference differ" in chart.kind
    assert len(chart.alarms) <= 2


def test_parts_that_resemble_each_other_are_said():
    walk = lfilter([1], [1, -0.8], np.random.default_rng(7).normal(size=300))
    assert any("resemble their predecessor" in line for line in ewma_chart(single(walk), 200).warnings())


def test_what_no_chart_can_be_made_of_is_refused():
    with pytest.raises(InputError, match="1 of 11"):
        ewma_chart(single([0.0] * 10 + [float("nan")]), 10)
    with pytest.raises(InputError, match="1 groups are empty"):
        ewma_chart([[1.0] * 10, [], [1.0]], 2)
    with pytest.raises(SettingError, match="10 parts or more"):
        ewma_chart(single([0.0] * 20), 9)
    with pytest.raises(SettingError, match="number of groups"):
        ewma_chart([[0.0] * 20], 1)
    with pytest.raises(SettingError, match="weight"):
        EwmaSettings(weight=0)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_pictures_are_written(tmp_path, suffix):
    rng = np.random.default_rng(8)
    p = p_chart(groups(rng.binomial(200, 0.1, 30), [200] * 30), 20)
    draw_p_chart(tmp_path / f"p{suffix}", p, "Share", "NG")
    values = rng.normal(size=100)
    draw_ewma(tmp_path / f"e{suffix}", ewma_chart(single(values), 50), [str(k) for k in range(100)], "Scores")
    start = b"\x89PNG" if suffix == ".png" else b"<?xml"
    assert all((tmp_path / f"{name}{suffix}").read_bytes().startswith(start) for name in "pe")
