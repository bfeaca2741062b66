"""Results lie where the lesion of the phantom lies, voxel for voxel, in patient coordinates.

Written frames are placed by their own plane position, orientation and spacing (PS3.3 equation
C.7.6.2.1-1), the truth by the affine of the phantom: two computations that share nothing.
"""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medical.results import Kind, ResultError, ResultSettings, write_results
from tests.medical.phantoms import ORIENTATIONS, affine_of, ct_series, enhanced_ct, lesion
from tests.medical.results import cases

MAPS = ResultSettings(with_heatmaps=True, kinds=(Kind.SEG, Kind.PM))
SPACING = (2.5, 0.8, 0.6)


def centres(made, chosen):
    """(n, 3) patient coordinates of the chosen pixels (frames, H, W) of a written object."""
    shared = made.SharedFunctionalGroupsSequence[0]
    cosines = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    down, across = (float(v) for v in shared.PixelMeasuresSequence[0].PixelSpacing)
    found = []
    for group, frame in zip(made.PerFrameFunctionalGroupsSequence, chosen, strict=True):
        origin = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            found.append(origin + cosines[:3] * across * column + cosines[3:] * down * row)
    return np.array(found)


def truth(shape, spacing, orientation):
    """(n, 3) patient coordinates of the lesion."""
    inside = np.zeros(shape, bool)
    inside[lesion(shape)] = True
    voxels = np.argwhere(inside)
    matrix = affine_of(shape, spacing, orientation)
    return voxels @ matrix[:3, :3].T + matrix[:3, 3]


def same_places(found, expected, tolerance=0.02):
    assert found.shape == expected.shape
    distances = np.linalg.norm(found[:, None] - expected[None], axis=2)
    assert distances.min(axis=0).max() < tolerance
    assert distances.min(axis=1).max() < tolerance


def check(analysed, folder, shape, spacing, orientation):
    written = write_results(cases.outcome(analysed), cases.ALGORITHM, folder, MAPS, cases.PSEUDONYMS)
    expected = truth(shape, spacing, orientation)
    for one in written:
        made = pydicom.dcmread(one.path)
        pixels = made.pixel_array.reshape(-1, *shape[1:])
        same_places(centres(made, pixels > (0 if one.kind == Kind.SEG else cases.CONTOUR)), expected)
    assert [one.kind for one in written] == ["seg", "pm"]
    return written


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("source", ["slices", "slices reversed", "slices shuffled", "frames", "frames shuffled"])
def test_regions_and_maps_lie_where_the_lesion_lies(source, orientation, tmp_path):
    shape = (8, 32, 40)
    if source.startswith("frames"):
        made = [enhanced_ct(shape, SPACING, orientation, shuffled=source.endswith("shuffled"))]
    else:
        made = ct_series(shape, SPACING, orientation)
    analysed = cases.volume(made, tmp_path / "in", orientation, SPACING)
    if source == "slices reversed":
        analysed = replace(analysed, instances=analysed.instances[::-1])
    elif source == "slices shuffled":
        order = np.random.default_rng(7).permutation(shape[0])
        analysed = replace(analysed, instances=tuple(analysed.instances[i] for i in order))
    check(analysed, tmp_path / "out", shape, SPACING, orientation)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.tuples(st.integers(5, 9), st.integers(9, 20), st.integers(9, 20)),
    spacing=st.tuples(st.floats(0.5, 6), st.floats(0.3, 2), st.floats(0.3, 2)),
    orientation=st.sampled_from(sorted(ORIENTATIONS)),
    seed=st.integers(0, 99),
)
def test_any_grid(shape, spacing, orientation, seed, tmp_path_factory):
    spacing = tuple(round(length, 3) for length in spacing)
    folder = tmp_path_factory.mktemp("grid")
    analysed = cases.volume(ct_series(shape, spacing, orientation), folder / "in", orientation, spacing)
    order = np.random.default_rng(seed).permutation(shape[0])
    analysed = replace(analysed, instances=tuple(analysed.instances[i] for i in order))
    check(analysed, folder / "out", shape, spacing, orientation)


