import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from anomaly.errors import InputError
from inspection.assurance.kappa import cohen_kappa, fleiss_kappa

# thirty patients, six raters, five diagnoses: Fleiss 1971, table 1, as R's package irr holds it
DIAGNOSES = """
444444 222555 233335 555555 222444 113333 333355 113334 114444 555555 144444 124444 222333 144444 224445
333335 111455 111112 224444 133555 555555 244444 224555 114444 144445 222224 111155 224444 133333 555555
"""

ratings = st.lists(st.tuples(st.sampled_from("ABC"), st.sampled_from("ABC")), min_size=3, max_size=60)


def from_table(table):
    pairs = [(str(i), str(j)) for i, row in enumerate(table) for j, count in enumerate(row) for _ in range(count)]
    return [a for a, _ in pairs], [b for _, b in pairs]


def diagnoses():
    return np.array([[row.count(kind) for kind in "12345"] for row in DIAGNOSES.split()])


def jackknifed(counts):
    """Standard error of Fleiss' kappa by leaving out one part at a time: shares no formula with the code."""
    n = len(counts)
    left = np.array([fleiss_kappa(np.delete(counts, k, axis=0)).value for k in range(n)])
    return float(np.sqrt((n - 1) / n * ((left - left.mean()) ** 2).sum()))


@given(ratings)
def test_cohens_kappa_is_that_of_scikit_learn(pairs):
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    found = cohen_kappa(first, second)
    if len(set(first + second)) == 1:
        assert found.value is None
    else:
        assert found.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)


def test_cohens_interval_is_that_of_sas():
    # SAS/STAT, PROC FREQ, example of agreement: kappa 0.4842, ASE 0.1380, which divides by n instead of n - 1
    first, second = from_table([[0, 4, 1], [0, 8, 0], [0, 1, 5]])
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(0.4842, abs=5e-5)
    error = (found.high - found.low) / 2 / 1.959964
    assert error * np.sqrt(18 / 19) == pytest.approx(0.1380, abs=5e-5)


@pytest.mark.parametrize(
    ("table", "kappa"),
    [([[44, 6], [3, 97]], 0.86), ([[42, 5], [9, 94]], 0.79), ([[43, 7], [8, 92]], 0.78), ([[45, 5], [3, 97]], 0.88)],
)
def test_the_agreement_tables_of_the_manual(table, kappa):
    # AIAG MSA 4th edition: A*B, B*C, A*C and A*reference of the example with 50 parts, 3 appraisers, 3 trials
    assert round(cohen_kappa(*from_table(table)).value, 2) == kappa


@given(ratings)
def test_appraisers_may_change_places_and_names(pairs):
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    names = {"A": "z", "B": "y", "C": "x"}
    one, other = cohen_kappa(first, second), cohen_kappa(second, first)
    renamed = cohen_kappa([names[a] for a in first], [names[b] for b in second])
    for found in (other, renamed):
        assert (found.value, found.low, found.high) == pytest.approx(
            (one.value, one.low, one.high), abs=1e-9, nan_ok=True
        )


@given(ratings)
def test_repeating_every_pair_of_a_part_adds_no_evidence(pairs):
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    parts = [str(k) for k in range(len(pairs))]
    once = cohen_kappa(first, second, parts)
    thrice = cohen_kappa(first * 3, second * 3, parts * 3)
    assert (thrice.value, thrice.low, thrice.high) == pytest.approx((once.value, once.low, once.high), abs=1e-9)
    assert thrice.parts == len(pairs)


def test_fleiss_kappa_of_his_own_example():
    assert fleiss_kappa(diagnoses()).value == pytest.approx(0.4302445, abs=1e-6)


def test_fleiss_interval_agrees_with_the_jackknife():
    counts = diagnoses()
    found = fleiss_kappa(counts)
    assert (found.high - found.low) / 2 / 1.959964 == pytest.approx(jackknifed(counts), rel=0.05)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    truth = fleiss_kappa(repeats(rng, 200_000)).value
    hits = 0
    for _ in range(400):
        found = fleiss_kappa(repeats(rng, 60))
        hits += found.low <= truth <= found.high
    assert 0.91 <= hits / 400 <= 0.98


def repeats(rng, n):
    """Three judgements of n parts, each NG with a probability of its part."""
    bad = rng.binomial(3, rng.choice([0.03, 0.9], size=n, p=[0.7, 0.3]))
    return np.stack([3 - bad, bad], axis=1)


def test_perfect_agreement_has_no_interval_and_one_category_no_kappa():
    perfect = cohen_kappa(["OK", "NG", "OK"], ["OK", "NG", "OK"])
    assert (perfect.value, perfect.low) == (1.0, None)
    assert perfect.in_words() == "1.000 (no disagreement in 3 parts: no interval)"
    assert fleiss_kappa(np.array([[3, 0], [3, 0]])).in_words() == "not defined: every judgement was the same"


@pytest.mark.parametrize("counts", [np.zeros((0, 2), int), np.array([[1, 0]]), np.array([[2, 0], [2, 1]])])
def test_tables_that_are_no_repeats_are_refused(counts):
    with pytest.raises(InputError):
        fleiss_kappa(counts)


def test_pairs_of_different_lengths_are_refused():
    with pytest.raises(InputError, match="2, 1 and 2"):
        cohen_kappa(["OK", "OK"], ["OK"])
