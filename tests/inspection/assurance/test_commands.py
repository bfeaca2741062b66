import csv
import json
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from anomaly.calibration import Decision
from anomaly.errors import DatasetError, SettingError
from inspection.assurance.from_store import Seen, stretches
from inspection.cli import app
from inspection.parts import PartResult, Reason
from inspection.results.records import Run, Verdict
from inspection.results.store import ResultsStore

sys.path.append(str(Path(__file__).parent))
from datetime import UTC, datetime

from studies import manual

START = datetime(2026, 11, 20, 6, tzinfo=UTC)
REFERENCE = "2026-11-20T14:00+00:00"


def run(*arguments, status=0):
    result = CliRunner().invoke(app, ["assure", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


def result(part, score, captured=START, model="aa"):
    decision = Decision.NG if score > 3.2 else Decision.REVIEW if score > 2.2 else Decision.OK
    return PartResult(
        part=part,
        source="camera",
        captured=captured,
        decision=decision,
        reason=Reason.SCORE,
        score=score,
        p_value=0.5,
        model=model,
    )


def started(store, name):
    store.start(Run(id=name, recipe="bb", model="aa", started=START, version="0"))


def fill_time(path, shift, share, n=1500):
    """A part every 30 seconds; after 1000 of them the scores move by `shift` and `share` of the parts is bad."""
    rng = np.random.default_rng(0)
    results = []
    for k in range(n):
        late = k >= 1000
        bad = rng.random() < (share if late else 0.05)
        score = float(rng.normal(6.0) if bad else rng.normal() + shift * late)
        results.append(result(f"{k:05d}", score, START + timedelta(seconds=30 * k)))
    with ResultsStore.open(path, create=True) as store:
        started(store, "week")
        store.write("week", results)


def test_the_table_of_the_manual_gives_its_figures(tmp_path):
    with (tmp_path / "study.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["part", "appraiser", "trial", "decision", "truth"])
        writer.writerows([j.part, j.appraiser, j.trial, j.decision.value, j.truth.value] for j in manual())
    said = run("gauge", tmp_path / "study.csv")
    assert "effectiveness (always right)  84.0 % (42 of 50; 95 % interval 70.9 % to 92.8 %)  [marginal]" in said
    assert "miss rate                     6.2 % (3 of 48 decisions; of parts 3 of 16" in said
    assert "AIAG, Measurement Systems Analysis, 4th edition" in said


def test_runs_over_the_same_parts_are_a_study(tmp_path):
    rng = np.random.default_rng(1)
    base = np.append(rng.normal(size=20) * 0.3, rng.normal(5.0, 0.3, 10))
    with ResultsStore.open(tmp_path / "results.sqlite", create=True) as store:
        for name in ("one", "two", "three"):
            started(store, name)
            base[0] = {"one": 2.1, "two": 2.3, "three": 2.2}[name]  # around the threshold
            scores = base + np.append(0, rng.normal(0, 0.1, 29))
            store.write(name, [result(f"{k:02d}", float(score)) for k, score in enumerate(scores)])
        told = [("OK", range(20)), ("NG", range(20, 30))]
        store.add_verdicts(
            [
                Verdict(run="one", part=f"{k:02d}", verdict=Decision(verdict), who="A. Meier", given=START)
                for verdict, parts in told
                for k in parts
            ]
        )
    runs = [item for name in ("one", "two", "three") for item in ("--run", name)]
    picture = tmp_path / "repeats.svg"
    said = run("gauge", "--store", tmp_path / "results.sqlite", *runs, "--threshold", 2.2, "--picture", picture)
    assert "30 parts, 1 appraiser(s), each part judged 3 times by each." in said
    assert "miss rate                     0.0 % (0 of 30 decisions" in said
    assert "on both sides of the threshold (1): 00" in said
    assert "Not always judged alike (1): 00" in said
    assert picture.read_bytes().startswith(b"<?xml")
    with pytest.raises(SettingError, match="two or more different runs"):
        run("gauge", "--store", tmp_path / "results.sqlite", "--run", "one")
    with ResultsStore.open(tmp_path / "results.sqlite") as store:
        store.add_verdicts([Verdict(run="two", part="03", verdict=Decision.NG, who="B. Huber", given=START)])
    with pytest.raises(DatasetError, match="part '03' is called OK in one run and NG in another"):
        run("gauge", "--store", tmp_path / "results.sqlite", *runs)


def test_a_line_that_does_not_change_raises_no_alarm_and_one_that_does_raises_both(tmp_path):
    fill_time(tmp_path / "moved.sqlite", shift=0.8, share=0.4)
    said = run(
        "charts",
        tmp_path / "moved.sqlite",
        "--out",
        tmp_path / "moved",
        "--reference-until",
        REFERENCE,
        "--by",
        "50",
        "--image",
        "png",
        status=3,
    )
    assert "ALARM" in said
    machine = json.loads((tmp_path / "moved" / "charts.json").read_text())
    late = {name: [a for a in machine[name]["alarms"] if a["point"] >= machine[name]["reference"]] for name in machine}
    assert {alarm["above"] for alarm in late["p_chart"]} == {True}
    assert late["ewma"][0]["point"] <= machine["ewma"]["reference"] + 3
    assert any("Nelson 1" in alarm["rule"] for alarm in late["p_chart"])
    assert sum(group["of"] for group in machine["p_chart"]["groups"]) == 1450  # 10 and 40 are left over
    assert (tmp_path / "moved" / "p-chart.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "moved" / "ewma.png").read_bytes().startswith(b"\x89PNG")

    fill_time(tmp_path / "calm.sqlite", shift=0.0, share=0.05, n=1100)
    said = run(
        "charts", tmp_path / "calm.sqlite", "--out", tmp_path / "calm", "--reference-until", REFERENCE, "--by", "20"
    )
    assert said.count("no alarm after the reference") == 2


def test_groups_by_the_hour_have_the_sizes_that_came_and_none_reaches_across_the_reference():
    times = [START + timedelta(minutes=10 * k) for k in range(20)]
    seen = [Seen(time, Decision.NG if k % 5 == 0 else Decision.OK, 1.0, "m") for k, time in enumerate(times)]
    cut, early = stretches(seen, "hour", START + timedelta(minutes=90))
    groups = [one.group("ng") for one in cut]
    assert [(group.of, group.count) for group in groups] == [(6, 2), (3, 0), (3, 1), (6, 1), (2, 0)]
    assert early == 2
    cut, early = stretches(seen, "4", START + timedelta(minutes=90))
    assert ([one.group("stopped").of for one in cut], early) == ([4] * 4, 2)
    unjudged = [Seen(START, Decision.NG, None, "m"), Seen(START, Decision.NG, 1.0, "m")]
    ((stretch,), _) = stretches(unjudged, "2", START)
    assert (stretch.group("unjudged").count, stretch.scores()) == (1, [1.0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--reference-until", "2020-01-01"), r"lie 0 groups \(--by hour\)"),
        (("--reference-until", REFERENCE, "--by", "week"), "hour, day or a number of parts"),
        (("--reference-until", "2026-11-20T06:20+00:00", "--by", "10", "--count", "all"), "ng, stopped, unjudged"),
        (("--reference-until", REFERENCE, "--image", "gif"), "svg or png"),
        (("--reference-until", "soon"), "2026-11-22T06:00"),
    ],
)
def test_what_makes_no_chart_is_refused(tmp_path, options, says):
    fill_time(tmp_path / "results.sqlite", 0, 0, n=60)
    with pytest.raises((DatasetError, SettingError), match=says):
        run("charts", tmp_path / "results.sqlite", "--out", tmp_path / "out", *options)


def test_scores_of_two_models_are_not_mixed(tmp_path):
    with ResultsStore.open(tmp_path / "results.sqlite", create=True) as store:
        started(store, "week")
        store.write("week", [result("1", 0.0), result("2", 0.0, model="bb")])
    with pytest.raises(DatasetError, match="2 models cannot be compared; --model-sha256: aa, bb"):
        run("charts", tmp_path / "results.sqlite", "--out", tmp_path / "out", "--reference-until", REFERENCE)


@pytest.mark.parametrize(
    "options", [(), ("study.csv", "--store", "results.sqlite"), ("study.csv", "--picture", "x.svg")]
)
def test_gauge_needs_one_source_and_a_threshold_for_the_picture(options):
    with pytest.raises(SettingError):
        run("gauge", *options)