def test_slices_that_were_analysed_one_by_one_share_an_object(tmp_path):
    shape = (8, 32, 40)
    whole, slices = cases.heat(shape), ct_series(shape, SPACING, "oblique")
    order = [5, 0, 3, 7, 1, 6, 2, 4]
    analysed = [cases.image(slices[i], tmp_path / str(i), values=whole[i]) for i in order]
    written = write_results(cases.outcome(*analysed), cases.ALGORITHM, tmp_path / "out", MAPS, cases.PSEUDONYMS)
    assert [one.kind for one in written] == ["seg", "pm"]
    for one in written:
        made = pydicom.dcmread(one.path)
        pixels = made.pixel_array.reshape(-1, *shape[1:]) > (0 if one.kind == Kind.SEG else cases.CONTOUR)
        same_places(centres(made, pixels), truth(shape, SPACING, "oblique"))


def test_some_frames_of_a_multi_frame_object(tmp_path):
    shape = (8, 32, 40)
    whole, made = cases.heat(shape), enhanced_ct(shape, SPACING, "coronal")
    analysed = [cases.image(made, tmp_path / "in", frame=i + 1, values=whole[i]) for i in (6, 4, 5)]
    written = write_results(cases.outcome(*analysed), cases.ALGORITHM, tmp_path / "out", MAPS, cases.PSEUDONYMS)
    for one in written:
        read = pydicom.dcmread(one.path)
        pixels = read.pixel_array.reshape(-1, *shape[1:]) > (0 if one.kind == Kind.SEG else cases.CONTOUR)
        expected = truth(shape, SPACING, "coronal")  # the lesion lies in slices 4 and 5
        same_places(centres(read, pixels), expected)
        if one.kind == Kind.PM:
            assert int(read.NumberOfFrames) == 3


def test_a_frame_points_at_its_source_slice(tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    place = {i.uid: pydicom.dcmread(i.path, stop_before_pixels=True).ImagePositionPatient for i in analysed.instances}
    for one in write_results(cases.outcome(analysed), cases.ALGORITHM, tmp_path / "out", MAPS, cases.PSEUDONYMS):
        for group in pydicom.dcmread(one.path).PerFrameFunctionalGroupsSequence:
            (source,) = group.DerivationImageSequence[0].SourceImageSequence
            expected = np.array(place[source.ReferencedSOPInstanceUID], float)
            found = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
            np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_map_beside_its_source_is_refused(axis, tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    moved = analysed.affine.copy()
    moved[:3, 3] += 0.5 * moved[:3, axis]
    with pytest.raises(ResultError, match=r"0\.50 voxels away"):
        write_results(
            cases.outcome(replace(analysed, affine=moved)), cases.ALGORITHM, tmp_path / "out", MAPS, cases.PSEUDONYMS
        )
    assert not list(tmp_path.glob("out/*"))


def test_maps_of_another_size_are_refused(tmp_path):
    analysed = cases.volume(ct_series(), tmp_path / "in")
    for wrong, words in ((analysed.map[:, :-1], "rows and columns"), (analysed.map[:-1], "planes")):
        found = cases.outcome(replace(analysed, map=np.ascontiguousarray(wrong)))
        with pytest.raises(ResultError, match=words):
            write_results(found, cases.ALGORITHM, tmp_path / "out", MAPS, cases.PSEUDONYMS)
    turned = analysed.affine[:, [0, 2, 1, 3]]  # rows and columns exchanged
    found = cases.outcome(replace(analysed, affine=turned))
    with pytest.raises(ResultError, match="voxels away"):
        write_results(found, cases.ALGORITHM, tmp_path / "out", MAPS, cases.PSEUDONYMS)
