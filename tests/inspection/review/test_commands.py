import base64
import csv
import json
import re
import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from anomaly.errors import DatasetError, SettingError
from inspection.cli import app
from inspection.parts import Inspected
from inspection.results.pictures import Look
from inspection.results.records import Run
from inspection.results.reporting import Reporter
from inspection.results.settings import PictureSettings, ResultsSettings
from inspection.results.store import ResultsStore

sys.path.append(str(Path(__file__).parent))
from filling import MODEL, START, fill, inspected, is_bad


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    folder = tmp_path_factory.mktemp("line")
    fill(folder, ok_share=0.3)
    run("review", "export", folder / "results.sqlite", "--out", folder / "review", "--ok-share", 0.3)
    return folder


@pytest.fixture
def line(filled, tmp_path):
    """A store of its own, with the pictures and the export of the common one."""
    shutil.copytree(filled, tmp_path / "line")
    return tmp_path / "line"


def run(*arguments, status=0):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == status, result.output
    return result.stdout


def table_of(path):
    return list(csv.DictReader(path.read_text().splitlines()))


def judge(table):
    """Fills in the truth."""
    rows = table_of(table)
    for row in rows:
        row["verdict"] = "NG" if is_bad(row["part"]) else "OK"
    with table.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return rows


def reviewed(line):
    rows = judge(line / "review" / "verdicts.csv")
    run("review", "import", line / "results.sqlite", line / "review" / "verdicts.csv", "--who", "A. Meier")
    return rows


def test_export_hands_out_all_stopped_parts_and_a_sample_with_pictures(line):
    said = run("review", "export", line / "results.sqlite", "--out", line / "review", "--ok-share", 0.3)
    with ResultsStore.open(line / "results.sqlite") as store:
        stopped = {one.result.part for one in store.results() if one.result.decision != "OK"}
    rows = table_of(line / "review" / "verdicts.csv")
    assert {row["part"] for row in rows if row["why"].startswith("stopped")} == stopped
    sample = [row for row in rows if row["why"].startswith("random")]
    assert 20 <= len(sample) <= 50
    assert all(row["decision"] == "OK" for row in sample)
    assert f"{len(stopped)} stopped parts and a random sample of {len(sample)} of" in said
    html = (line / "review" / "review.html").read_text()
    assert html.count("data:image/jpeg;base64,") == len(rows) - 3  # the three that could not be read have none
    assert "3 of these parts have no picture" in html
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_pictures_are_kept_of_the_very_parts_that_are_drawn(line):
    drawn = {row["part"] for row in table_of(line / "review" / "verdicts.csv") if row["decision"] == "OK"}
    with ResultsStore.open(line / "results.sqlite") as store:
        kept = {one.result.part for one in store.results(decision="OK") if one.pictures}
    assert drawn == kept


def test_what_does_not_fit_on_a_page_comes_with_the_next_one(line, monkeypatch):
    monkeypatch.setattr("inspection.review.export.MOST", 30)
    handed = set()
    for waits in (True, False):
        said = run("review", "export", line / "results.sqlite", "--out", line / "review", "--ok-share", 0.3)
        assert ("more wait for the next export" in said) == waits
        rows = judge(line / "review" / "verdicts.csv")
        assert not handed & {row["part"] for row in rows}
        handed |= {row["part"] for row in rows}
        run("review", "import", line / "results.sqlite", line / "review" / "verdicts.csv", "--who", "A. Meier")
    assert run("review", "export", line / "results.sqlite", "--out", line / "review", "--ok-share", 0.3).startswith(
        "0 st"
    )


