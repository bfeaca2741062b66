import re
from dataclasses import replace

import jaxtyping
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly import input_spec
from anomaly.errors import InputError, SettingError
from anomaly.input_spec import DTYPES, InputSpec, resize, resize_matrix

FEW = settings(max_examples=25, deadline=None)
SIDES = st.integers(1, 150)
CANVASES = st.tuples(st.integers(32, 96), st.integers(32, 96))
RESIZES = st.sampled_from(["pad", "stretch"])
RANGES = {"uint8": (0.0, 255.0), "uint16": (0.0, 4095.0), "float32": (-1000.0, 3000.0)}


def frames(spec, count, height, width, seed=0):
    """Raw frames of noise over the whole value range."""
    generator = torch.Generator().manual_seed(seed)
    low, high = spec.value_range
    values = low + torch.rand(count, spec.channels, height, width, generator=generator) * (high - low)
    return values if spec.dtype == "float32" else values.round().to(DTYPES[spec.dtype])


@FEW
@given(st.sampled_from(sorted(RANGES)), st.integers(1, 5), CANVASES, RESIZES, SIDES, SIDES)
def test_canvas_of_a_batch_of_singles_and_of_a_list_are_equal(dtype, channels, size, mode, height, width):
    spec = InputSpec(channels=channels, dtype=dtype, value_range=RANGES[dtype], size=size, resize=mode)
    batch = frames(spec, 3, height, width)
    together, as_list = spec.canvas(batch), spec.canvas(list(batch))
    alone = [spec.canvas(image[None]) for image in batch]
    assert together.pixels.shape == (3, channels, *size)
    assert together.pixels.dtype == torch.float32
    assert torch.allclose(together.pixels, torch.cat([one.pixels for one in alone]), rtol=0, atol=1e-6)
    assert torch.allclose(together.pixels, as_list.pixels, rtol=0, atol=1e-6)
    assert together.sizes == as_list.sizes == tuple(one.sizes[0] for one in alone)


@FEW
@given(CANVASES, RESIZES, st.lists(st.tuples(SIDES, SIDES), min_size=1, max_size=4))
def test_canvas_of_an_image_does_not_depend_on_the_sizes_beside_it(size, mode, shapes):
    spec = InputSpec(size=size, resize=mode)
    images = [frames(spec, 1, height, width, seed)[0] for seed, (height, width) in enumerate(shapes)]
    together = spec.canvas(images)
    for index, image in enumerate(images):
        alone = spec.canvas(image[None])
        assert torch.allclose(together.pixels[index], alone.pixels[0], rtol=0, atol=1e-6)
        assert together.sizes[index] == alone.sizes[0]


@FEW
@given(st.sampled_from(["uint8", "uint16"]), RESIZES, SIDES, SIDES)
def test_float_frames_in_the_same_range_equal_integer_frames(dtype, mode, height, width):
    spec = InputSpec(dtype=dtype, value_range=RANGES[dtype], size=(40, 64), resize=mode)
    raw = frames(spec, 2, height, width)
    assert torch.equal(spec.canvas(raw).pixels, spec.canvas(raw.to(torch.float32)).pixels)


@pytest.mark.parametrize("dtype", sorted(RANGES))
def test_ends_of_the_value_range_become_zero_and_one(dtype):
    spec = InputSpec(channels=1, dtype=dtype, value_range=RANGES[dtype], size=(32, 32))
    raw = torch.tensor(RANGES[dtype]).to(DTYPES[dtype]).reshape(2, 1, 1, 1).expand(2, 1, 32, 32)
    pixels = spec.canvas(raw).pixels
    assert torch.equal(pixels[0], torch.zeros(1, 32, 32))
    assert torch.equal(pixels[1], torch.ones(1, 32, 32))


@FEW
@given(SIDES, SIDES, CANVASES)
def test_resize_equals_its_two_matrix_form(height, width, target):
    x = torch.rand(1, 2, height, width, generator=torch.Generator().manual_seed(1))
    rows, columns = resize_matrix(height, target[0]), resize_matrix(width, target[1])
    assert torch.allclose(resize(x, target), rows @ x @ columns.T, rtol=0, atol=1e-6)
    assert torch.allclose(rows.sum(dim=1), torch.ones(target[0]), rtol=0, atol=1e-6)


def test_resize_with_antialiasing_averages_what_a_pixel_covers():
    # Triangle filter of twice the scale: weights 1 3 3 1 for a reduction by two, cut off and renormalised at the ends.
    expected = torch.tensor([[3, 3, 1, 0, 0, 0], [0, 1, 3, 3, 1, 0], [0, 0, 0, 1, 3, 3]], dtype=torch.float32)
    matrix = resize_matrix(6, 3)
    assert torch.allclose(matrix, expected / expected.sum(dim=1, keepdim=True), rtol=0, atol=1e-6)


