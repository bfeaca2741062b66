"""Reports of hand-written rows with known winners."""

import csv
import json
from xml.etree import ElementTree

import numpy as np
import pytest
from scipy.stats import studentized_range

from anomaly.errors import DatasetError
from benchmarks.datasets.registry import SETS
from benchmarks.reporting.anchors import read_anchors
from benchmarks.reporting.page import Section, Table, as_html
from benchmarks.reporting.pictures import Point, frontier, ranks
from benchmarks.reporting.report import write_report
from benchmarks.reporting.results import Experiment, Figure, Method, auroc_of, leader, mean_of, read_results
from benchmarks.running.run import KEY, VALUES

SUBSPACE, BANK, PADIM = (
    Method("subspace", "bundled"),
    Method("memory_bank", "bundled"),
    Method("anomalib:Padim", "resnet18"),
)
MVTEC = SETS["mvtec_ad"].categories


def row(dataset, method, auroc, half=0.01, seed=0, category="", **more):
    kept = {
        "wanted": 0.1,
        "promised": 0.1,
        "flagged": 1,
        "normals": 50,
        "low": 0.0005,
        "high": 0.106,
        "verdict": "not decided",
    }
    promises = {f"{level}_{name}": value for level in ("review", "ng") for name, value in kept.items()}
    return {
        **{"dataset": dataset, "category": category, "detector": method[0], "backbone": method[1], "seed": seed},
        **{"train": 50, "test": 100, "threads": 1, "held_out_units": 20, "load": 1.0, "ms_1_image": 20, **promises},
        **{"image_auroc": auroc, "image_auroc_low": auroc - half, "image_auroc_high": auroc + half, "cores": 2},
        **{"cpu": "Some CPU", "date": "2026-11-23T01:00+00:00", "commit": "abc1234", "versions": "torch=2"},
        **more,
    }


def shortcut(dataset, auroc):
    return row(dataset, ("shortcut: file size", "-"), auroc)


