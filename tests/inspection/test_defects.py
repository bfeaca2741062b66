import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.calibration import Decision
from inspection.components import components
from inspection.defects import DefectFinder, sides
from inspection.recipe.sections import DefectsSection, SeverityClass


def finder(threshold=1.0, pixel=1.0, **rules):
    return DefectFinder(threshold, lambda peak: 1 / (1 + peak), DefectsSection(**rules), pixel)


def everywhere(values):
    return np.ones(values.shape, bool)


def rectangle(angle, length, width, size=200):
    """A filled rectangle about the middle, drawn finely and reduced."""
    box = cv2.boxPoints(((size * 4, size * 4), (length * 8, width * 8), angle))
    drawn = np.zeros((size * 8, size * 8), np.uint8)
    cv2.fillPoly(drawn, [box.round().astype(np.int32)], 255)
    return cv2.resize(drawn, (size, size), interpolation=cv2.INTER_AREA) > 127


def test_a_square_is_measured_exactly_in_millimetres():
    values = np.zeros((50, 60), np.float32)
    values[10:14, 20:30] = 3
    values[12, 25] = 7
    (defect,) = finder(pixel=0.5).find(values, everywhere(values))
    assert defect.box_px == (10, 20, 14, 30)
    assert (defect.x_mm, defect.y_mm) == (12.5, 6.0)
    assert defect.area_mm2 == 40 * 0.25
    assert (defect.length_mm, defect.width_mm) == (pytest.approx(5), pytest.approx(2))
    assert defect.peak == 7
    assert defect.mean == pytest.approx((39 * 3 + 7) / 40)
    assert defect.p_value == 1 / 8
    assert (defect.id, defect.severity) == (1, "defect")


@settings(max_examples=30, deadline=None)
@given(st.floats(0, 180), st.integers(20, 90), st.integers(5, 18))
def test_length_and_width_do_not_depend_on_the_angle(angle, length, width):
    found = sides(rectangle(angle, length, width))
    assert found[0] == pytest.approx(length, abs=2)
    assert found[1] == pytest.approx(width, abs=2)


@given(st.integers(0, 2**32 - 1))
def test_sides_hold_every_pixel_of_any_shape(seed):
    mask = np.random.default_rng(seed).random((12, 15)) > 0.6
    for region in components(mask):
        long, short = sides(region.inside)
        rows, columns = np.nonzero(region.inside)
        corners = np.array([(x + i, y + j) for x, y in zip(columns, rows, strict=True) for i in (0, 1) for j in (0, 1)])
        _, (a, b), _ = cv2.minAreaRect(corners.astype(np.float32))
        assert long * short == pytest.approx(a * b, rel=1e-4)
        assert 0.99 <= short <= long
        assert region.area <= long * short * 1.001


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
def test_regions_are_what_a_flood_fill_finds(seed, least):
    random = np.random.default_rng(seed)
    mask = random.random((40, 70)) > random.choice([0.65, 0.95])
    left, expected = {(int(y), int(x)) for y, x in np.argwhere(mask)}, set()
    while left:
        grown, edge = set(), [next(iter(left))]
        while edge:
            y, x = edge.pop()
            if (y, x) in left:
                left.remove((y, x))
                grown.add((y, x))
                edge += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        if len(grown) >= least:
            expected.add(frozenset(grown))
    found = {
        frozenset((int(y) + region.top, int(x) + region.left) for y, x in np.argwhere(region.inside))
        for region in components(mask, least)
    }
    assert found == expected


def test_small_spots_and_pixels_that_are_not_judged_are_no_defects():
    values = np.zeros((40, 40), np.float32)
    values[2:4, 2:4] = 5
    values[10:13, 10:13] = 5
    values[20:30, 20:30] = 5
    judged = everywhere(values)
    judged[19:31, 19:25] = False
    assert len(finder().find(values, everywhere(values))) == 3
    found = finder(min_area_mm2=9 * 0.01, pixel=0.1).find(values, judged)
    assert sorted(defect.box_px for defect in found) == [(10, 10, 13, 13), (20, 25, 30, 30)]
    assert finder(threshold=5.0).find(values, judged) == ()
    judged[:] = False
    assert finder().find(values, judged) == ()


def test_severity_classes_sort_defects_and_decide():
    rules = {
        "severity": (
            SeverityClass(name="speck", decision="OK"),
            SeverityClass(name="dent", area_mm2=4.0, decision="REVIEW"),
            SeverityClass(name="hole", peak=9.0, area_mm2=4.0, decision="NG"),
        )
    }
    find = finder(**rules)
    values = np.zeros((40, 40), np.float32)
    values[2, 2] = 20
    values[10:12, 10:12] = 8
    values[20:22, 20:22] = 9
    found = find.find(values, everywhere(values))
    assert [(defect.id, defect.severity) for defect in found] == [(1, "hole"), (2, "dent"), (3, "speck")]
    assert find.decision(found) == Decision.NG
    assert find.decision(found[1:]) == Decision.REVIEW
    assert find.decision(found[2:]) == find.decision(()) == Decision.OK
    assert find.rules.worst == Decision.NG