@FEW
@given(st.integers(1, 5000), st.integers(1, 5000), CANVASES)
def test_padding_keeps_the_aspect_ratio_to_a_pixel_and_never_leaves_the_canvas(height, width, size):
    rows, columns = InputSpec(size=size).covered(height, width)
    assert 1 <= rows <= size[0]
    assert 1 <= columns <= size[1]
    assert rows == size[0] or columns == size[1], "one side must fill the canvas"
    scale = min(size[0] / height, size[1] / width)
    assert abs(rows - height * scale) <= max(0.5, 1 - height * scale) + 1e-9
    assert abs(columns - width * scale) <= max(0.5, 1 - width * scale) + 1e-9
    assert InputSpec(size=size, resize="stretch").covered(height, width) == size


@FEW
@given(st.integers(8, 200), st.integers(8, 200), RESIZES, st.booleans())
def test_on_image_undoes_the_canvas(height, width, mode, vertical):
    spec = InputSpec(size=(64, 96), resize=mode)
    covered = spec.covered(height, width)
    # Centre of canvas pixel i lies at raw coordinate (i + .5) * raw / covered: the map holds its own raw coordinate.
    axis, raw = (0, height) if vertical else (1, width)
    ramp = (torch.arange(spec.size[axis]) + 0.5) * (raw / covered[axis])
    on_canvas = ramp[:, None].expand(spec.size) if vertical else ramp.expand(spec.size)
    back = spec.on_image(on_canvas.contiguous(), height, width)
    assert back.shape == (height, width)
    wanted = torch.arange(raw) + 0.5
    # Half a canvas pixel from the ends there is nothing to interpolate with: the outermost value is repeated.
    wanted = wanted.clamp(float(ramp[0]), float(ramp[covered[axis] - 1]))
    wanted = wanted[:, None].expand(height, width) if vertical else wanted.expand(height, width)
    assert torch.allclose(back, wanted, rtol=0, atol=1e-3)


@FEW
@given(SIDES, SIDES)
def test_padding_repeats_the_border_and_is_not_inside(height, width):
    spec = InputSpec(channels=1, size=(48, 64))
    canvas = spec.canvas(frames(spec, 2, height, width))
    rows, columns = canvas.sizes[0]
    image = canvas.pixels[:, :, :rows, :columns]
    assert torch.equal(canvas.pixels[:, :, rows:, :columns], image[:, :, -1:].expand(-1, -1, 48 - rows, -1))
    right = canvas.pixels[..., columns - 1 : columns].expand(-1, -1, -1, 64 - columns)
    assert torch.equal(canvas.pixels[..., columns:], right)
    inside = canvas.inside((48, 64))
    assert inside[:, :rows, :columns].all()
    assert int(inside.sum()) == 2 * rows * columns
    assert canvas.padded == ((rows, columns) != (48, 64))


def test_inside_of_a_coarse_grid_asks_for_the_centre_of_a_cell():
    spec = InputSpec(channels=1, size=(64, 64))
    canvas = spec.canvas([torch.zeros(1, 64, 21, dtype=torch.uint8), torch.zeros(1, 20, 64, dtype=torch.uint8)])
    assert canvas.sizes == ((64, 21), (20, 64))
    # Cells of 8 px have their centres at 4, 12, 20, ...: 21 px cover three of them, 20 px only two.
    assert canvas.inside((8, 8))[0].sum(dim=1).tolist() == [3] * 8
    assert canvas.inside((8, 8))[1].sum(dim=0).tolist() == [2] * 8