def test_verdicts_come_back_and_what_is_judged_is_not_handed_out_again(line):
    rows = reviewed(line)
    with ResultsStore.open(line / "results.sqlite") as store:
        verdicts = {one.result.part: one.verdict for one in store.results() if one.verdict}
    assert {part: verdict.verdict for part, verdict in verdicts.items()} == {
        row["part"]: row["verdict"] for row in rows
    }
    assert {verdict.who for verdict in verdicts.values()} == {"A. Meier"}
    said = run("review", "import", line / "results.sqlite", line / "review" / "verdicts.csv", "--who", "A. Meier")
    assert said.startswith(f"0 verdicts stored, {len(rows)} were there already")
    said = run("review", "export", line / "results.sqlite", "--out", line / "review", "--ok-share", 0.3)
    assert said.startswith("0 stopped parts and a random sample of 0 of")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda text: text.replace("part-0005-bad", "part-9999"), "has no part 'part-9999'"),
        (lambda text: text.replace("run-0,", "run-7,"), "run 'run-7' has no part"),
        (
            lambda text: re.sub(r"(part-0005-bad.*,)NG", r"\1maybe", text),
            "verdict must be OK, NG or empty; got 'maybe'",
        ),
        (lambda text: text + "run-0,part-0005-bad,NG,SCORE,4,stopped,OK\n", "is OK here and NG in line"),
        (lambda text: text.replace(",verdict", ",result"), "missing: verdict"),
        (lambda text: text + ",,NG,SCORE,4,stopped,OK\n", "run and part must not be empty"),
        (lambda text: text + "run-0,part-0005-bad,NG,SCORE,4,stopped,NG,more\n", "more cells than the header"),
    ],
)
def test_a_table_with_a_fault_is_refused_as_a_whole(line, change, says):
    table = line / "review" / "verdicts.csv"
    judge(table)
    table.write_text(change(table.read_text()))
    with pytest.raises(DatasetError, match=re.escape(says)):
        run("review", "import", line / "results.sqlite", table, "--who", "A. Meier")
    with ResultsStore.open(line / "results.sqlite") as store:
        assert not any(one.verdict for one in store.results())


def test_a_verdict_that_contradicts_a_stored_one_needs_to_be_a_correction(line):
    reviewed(line)
    table = line / "again.csv"
    table.write_text("part;run;verdict\npart-0005-bad;run-0; ok \n")
    with pytest.raises(DatasetError, match=r"is OK here, but A\. Meier said NG on"):
        run("review", "import", line / "results.sqlite", table, "--who", "B. Huber")
    run("review", "import", line / "results.sqlite", table, "--who", "B. Huber", "--correct")
    with ResultsStore.open(line / "results.sqlite") as store:
        (found,) = store.results(part="part-0005-bad")
    assert [(verdict.who, verdict.verdict) for verdict in found.verdicts] == [("A. Meier", "NG"), ("B. Huber", "OK")]


def test_summary_says_rates_and_thresholds_and_replaces_nothing(line):
    rows = reviewed(line)
    said = run("review", "summary", line / "results.sqlite", "--ok-share", 0.3, "--review-rate", 0.2, "--ng-rate", 0.1)
    assert "Proposed thresholds for model 3f3f3f3f3f3f" in said
    assert "Nothing was replaced." in said
    machine = json.loads(
        run(
            "review",
            "summary",
            line / "results.sqlite",
            "--ok-share",
            0.3,
            "--review-rate",
            0.2,
            "--ng-rate",
            0.1,
            "--json",
        )
    )
    rates = machine["rates"]
    stopped = [row for row in rows if row["why"].startswith("stopped") and row["reason"] == "SCORE"]
    assert rates["stopped"] == {
        "ok": sum(row["verdict"] == "OK" for row in stopped),
        "ng": sum(row["verdict"] == "NG" for row in stopped),
        "open": 0,
    }
    assert rates["unjudged"] == {"ok": 3, "ng": 0, "open": 0}
    assert rates["missed"]["low"] <= (12 - rates["stopped"]["ng"]) / 12 <= rates["missed"]["high"]


def test_without_verdicts_no_thresholds_are_proposed(line):
    said = run("review", "summary", line / "results.sqlite", "--ok-share", 0.3)
    assert "No thresholds are proposed" in said
    assert "have no verdict, the first is" in said


def test_a_proposal_that_would_pass_a_known_defect_has_its_own_exit_status(line):
    reviewed(line)
    machine = json.loads(
        run(
            "review",
            "summary",
            line / "results.sqlite",
            "--ok-share",
            0.3,
            "--review-rate",
            0.005,
            "--ng-rate",
            0.001,
            "--json",
            status=3,
        )
    )
    assert machine["comparison"]["new_escapes"]


