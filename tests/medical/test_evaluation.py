"""Figures of a worklist against labels, by hand and from files."""

import csv
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.errors import DatasetError
from medical.evaluation import Case, evaluate, read_cases, sensitivity_at


def case(study, rank, score, abnormal, flagged=False, stratum="", shortcut=0.0):
    return Case(study, rank, score, flagged, abnormal, stratum, {"mean grey": shortcut})


CASES = [
    case("a", 1, 9.0, True, True, "PA", 3.0), case("b", 2, 8.0, False, True, "PA", 2.0),
    case("c", 3, 7.0, True, False, "AP", 3.0), case("d", 4, 1.0, False, False, "AP", 1.0),
    case("e", 5, None, True, False, "AP", 9.0), case("f", 6, 0.5, False, False, "PA", 2.5),
    case("g", 7, 0.4, False, False, "PA", 2.0), case("h", 8, 0.3, False, False, "PA", 2.0),
]  # fmt: skip


def test_by_hand():
    found = evaluate(CASES)
    assert found["studies"] == {"normal": 5, "abnormal": 3, "normal_not_analysed": 0, "abnormal_not_analysed": 1}
    assert found["auroc"]["value"] == pytest.approx(9 / 10)  # b above c is the one pair that is wrong
    assert found["flagged_abnormal"]["hits"] == 1  # e was not analysed: it counts as not flagged
    assert found["flagged_abnormal"]["total"] == 3
    assert found["worklist"]["abnormal_in_first_quarter"]["hits"] == 1
    assert found["worklist"]["at_most"] == pytest.approx(2 / 3)
    assert found["auroc_within_strata"] == pytest.approx(1.0)
    assert found["strata"]["AP"]["auroc"]["value"] == 1.0
    assert found["shortcuts"]["mean grey"] == pytest.approx(1.0)


@given(st.lists(st.integers(0, 9), min_size=2, max_size=40), st.lists(st.integers(0, 9), min_size=1, max_size=40))
def test_sensitivity_is_that_of_the_best_threshold_that_keeps_the_specificity(normal, abnormal):
    scores = np.array(normal + abnormal, float)
    labels = np.repeat([0, 1], [len(normal), len(abnormal)])
    kept = [t for t in range(-1, 10) if np.mean(np.array(normal) <= t) >= 0.9 - 1e-9]
    best = max(np.mean(np.array(abnormal) > t) for t in kept)
    assert sensitivity_at(scores, labels) == pytest.approx(best)


def files(tmp_path, cases, **labels):
    rows = [
        {"study_instance_uid": c.study, "rank": c.rank, "score": c.score, "decision": "REVIEW" if c.flagged else "OK"}
        for c in cases
    ]
    (tmp_path / "worklist.json").write_text(json.dumps({"studies": rows}))
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["study", "label", "view", "mean grey", "note"])
        for c in cases:
            label = labels.get(c.study, "abnormal" if c.abnormal else "normal")
            writer.writerow([c.study, label, c.stratum, c.shortcuts["mean grey"], "text"])
    return tmp_path / "worklist.json", tmp_path / "labels.csv"


def test_from_files(tmp_path):
    assert read_cases(*files(tmp_path, CASES), by="view") == CASES


def test_the_command(tmp_path, call):
    worklist, labels = files(tmp_path, CASES)
    status, out, _ = call("triage", "evaluate", worklist, "--labels", labels, "--by", "view")
    assert status == 0
    assert "AUROC: 0.900" in out
    assert "NOT_ANALYSED: 0 normal, 1 abnormal" in out
    status, out, _ = call("triage", "evaluate", worklist, "--labels", labels, "--json")
    assert json.loads(out)["auroc"]["value"] == pytest.approx(0.9)


def test_studies_without_labels_are_an_error(tmp_path):
    worklist, labels = files(tmp_path, CASES)
    labels.write_text("\n".join(labels.read_text().splitlines()[:-1]) + "\n")
    with pytest.raises(DatasetError, match="1 studies of the worklist have no label"):
        read_cases(worklist, labels)


def test_bad_labels_are_an_error(tmp_path):
    worklist, labels = files(tmp_path, CASES, a="ill")
    with pytest.raises(DatasetError, match="ill"):
        read_cases(worklist, labels)
    with pytest.raises(DatasetError, match="colour"):
        read_cases(worklist, labels, by="colour")
    with pytest.raises(DatasetError, match="two analysed"):
        evaluate(CASES[:2])


def test_a_study_with_two_labels_is_an_error(tmp_path):
    worklist, labels = files(tmp_path, CASES)
    labels.write_text(labels.read_text() + labels.read_text().splitlines()[1].replace("abnormal", "normal") + "\n")
    with pytest.raises(DatasetError, match="more than once"):
        read_cases(worklist, labels)


def test_chance_is_that_of_the_places_there_are():
    assert evaluate(CASES)["worklist"]["by_chance"] == pytest.approx(2 / 8)
    assert evaluate(CASES[:6])["worklist"]["by_chance"] == pytest.approx(2 / 6)  # a quarter of six are two places
