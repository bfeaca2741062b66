import numpy as np
import pytest

from benchmarks.explanations import CANVAS, KEY, METHODS, VALUES, figures, table
from benchmarks.explanations import _Found as Found
from explain.faithfulness import SHARES, Faithfulness
from explain.methods import CONTROLS
from explain.methods import METHODS as NAMED


def found(removed):
    masks = []
    for k in range(6):
        masks.append(np.zeros((8, 12), bool))
        masks[-1][4, 2 * k : 2 * k + 2] = True
    zeros = (0.0,) * len(SHARES)
    faithful = [Faithfulness(SHARES, zeros, zeros, 0.1, 0.9, value, 0.0, 0.2) for value in removed]
    return Found([mask.astype(np.float32) for mask in masks], masks, faithful, [], [0.5, 1.5])


def test_figures_of_a_method_that_follows_the_defects():
    row = figures(found([0.4, 0.8]), seed=0)
    assert (row["explained"], row["judged"], row["seconds"]) == (6, 2, 1.0)
    assert row["removed"] == pytest.approx(0.6)
    assert 0.4 <= row["removed_low"] <= row["removed_high"] <= 0.8
    assert (row["energy"], row["energy_crossed"], row["energy_lift"], row["energy_low"]) == (1, 0, 1, 1)
    assert set(row) <= set(VALUES)


def test_what_could_not_be_judged_has_no_figure():
    row = figures(found([]), seed=0)
    assert row["judged"] == 0
    assert "removed" not in row
    shown = {name: "" for name in (*KEY, *VALUES)} | {k: f"{v}" for k, v in row.items()} | {"method": "ig"}
    assert "| Integrated gradients |" in table([shown])


def test_every_method_of_every_detector_with_a_backbone_has_a_row():
    assert {method.name for method in METHODS} == set(NAMED) - {"residual"}
    assert len(CONTROLS) == 3
    assert set(CANVAS) == {"magnetic_tile", "bsdata", "cxr_nih_256"}