def test_normals_for_a_refit_and_for_a_calibration_share_no_part(line):
    reviewed(line)
    model, store = line / "part.safetensors", line / "results.sqlite"
    model.write_bytes(b"model")

    def collected(out, *options):
        said = run("review", "normals", store, "--out", line / out, "--model", model, *options)
        return said, {row["part"] for row in table_of(line / out / "normals.csv")}

    said, fair = collected("fair", "--ok-share", 0.3, "--representative")
    assert f"anomaly inspect calibrate RECIPE {line / 'fair'}" in said
    said, learned = collected("learned", "--ok-share", 0.15)
    assert f"anomaly refit {model} {line / 'learned'} -o {line / 'part-2.safetensors'}" in said
    assert "were not judged by part.safetensors itself" in said
    _, smaller = collected("smaller", "--ok-share", 0.15, "--representative")
    _, everything = collected("everything", "--ok-share", 1.0, "--representative")
    assert smaller
    assert not learned & smaller
    assert learned | smaller == everything
    assert smaller <= fair
    assert not any(map(is_bad, everything))
    copied = cv2.imread(str(line / "learned" / table_of(line / "learned" / "normals.csv")[0]["file"]), -1)
    assert (copied.shape, copied.dtype) == ((64, 96), np.uint8)


def test_normals_are_refused_where_there_are_none_or_the_folder_is_taken(line):
    model = line / "part.safetensors"
    model.write_bytes(b"model")
    with pytest.raises(DatasetError, match="import verdicts first"):
        run("review", "normals", line / "results.sqlite", "--out", line / "n", "--model", model)
    with pytest.raises(SettingError, match="new or empty"):
        run("review", "normals", line / "results.sqlite", "--out", line, "--model", model)
    with pytest.raises(SettingError, match="safetensors"):
        run("review", "normals", line / "results.sqlite", "--out", line / "n", "--model", line / "missing.onnx")


def test_pictures_of_another_folder_are_not_taken(line, tmp_path):
    other = tmp_path / "other"
    fill(other, seed=1)
    run("review", "export", line / "results.sqlite", "--out", line / "r", "--pictures", other / "pictures")
    assert "data:image" not in (line / "r" / "review.html").read_text()


def test_raw_frames_of_any_kind_are_shown_where_there_is_no_heatmap_and_damaged_ones_are_said(tmp_path):
    frames = {
        "grey": np.full((20, 30), 99, np.uint8),
        "deep": np.arange(600, dtype=np.uint16).reshape(20, 30, 1),
        "float": np.random.default_rng(0).random((20, 30, 1), np.float32),
        "bands": np.zeros((20, 30, 5), np.uint8),
        "damaged": np.zeros((20, 30, 3), np.uint8),
    }
    settings = ResultsSettings(pictures=PictureSettings(overlay=(), free_gigabytes=0.0))
    started = Run(id="r", recipe="", model=MODEL, started=START, version="0")
    with Reporter.open(settings, tmp_path, started, publishers=[]) as reporter:
        made = [inspected(name, START, 5.0, np.random.default_rng(0)).result for name in frames]
        reporter.report([Inspected(result, frames[result.part]) for result in made])
    next((tmp_path / "pictures").rglob("damaged*")).write_bytes(b"not an image")
    run("report", tmp_path / "results.sqlite", "--out", tmp_path / "report")
    html = (tmp_path / "report" / "report.html").read_text()
    assert html.count("data:image/jpeg;base64,") == 4
    assert html.count("its picture cannot be read in") == 1


def test_the_report_says_first_what_was_not_judged(line):
    said = run("report", line / "results.sqlite", "--out", line / "report")
    html = (line / "report" / "report.html").read_text()
    rows = table_of(line / "report" / "parts.csv")
    assert len(rows) == 123
    counts = {word: sum(row["decision"] == word for row in rows) for word in ("NG", "REVIEW", "OK")}
    assert said.startswith(
        f"123 parts: {counts['NG']} NG, {counts['REVIEW']} REVIEW, {counts['OK']} OK; 3 could not be judged"
    )
    assert html.index("the file is truncated") < html.index("Over time") < html.index("the most severe first")
    assert f"{100 * counts['OK'] / 123:.1f} %" in html
    assert html.count("data:image/jpeg;base64,") == counts["NG"] + counts["REVIEW"] - 3
    assert not re.search(r'(src|href)="(?!data:)', html)
    order = re.findall(r"<h3><span class=\"badge (\w+)\">", html)
    assert order == ["ng"] * counts["NG"] + ["review"] * counts["REVIEW"]


def test_a_report_of_nothing_and_a_run_that_is_not_there_are_refused(line):
    with pytest.raises(DatasetError, match="no part to report"):
        run("report", line / "results.sqlite", "--out", line / "report", "--until", "2020-01-01")
    with pytest.raises(SettingError, match="Did you mean 'run-0'"):
        run("report", line / "results.sqlite", "--out", line / "report", "--run", "run-1")
    with pytest.raises(SettingError, match="like 2026-11-22T06:00"):
        run("report", line / "results.sqlite", "--out", line / "report", "--since", "yesterday")
    (line / "report" / "mine.txt").write_text("x")
    with pytest.raises(SettingError, match=r"'mine\.txt'"):
        run("report", line / "results.sqlite", "--out", line / "report")


