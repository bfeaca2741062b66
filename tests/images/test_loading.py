import threading
import time
import warnings

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from anomaly.errors import DatasetError, ImageFileError, SettingError
from anomaly.images import ImageLoader, infer_input, loading
from anomaly.input_spec import InputSpec

GREY = InputSpec(channels=1)
RGB = InputSpec(channels=3)


def write(path, channels=1, height=8, width=12, dtype="uint8", value=None):
    shape = (height, width) if channels == 1 else (height, width, channels)
    array = np.random.default_rng(len(path.name)).integers(0, 200, shape).astype(dtype)
    if value is not None:
        array[:] = value
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, photometric="rgb" if channels == 3 else "minisblack")
    else:
        Image.fromarray(array).save(path)
    return path


@pytest.fixture
def numbered(tmp_path):
    """Twenty files whose pixels are their numbers."""
    return [write(tmp_path / f"{number:02d}.png", value=number) for number in range(20)]


def loader_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("anomaly-images")]


@pytest.mark.parametrize("workers", [1, 3, None])
@pytest.mark.parametrize("batch_size", [1, 6, 50])
def test_batches_keep_the_order_of_the_paths(numbered, workers, batch_size):
    order = numbered[::-1]
    loader = ImageLoader(order, GREY, batch_size, workers)
    batches = list(loader)
    assert len(loader) == 20
    assert [path for batch in batches for path in batch.paths] == order
    assert [int(image[0, 0, 0]) for batch in batches for image in batch.images] == list(range(20))[::-1]
    assert [len(batch.paths) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    assert all(batch.images.dtype == torch.uint8 for batch in batches)
    assert loader.failures == []
    assert not loader_threads()


def test_files_that_cannot_be_used_are_collected_and_batches_stay_full(numbered):
    for number in (0, 7, 8, 19):
        numbered[number].write_bytes(b"")
    loader = ImageLoader(numbered, GREY, batch_size=4)
    for _ in range(2):  # a second pass reports the same, not more
        batches = list(loader)
        assert [len(batch.paths) for batch in batches] == [4, 4, 4, 4]
        assert [failure.path for failure in loader.failures] == [numbered[number] for number in (0, 7, 8, 19)]
        assert all("empty" in failure.reason for failure in loader.failures)


def test_nothing_usable_gives_no_batch(tmp_path):
    loader = ImageLoader([tmp_path / "missing.png"], GREY)
    assert list(loader) == []
    assert len(loader.failures) == 1
    assert list(ImageLoader([], GREY)) == []


def test_a_consumer_that_stops_early_ends_the_threads(numbered):
    batches = iter(ImageLoader(numbered, GREY, batch_size=2, workers=3))
    next(batches)
    assert loader_threads()
    batches.close()
    assert not loader_threads()


def test_decoding_runs_ahead_but_never_far(numbered, monkeypatch):
    started = []

    def read(path):
        started.append(path)
        return np.zeros((8, 12, 1), np.uint8)

    monkeypatch.setattr(loading, "read_image", read)
    batches = iter(ImageLoader(numbered * 20, GREY, batch_size=5, workers=4))
    for taken in range(1, 6):
        next(batches)
        deadline = time.monotonic() + 5
        while len(started) < 5 * taken + 9 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.02)
        assert 5 * taken + 9 <= len(started) <= 5 * taken + 10
    batches.close()


def test_frames_of_different_sizes_come_as_a_list(tmp_path):
    paths = [write(tmp_path / "a.png"), write(tmp_path / "b.png", height=9), write(tmp_path / "c.png")]
    first, second = ImageLoader(paths, GREY, batch_size=2)
    assert [tuple(image.shape) for image in first.images] == [(1, 8, 12), (1, 9, 12)]
    assert tuple(second.images.shape) == (1, 1, 8, 12)
    assert GREY.canvas(first.images).pixels.shape == (2, 1, 256, 256)