@pytest.fixture
def write(tmp_path):
    def written(rows, name="run"):
        folder = tmp_path / name
        folder.mkdir()
        with (folder / "results.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, [*KEY, *VALUES])
            writer.writeheader()
            writer.writerows(rows)
        (folder / "run.json").write_text(json.dumps({"sets": {"steel": "split of the authors", "wool": "another"}}))
        return folder

    return written


def test_the_error_of_a_mean_over_seeds_by_hand():
    found = auroc_of([{k: str(v) for k, v in row("a", BANK, a, 0.0196, s).items()} for s, a in enumerate((0.90, 0.94))])
    assert found.value == pytest.approx(0.92)
    assert found.error == pytest.approx(np.sqrt(0.01**2 + 0.0008 / 2))  # a bootstrap error of .01, a variance of .0008
    perfect = auroc_of([{k: str(v) for k, v in row("a", BANK, 1.0, 0.0).items()}])
    assert perfect.error == pytest.approx(1 / 100)  # one test image
    assert mean_of([Figure(0.8, 0.03), Figure(0.9, 0.04)]) == (pytest.approx(0.85), pytest.approx(0.025))


def test_only_a_lead_beyond_the_noise_is_a_lead():
    close = {SUBSPACE: Figure(0.93, 0.01), BANK: Figure(0.92, 0.01), PADIM: Figure(0.7, 0.01)}
    assert leader(close) is None
    assert leader(close | {SUBSPACE: Figure(0.96, 0.01)}) == SUBSPACE
    assert leader({SUBSPACE: Figure(0.96, 0.01)}) is None


def test_winners_are_marked_where_they_win(write, tmp_path):
    rows = [row("steel", SUBSPACE, 0.95), row("steel", BANK, 0.80), row("steel", PADIM, 0.70), shortcut("steel", 0.6)]
    rows += [row("glass", SUBSPACE, 0.90), row("glass", BANK, 0.905), shortcut("glass", 0.88)]
    out = tmp_path / "report"
    files = write_report([write(rows)], out, [], ["A note."])
    assert {path.name for path in files} == {"report.md", "report.html", "pareto.svg"}
    text = (out / "report.md").read_text()
    of_steel, of_glass = text.split("## Set: steel")[1].split("## Set: glass")
    assert "**0.950**" in of_steel
    assert of_steel.count("**") == 2
    assert "**" not in of_glass.split("##")[0]
    assert "shortcut: file size" in of_glass
    assert "A note." in text
    assert "- steel: split of the authors." in text
    assert "INCOMPLETE: wool was asked for" in text
    means = text.split("## Mean over 2")[1].split("##")[0]
    assert "| anomalib:Padim (resnet18) |      1 of 2 |" in means  # it does not compete
    assert "**0.925**" in means
    wins = text.split("## Who wins")[1]
    assert "1 / 1 / 0" in next(line for line in wins.splitlines() if line.startswith("| subspace"))
    assert "0 / 1 / 1" in next(line for line in wins.splitlines() if line.startswith("| memory_bank"))
    assert "1 of 50" in text.split("## Promised false alarms")[1]
    assert "LIMITED" not in text
    assert "BUSY" not in text


def test_limits_and_load_are_said(write, tmp_path):
    write_report([write([row("steel", BANK, 0.9, limit=60, load=3.5)])], tmp_path / "report", [], [])
    text = (tmp_path / "report" / "report.md").read_text()
    assert "LIMITED RUN: at most 60" in text
    assert "load of other programs up to 2.5" in text
    assert "not quotable" in text


def test_published_figures_stand_apart_and_only_beside_the_whole_set(write, tmp_path):
    whole = [row("mvtec_ad", PADIM, 0.88, category=name) for name in MVTEC]
    write_report([write(whole)], tmp_path / "whole", [], [])
    text = (tmp_path / "whole" / "report.md").read_text()
    line = next(
        line for line in text.splitlines() if line.startswith("| anomalib:Padim (resnet18)") and "15 of 15" in line
    )
    assert line.split("|")[-2].strip() == "0.891"
    assert "published, not measured here" in text
    assert "| PatchCore, WideResNet-50" in text
    write_report([write(whole[:3], "part")], tmp_path / "some", [], [])
    assert "published" not in (tmp_path / "some" / "report.md").read_text()


def test_what_was_chosen_on_test_data_is_no_anchor(tmp_path):
    assert read_anchors()
    path = tmp_path / "anchors.yaml"
    entry = {"set": "visa", "category": "mean", "method": "M", "image_auroc": 0.99, "source": "S", "year": 2024}
    path.write_text(json.dumps([entry | {"protocol": "transductive"}]))
    with pytest.raises(DatasetError, match="inductive"):
        read_anchors(path)
    path.write_text(json.dumps([entry | {"protocol": "inductive", "set": "visas"}]))
    with pytest.raises(DatasetError, match="visas"):
        read_anchors(path)


def test_ranks_are_those_of_demsar():
    """Three methods on six sets; the first always first, the others take turns."""
    found = ranks(["a", "b", "c"], [[0.9, 0.8, 0.7], [0.9, 0.7, 0.8]] * 3)
    assert found.average == {"a": 1.0, "b": 2.5, "c": 2.5}
    assert found.difference == pytest.approx(2.343 * np.sqrt(3 * 4 / (6 * 6)), abs=2e-3)  # 2.343: table 5 of the paper
    assert found.difference == pytest.approx(studentized_range.ppf(0.95, 3, np.inf) / np.sqrt(2) * np.sqrt(12 / 36))
    assert found.p_value < 0.05
    assert ranks(["a", "b", "c"], [[0.9, 0.8, 0.7]] * 4) is None
    assert ranks(["a", "b"], [[0.9, 0.8]] * 9) is None


def test_the_frontier_holds_what_none_beats_in_both():
    points = {
        "slow": Point(50, 0.95, 0),
        "fast": Point(10, 0.90, 0),
        "beaten": Point(20, 0.85, 0),
        "worst": Point(60, 0.9, 0),
    }
    assert frontier(points) == ["fast", "slow"]


def test_the_page_is_one_file_and_text_stays_text(write, tmp_path):
    sets = [f"set{number}" for number in range(5)]
    rows = [row(name, method, a) for name in sets for method, a in ((SUBSPACE, 0.9), (BANK, 0.8), (PADIM, 0.7))]
    write_report([write(rows)], tmp_path / "report", [], ["<script>alert(1)</script>"])
    page = (tmp_path / "report" / "report.html").read_text()
    assert "<script" not in page
    assert "src=" not in page
    fetched = [part.split('"')[0] for part in page.split('href="')[1:]]
    assert all(target.startswith("#") for target in fetched)
    for name in ("pareto.svg", "ranks.svg"):
        assert ElementTree.fromstring((tmp_path / "report" / name).read_text()).tag.endswith("svg")
    ids = [part.split('"')[0] for part in page.split(' id="')[1:]]
    assert len(ids) == len(set(ids))  # two pictures in one page do not take each other's marks
    assert "<strong>1</strong>" in as_html("t", [Section("s", [], [Table("", ["a"], [["**1**"]], 1)])])


def test_exponents_of_a_power_law(write, tmp_path):
    path = tmp_path / "scaling.csv"
    header = "detector,images,threads,surface,fit_cpu_s,peak_mib,cpu,date\n"
    path.write_text(header + "".join(f"bank,{n},1,cast,{2 * n**1.5},{n},CPU,2026-11-23\n" for n in (10, 100)))
    run = write([row("steel", BANK, 0.9)])
    write_report([run], tmp_path / "report", [path], [])
    assert (
        "| bank     | 10 to 100 |       1 |                 1.50 |           1.00 |"
        in (tmp_path / "report" / "report.md").read_text()
    )
    path.write_text("a,b\n1,2\n")
    with pytest.raises(DatasetError, match="scaling"):
        write_report([run], tmp_path / "report", [path], [])


def test_folders_that_are_no_runs_and_rows_that_are_twice_there(write, tmp_path, call):
    one = write([row("steel", BANK, 0.9), shortcut("steel", 0.5)])
    other = write([row("steel", SUBSPACE, 0.9), shortcut("steel", 0.5)], "other")
    found = read_results([one, other])
    assert len(found.rows) == 2
    assert len(found.shortcuts) == 1
    assert found.auroc(Experiment("steel", ""), SUBSPACE).value == 0.9
    with pytest.raises(DatasetError, match="report them apart"):
        read_results([one, write([row("steel", BANK, 0.8)], "third")])
    with pytest.raises(DatasetError, match="no row was measured"):
        read_results([write([shortcut("steel", 0.5)], "fourth")])
    status, _, err = call("bench", "report", tmp_path / "nowhere", "--out", tmp_path / "out")
    assert status == 2
    assert "results.csv" in err
    status, out, _ = call("bench", "report", "--help")
    assert status == 0
    assert "anomaly bench report runs/a --out" in " ".join(out.split())
