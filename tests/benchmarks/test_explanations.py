import numpy as np
import pytest

from benchmarks.explanations import CANVAS, KEY, METHODS, VALUES, against_masks, measure, summary, table
from benchmarks.tables import ResultFile
from explain.methods import CONTROLS
from explain.methods import METHODS as NAMED


def masks(count=6):
    """One square of each of `count` columns of an image of 8 x 12 pixels."""
    found = np.zeros((count, 8, 12), bool)
    for k in range(count):
        found[k, 4, 2 * k : 2 * k + 2] = True
    return list(found)


def row(image, removed="", **more):
    found = dict.fromkeys((*KEY, *VALUES), "")
    own = against_masks(masks()[image].astype(np.float32), masks(), image)
    told = {"dataset": "bsdata", "detector": "subspace", "method": "ig", "image": image, "seconds": 0.5 + image}
    return found | {name: str(value) for name, value in (told | own | {"removed": removed} | more).items()}


def test_maps_are_compared_with_their_own_mask_and_with_all_others():
    values = masks()[2].astype(np.float32) + masks()[3]
    found = against_masks(values, masks(), 2)
    assert found["energy"] == pytest.approx(0.5)
    assert found["energy_crossed"] == pytest.approx(0.1)  # half of its energy lies on one of five others
    assert found["area"] == found["area_crossed"] == pytest.approx(2 / 96)
    assert set(found) <= set(VALUES)
    assert "energy_crossed" not in against_masks(values, masks()[:1], 0)


def test_figures_of_a_method_that_follows_the_defects():
    found = summary([row(0, 0.4), row(1, 0.8), *(row(k) for k in range(2, 6))], seed=0)
    assert (found["explained"], found["judged"], found["seconds"]) == (6, 2, 3.0)
    mean, low, high = found["removed"]
    assert mean == pytest.approx(0.6)
    assert 0.4 <= low <= high <= 0.8
    assert found["energy_lift"] == (1, 1, 1)
    assert found["energy"] == 1


def test_a_map_that_knows_nothing_has_no_lift_however_large_the_defect():
    large = np.zeros((8, 12), bool)
    large[:, :6] = True
    found = against_masks(np.ones((8, 12), np.float32), [large, *masks()], 0)
    rows = [row(0) | {name: str(value) for name, value in found.items()}] * 2
    assert found["energy"] > 10 * found["energy_crossed"]
    assert summary(rows, seed=0)["energy_lift"] == pytest.approx((0, 0, 0), abs=1e-6)


def test_what_could_not_be_judged_has_no_figure():
    found = summary([row(0)], seed=0)
    assert (found["explained"], found["judged"], found["removed"]) == (1, 0, None)
    assert "Integrated gradients" in table([row(0)], seed=0)


def test_a_method_that_a_model_refuses_has_no_line():
    refused = row(0) | {"seconds": ""}
    assert "Integrated gradients" not in table([refused], seed=0)


def test_every_method_of_every_detector_with_a_backbone_has_a_row():
    assert {method.name for method in METHODS} == set(NAMED) - {"residual"}
    assert len(CONTROLS) == 3
    assert set(CANVAS) == {"magnetic_tile", "bsdata", "cxr_nih_256"}


@pytest.mark.slow
@pytest.mark.shared
def test_a_run_goes_on_and_measures_nothing_twice(shared, tmp_path, monkeypatch):
    from benchmarks import explanations

    monkeypatch.setattr(explanations, "METHODS", METHODS[:1])
    monkeypatch.setattr(explanations, "CANDIDATES", 20)
    monkeypatch.setattr(explanations, "STABLE", 1)
    monkeypatch.setenv("ANOMALY_SHARED", str(shared))
    path = tmp_path / "explanations.csv"
    for images in (1, 2):
        file = ResultFile(path, KEY, VALUES)
        before = list(file.rows)
        measure(file, ["magnetic_tile"], ["subspace"], images, 12, 0)
        assert len(file.rows) == images * 4  # one method and three controls
        assert file.rows[: len(before)] == before
    assert [row["randomised"] != "" for row in file.rows] == [True, True, False, False] + [False] * 4
    assert {row["method"] for row in file.rows} == {"gradcam", "anomaly_map", "edges", "random"}