def test_names_from_a_hostile_camera_do_not_become_html(tmp_path):
    settings = ResultsSettings(pictures=PictureSettings(free_gigabytes=0.0))
    started = Run(id="r", recipe="", model=MODEL, started=START, version="0")
    name = "<script>alert('x')</script>\udcff'\"&"
    with Reporter.open(
        settings, tmp_path, started, look=Look(scale=(0.0, 1.0), contour=1.0), publishers=[]
    ) as reporter:
        reporter.report([inspected(name, START, 5.0, np.random.default_rng(0))])
    for arguments in (("report",), ("review", "export")):
        run(*arguments, tmp_path / "results.sqlite", "--out", tmp_path / arguments[-1])
    for page in ("report/report.html", "export/review.html"):
        assert "<script>alert" not in (tmp_path / page).read_text(encoding="utf-8")
    table = tmp_path / "export" / "verdicts.csv"
    content = table.read_bytes()
    table.write_bytes(content.rstrip(b"\r\n") + b"NG\r\n")
    run("review", "import", tmp_path / "results.sqlite", table, "--who", "A. Meier")
    with ResultsStore.open(tmp_path / "results.sqlite") as store:
        (found,) = store.results()
    assert (found.result.part, found.verdict.verdict) == (name, "NG")


@pytest.mark.peer
def test_the_buttons_of_the_page_fill_in_the_table(line, browse):
    page = line / "review" / "review.html"
    clicks = """<script>
for (const card of document.querySelectorAll(".part")) {
  const bad = JSON.parse(card.dataset.row)[1].endsWith("-bad");
  card.querySelector(`[data-verdict=${bad ? "NG" : "OK"}]`).click();
}
document.querySelector(".part").dispatchEvent(new KeyboardEvent("keydown", { key: " " }));
document.title = `${btoa(table())} ${document.getElementById("done").textContent}`;
</script>"""
    page.write_text(page.read_text().replace("</body>", clicks + "</body>"))
    shown = browse(page.as_uri(), "--dump-dom")
    title = re.search(r"<title>(\S+) (\d+) of (\d+) judged</title>", shown)
    table = line / "verdicts.csv"
    table.write_bytes(base64.b64decode(title[1]))
    assert int(title[2]) == int(title[3]) - 1  # the key took one back
    said = run("review", "import", line / "results.sqlite", table, "--who", "A. Meier")
    assert said.startswith(f"{title[2]} verdicts stored; 1 rows have no verdict")
    with ResultsStore.open(line / "results.sqlite") as store:
        given = [one for one in store.results() if one.verdict]
    assert all((one.verdict.verdict == "NG") == is_bad(one.result.part) for one in given)


@pytest.mark.peer
def test_a_store_in_postgresql_is_reviewed_by_its_url(postgresql, tmp_path, monkeypatch):
    url = postgresql.database()
    results = [
        inspected(f"p{k}-{kind}", START, score, np.random.default_rng(k)).result
        for k, (kind, score) in enumerate([("good", 0.0), ("good", 2.5), ("bad", 5.0)])
    ]
    with ResultsStore.open(url, create=True) as store:
        store.start(Run(id="r", recipe="", model=MODEL, started=START, version="0"))
        store.write("r", results)
    monkeypatch.setenv("LINE_PASSWORD", "not needed")
    with pytest.raises(SettingError, match="--pictures must name"):
        run("review", "export", url, "--out", tmp_path / "review")
    run("review", "export", url, "--out", tmp_path / "review", "--ok-share", 1, "--pictures", tmp_path)
    judge(tmp_path / "review" / "verdicts.csv")
    run("review", "import", url, tmp_path / "review" / "verdicts.csv", "--who", "A. Meier")
    said = run("review", "summary", url, "--ok-share", 1, "--password-env", "LINE_PASSWORD", "--review-rate", 0.5)
    assert "Stopped parts: 1 bad, 1 good (false rejects), 0 without a verdict." in said
    with pytest.raises(SettingError, match="'NO_SUCH', which is not set"):
        run("review", "summary", url, "--password-env", "NO_SUCH")
