import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.calibration import Decision
from anomaly.errors import DatasetError, SettingError
from inspection.assurance.gauge import Verdict, study
from inspection.assurance.judgements import Judgement, read_judgements

sys.path.append(str(Path(__file__).parent))
from studies import NG, OK, manual

REVIEW = Decision.REVIEW


def judgements(*rows):
    """Rows (part, appraiser, decisions of its trials, truth)."""
    return [
        Judgement(part=part, appraiser=name, trial=str(trial), decision=decision, truth=truth)
        for part, name, decisions, truth in rows
        for trial, decision in enumerate(decisions)
    ]


def test_the_worked_example_of_the_manual():
    found = study([*manual("A"), *manual("B", alarms=(1, 1)), *manual("C", (3, 2, 1), (3, 2, 1, 1, 1, 1, 0))])
    a, b, c = found.appraisers
    assert [round(100 * one.effective.value) for one in (a, b)] == [84, 90]
    assert [round(100 * one.misses.value, 1) for one in (a, b, c)] == [6.2, 6.2, 12.5]
    assert [round(100 * one.false_alarms.value, 1) for one in (a, b, c)] == [4.9, 2.0, 8.8]
    assert [round(one.truth_kappa.value, 2) for one in (a, b, c)] == [0.88, 0.92, 0.77]
    assert [one.verdicts()["miss rate"] for one in (a, b, c)] == [Verdict.BAD] * 3
    assert [one.verdicts()["false-alarm rate"] for one in (a, b, c)] == [Verdict.GOOD, Verdict.GOOD, Verdict.MARGINAL]
    assert [one.verdicts()["effectiveness"] for one in (a, b)] == [Verdict.MARGINAL, Verdict.GOOD]
    assert found.verdict() == Verdict.BAD


def test_the_interval_of_a_rate_counts_parts_not_repeats():
    (a,) = study(manual(misses=(3, 0, 0))).appraisers
    assert (a.misses.count, a.misses.of) == (3, 48)
    assert (a.misses.parts.count, a.misses.parts.of) == (1, 16)


def test_review_is_a_decision_of_its_own_among_repeats_and_stops_a_part_against_the_truth():
    found = study(
        judgements(("1", "line", (NG, REVIEW), NG), ("2", "line", (OK, OK), OK), ("3", "line", (OK, REVIEW), OK))
    )
    (line,) = found.appraisers
    assert (line.within.count, found.unlike) == (1, ("1", "3"))
    assert line.effective.count == 2
    assert (line.misses.count, line.false_alarms.count) == (0, 1)


def test_without_truth_there_are_no_rates_and_one_appraiser_has_no_between():
    found = study(judgements(("1", "line", (NG, NG), None), ("2", "line", (OK, NG), None)))
    (line,) = found.appraisers
    assert line.effective is line.misses is line.truth_kappa is found.between is found.all_effective is None
    assert line.within.value == 0.5


def test_a_single_judgement_has_no_repeats():
    found = study(judgements(("1", "line", (NG,), NG), ("2", "line", (OK,), OK)))
    assert found.appraisers[0].within is found.all_kappa is None


decisions = st.lists(st.sampled_from(Decision), min_size=2, max_size=2)


@given(st.lists(st.tuples(decisions, decisions, st.sampled_from([OK, NG])), min_size=2, max_size=12), st.randoms())
def test_order_and_names_do_not_matter(parts, random):
    rows = judgements(
        *[(f"p{k}", "a", first, truth) for k, (first, _, truth) in enumerate(parts)],
        *[(f"p{k}", "b", second, truth) for k, (_, second, truth) in enumerate(parts)],
    )
    shuffled = [replace(j, appraiser={"a": "x", "b": "y"}[j.appraiser], part="q" + j.part) for j in rows]
    random.shuffle(shuffled)
    one, other = study(rows), study(shuffled)
    assert (one.between, one.all_effective, one.verdict()) == (other.between, other.all_effective, other.verdict())
    assert one.all_kappa.value == pytest.approx(other.all_kappa.value)
    names = [a.name for a in other.appraisers]
    for first, name in zip(one.appraisers, ("x", "y"), strict=True):
        second = other.appraisers[names.index(name)]
        assert (first.within, first.misses, first.false_alarms) == (second.within, second.misses, second.false_alarms)


TABLE = """part,appraiser,trial,decision,truth,score
1,line,1,OK,OK,0.5
1,line,2,REVIEW,OK,1.5
2,line,1,NG,,3
2,line,2,NG,,4
"""


def test_a_table_is_read(tmp_path):
    (tmp_path / "study.csv").write_text(TABLE)
    found = read_judgements(tmp_path / "study.csv")
    assert found[1] == Judgement(part="1", appraiser="line", trial="2", decision=REVIEW, truth=OK, score=1.5)
    assert found[2].truth is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("1,line,2,REVIEW", "1,line,1,REVIEW", "there twice"),
        ("2,line,2,NG,,4\n", "", "are missing"),
        ("REVIEW", "maybe", r"line 3: decision must be one of OK, REVIEW, NG; got 'maybe'"),
        ("1,line,2,REVIEW,OK", "1,line,2,REVIEW,NG", "a part has one"),
        ("1,line,1,OK,OK", "1,line,1,OK,REVIEW", "truth must be one of OK, NG"),
        ("trial", "run", "missing: trial; unknown: run"),
        ("0.5", "nan", "finite"),
        ("2,line,2,NG,,4", "2,line,2", "line 5: it has not as many cells"),
        (TABLE.partition("\n")[2], "", "the table has none"),
    ],
)
def test_a_bad_table_is_refused_with_the_place(tmp_path, old, new, says):
    (tmp_path / "study.csv").write_text(TABLE.replace(old, new))
    with pytest.raises(DatasetError, match=says):
        read_judgements(tmp_path / "study.csv")


def test_a_file_that_is_no_table_is_refused(tmp_path):
    (tmp_path / "study.csv").write_bytes("part,appraiser,trial,decision\nTür,a,1,OK\n".encode("latin-1"))
    for name in ("study.csv", "missing.csv"):
        with pytest.raises(DatasetError, match="cannot be read as a UTF-8 table"):
            read_judgements(tmp_path / name)


def test_unequal_numbers_of_trials_are_refused():
    with pytest.raises(DatasetError, match="a 2, b 1"):
        study(judgements(("1", "a", (OK, OK), None), ("1", "b", (OK,), None)))


def test_a_judgement_without_a_name_is_refused():
    with pytest.raises(SettingError, match="not empty"):
        Judgement(part="", appraiser="a", trial="1", decision=OK)