@pytest.fixture
def _without_type_checks():
    """Users have none: what the annotations forbid must be refused all the same."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"channels": 0}, ["channels of InputSpec", "1 to 512", "got 0"]),
        ({"channels": 513}, ["channels of InputSpec", "1 to 512", "got 513"]),
        ({"dtype": "float64"}, ["dtype of InputSpec", "uint8, uint16, float32", "got 'float64'"]),
        ({"value_range": (5.0, 5.0)}, ["value_range of InputSpec", "low < high", "got (5.0, 5.0)"]),
        ({"value_range": (float("nan"), 1.0)}, ["value_range of InputSpec", "low < high", "got (nan, 1.0)"]),
        ({"value_range": (0.0, 1.0, 2.0)}, ["value_range of InputSpec", "(low, high)", "got (0.0, 1.0, 2.0)"]),
        ({"size": (31, 64)}, ["size of InputSpec", "(height, width), 32 to 4096", "got (31, 64)"]),
        ({"size": (64, 4097)}, ["size of InputSpec", "32 to 4096", "got (64, 4097)"]),
        ({"size": (64,)}, ["size of InputSpec", "(height, width)", "got (64,)"]),
        ({"resize": "crop"}, ["resize of InputSpec", "'pad' or 'stretch'", "got 'crop'"]),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
@pytest.mark.usefixtures("_without_type_checks")
def test_settings_that_are_not_allowed_are_refused(change, words):
    with pytest.raises(SettingError) as caught:
        InputSpec(**change)
    for word in words:
        assert word in str(caught.value)


GREY = InputSpec(channels=1, size=(32, 32))
HOUNSFIELD = InputSpec(channels=1, dtype="float32", value_range=(-1024.0, 3071.0), unit="HU", size=(32, 32))
TWELVE_BIT = InputSpec(channels=1, dtype="uint16", value_range=(0.0, 4095.0), size=(32, 32))


@pytest.mark.parametrize(
    ("spec", "images", "message"),
    [
        (GREY, torch.zeros(1, 3, 8, 9, dtype=torch.uint8), "1 channel(s) in axis 1; got shape (1, 3, 8, 9)"),
        (GREY, [torch.zeros(3, 8, 9, dtype=torch.uint8)], "1 channel(s) in axis 0; got shape (3, 8, 9)"),
        (GREY, torch.zeros(1, 8, 9, dtype=torch.uint8), "must be (N, C, H, W) with no empty axis; got shape (1, 8, 9)"),
        (GREY, [torch.zeros(8, 9, dtype=torch.uint8)], "must be (C, H, W) with no empty axis; got shape (8, 9)"),
        (GREY, torch.zeros(0, 1, 8, 9, dtype=torch.uint8), "no empty axis; got shape (0, 1, 8, 9)"),
        (GREY, torch.zeros(2, 1, 0, 9, dtype=torch.uint8), "no empty axis; got shape (2, 1, 0, 9)"),
        (GREY, [], "no image in the batch"),
        (GREY, torch.zeros(1, 1, 8, 9, dtype=torch.float64), "must be uint8 or float32; got torch.float64"),
        (GREY, torch.zeros(1, 1, 8, 9, dtype=torch.uint16), "must be uint8 or float32; got torch.uint16"),
        (GREY, torch.full((1, 1, 8, 9), 255.5), "0 to 255 (grey value); got 255.5 to 255.5. Scale the images"),
        (TWELVE_BIT, torch.full((1, 1, 8, 9), 4096, dtype=torch.uint16), "0 to 4095 (grey value); got 4096 to 4096"),
        (TWELVE_BIT, torch.full((1, 1, 8, 9), 65535, dtype=torch.uint16), "got 65535 to 65535"),
        (HOUNSFIELD, torch.full((1, 1, 8, 9), -2000.0), "-1024 to 3071 (HU); got -2000 to -2000"),
        (HOUNSFIELD, torch.full((1, 1, 8, 9), torch.nan), "-1024 to 3071 (HU); got nan to nan"),
        (HOUNSFIELD, torch.full((1, 1, 8, 9), torch.inf), "got inf to inf"),
    ],
)  # fmt: skip
def test_frames_that_do_not_fit_are_refused(spec, images, message):
    with pytest.raises(InputError, match=re.escape(message)):
        spec.canvas(images)


def test_one_bad_image_of_a_list_is_refused():
    good = torch.zeros(1, 1, 8, 9)
    bad = good.clone()
    bad[0, 0, 3, 4] = torch.nan
    with pytest.raises(InputError, match="got nan"):
        replace(GREY, dtype="float32").canvas([good[0], bad[0]])
    assert GREY.canvas([good[0], good[0]]).pixels.shape == (2, 1, 32, 32)


class Resized(torch.nn.Module):
    def forward(self, x):
        return resize(x, (21, 34))


def test_a_matrix_that_is_first_made_while_a_graph_is_exported_is_kept_with_its_values():
    input_spec._triangles.cache_clear()
    x = torch.rand(1, 1, 55, 89, generator=torch.Generator().manual_seed(0))
    exported = torch.export.export(Resized(), (x,), strict=False)
    assert type(resize_matrix(55, 21)) is torch.Tensor
    assert torch.allclose(resize_matrix(55, 21).sum(dim=1), torch.ones(21))
    assert torch.allclose(exported.module()(x), resize(x, (21, 34)), atol=1e-6)
