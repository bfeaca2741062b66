import csv
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from anomaly.calibration import Decision
from anomaly.errors import SettingError
from anomaly.images import read_image
from inspection.cli import app
from inspection.defect_list import COLUMNS, DefectRow, schema, write_defects
from inspection.parts import Defect, Inspected, PartResult, Reason
from inspection.results.records import Run, StoredResult
from inspection.results.reporting import Reporter
from inspection.results.settings import ResultsSettings


def defect(id, peak, severity="pit"):
    return Defect(
        id=id, x_mm=1.5, y_mm=2.5, box_px=(1, 2, 3, 4), area_mm2=0.5, length_mm=2.0, width_mm=0.25, peak=peak,
        mean=peak / 2, p_value=0.01, severity=severity,
    )  # fmt: skip


def result(part, *defects):
    return PartResult(
        part=part,
        source="camera",
        captured=datetime(2026, 11, 22, 12, tzinfo=UTC),
        decision=Decision.NG,
        reason=Reason.SCORE,
        score=9.0,
        p_value=0.01,
        defects=defects,
        recipe="r",
        model="m",
    )


STORED = [
    StoredResult(id=1, run="run", result=result("=1+1", defect(1, 9.0), defect(2, 8.0, "a\nb"))),
    StoredResult(id=2, run="run", result=result("0815")),
    StoredResult(id=3, run="run", result=result("0816", defect(1, 0.1 + 0.2))),
]


def test_csv_has_a_row_for_every_defect_with_every_figure(tmp_path):
    assert write_defects(tmp_path / "d.csv", STORED) == 3
    with (tmp_path / "d.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(COLUMNS)
    assert [(row["part"], row["defect"]) for row in rows] == [("'=1+1", "1"), ("'=1+1", "2"), ("0816", "1")]
    assert float(rows[2]["peak"]) == 0.1 + 0.2
    assert [rows[0][name] for name in ("top_px", "left_px", "bottom_px", "right_px")] == ["1", "2", "3", "4"]
    assert rows[1]["severity"] == "a\\u000ab"
    assert set(COLUMNS) == set(next(DefectRow.of(STORED[0])).cells())


def test_json_lines_follow_the_stored_schema(tmp_path):
    assert write_defects(tmp_path / "d.jsonl", STORED) == 3
    rows = [DefectRow.model_validate_json(line) for line in (tmp_path / "d.jsonl").read_text().splitlines()]
    assert rows == [row for stored in STORED for row in DefectRow.of(stored)]
    assert rows[0].defect.box_px == (1, 2, 3, 4)
    stored = json.loads((Path(__file__).parents[2] / "docs" / "defects.schema.json").read_text())
    assert stored == schema(), "write it again: see docs/recipes.md"


def test_the_command_lists_the_defects_of_a_store(tmp_path):
    settings = ResultsSettings.model_validate({"database": "results.sqlite", "pictures": {"overlay": ()}})
    with Reporter.open(settings, tmp_path, Run.now(recipe="r", model="m")) as reporter:
        reporter.report([Inspected(stored.result) for stored in STORED])
    output = tmp_path / "defects.csv"
    arguments = ["defects", str(tmp_path / "results.sqlite"), "-o", str(output)]
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    assert result.output.startswith("Wrote 3 defect(s) of all runs to")
    assert len(output.read_text().splitlines()) == 4
    with pytest.raises(SettingError, match=r"must end in \.csv or \.jsonl"):
        write_defects(tmp_path / "d.txt", STORED)


def test_crops_are_cut_from_the_stored_frames_at_full_depth(tmp_path):
    image = np.random.default_rng(0).integers(0, 65535, (60, 80), np.uint16)
    spot = replace(defect(1, 9.0), box_px=(20, 30, 40, 34))
    corner = replace(defect(2, 8.0), box_px=(0, 70, 4, 80))
    settings = ResultsSettings.model_validate({"database": "results.sqlite", "pictures": {"overlay": ()}})
    with Reporter.open(settings, tmp_path, Run.now(recipe="r", model="m")) as reporter:
        reporter.report([Inspected(result("a", spot, corner), image=image), Inspected(result("b", defect(1, 5.0)))])
    arguments = ["defects", str(tmp_path / "results.sqlite"), "-o", str(tmp_path / "d.csv"), "--crops"]
    done = CliRunner().invoke(app, [*arguments, str(tmp_path / "crops")], catch_exceptions=False)
    assert "Wrote 2 picture(s) of defects to" in done.output
    assert "of 1 no raw frame is stored" in done.output
    first, second = (read_image(path)[..., 0] for path in sorted((tmp_path / "crops").iterdir()))
    assert np.array_equal(first, image[10:50, 22:42])
    assert np.array_equal(second, image[0:12, 62:80])
