import math

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import InputError, SettingError
from anomaly.images.synthetic import normal
from inspection.geometry.errors import NotRegisteredError
from inspection.geometry.registration import Golden, in_sight, unwarped, warped

HEIGHT, WIDTH = 160, 200
CORNERS = np.array([[0, WIDTH, 0, WIDTH], [0, 0, HEIGHT, HEIGHT]], float)


def texture(seed=0, height=HEIGHT, width=WIDTH):
    noise = np.random.default_rng(seed).normal(0, 1, (height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return np.clip(128 + 40 * smooth / smooth.std(), 0, 255).astype(np.uint8)[..., None]


def transform(angle, dx, dy, scale=1.0):
    """Rotation about the middle of the golden image, then a shift."""
    a, middle = math.radians(angle), np.array([WIDTH, HEIGHT]) / 2
    turn = scale * np.array([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]])
    return np.column_stack([turn, middle - turn @ middle + [dx, dy]])


def moved(image, matrix, seed=0):
    """The part as a camera sees it that lies at `matrix`: darker, noisy, resampled by an independent routine."""
    index = matrix.copy()
    index[:, 2] += matrix[:, :2] @ [0.5, 0.5] - 0.5
    part = cv2.warpAffine(
        image[..., 0].astype(np.float32), index, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC, borderValue=128
    )
    part = 20 + 0.8 * part + np.random.default_rng(seed).normal(0, 2, part.shape)
    return np.clip(part, 0, 255).astype(np.uint8)[..., None]


def corner_error(found, true):
    return np.abs((found[:, :2] - true[:, :2]) @ CORNERS + (found[:, 2:] - true[:, 2:])).max()


GOLDEN = Golden(texture(), "euclidean", 60.0, 8.0, 0.5)
SIMILAR = Golden(texture(), "similarity", 60.0, 8.0, 0.5)


@settings(max_examples=15, deadline=None)
@given(st.floats(-6, 6), st.floats(-25, 25), st.floats(-25, 25), st.integers(0, 9))
def test_known_shifts_and_rotations_are_found(angle, dx, dy, seed):
    true = transform(angle, dx, dy)
    found = GOLDEN.register(moved(GOLDEN.image, true, seed))
    assert corner_error(found.matrix, true) < 0.25
    assert found.angle_deg == pytest.approx(angle, abs=0.1)
    assert found.shift_px == pytest.approx(math.hypot(dx, dy), abs=0.25)
    assert found.scale == pytest.approx(1, abs=1e-6)
    assert found.residual < 0.1


@settings(max_examples=6, deadline=None)
@given(st.floats(-5, 5), st.floats(-15, 15), st.floats(-15, 15), st.floats(0.95, 1.05))
def test_a_similarity_finds_the_scale_too(angle, dx, dy, scale):
    true = transform(angle, dx, dy, scale)
    found = SIMILAR.register(moved(SIMILAR.image, true))
    assert corner_error(found.matrix, true) < 0.4
    assert found.scale == pytest.approx(scale, abs=0.005)
    assert np.allclose(found.matrix[0, 0], found.matrix[1, 1])
    assert np.allclose(found.matrix[0, 1], -found.matrix[1, 0])


def test_large_images_are_registered_on_a_small_one():
    golden = Golden(normal("wafer", (900, 1100), 5), "euclidean", 100.0, 3.0, 0.9)
    part = np.roll(golden.image, (12, -23), (0, 1))
    found = golden.register(part)
    assert np.allclose(found.matrix, [[1, 0, -23], [0, 1, 12]], atol=0.3)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((5.0, 8.0, 0.5), r"shift 20.* px to the golden image, at most 5 is"),
        ((60.0, 1.0, 0.9), r"(rotation|residual)"),
        ((60.0, 8.0, 1e-4), r"residual 0.0.* to the golden image, at most 0.0001 is"),
    ],
)
def test_a_part_beyond_a_limit_is_not_registered(limits, message):
    golden = Golden(texture(), "euclidean", *limits)
    with pytest.raises(NotRegisteredError, match=message):
        golden.register(moved(golden.image, transform(5.0, 20, 4)))


def test_another_part_noise_and_an_empty_frame_are_not_registered():
    for part in (texture(7), np.random.default_rng(0).integers(0, 255, GOLDEN.image.shape, np.uint8)):
        with pytest.raises(NotRegisteredError):
            GOLDEN.register(part)
    with pytest.raises(NotRegisteredError):
        GOLDEN.register(np.full(GOLDEN.image.shape, 40, np.uint8))


def test_a_flat_golden_image_is_refused():
    with pytest.raises(InputError, match="flat"):
        Golden(np.full((50, 50, 1), 9, np.uint8), "euclidean", 5.0, 5.0, 0.5)
    with pytest.raises(SettingError, match="'euclidean' or 'similarity'"):
        Golden(texture(), "affine", 5.0, 5.0, 0.5)


def test_a_part_and_its_map_are_taken_there_and_back():
    true = transform(3.0, 10, -6)
    part = moved(GOLDEN.image, true)
    over = warped(part, true, GOLDEN.image.shape)
    seen = in_sight(part.shape, true, GOLDEN.image.shape)
    difference = np.abs(over.astype(float) - (20 + 0.8 * GOLDEN.image.astype(float)))[seen]
    assert np.quantile(difference, 0.95) < 8
    spot = np.zeros((HEIGHT, WIDTH), np.float32)
    spot[70:80, 90:100] = 1
    back = unwarped(spot, true, part.shape, -1.0)
    rows, columns = np.nonzero(back > 0.5)
    place = true[:, :2] @ [95, 75] + true[:, 2]
    assert np.allclose([columns.mean() + 0.5, rows.mean() + 0.5], place, atol=0.3)
    assert back.min() == -1
    assert not seen.all()


def test_every_band_of_a_frame_is_warped():
    bands = np.concatenate([texture(seed) for seed in range(6)], axis=2)
    over = warped(bands, transform(0, 4, 0), bands.shape)
    assert over.dtype == np.uint8
    assert (over[:, :-4] == bands[:, 4:]).all()
