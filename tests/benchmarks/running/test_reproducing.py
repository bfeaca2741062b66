"""A run comes out again, a changed figure is found, a missing row is called missing, the run itself is not touched."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from anomaly.errors import SettingError
from benchmarks.cli import app
from benchmarks.running.reproducing import AGAIN, AREAS, DIFFERS, MISSING, NOISE, compare, reproduce, told
from benchmarks.running.run import RESULTS, RUN, VALUES, Settings, Wish, run
from benchmarks.running.work import KEY


def change(folder, column, value):
    """Writes another value into the row of subspace."""
    with (folder / RESULTS).open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row[column] = value if row["detector"] == "subspace" else row[column]
    with (folder / RESULTS).open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def test_a_run_comes_out_again_and_a_false_figure_does_not(folder, tmp_path, in_process):
    known, again = tmp_path / "known", tmp_path / "again"
    wish = Wish((str(folder),), ("subspace",), seeds=(3,))
    assert run(wish, Settings(threads=1, runs=1), known, fresh=False, ray=False) == []
    before = (known / RESULTS).read_bytes(), (known / RUN).read_bytes()
    result = CliRunner().invoke(app, ["reproduce", str(known), "--out", str(again)])
    assert result.exit_code == 0, result.output
    assert "5 of 5 rows came out again" in result.output
    assert ((known / RESULTS).read_bytes(), (known / RUN).read_bytes()) == before

    change(known, "image_auroc", "0.123")
    result = CliRunner().invoke(app, ["reproduce", str(known), "--out", str(again)])
    assert result.exit_code == 1
    assert "4 of 5" in result.output
    assert DIFFERS in result.output
    with pytest.raises(SettingError, match="another folder"):
        reproduce(known, known)


def test_a_folder_without_a_run_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"run\.json"):
        reproduce(tmp_path, tmp_path / "out")


def row(**values):
    return dict.fromkeys((*KEY, *VALUES), "") | {"fit_cpu_s": "2"} | values


@given(st.sampled_from(AREAS), st.floats(0, 1), st.floats(0, 1))
def test_a_row_comes_out_again_if_no_area_moves_by_more_than_the_noise(name, before, after):
    found = compare([row(**{name: str(before)})], [row(**{name: str(after)})])
    assert found[0].verdict == (AGAIN if abs(before - after) <= NOISE + 1e-9 else DIFFERS)


def test_alarms_missing_rows_and_missing_figures_are_seen():
    kept = row(ng_flagged="3", ng_normals="100", image_auroc="0.9")
    assert compare([kept], [kept | {"ng_flagged": "4"}])[0].verdict == AGAIN
    assert compare([kept], [kept | {"ng_flagged": "5"}])[0].verdict == DIFFERS
    assert compare([kept], [kept | {"image_auroc": ""}])[0].verdict == DIFFERS
    assert compare([kept], [kept | {"seed": "1"}])[0].verdict == MISSING
    assert "0 of 1 rows came out again" in told(compare([kept], []))
    assert "CPU time of all fits: 2.00 x" in told(compare([kept], [kept | {"fit_cpu_s": "4"}]))
