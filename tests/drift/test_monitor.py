import math

import numpy as np
import pytest
from scipy.stats import binomtest

from anomaly.drift.descriptors import EMBEDDING, GLOBAL
from anomaly.drift.monitor import ALL_SCORES, EMBEDDED, Monitor, Monitoring
from anomaly.drift.reference import Reference
from anomaly.errors import ArtifactError, CalibrationError, SettingError

PLAIN = ("score", *GLOBAL)


def stream(seed, columns, images, change=None, defects=0.0, known=40):
    """A reference, and a stream in which some images are defects and columns are shifted from `change` on."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((known + images, len(columns)))
    anomalous = rng.random(images) < defects
    rows[known:][anomalous, 0] += 12  # defects score high and move the descriptors a little
    rows[known:][anomalous, 1:] += rng.normal(0, 1, (int(anomalous.sum()), len(columns) - 1))
    for name, (begin, shift) in (change or {}).items():
        rows[known + begin :, columns.index(name)] += shift
    return Reference(tuple(columns), tuple(map(tuple, rows[:known].tolist())), bytes(64 * 64)), rows[known:]


def watched(reference, rows, **settings):
    monitor = Monitor(reference, Monitoring(**settings))
    for row in rows:
        monitor.add(row.tolist(), row.tobytes())
    return monitor


@pytest.mark.parametrize("defects", [0.0, 0.09])
def test_false_alarms_of_all_tests_together_over_whole_runs(defects):
    alarms = []
    for seed in range(40):
        reference, rows = stream(seed, PLAIN, 50, defects=defects)
        alarms.append(bool(watched(reference, rows, alarm_rate=0.1).alarms()))
    assert binomtest(sum(alarms), len(alarms), 0.1, alternative="greater").pvalue > 1e-3


def test_a_shifted_descriptor_is_named_and_dated_among_defects():
    reference, rows = stream(0, PLAIN, 120, change={"sharpness": (60, -4.0)}, defects=0.05)
    alarms = watched(reference, rows).alarms()
    assert alarms[0].name == "sharpness"
    assert 60 <= alarms[0].image < 85
    assert abs(alarms[0].since - 60) <= 10


def test_scores_that_rise_until_nothing_passes_are_seen_in_all_scores():
    reference, rows = stream(1, PLAIN, 100, change={"score": (50, 9.0)})
    alarms = watched(reference, rows).alarms()
    assert [alarm.name for alarm in alarms] == [ALL_SCORES]
    assert 50 <= alarms[0].image < 65


def test_scores_that_fall_are_seen_too():
    reference, rows = stream(2, PLAIN, 100, change={"score": (50, -3.0)})
    assert watched(reference, rows).alarms()[0].name == "score"


def test_many_defects_are_no_drift_where_they_are_allowed():
    for seed in range(4):
        reference, rows = stream(seed, PLAIN, 60, defects=0.25)
        assert not watched(reference, rows, anomalies=0.3).alarms()


def test_an_embedding_is_watched_as_one():
    reference, rows = stream(3, PLAIN + EMBEDDING, 70, change={name: (30, 2.5) for name in EMBEDDING}, known=100)
    monitor = watched(reference, rows)
    assert monitor.names == (*PLAIN, EMBEDDED, ALL_SCORES)
    assert [alarm.name for alarm in monitor.alarms()] == [EMBEDDED]


def test_equal_input_gives_equal_traces_and_ties_are_broken_by_content():
    reference, rows = stream(4, PLAIN, 20)
    first, again = watched(reference, rows), watched(reference, rows)
    assert first.traces == again.traces
    other = Monitor(reference, Monitoring())
    for row in rows:
        other.add(row.tolist(), row.tobytes() + b"other content")
    assert other.traces != first.traces


def test_the_level_sets_a_tenth_aside_and_passing_is_the_same_on_both_sides():
    reference, rows = stream(5, PLAIN, 20)
    monitor = watched(reference, rows)
    scores = reference.values[:, 0]
    assert (scores > monitor.level).sum() == 4
    assert monitor.passed == (rows[:, 0] < monitor.level).tolist()
    assert monitor.log_level == pytest.approx(math.log(len(monitor.names) / 0.01))


def test_too_few_normals_are_refused_with_what_to_do():
    reference, _ = stream(6, PLAIN, 1)
    with pytest.raises(CalibrationError, match=r"needs 10 normals in the reference; this model keeps 9.*hold more out"):
        Monitor(Reference(reference.names, reference.rows[:9], reference.template), Monitoring())


@pytest.mark.parametrize("change", [{"alarm_rate": 0.0}, {"anomalies": 1.0}, {"missed": 0.6}])
def test_settings_that_are_not_allowed_are_refused(change):
    with pytest.raises(SettingError, match=f"{next(iter(change))} of Monitoring must be"):
        Monitoring(**change)


def test_a_reference_survives_json_and_refuses_damage():
    reference, _ = stream(7, PLAIN, 1)
    data = reference.to_dict()
    assert Reference.from_dict(data) == reference
    for change, words in (
        ({"version": 2}, "must be of version 1; got 2"),
        ({"more": 1}, "must hold names, rows, template and version"),
        ({"rows": [[1.0]]}, "every row of a reference must hold 6 finite numbers"),
        ({"rows": [["x"] * 6]}, "is damaged"),
        ({"names": ["brightness"]}, "begin with 'score'"),
        ({"template": "AAAA"}, "must hold 4096 bytes; got 3"),
        ({"template": "no base64!"}, "is damaged"),
    ):
        with pytest.raises(ArtifactError, match=words):
            Reference.from_dict(data | change)