def test_frames_can_be_written_to_without_a_warning(tmp_path):
    paths = [write(tmp_path / "a.png"), write(tmp_path / "b.png", height=9)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for spec in (GREY, RGB):
            (batch,) = ImageLoader(paths, spec)
            batch.images[0].zero_()


def test_grey_is_replicated_for_an_rgb_model(tmp_path):
    path = write(tmp_path / "a.png")
    (batch,) = ImageLoader([path], RGB)
    expected = torch.from_numpy(np.array(Image.open(path)))
    assert tuple(batch.images.shape) == (1, 3, 8, 12)
    assert all(torch.equal(channel, expected) for channel in batch.images[0])


def test_equal_channels_are_reduced_for_a_grey_model_and_colour_is_refused(tmp_path):
    paths = [write(tmp_path / "grey.png", 3, value=77), write(tmp_path / "colour.png", 3)]
    loader = ImageLoader(paths, GREY)
    (batch,) = loader
    assert tuple(batch.images.shape) == (1, 1, 8, 12)
    assert (batch.images == 77).all()
    assert "3 channel(s) that differ, the model takes 1" in loader.failures[0].reason


def test_depth_is_never_converted(tmp_path):
    deep, shallow = write(tmp_path / "a.tif", dtype="uint16"), write(tmp_path / "b.tif")
    spec = InputSpec(channels=1, dtype="uint16", value_range=(0.0, 65535.0))
    for wanted, good, bad in ((spec, deep, shallow), (GREY, shallow, deep)):
        loader = ImageLoader([deep, shallow], wanted)
        (batch,) = loader
        assert batch.paths == [good]
        assert batch.images.dtype == {"uint8": torch.uint8, "uint16": torch.uint16}[wanted.dtype]
        assert loader.failures[0].path == bad
        assert f"the model takes {wanted.dtype}" in loader.failures[0].reason


@pytest.mark.parametrize("bad", [4096, 5])
def test_values_outside_the_range_are_refused(tmp_path, bad):
    spec = InputSpec(channels=1, dtype="uint16", value_range=(10.0, 4095.0))
    good, wrong = (write(tmp_path / f"{value}.tif", dtype="uint16", value=value) for value in (4095, bad))
    loader = ImageLoader([good, wrong], spec)
    (batch,) = loader
    assert batch.paths == [good]
    assert f"has values {bad} to {bad}, the model takes 10 to 4095 (grey value)" in loader.failures[0].reason


def test_nan_is_refused(tmp_path):
    loader = ImageLoader(
        [write(tmp_path / "a.tif", dtype="float32", value=np.nan)],
        InputSpec(channels=1, dtype="float32", value_range=(0.0, 1.0)),
    )
    assert list(loader) == []
    assert "nan" in loader.failures[0].reason


def test_other_channel_counts_are_refused(tmp_path):
    loader = ImageLoader([write(tmp_path / "a.png", 3)], InputSpec(channels=7))
    assert list(loader) == []
    assert "has 3 channel(s), the model takes 7" in loader.failures[0].reason


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"workers": 0}])
def test_settings_below_one_are_refused(wrong):
    with pytest.raises(SettingError, match=f"{next(iter(wrong))} of ImageLoader must be 1 or more; got 0"):
        ImageLoader([], GREY, **wrong)


def test_infer_takes_channels_and_depth_from_the_files(tmp_path):
    grey, rgb = write(tmp_path / "a.png"), write(tmp_path / "b.png", 3)
    assert infer_input([grey]).channels == 1
    assert infer_input([rgb]).channels == 3
    assert infer_input([grey, rgb, tmp_path / "missing.png"]).channels == 3
    deep = infer_input([write(tmp_path / "c.tif", dtype="uint16")])
    assert (deep.dtype, deep.value_range) == ("uint16", (0, 65535))
    assert infer_input([grey], value_range=(0.0, 200.0)).value_range == (0, 200)


def test_infer_refuses_mixes_and_names_an_example_of_each(tmp_path):
    grey, deep = write(tmp_path / "a.png"), write(tmp_path / "b.tif", dtype="uint16")
    with pytest.raises(DatasetError, match=r"(?s)mix dtypes.*uint16: .*b\.tif\n  uint8: .*a\.png"):
        infer_input([grey, deep])
    bands = tmp_path / "c.tif"
    tifffile.imwrite(bands, np.zeros((8, 9, 5), np.uint8), photometric="minisblack", planarconfig="contig")
    assert infer_input([bands]).channels == 5
    with pytest.raises(DatasetError, match=r"(?s)mix numbers of channels.*1 channel\(s\): .*a\.png\n  5 channel"):
        infer_input([grey, bands])


def test_infer_asks_for_the_value_range_of_floats(tmp_path):
    path = write(tmp_path / "a.tif", dtype="float32")
    with pytest.raises(SettingError, match="value_range of infer_input must be given for float32"):
        infer_input([path])
    assert infer_input([path], value_range=(-1000.0, 3000.0)).value_range == (-1000, 3000)


def test_infer_needs_one_readable_file(tmp_path):
    (tmp_path / "a.png").touch()
    with pytest.raises(DatasetError, match=r"(?s)none of 1 image file\(s\) is readable.*a\.png: is empty"):
        infer_input([tmp_path / "a.png"])
    with pytest.raises(DatasetError, match="none of 0 image"):
        infer_input([])


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [
        (460, 1130, (160, 416)),
        (1024, 1024, (256, 256)),
        (300, 300, (256, 256)),
        (100, 120, (96, 128)),
        (20, 20, (32, 32)),
        (8, 4000, (32, 4000 // 32 * 32)),
    ],
)
def test_canvas_follows_the_aspect_of_the_files(tmp_path, height, width, size):
    assert infer_input([write(tmp_path / "a.png", height=height, width=width)]).size == size


def test_canvas_can_be_given(tmp_path):
    path = write(tmp_path / "a.png")
    assert infer_input([path]).resize == "pad"
    spec = infer_input([path], size=(64, 100), resize="stretch")
    assert (spec.size, spec.resize) == ((64, 100), "stretch")


@given(sizes=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), min_size=1, max_size=5))
@settings(max_examples=20, deadline=None)
def test_canvas_is_always_valid_and_never_much_larger_than_its_area(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("sizes")
    paths = [write(folder / f"{k}.bmp", height=h, width=w) for k, (h, w) in enumerate(sizes)]
    height, width = infer_input(paths).size
    assert height % 32 == width % 32 == 0
    assert (height - 32) * (width - 32) <= loading_area(sizes)


def loading_area(sizes):
    return 1.01 * min(256 * 256, float(np.median([h * w for h, w in sizes])))


def test_failures_are_image_file_errors_with_path_and_reason(tmp_path):
    loader = ImageLoader([tmp_path / "missing.png"], GREY)
    list(loader)
    (failure,) = loader.failures
    assert isinstance(failure, ImageFileError)
    assert str(failure) == f"{tmp_path / 'missing.png'}: does not exist; check the path"
