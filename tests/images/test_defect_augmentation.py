import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import InputError, SettingError
from anomaly.images.defect_augmentation import KINDS, perlin_noise, plant


def normal(dtype, channels, height, width, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.random((channels, height, width))
    return values.astype(np.float32) if dtype == "float32" else (values * np.iinfo(dtype).max).astype(dtype)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(sorted(KINDS)),
    st.sampled_from(["uint8", "uint16", "float32"]),
    st.integers(1, 4),
    st.tuples(st.integers(8, 90), st.integers(8, 90)),
    st.floats(0.0005, 0.25),
    st.floats(0.05, 1.0),
    st.integers(0, 1000),
)
def test_the_mask_is_exactly_what_changed(kind, dtype, channels, size, area, opacity, seed):
    frame = normal(dtype, channels, *size)
    before = frame.copy()
    planted = plant(frame, kind, area, opacity, np.random.default_rng(seed))
    assert np.array_equal(frame, before)
    assert planted.frame.dtype == frame.dtype
    assert planted.frame.shape == frame.shape
    assert np.array_equal(planted.mask, (planted.frame != frame).any(axis=0))
    assert frame.min() <= planted.frame.min() <= planted.frame.max() <= frame.max()
    again = plant(frame, kind, area, opacity, np.random.default_rng(seed))
    assert np.array_equal(again.frame, planted.frame)


@pytest.mark.parametrize("kind", sorted(KINDS))
@pytest.mark.parametrize("area", [0.001, 0.01, 0.1])
def test_areas_and_contrasts_are_those_asked_for(kind, area):
    frame = normal("float32", 1, 128, 96)
    for seed in range(5):
        full = plant(frame, kind, area, 1.0, np.random.default_rng(seed))
        half = plant(frame, kind, area, 0.5, np.random.default_rng(seed))
        assert full.mask.mean() == pytest.approx(area, rel=0.25)
        assert np.array_equal(half.mask, full.mask)
        assert np.allclose(half.frame - frame, 0.5 * (full.frame - frame), atol=1e-6)


def test_cut_and_pasted_pixels_come_from_another_place_of_the_frame():
    frame = normal("uint16", 1, 64, 64)
    planted = plant(frame, "cut_paste", 0.01, 1.0, np.random.default_rng(0))
    rows, columns = np.nonzero(planted.mask)
    top, bottom, left, right = rows.min(), rows.max() + 1, columns.min(), columns.max() + 1
    windows = np.lib.stride_tricks.sliding_window_view(frame[0], (bottom - top, right - left))
    places = np.argwhere((windows == planted.frame[0, top:bottom, left:right]).all(axis=(2, 3)))
    assert len(places) == 1
    assert tuple(places[0]) != (top, left)


def test_perlin_noise_is_zero_on_its_lattice_and_smooth_between():
    noise = perlin_noise(64, 96, 6, np.random.default_rng(0))  # cells of 16 pixels
    assert np.allclose(noise[::16, ::16], 0)
    assert 0.1 < noise.std() < 0.5
    assert np.abs(np.diff(noise, axis=1)).max() < 0.2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("burn", 0.01, 1.0), "kind of plant must be one of cut_paste, perlin"),
        (("perlin", 0.0, 1.0), "area of plant must be above 0"),
        (("perlin", 0.01, 1.5), "opacity of plant must be above 0"),
    ],
)
def test_what_cannot_be_planted_is_refused(arguments, message):
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(SettingError, match=message):
            plant(normal("uint8", 1, 32, 32), *arguments, np.random.default_rng(0))
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    with pytest.raises(InputError, match="a frame must be"):
        plant(normal("uint8", 1, 32, 4), "perlin", 0.01, 1.0, np.random.default_rng(0))
