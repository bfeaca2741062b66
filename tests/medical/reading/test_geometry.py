"""The verdict is highdicom's; the reason is the one that the phantom was broken with."""

import dataclasses

import highdicom
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medical.reading.geometry import Plane, diagnose_planes
from medical.refusals import Reason
from tests.medical import phantoms

SHAPE, SPACING = (6, 4, 5), (2.5, 0.8, 0.6)


def planes_of(datasets):
    return [
        Plane(
            tuple(float(c) for c in one.ImageOrientationPatient),
            tuple(float(c) for c in one.ImagePositionPatient),
            tuple(float(c) for c in one.PixelSpacing),
            (one.Rows, one.Columns),
            one.FrameOfReferenceUID,
            one.AcquisitionNumber,
            "LOCALIZER" in one.ImageType,
        )
        for one in datasets
    ]


def accepted_by_highdicom(datasets):
    try:
        return highdicom.get_volume_from_series(datasets, apply_real_world_transform=False)
    except ValueError:
        return None


BREAKS = {
    "missing": st.none() | st.integers(1, 4),
    "duplicate": st.none() | st.integers(0, 5),
    "tilt": st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0, 2.4, 2.7, 5.0, -18.5]),
    "uneven": st.none()
    | st.tuples(st.integers(0, 5), st.floats(-2.4, 2.4))
    | st.tuples(st.just(3), st.floats(0, 0.04)),
    "mixed": st.none() | st.none() | st.integers(1, 5),
    "localiser": st.sampled_from([False, False, True]),
    "acquisitions": st.sampled_from([1, 1, 1, 2]),
}


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    orientation=st.sampled_from(sorted(phantoms.ORIENTATIONS)),
    broken=st.dictionaries(st.sampled_from(sorted(BREAKS)), st.none(), max_size=2),
    data=st.data(),
)
def test_regular_exactly_where_highdicom_accepts(orientation, broken, data):
    how = {name: data.draw(BREAKS[name], label=name) for name in broken}
    datasets = phantoms.ct_series(SHAPE, SPACING, orientation, **how)
    datasets = data.draw(st.permutations(datasets))
    found, volume = diagnose_planes(planes_of(datasets)), accepted_by_highdicom(datasets)
    assert (found.irregular is None) == (volume is not None)
    assert sorted(found.order) == list(range(len(datasets)))
    if volume is not None:
        assert np.allclose(found.affine, volume.affine, atol=1e-9)
        stored = np.stack([datasets[index].pixel_array for index in found.order]) - 1024
        assert np.array_equal(stored, volume.array)


@settings(max_examples=150, deadline=None)
@given(
    gaps=st.lists(st.floats(0.5, 3.0) | st.just(2.0), min_size=1, max_size=8),
    sideways=st.lists(st.floats(-0.3, 0.3) | st.just(0.0), min_size=9, max_size=9),
)
def test_any_positions_are_judged_as_highdicom_does(gaps, sideways):
    from highdicom.spatial import get_volume_positions

    along = np.concatenate([[0.0], np.cumsum(gaps)])
    positions = [(shift, 0.0, float(z)) for z, shift in zip(along, sideways, strict=False)]
    orientation = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
    spacing, _ = get_volume_positions(positions, orientation)
    planes = [Plane(orientation, position, (1.0, 1.0), (4, 4), "1.2") for position in positions]
    assert (diagnose_planes(planes).irregular is None) == (spacing is not None)


@pytest.mark.parametrize(
    ("how", "reason", "figure"),
    [
        ({"missing": 3}, Reason.MISSING_SLICE, "1 slice(s) missing at 1 place(s): gaps of 2.5 mm and of 5 mm"),
        ({"duplicate": 2}, Reason.DUPLICATE_SLICE, "1 of 7 slices"),
        ({"tilt": 18.5}, Reason.GANTRY_TILT, "18.5 degrees"),
        (
            {"tilt": -12.0, "uneven": (2, 0.7)},
            Reason.GANTRY_TILT,
            "12.1 degrees off their normal, as by a tilted gantry; gaps",
        ),
        ({"uneven": (2, 0.7)}, Reason.UNEVEN_SPACING, "1.8 to 3.2 mm"),
        ({"mixed": 4}, Reason.MIXED_ORIENTATION, "(4, 2 slices), up to 10 degrees"),
        ({"localiser": True}, Reason.LOCALISER, "1 of 7"),
        ({"acquisitions": 2}, Reason.SEVERAL_ACQUISITIONS, "2 acquisitions lie at the same positions"),
        ({"acquisitions": 2, "tilt": 9.0}, Reason.SEVERAL_ACQUISITIONS, "2 acquisitions"),
    ],
)
@pytest.mark.parametrize("orientation", sorted(phantoms.ORIENTATIONS))
def test_reason_is_named_with_its_figures(how, reason, figure, orientation):
    refusal = diagnose_planes(planes_of(phantoms.ct_series(SHAPE, SPACING, orientation, **how))).irregular
    assert refusal.reason == reason
    assert figure in refusal.detail


def whole():
    return planes_of(phantoms.ct_series(SHAPE, SPACING))


@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        ({"position": None}, Reason.NO_GEOMETRY, "of 6 slice(s) 1 without a valid position"),
        ({"orientation": (1.0, 0.0, 0.0, 1.0, 0.0, 0.0)}, Reason.NO_GEOMETRY, "1 without a valid orientation"),
        ({"spacing": (0.0, 1.0)}, Reason.NO_GEOMETRY, "pixel spacing"),
        ({"frame_of_reference": None}, Reason.NO_GEOMETRY, "frame of reference"),
        ({"frame_of_reference": "1.2.3"}, Reason.SEVERAL_ACQUISITIONS, "2 frames of reference"),
        ({"grid": (4, 6)}, Reason.MIXED_GRID, "5 of 4 x 5 at 0.8 x 0.6 mm; 1 of 4 x 6"),
        ({"spacing": (0.8, 0.7)}, Reason.MIXED_GRID, "2 grids"),
    ],
)
def test_one_odd_slice(change, reason, words):
    planes = whole()
    planes[2] = dataclasses.replace(planes[2], **change)
    refusal = diagnose_planes(planes).irregular
    assert refusal.reason == reason
    assert words in refusal.detail


def test_second_range_with_another_gap_is_another_acquisition():
    first = phantoms.ct_series((4, 4, 5), SPACING)
    second = phantoms.ct_series((4, 4, 5), (5.0, 0.8, 0.6))
    for slice_ in second:
        slice_.AcquisitionNumber = 2
        slice_.ImagePositionPatient[2] -= 40
    refusal = diagnose_planes(planes_of(first + second)).irregular
    assert refusal.reason == Reason.SEVERAL_ACQUISITIONS
    assert "regular each" in refusal.detail


def test_stack_that_is_there_three_times():
    planes = [plane for plane in whole() for _ in range(3)]
    refusal = diagnose_planes(planes).irregular
    assert refusal.reason == Reason.SEVERAL_ACQUISITIONS
    assert "each of 6 positions is there 3 times" in refusal.detail


def test_shift_of_one_slice_is_no_tilt():
    planes = whole()
    x, y, z = planes[3].position
    planes[3] = dataclasses.replace(planes[3], position=(x + 4, y, z))
    refusal = diagnose_planes(planes).irregular
    assert refusal.reason == Reason.UNEVEN_SPACING
    assert "sideways" in refusal.detail


def test_single_slice_is_not_irregular():
    assert diagnose_planes(whole()[:1]).irregular is None
