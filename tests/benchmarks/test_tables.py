"""Result files continue after a break; tables show what they were given."""

import pytest

from anomaly.errors import DatasetError
from benchmarks.environment import FACTS, facts, shared_file
from benchmarks.tables import ResultFile, markdown, number


def test_a_row_on_disk_is_found_again_and_replaced_by_a_newer_one(tmp_path):
    path = tmp_path / "deep" / "results.csv"
    first = ResultFile(path, ("what", "images"), ("seconds", "note"))
    assert first.find({"what": "fit", "images": 8}) is None
    first.add({"what": "fit", "images": 8, "seconds": 1.25})
    first.add({"what": "fit", "images": 16, "seconds": 2.5, "note": "a, b"})

    again = ResultFile(path, ("what", "images"), ("seconds", "note"))
    assert again.find({"what": "fit", "images": 8}) == {"what": "fit", "images": "8", "seconds": "1.25", "note": ""}
    again.add({"what": "fit", "images": 8, "seconds": 9.0})
    assert [row["seconds"] for row in ResultFile(path, ("what", "images"), ("seconds", "note")).rows] == ["2.5", "9"]
    assert [file.name for file in path.parent.iterdir()] == ["results.csv"]


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    ResultFile(path, ("what",), ("seconds",)).add({"what": "fit", "seconds": 1})
    with pytest.raises(DatasetError, match="other columns"):
        ResultFile(path, ("what",), ("hours",))


def test_without_a_path_rows_stay_in_memory():
    file = ResultFile(None, ("what",), ("seconds",))
    file.add({"what": "fit", "seconds": 1})
    assert file.find({"what": "fit"}) == {"what": "fit", "seconds": "1"}


def test_markdown_aligns_text_left_and_figures_right():
    assert markdown(["name", "ms"], [["a", "1.5"], ["long name", "10.0"]]).splitlines() == [
        "| name      |   ms |",
        "| --------- | ---: |",
        "| a         |  1.5 |",
        "| long name | 10.0 |",
    ]


@pytest.mark.parametrize(("value", "shown"), [("0.12345", "0.123"), (2, "2.000"), ("", "-"), (None, "-")])
def test_number(value, shown):
    assert number(value, 3) == shown


def test_facts_fill_their_columns():
    found = facts()
    assert tuple(found) == FACTS
    assert all(found.values())
    assert "torch=" in found["versions"]


def test_missing_shared_data_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("ANOMALY_SHARED", str(tmp_path))
    with pytest.raises(DatasetError, match="ANOMALY_SHARED"):
        shared_file("weights/none.safetensors")
