"""Volumes are those of highdicom, in every orientation; and those of ITK where SimpleITK is installed."""

import time

import highdicom
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medical.reading import diagnose, take_inventory, to_metatensor
from medical.refusals import Reason, RefusedError
from tests.medical import phantoms

SHAPE, SPACING = (7, 30, 26), (2.5, 0.8, 0.6)
ORIENTATIONS = sorted(phantoms.ORIENTATIONS)


def only_series(inventory):
    (study,) = inventory.studies
    (series,) = study.series
    return series


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("order", [1, -1])
def test_series_is_highdicoms_volume_and_the_phantom(inventory, pixels, orientation, order):
    datasets = phantoms.ct_series(SHAPE, SPACING, orientation)[::order]
    for number, slice_ in enumerate(datasets[3:] + datasets[:3], 1):
        slice_.InstanceNumber = number  # never used for sorting
    series = only_series(inventory(*datasets))
    volume = pixels.volume(series)
    reference = highdicom.get_volume_from_series(datasets, apply_real_world_transform=False)
    assert np.array_equal(volume.values, reference.array)
    assert np.allclose(volume.affine, reference.affine, atol=1e-9)
    assert np.array_equal(volume.values, phantoms.body(SHAPE))
    assert np.allclose(volume.affine, phantoms.affine_of(SHAPE, SPACING, orientation), atol=1e-6)
    assert (volume.unit, volume.decoder) == ("HU", "none")
    assert np.allclose(volume.spacing, SPACING)
    assert volume.valid.all()
    for index in (0, 3, 6):  # instances lie as slices do
        assert np.array_equal(pixels.image(volume.instances[index]).values, volume.values[index])
    inside = phantoms.lesion(SHAPE)
    assert (volume.values[inside] == 300).all()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("shuffled", [True, False])
def test_enhanced_object_is_highdicoms_volume(inventory, pixels, orientation, shuffled):
    made = phantoms.enhanced_ct(SHAPE, SPACING, orientation, slopes=(1.0, 0.5), shuffled=shuffled)
    series = only_series(inventory(made))
    assert series.irregular is None
    volume = pixels.volume(series)
    reference = highdicom.Image.from_dataset(made).get_volume(apply_real_world_transform=False)
    assert np.allclose(volume.values, reference.array, atol=1e-3)
    assert np.allclose(volume.affine, reference.affine, atol=1e-9)
    assert np.array_equal(volume.values, phantoms.body(SHAPE))
    assert volume.unit == "HU"
    assert len(volume.instances) == 1


def test_enhanced_object_with_a_missing_frame(inventory, pixels):
    series = only_series(inventory(phantoms.enhanced_ct(SHAPE, SPACING, missing=3)))
    assert series.irregular.reason == Reason.MISSING_SLICE
    with pytest.raises(RefusedError, match="MISSING_SLICE"):
        pixels.volume(series)
    assert pixels.image(series.instances[0], 6).values.shape == SHAPE[1:]


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"tilt": 12.0}, Reason.GANTRY_TILT),
        ({"missing": 2}, Reason.MISSING_SLICE),
        ({"localiser": True}, Reason.LOCALISER),
        ({"acquisitions": 2}, Reason.SEVERAL_ACQUISITIONS),
    ],
)
def test_broken_series_is_said_and_refused(inventory, pixels, how, reason):
    series = only_series(inventory(*phantoms.ct_series(SHAPE, SPACING, **how)))
    assert series.irregular.reason == reason
    assert diagnose(series.instances).irregular == series.irregular
    with pytest.raises(RefusedError) as caught:
        pixels.volume(series)
    assert caught.value.refusal == series.irregular


@pytest.mark.parametrize(
    ("datasets", "reason"),
    [(phantoms.ct_series(SHAPE)[:1], Reason.TOO_FEW_SLICES), ([phantoms.projection()], Reason.NO_GEOMETRY)],
)
def test_no_volume_was_to_be_expected(inventory, pixels, datasets, reason):
    series = only_series(inventory(*datasets))
    assert series.irregular is None
    with pytest.raises(RefusedError) as caught:
        pixels.volume(series)
    assert caught.value.refusal.reason == reason


