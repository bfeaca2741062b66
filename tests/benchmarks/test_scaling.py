"""Fits of growing size: measured once, continued after a break, drawn."""

import pytest

from anomaly.errors import DatasetError
from benchmarks import scaling
from benchmarks.environment import FACTS
from benchmarks.isolated import FIGURES
from benchmarks.tables import ResultFile


@pytest.fixture
def file(tmp_path):
    return ResultFile(tmp_path / "scaling.csv", scaling.KEY, (*FIGURES, *FACTS))


def test_a_fit_on_8_images_is_measured_in_a_process_of_its_own(file, tmp_path):
    rows = scaling.measure(file, ["subspace"], [8], "brushed_metal", 1, tmp_path / "parts")
    assert [row["images"] for row in rows] == ["8"]
    assert float(rows[0]["fit_cpu_s"]) > 0
    assert float(rows[0]["peak_mib"]) > float(rows[0]["imports_mib"])
    assert rows == ResultFile(file.path, scaling.KEY, (*FIGURES, *FACTS)).rows


def test_what_is_there_is_neither_drawn_nor_measured_again(file, tmp_path, monkeypatch):
    measured = []

    def pretend(task, arguments, threads):
        measured.append((arguments["detector"], arguments["count"]))
        return dict.fromkeys(FIGURES, float(arguments["count"]))

    monkeypatch.setattr(scaling, "generate", lambda folder, surface, count: None)
    monkeypatch.setattr(scaling, "run_isolated", pretend)
    scaling.measure(file, ["subspace"], [40, 20], "cast", 1, tmp_path)
    rows = scaling.measure(file, ["subspace", "memory_bank"], [20, 40], "cast", 1, tmp_path)
    assert measured == [("subspace", 20), ("subspace", 40), ("memory_bank", 20), ("memory_bank", 40)]

    scaling.plot(rows, tmp_path / "plot" / "scaling.svg")
    drawn = (tmp_path / "plot" / "scaling.svg").read_text()
    assert drawn.startswith("<?xml")
    assert "memory_bank" in scaling.table(rows)
    assert scaling.table(rows).count("\n") == 5


def test_the_exponent_is_that_of_a_power_law():
    assert scaling.exponent([10, 100, 1000], [3 * n**1.5 for n in (10, 100, 1000)]) == pytest.approx(1.5)


def test_a_folder_with_too_few_parts_is_refused(tmp_path):
    scaling.generate(tmp_path / "parts", "brushed_metal", 2)
    scaling.generate(tmp_path / "parts", "brushed_metal", 1)
    with pytest.raises(DatasetError, match="--data"):
        scaling.generate(tmp_path / "parts", "brushed_metal", 3)
