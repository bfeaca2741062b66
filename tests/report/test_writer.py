import csv
import json
from pathlib import Path

import numpy as np
import pytest

from anomaly.errors import SettingError
from anomaly.report import NOT_SCORED, ResultWriter
from anomaly.report.rows import COLUMNS


def table(out: Path) -> list[dict[str, str]]:
    with (out / "results.csv").open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def lines(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text(encoding="utf-8").splitlines()]


def page(out: Path) -> str:
    return (out / "report.html").read_text(encoding="utf-8")


def test_both_tables_hold_the_same_complete_rows_at_once(tmp_path, writer, part):
    with writer(tmp_path) as results:
        results.add("b/ü,1.png", *part, 2.5, 1 / 61, "NG", label=1, kind="scratch", mask=part[1] > 1)
        assert len(table(tmp_path)) == len(lines(tmp_path)) == 1
        results.failed(Path("b/2.png"), "truncated")
        assert len(table(tmp_path)) == len(lines(tmp_path)) == 2
        assert results.headline == "1 part scored: 1 NG, 0 REVIEW, 0 OK, 1 could not be scored"
    first, second = lines(tmp_path)
    assert tuple(first) == COLUMNS
    assert first == {
        "path": "b/ü,1.png",
        "decision": "NG",
        "score": 2.5,
        "p_value": 1 / 61,
        "label": 1,
        "kind": "scratch",
        "width": 60,
        "height": 40,
        "peak_x": 35,
        "peak_y": 12,
        "area_above_threshold": 200 / 2400,
        "heatmap": "heatmaps/_1.png",
        "reason": "",
    }
    assert second["decision"] == NOT_SCORED
    assert second["reason"] == "truncated"
    assert second["score"] is None
    for row, line in zip(table(tmp_path), lines(tmp_path), strict=True):
        assert row == {name: "" if value is None else str(value) for name, value in line.items()}


def test_equal_stems_do_not_collide_and_every_picture_exists(tmp_path, writer, part):
    names = [
        "a/1.png",
        "b/1.png",
        "b/1.jpg",
        "c/b_1.png",
        "A/1.PNG",
        "../1.png",
        "..png",
        "CON?*.png",
        "x" * 250 + ".png",
    ]
    with writer(tmp_path) as results:
        for name in names:
            results.add(name, *part, 0.3, 0.5, "OK")
    heatmaps = [row["heatmap"] for row in table(tmp_path)]
    assert heatmaps[:2] == ["heatmaps/1.png", "heatmaps/b_1.png"]
    assert len({name.casefold() for name in heatmaps}) == len(names)
    assert {path.name for path in (tmp_path / "heatmaps").iterdir()} == {Path(name).name for name in heatmaps}
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in heatmaps)


@pytest.mark.parametrize("broken", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_scored(tmp_path, writer, part, broken):
    image, anomaly_map = part
    with writer(tmp_path) as results:
        results.add("1.png", image, anomaly_map, broken, 0.5, "OK")
        results.add("2.png", image, np.where(anomaly_map > 3, np.float32(broken), anomaly_map), 0.3, 0.5, "OK")
    assert [row["decision"] for row in table(tmp_path)] == [NOT_SCORED] * 2


def test_an_interrupted_run_reports_what_it_has(tmp_path, writer, part):
    def run():
        with writer(tmp_path) as results:
            results.add("1.png", *part, 0.3, 0.5, "OK")
            raise RuntimeError("disk is <full>")

    with pytest.raises(RuntimeError, match="disk"):
        run()
    assert len(table(tmp_path)) == 1
    assert "Incomplete." in page(tmp_path)
    assert "RuntimeError: disk is &lt;full&gt;" in page(tmp_path)


def test_a_run_without_parts_has_a_report(tmp_path, writer):
    with writer(tmp_path / "new" / "folder"):
        pass
    assert "0 parts scored" in page(tmp_path / "new" / "folder")
    assert "Incomplete." not in page(tmp_path / "new" / "folder")


def test_results_of_an_earlier_run_are_replaced(tmp_path, writer, part):
    for name in ("old.png", "new.png"):
        with writer(tmp_path) as results:
            results.add(name, *part, 0.3, 0.5, "OK")
    assert sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")) == [
        "heatmaps",
        "heatmaps/new.png",
        "report.html",
        "results.csv",
        "results.jsonl",
    ]


@pytest.mark.parametrize("foreign", ["notes.txt", "heatmaps/mine.png", "sub/results.csv"])
def test_foreign_files_are_refused_and_kept(tmp_path, writer, part, foreign):
    with writer(tmp_path) as results:
        results.add("1.png", *part, 0.3, 0.5, "OK")
    (tmp_path / foreign).parent.mkdir(exist_ok=True)
    (tmp_path / foreign).write_text("mine")
    before = {path for path in tmp_path.rglob("*")}
    with pytest.raises(SettingError, match="only the results of an earlier run"), writer(tmp_path):
        pass
    assert {path for path in tmp_path.rglob("*")} == before


def test_a_table_of_somebody_else_is_refused(tmp_path, writer):
    (tmp_path / "results.csv").write_text("a,b\n1,2\n")
    with pytest.raises(SettingError, match=r"results\.csv"), writer(tmp_path):
        pass


def test_a_file_in_place_of_the_folder_is_refused(tmp_path, writer):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(SettingError, match="must be"), writer(tmp_path / "out"):
        pass


def test_a_scale_without_extent_is_refused_before_anything_is_written(tmp_path, calibration):
    with pytest.raises(SettingError, match="low < high"):
        ResultWriter(tmp_path / "out", title="", model={}, calibration=calibration, scale=(1.0, 1.0), contour=1.0)
    assert not (tmp_path / "out").exists()


def test_a_name_that_is_not_utf_8_is_recorded(tmp_path, writer, part):
    with writer(tmp_path) as results:
        results.add(Path(b"caf\xe9.png".decode("utf-8", "surrogateescape")), *part, 0.3, 0.5, "OK")
    assert table(tmp_path)[0]["path"] == lines(tmp_path)[0]["path"] == r"caf\xe9.png"
