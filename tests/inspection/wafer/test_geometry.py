"""Die grid, stage and merging of frames."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import SettingError
from inspection.wafer.defects import Blob, InspectedWafer, WaferDefect
from inspection.wafer.geometry import Coverage, DieIndex, Side, WaferGeometry, centred, turned
from inspection.wafer.merging import merge_frames
from inspection.wafer.stage import Alignment, FrameView


@st.composite
def geometries(draw) -> WaferGeometry:
    return WaferGeometry(
        pitch_um=(draw(st.floats(400, 50_000)), draw(st.floats(400, 50_000))),
        origin_um=(draw(st.floats(-160_000, 160_000)), draw(st.floats(-160_000, 160_000))),
        diameter_mm=draw(st.sampled_from([100.0, 150.0, 200.0, 300.0, 76.2])),
        edge_exclusion_mm=draw(st.floats(0, 10)),
        notch=draw(st.sampled_from(Side)),
        flat=draw(st.booleans()),
    )


POINT = st.tuples(st.floats(-150_000, 150_000), st.floats(-150_000, 150_000))


@given(geometries(), POINT)
def test_die_and_position_are_one_point(geometry, point):
    die, inside = geometry.in_die(*point)
    assert geometry.on_wafer(die, *inside) == pytest.approx(point, abs=1e-6)
    assert -1e-6 <= inside[0] <= geometry.pitch_um[0] + 1e-6
    assert -1e-6 <= inside[1] <= geometry.pitch_um[1] + 1e-6


@settings(max_examples=25, deadline=None)
@given(geometries())
def test_coverage_agrees_with_sampled_points(geometry):
    radius = geometry.usable_radius_um
    for die in [geometry.die_at(radius * math.cos(a), radius * math.sin(a)) for a in np.linspace(0, 6.2, 12)]:
        left, bottom = geometry.corner_um(die)
        u = np.linspace(0, 1, 60)
        x, y = np.meshgrid(left + u * geometry.pitch_um[0], bottom + u * geometry.pitch_um[1])
        inside = np.hypot(x, y) <= radius + 1e-6
        found = geometry.coverage(die)
        if found is Coverage.WHOLE:
            assert inside.all()
        elif found is Coverage.OUTSIDE:
            assert not (np.hypot(x, y) < radius - 1e-6).any()
        else:
            assert not inside.all()


def test_dies_of_a_small_wafer_by_hand():
    # Pitch 40 mm, wafer 100 mm, no exclusion: of the dies about the centre only the middle one is whole
    # (its corner is 28.3 mm away; the next one's is 63.2 mm).
    geometry = WaferGeometry(pitch_um=(40_000, 40_000), origin_um=centred((40_000, 40_000)), diameter_mm=100,
                             edge_exclusion_mm=0)  # fmt: skip
    assert geometry.dies() == ((0, 0),)
    assert len(geometry.dies(Coverage.PARTIAL)) == 8
    # A street corner in the centre: four dies whose corner is 56.6 mm away are all cut.
    cut = WaferGeometry(pitch_um=(40_000, 40_000), diameter_mm=100, edge_exclusion_mm=0)
    assert cut.dies() == ()
    assert {(0, 0), (-1, 0), (0, -1), (-1, -1)} <= set(cut.dies(Coverage.PARTIAL))


def test_edge_exclusion_takes_dies_away():
    wide = WaferGeometry(pitch_um=(8_000, 8_000), edge_exclusion_mm=0)
    narrow = WaferGeometry(pitch_um=(8_000, 8_000), edge_exclusion_mm=10)
    assert set(narrow.dies()) < set(wide.dies())


@pytest.mark.parametrize("side", Side)
def test_notch_sides(side):
    assert Side.at(side.degrees) is side
    x, y = turned(*side.direction, notch=side, to=Side.RIGHT)
    assert (float(x), float(y)) == pytest.approx(Side.RIGHT.direction)


def test_turning_back_is_the_identity():
    x, y = np.array([1.0, -3.0]), np.array([2.0, 5.0])
    for a in Side:
        for b in Side:
            back = turned(*turned(x, y, a, b), b, a)
            np.testing.assert_array_equal(back, (x, y))


@given(POINT, st.floats(-180, 180), POINT, POINT)
def test_frame_to_wafer_and_back(stage, angle, centre, point):
    view = FrameView(
        frame="f",
        stage_um=stage,
        height=480,
        width=640,
        alignment=Alignment(pixel_um=(2.5, 3.0), center_um=centre, angle_deg=angle),
    )
    row, column = view.to_frame(*point)
    assert view.to_wafer(row, column) == pytest.approx(point, abs=1e-5)


def test_frame_axes():
    view = FrameView(frame="f", stage_um=(1000, 2000), height=100, width=200, alignment=Alignment(pixel_um=(10, 10)))
    assert view.to_wafer(50, 100) == (1000, 2000)
    assert view.to_wafer(50, 101) == (1010, 2000)  # columns go right
    assert view.to_wafer(51, 100) == (1000, 1990)  # rows go down
    turned_view = FrameView(
        frame="f", stage_um=(0, 0), height=100, width=100, alignment=Alignment(pixel_um=(10, 10), angle_deg=90)
    )
    # The wafer's x axis points along the stage's y axis: one step right on the stage is one step down on the wafer.
    assert turned_view.to_wafer(50, 51) == pytest.approx((0, -10))


def defect(geometry, frame, x, y, size=(10.0, 10.0), **values):
    values = {"id": 1, "peak": 1.0, "mean": 1.0, "area_um2": size[0] * size[1]} | values
    return WaferDefect.at(geometry, x, y, size_x_um=size[0], size_y_um=size[1], frame=frame, **values)


@pytest.fixture
def two_frames():
    """Two frames of 1 mm that overlap by 0.1 mm in x: a sees -950..50, b sees -50..950."""
    geometry = WaferGeometry(pitch_um=(500, 500))
    alignment = Alignment(pixel_um=(1, 1))
    views = {
        name: FrameView(frame=name, stage_um=(x, 0), height=1000, width=1000, alignment=alignment)
        for name, x in (("a", -450), ("b", 450))
    }
    return geometry, views


def test_a_defect_seen_twice_is_one(two_frames):
    geometry, views = two_frames
    seen = [defect(geometry, "a", -20, 0, peak=3.0), defect(geometry, "b", -19, 1, peak=5.0, id=2, p_value=0.01)]
    (merged,) = merge_frames(geometry, seen, views, tolerance_um=2)
    assert (merged.x_um, merged.y_um, merged.area_um2) == (-20, 0, 100)  # a sees it farther from its border
    assert (merged.peak, merged.p_value, merged.frame) == (5.0, 0.01, "a")


def test_a_scratch_cut_by_frames_has_its_whole_area(two_frames):
    geometry, views = two_frames
    # -150..150: a sees -150..50 and b -50..150, each 200 um of it, 100 um of it twice.
    seen = [defect(geometry, "a", -50, 0, (200.0, 10.0), mean=2.0),
            defect(geometry, "b", 50, 0, (200.0, 10.0), id=2, mean=4.0)]  # fmt: skip
    (merged,) = merge_frames(geometry, seen, views, tolerance_um=1)
    assert merged.area_um2 == pytest.approx(300 * 10)
    assert (merged.size_x_um, merged.size_y_um) == (300, 10)
    assert merged.mean == pytest.approx((2.0 * 2000 + 4.0 * 1000) / 3000)


def test_defects_of_one_frame_stay_apart(two_frames):
    geometry, views = two_frames
    near = [defect(geometry, "a", 0, 0), defect(geometry, "a", 5, 0, id=2)]
    assert len(merge_frames(geometry, near, views, tolerance_um=50)) == 2
    far = [defect(geometry, "a", 0, 0), defect(geometry, "b", 30, 0, id=2)]
    assert len(merge_frames(geometry, far, views, tolerance_um=5)) == 2
    assert len(merge_frames(geometry, far, views, tolerance_um=25)) == 1


@settings(max_examples=40, deadline=None)
@given(st.lists(POINT, max_size=12), st.randoms(use_true_random=False))
def test_merging_does_not_depend_on_the_order(points, random):
    geometry = WaferGeometry(pitch_um=(5000, 5000))
    alignment = Alignment(pixel_um=(100, 100))
    views = {n: FrameView(frame=n, stage_um=(0, 0), height=3000, width=3000, alignment=alignment) for n in "ab"}
    seen = [defect(geometry, "ab"[i % 2], x, y, (20_000.0, 9_000.0), id=i) for i, (x, y) in enumerate(points)]
    shuffled = seen.copy()
    random.shuffle(shuffled)
    one, other = (merge_frames(geometry, order, views, tolerance_um=10) for order in (seen, shuffled))
    for a, b in zip(one, other, strict=True):
        assert (a.id, a.x_um, a.area_um2) == pytest.approx((b.id, b.x_um, b.area_um2))
    assert len({d.id for d in one}) == len(one)


def test_a_blob_finds_its_die():
    geometry = WaferGeometry(pitch_um=(1000, 1000))
    view = FrameView(frame="f7", stage_um=(5000, 5000), height=100, width=100, alignment=Alignment(pixel_um=(10, 10)))
    blob = Blob(row=50.5, column=60.5, box=(49, 58, 52, 63), area=12, peak=9.0, mean=5.0, p_value=0.02)
    found = WaferDefect.from_blob(geometry, view, blob, id=3, image="f7.png")
    assert (found.x_um, found.y_um) == pytest.approx((5105, 4995))
    assert (found.die, found.die_x_um, found.die_y_um) == ((5, 4), pytest.approx(105), pytest.approx(995))
    assert (found.size_x_um, found.size_y_um, found.area_um2) == pytest.approx((50, 30, 1200))
    assert (found.frame, found.image, found.p_value) == ("f7", "f7.png", 0.02)


def test_yield_counts_inspected_dies():
    geometry = WaferGeometry(pitch_um=(1000, 1000))
    found = (defect(geometry, "", 500, 500), defect(geometry, "", 600, 600, id=2), defect(geometry, "", -500, 1, id=3))
    wafer = InspectedWafer(geometry=geometry, inspected=(DieIndex(0, 0), DieIndex(1, 0)), defects=found)
    assert wafer.yield_fraction == 0.5
    assert wafer.defective_dies == {(0, 0)}
    assert [d.id for d in wafer.numbered().defects] == [1, 2, 3]
    assert math.isnan(InspectedWafer(geometry=geometry, inspected=()).yield_fraction)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: WaferGeometry(pitch_um=(0, 1)), "pitch_um"),
        (lambda: WaferGeometry(pitch_um=(1, 1)), "1/5000"),
        (lambda: WaferGeometry(pitch_um=(9000, 9000), edge_exclusion_mm=150), "edge_exclusion_mm"),
        (lambda: WaferGeometry(pitch_um=(9000, 9000), origin_um=(math.nan, 0)), "origin_um"),
        (lambda: Alignment(pixel_um=(1, 0)), "pixel_um"),
        (lambda: Alignment(pixel_um=(1, 1), angle_deg=200), "angle_deg"),
        (lambda: Side.at(45), "multiple of 90"),
        (lambda: defect(WaferGeometry(pitch_um=(9000, 9000)), "", 0, 0, peak=math.inf), "finite"),
        (lambda: defect(WaferGeometry(pitch_um=(9000, 9000)), "", 0, 0, p_value=0.0), "p_value"),
        (lambda: InspectedWafer(geometry=WaferGeometry(pitch_um=(9000, 9000)), inspected=(), lot='a"b'), "quotes"),
    ],
)
def test_settings_that_cannot_be_are_refused(build, message):
    with pytest.raises(SettingError, match=message):
        build()