def test_padding_of_a_volume_holds_its_lowest_value(inventory, pixels):
    datasets = phantoms.ct_series(SHAPE, SPACING, padding=-2000)
    datasets[2].PixelData = np.full(SHAPE[1:], -2000, "<i2").tobytes()  # a slice of padding alone
    volume = pixels.volume(only_series(inventory(*datasets)))
    assert not volume.valid[2].any()
    assert volume.valid[3].any()
    assert (volume.values[~volume.valid] == -1000).all()
    assert np.array_equal(volume.values[volume.valid], phantoms.body(SHAPE)[volume.valid])


@pytest.mark.parametrize("stored", [24, -2000])
def test_volume_without_content(inventory, pixels, stored):
    datasets = phantoms.ct_series(SHAPE, SPACING, padding=-2000)
    for slice_ in datasets:
        slice_.PixelData = np.full(SHAPE[1:], stored, "<i2").tobytes()
    with pytest.raises(RefusedError, match="PIXELS: all voxels"):
        pixels.volume(only_series(inventory(*datasets)))


def test_damaged_slice_refuses_the_volume(inventory, pixels):
    datasets = phantoms.ct_series((3, 40, 44), SPACING)
    for slice_ in datasets:
        slice_.compress("1.2.840.10008.1.2.4.80", generate_instance_uid=False)
    whole = bytearray(datasets[1].PixelData)
    whole[200:260] = bytes(60)
    datasets[1].PixelData = bytes(whole)
    with pytest.raises(RefusedError):
        pixels.volume(only_series(inventory(*datasets)))


@pytest.mark.slow  # importing MONAI
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_metatensor_puts_every_voxel_where_it_lies_in_the_patient(inventory, pixels, orientation):
    volume = pixels.volume(only_series(inventory(*phantoms.ct_series(SHAPE, SPACING, orientation))))
    tensor = to_metatensor(volume)
    assert tuple(tensor.shape) == (1, *SHAPE)
    for index in [(0, 0, 0), (6, 2, 19), (3, 29, 1)]:
        left, posterior, superior = (phantoms.affine_of(SHAPE, SPACING, orientation) @ [*index, 1])[:3]
        assert np.allclose((tensor.affine.numpy() @ [*index, 1])[:3], [-left, -posterior, superior], atol=1e-6)
        assert float(tensor[(0, *index)]) == phantoms.body(SHAPE)[index]


@pytest.mark.filterwarnings("default")  # a warning that is an error kills the process while SWIG modules load
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_voxel_lies_where_itk_puts_it(inventory, pixels, tmp_path, orientation):
    """ITK finds, sorts and places the slices on its own."""
    itk = pytest.importorskip("SimpleITK", reason="SimpleITK is not installed")
    volume = pixels.volume(only_series(inventory(*phantoms.ct_series(SHAPE, SPACING, orientation))))
    image = itk.ReadImage(itk.ImageSeriesReader.GetGDCMSeriesFileNames(str(tmp_path / "objects")))
    theirs = np.eye(4)
    theirs[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    theirs[:3, 3] = image.GetOrigin()
    ours = np.stack([*np.indices(SHAPE).reshape(3, -1), np.ones(np.prod(SHAPE))])
    x, y, z, _ = np.linalg.solve(theirs, volume.affine @ ours)  # their columns, rows, slices of our voxels
    found = np.round([z, y, x]).astype(int)
    assert np.allclose(found, [z, y, x], atol=1e-3)
    assert np.array_equal(itk.GetArrayFromImage(image)[tuple(found)], volume.values.ravel())


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    orientation=st.sampled_from(ORIENTATIONS),
    shape=st.tuples(st.integers(2, 5), st.integers(8, 20), st.integers(8, 20)),
    spacing=st.tuples(st.floats(0.4, 5), st.floats(0.2, 2), st.floats(0.2, 2)),
)
def test_any_regular_series_is_highdicoms_volume(tmp_path, pseudonyms, pixels, orientation, shape, spacing):
    datasets = phantoms.ct_series(shape, spacing, orientation, seed=str((orientation, shape, spacing)))
    folder = tmp_path / str(time.monotonic_ns())
    phantoms.save(datasets, folder)
    volume = pixels.volume(only_series(take_inventory([folder], pseudonyms, pixels=pixels)))
    reference = highdicom.get_volume_from_series(datasets, apply_real_world_transform=False)
    assert np.array_equal(volume.values, reference.array)
    assert np.allclose(volume.affine, reference.affine, atol=1e-6)
