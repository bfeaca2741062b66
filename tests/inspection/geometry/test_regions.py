import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.path import Path

from anomaly.errors import InputError
from inspection.geometry.regions import Regions, inside

PLACES = st.tuples(st.floats(-5, 25), st.floats(-5, 20))


def edge_distance(points, polygon):
    """Distance of each point to the nearest edge."""
    nearest = np.full(len(points), np.inf)
    for start, end in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        along, length = end - start, max(float(((end - start) ** 2).sum()), 1e-300)
        share = np.clip((points - start) @ along / length, 0, 1)
        nearest = np.minimum(nearest, np.linalg.norm(points - start - share[:, None] * along, axis=1))
    return nearest


@settings(max_examples=60, deadline=None)
@given(st.lists(PLACES, min_size=3, max_size=7))
def test_a_pixel_lies_in_a_polygon_if_its_middle_does(polygon):
    mask = inside(polygon, 15, 20)
    rows, columns = np.mgrid[:15, :20] + 0.5
    middles = np.column_stack([columns.ravel(), rows.ravel()])
    expected = Path(np.array(polygon)).contains_points(middles)
    clear = edge_distance(middles, np.array(polygon)) > 1e-6
    assert (mask.ravel() == expected)[clear].all()


def test_a_rectangle_covers_exactly_its_pixels():
    mask = inside([(2, 3), (7, 3), (7, 5), (2, 5)], 8, 10)
    expected = np.zeros((8, 10), bool)
    expected[3:5, 2:7] = True
    assert (mask == expected).all()


def test_a_large_circle_is_what_opencv_draws_up_to_its_rim():
    angles = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    polygon = [(50 + 30 * np.cos(a), 40 + 20 * np.sin(a)) for a in angles]
    drawn = np.zeros((80, 100), np.uint8)
    cv2.ellipse(drawn, (50, 40), (30, 20), 0, 0, 360, 1, -1)
    differing = inside(polygon, 80, 100) != (drawn > 0)
    assert not differing[cv2.erode(drawn, np.ones((3, 3))) > 0].any()
    assert not differing[cv2.dilate(drawn, np.ones((3, 3))) == 0].any()


def test_ignored_pixels_are_never_judged_and_the_mask_counts_too():
    mask = np.ones((20, 30), bool)
    mask[:, 25:] = False
    regions = Regions(
        inspect=(((5, 0), (30, 0), (30, 20), (5, 20)),), ignore=(((8, 8), (12, 8), (12, 12), (8, 12)),), mask=mask
    )
    judged = regions.judged(20, 30)
    assert judged.sum() == 20 * 20 - 16
    assert not judged[8:12, 8:12].any()
    assert not judged[:, :5].any()
    assert not judged[:, 25:].any()
    assert Regions().everywhere
    assert not regions.everywhere
    assert Regions().judged(3, 4).all()


def test_a_mask_of_another_size_and_regions_without_a_pixel_are_refused():
    with pytest.raises(InputError, match="20 x 30 px, the image 21 x 30"):
        Regions(mask=np.ones((20, 30), bool)).judged(21, 30)
    with pytest.raises(InputError, match="leave no pixel of an image of 20 x 30 px"):
        Regions(inspect=(((100, 100), (110, 100), (110, 110)),)).judged(20, 30)
