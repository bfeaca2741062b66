import tracemalloc

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.errors import InputError, SettingError
from inspection.geometry.tiling import Tiling

TILINGS = st.integers(4, 40).flatmap(
    lambda size: st.tuples(st.just(size), st.integers(0, size // 2), st.integers(size, 150), st.integers(size, 150))
)


@given(TILINGS)
def test_cores_cover_every_pixel_once_and_lie_in_their_tiles(drawn):
    size, overlap, height, width = drawn
    tiling = Tiling(size, overlap)
    seen = np.zeros((height, width), int)
    for tile in tiling.tiles(height, width):
        top, left, bottom, right = tile.core
        seen[top:bottom, left:right] += 1
        assert 0 <= tile.top <= top < bottom <= tile.top + size <= height
        assert 0 <= tile.left <= left < right <= tile.left + size <= width
        # away from the border of the frame a core keeps half of the overlap from the border of its tile
        assert top == 0 or top - tile.top >= overlap // 2
        assert bottom == height or tile.top + size - bottom >= overlap // 2
        assert left == 0 or left - tile.left >= overlap // 2
        assert right == width or tile.left + size - right >= overlap // 2
    assert (seen == 1).all()


@given(TILINGS, st.integers(1, 5))
def test_cutting_and_putting_together_is_the_identity(drawn, batch):
    size, overlap, height, width = drawn
    frame = np.random.default_rng(0).random((height, width, 2)).astype(np.float32)
    sizes = []

    def run(tiles):
        sizes.append(len(tiles))
        return tiles[..., 1]

    stitched = Tiling(size, overlap).mapped(frame, run, batch)
    assert (stitched == frame[..., 1]).all()
    assert max(sizes) <= batch


@given(TILINGS, st.integers(0, 5))
def test_an_operator_that_looks_half_the_overlap_far_gives_the_map_of_the_whole_frame(drawn, reach):
    size, overlap, height, width = drawn
    reach = min(reach, overlap // 2)
    frame = np.random.default_rng(1).random((height, width, 1)).astype(np.float32)
    kernel = np.random.default_rng(2).random((2 * reach + 1, 2 * reach + 1)).astype(np.float32)

    def operator(image):  # sees zeros beyond the border, as a convolution does
        return cv2.filter2D(image, -1, kernel, borderType=cv2.BORDER_CONSTANT)

    stitched = Tiling(size, overlap).mapped(frame, lambda tiles: np.stack([operator(t[..., 0]) for t in tiles]), 3)
    assert np.allclose(stitched, operator(frame[..., 0]), atol=1e-4)


def test_an_operator_that_looks_farther_does_not():
    frame = np.random.default_rng(1).random((100, 100, 1)).astype(np.float32)

    def blurred(image):
        return cv2.blur(image, (31, 31), borderType=cv2.BORDER_CONSTANT)

    stitched = Tiling(40, 10).mapped(frame, lambda tiles: np.stack([blurred(tile[..., 0]) for tile in tiles]), 3)
    assert not np.allclose(stitched, blurred(frame[..., 0]), atol=1e-2)


def test_tiles_that_are_not_wanted_are_not_run():
    frame = np.zeros((64, 64, 1), np.float32)
    ran = []

    def run(tiles):
        ran.extend(range(len(tiles)))
        return tiles[..., 0]

    stitched = Tiling(32, 0).mapped(frame, run, 8, lambda tile: tile.left == 0)
    assert len(ran) == 2
    assert (stitched[:, :32] == 0).all()
    assert np.isneginf(stitched[:, 32:]).all()


def test_a_frame_smaller_than_a_tile_and_too_much_overlap_are_refused():
    with pytest.raises(InputError, match="31 px cannot be cut into tiles of 32"):
        list(Tiling(32, 8).tiles(31, 100))
    with pytest.raises(SettingError, match="0 to half of the size, 16"):
        Tiling(32, 17)
    with pytest.raises(SettingError, match="1 or more"):
        Tiling(0, 0)


@pytest.mark.slow
def test_a_frame_of_80_megapixels_needs_its_map_and_little_more():
    frame = np.zeros((8000, 10000, 1), np.uint8)
    frame[4000:4010, 5000:5010] = 200

    def run(tiles):
        return np.stack([cv2.blur(tile[..., 0].astype(np.float32), (9, 9)) for tile in tiles])

    tracemalloc.start()
    stitched = Tiling(256, 64).mapped(frame, run, 8)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < stitched.nbytes + 32e6
    window = slice(3900, 4100), slice(4900, 5100)
    assert np.allclose(stitched[window], cv2.blur(frame[window][..., 0].astype(np.float32), (9, 9)), atol=1e-3)
