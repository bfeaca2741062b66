import cv2
import numpy as np
import pytest

from anomaly.errors import SettingError
from anomaly.report import display, overlay, panel
from anomaly.report.heatmap import pair


def blob(height: int, width: int) -> np.ndarray:
    anomaly_map = np.zeros((height, width), np.float32)
    anomaly_map[height // 4 : height // 2, width // 4 : width // 2] = 1
    return anomaly_map


def test_8_bit_is_shown_as_it_is():
    image = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    assert (display(image, (0.0, 255.0)) == image).all()
    rgb = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    assert (display(rgb, (0.0, 255.0)) == rgb).all()


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_deep_images_are_stretched_to_their_own_range_and_ignore_outliers(dtype):
    image = np.linspace(900, 1100, 10_000).reshape(100, 100, 1).astype(dtype)
    image[0, 0] = 60_000
    shown = display(image, (0.0, 65535.0))
    assert shown.shape == (100, 100, 3)
    assert shown.min() == 0
    assert shown.max() == 255
    assert abs(int(shown[50, 50, 0]) - 128) < 4


def test_a_flat_deep_image_is_placed_in_the_value_range():
    assert (display(np.full((4, 4, 1), 2048, np.uint16), (0.0, 4096.0)) == 128).all()


def test_many_channels_are_shown_as_their_mean():
    image = np.stack([np.full((4, 4), value, np.uint8) for value in (0, 10, 20, 30, 40)], axis=2)
    assert (display(image, (0.0, 255.0)) == 20).all()


def test_line_runs_exactly_where_the_map_exceeds():
    anomaly_map = blob(64, 64)
    picture = np.full((64, 64, 3), 100, np.uint8)
    drawn = overlay(picture, anomaly_map, (0.0, 1000.0), 0.5)  # the scale keeps the colour out of the way
    exceeds = anomaly_map > 0.5
    kernel = np.ones((3, 3), np.uint8)
    rim = exceeds & ~cv2.erode(exceeds.astype(np.uint8), kernel).astype(bool)
    halo = cv2.dilate(exceeds.astype(np.uint8), kernel).astype(bool) & ~exceeds
    assert ((drawn == 255).all(axis=2) == rim).all()
    assert ((drawn == 0).all(axis=2) == halo).all()


def test_a_value_equal_to_the_threshold_has_no_line_and_normal_areas_are_untouched():
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (overlay(picture, np.full((32, 32), 0.5, np.float32), (0.5, 1.0), 0.5) == picture).all()


def test_everything_above_the_threshold_is_framed():
    drawn = overlay(np.zeros((32, 32, 3), np.uint8), np.ones((32, 32), np.float32), (0.0, 1.0), 0.5)
    assert (drawn[0] == 255).all()
    assert (drawn[:, -1] == 255).all()


def test_opacity_grows_with_the_value():
    ramp = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (4, 1))
    bright, dark = (
        overlay(np.full((4, 100, 3), grey, np.uint8), ramp, (0.0, 1.0), 2.0).astype(int) for grey in (255, 0)
    )
    seen_through = (bright - dark).mean(axis=(0, 2))
    assert (np.diff(seen_through) < 1).all()
    assert seen_through[0] == 255
    assert 0 < seen_through[-1] < 100


def test_a_scale_without_extent_is_refused():
    with pytest.raises(SettingError, match="low < high"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 4), np.float32), (1.0, 1.0), 0.5)


def test_one_exceeding_pixel_of_a_large_image_survives_shrinking():
    anomaly_map = np.zeros((3000, 4000), np.float32)
    anomaly_map[1234, 2345] = 2
    _, overlaid = pair(
        np.zeros((3000, 4000, 3), np.uint8), anomaly_map, (0.0, 1000.0), 1.0, sides=(256, 400), pointed=False
    )
    assert overlaid.shape == (300, 400, 3)
    found = np.argwhere((overlaid[115:132, 226:243] == 255).all(axis=2))
    assert len(found) > 0


@pytest.mark.parametrize("size", [(460, 1130), (400, 103), (256, 256), (1500, 2000), (8, 8), (2, 900), (900, 2)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_panels_are_readable_at_every_aspect_ratio(size, dtype):
    image = np.random.default_rng(0).integers(0, 200, (*size, 1)).astype(dtype)
    drawn = panel(
        display(image, (0.0, 255.0)),
        blob(*size),
        (0.0, 1.0),
        0.5,
        title="a very long name " * 40 + "\n.png",
        decision="REVIEW",
        facts="score 1.23 · p-value 0.01",
        mask=blob(*size) > 0,
    )
    assert drawn.dtype == np.uint8
    assert drawn.shape[2] == 3
    assert 560 <= drawn.shape[1] <= 2200
    assert 200 <= drawn.shape[0] <= 2300


def test_a_cross_points_at_the_strongest_spot_and_leaves_it_free():
    anomaly_map = np.zeros((256, 256), np.float32)
    anomaly_map[100, 150] = 0.1
    picture = np.full((256, 256, 3), 50, np.uint8)
    _, plain = pair(picture, anomaly_map, (0.0, 1000.0), 1.0, sides=(256, 512), pointed=False)
    _, pointed = pair(picture, anomaly_map, (0.0, 1000.0), 1.0, sides=(256, 512), pointed=True)
    assert (plain == picture).all()
    rows, columns = np.nonzero((pointed == 255).all(axis=2))
    assert abs(rows.mean() - 100) < 1
    assert abs(columns.mean() - 150) < 1
    assert (pointed[96:105, 146:155] == 50).all()
