import io
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from anomaly.errors import DatasetError, ImageFileError
from anomaly.images import header, image_info, list_images, read_image

H, W = 23, 37


def pixels(channels, dtype="uint8", seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "float32":
        return rng.normal(0, 100, (H, W, channels)).astype(np.float32)
    return rng.integers(0, np.iinfo(dtype).max, (H, W, channels), dtype=dtype, endpoint=True)


def write_pillow(path, array, **options):
    Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array).save(path, **options)


def write_cv2(path, array):
    order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[array.shape[-1]]
    path.write_bytes(cv2.imencode(path.suffix, array[..., order])[1].tobytes())


def write_tiff(path, array, **options):
    if array.shape[-1] == 1:
        array = array[..., 0]
    elif "photometric" not in options:
        options["photometric"] = "rgb"
    tifffile.imwrite(path, array, **options)


def assert_reads(path, expected):
    got = read_image(path)
    assert got.dtype == expected.dtype
    assert got.flags.c_contiguous
    assert got.flags.writeable
    np.testing.assert_array_equal(got, expected)
    assert image_info(path) == (*expected.shape, str(expected.dtype))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_png_is_read_exactly(tmp_path, channels, dtype):
    array = pixels(channels, dtype)
    write_cv2(tmp_path / "a.png", array)
    assert_reads(tmp_path / "a.png", array)


@pytest.mark.parametrize("channels", [1, 3])
def test_bmp_is_read_exactly(tmp_path, channels):
    array = pixels(channels)
    write_pillow(tmp_path / "a.bmp", array)
    assert_reads(tmp_path / "a.bmp", array)


def test_lossless_webp_is_read_exactly(tmp_path):
    array = pixels(3)
    write_pillow(tmp_path / "a.webp", array, lossless=True)
    assert_reads(tmp_path / "a.webp", array)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_read_as_its_decoder_decodes_it(tmp_path, channels, progressive):
    path = tmp_path / "a.JPG"
    write_pillow(path, pixels(channels), format="JPEG", progressive=progressive)
    with Image.open(path) as image:
        expected = np.array(image).reshape(H, W, channels)
    assert_reads(path, expected)


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"compression": "deflate", "tile": (16, 16)}])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_tiff_is_read_exactly(tmp_path, channels, dtype, options):
    array = pixels(channels, dtype)
    write_tiff(tmp_path / "a.tif", array, **options)
    assert_reads(tmp_path / "a.tif", array)


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_tiff_of_seven_bands_planar_or_not(tmp_path, planar):
    array = pixels(7, "uint16")
    stored = array if planar == "contig" else np.moveaxis(array, -1, 0).copy()
    write_tiff(tmp_path / "a.tiff", stored, photometric="minisblack", planarconfig=planar, compression="lzw")
    assert_reads(tmp_path / "a.tiff", array)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bigtiff", [False, True])
def test_tiff_of_every_byte_order_and_offset_size(tmp_path, byteorder, bigtiff):
    array = pixels(3, "uint16")
    write_tiff(tmp_path / "a.tif", array, byteorder=byteorder, bigtiff=bigtiff)
    assert_reads(tmp_path / "a.tif", array)


def test_content_decides_the_format_not_the_name(tmp_path):
    array = pixels(3, "uint16")
    write_tiff(tmp_path / "a.tif", array)
    assert_reads((tmp_path / "a.tif").rename(tmp_path / "a.png"), array)


def test_one_bit_png_becomes_0_and_255(tmp_path):
    mask = pixels(1) > 128
    Image.fromarray(mask[..., 0]).save(tmp_path / "a.png")
    assert_reads(tmp_path / "a.png", mask * np.uint8(255))


@pytest.mark.parametrize("suffix", [".png", ".bmp"])
def test_palette_is_expanded_to_its_colours(tmp_path, suffix):
    colours, index = pixels(3).reshape(-1, 3)[:256], pixels(1)[..., 0]
    image = Image.fromarray(index).convert("L")
    image.putpalette(colours.tobytes())
    image.save(tmp_path / f"a{suffix}")
    assert_reads(tmp_path / f"a{suffix}", colours[index])


def rgba(dtype, lowest):
    array = pixels(4, dtype)
    array[..., 3] = np.iinfo(dtype).max
    array[3, 4, 3] = lowest
    return array


@pytest.mark.parametrize(
    ("name", "dtype", "write"),
    [
        ("a.png", "uint8", write_pillow),
        ("a.png", "uint16", write_cv2),
        ("a.tif", "uint8", write_tiff),
        ("a.tif", "uint16", write_tiff),
        ("a.webp", "uint8", lambda path, array: write_pillow(path, array, lossless=True, exact=True)),
    ],
)
def test_opaque_alpha_is_dropped_and_any_other_refused(tmp_path, name, dtype, write):
    path = tmp_path / name
    opaque = rgba(dtype, np.iinfo(dtype).max)
    write(path, opaque)
    np.testing.assert_array_equal(read_image(path), opaque[..., :3])
    assert image_info(path).channels == 3
    write(path, rgba(dtype, 7))
    with pytest.raises(ImageFileError, match=r"transparent pixels \(alpha down to 7, .* without alpha"):
        read_image(path)


def test_grey_with_opaque_alpha_and_transparent_palette(tmp_path):
    array = pixels(2)
    array[..., 1] = 255
    Image.fromarray(array, "LA").save(tmp_path / "a.png")
    assert_reads(tmp_path / "a.png", array[..., :1])
    grey = Image.fromarray(pixels(1)[..., 0])
    for mode in ("L", "P"):
        grey.convert(mode).save(tmp_path / "b.png", transparency=int(pixels(1)[0, 0, 0]))
        with pytest.raises(ImageFileError, match="transparent"):
            read_image(tmp_path / "b.png")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_exif_orientation_is_applied(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    write_pillow(tmp_path / name, pixels(3), exif=exif)
    with Image.open(tmp_path / name) as image:
        expected = np.array(ImageOps.exif_transpose(image))
    assert_reads(tmp_path / name, expected)


@pytest.mark.parametrize("orientation", [3, 6])
def test_orientation_of_a_tiff_and_of_a_deep_png(tmp_path, orientation):
    array = pixels(3, "uint16")
    turned = np.rot90(array, {3: 2, 6: -1}[orientation])
    write_tiff(tmp_path / "a.tif", array, extratags=[(274, 3, 1, orientation, True)])
    assert_reads(tmp_path / "a.tif", turned)
    write_cv2(tmp_path / "a.png", array)
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + data[33:])
    assert_reads(tmp_path / "a.png", turned)
    (tmp_path / "a.png").write_bytes(data[:-12] + chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:])
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), turned)


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def encoded(name):
    suffix, _, variant = name.partition(" ")
    array, file = pixels(3, "uint16" if variant == "deep" else "uint8"), io.BytesIO()
    if suffix == "tif":
        tifffile.imwrite(file, array, photometric="rgb", compression=variant or None, rowsperstrip=8)
    elif variant == "deep":
        file.write(cv2.imencode(".png", array)[1].tobytes())
    else:
        options = {"lossless": {"lossless": True}, "progressive": {"progressive": True}}.get(variant, {})
        Image.fromarray(array).save(file, {"jpg": "JPEG"}.get(suffix, suffix), **options)
    return file.getvalue()


FORMATS = ["png", "png deep", "jpg", "jpg progressive", "bmp", "webp", "webp lossless", "tif", "tif lzw", "tif deflate"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path, name):
    data = encoded(name)
    path = tmp_path / f"a.{name.split()[0]}"
    path.write_bytes(data)
    read_image(path)
    harmless = 3 if name == "bmp" else 0  # padding behind the last row: no pixel is lost
    for length in {*range(1, 60), *np.linspace(60, len(data) - 1 - harmless, 40).astype(int), len(data) - 1 - harmless}:
        path.write_bytes(data[:length])
        with pytest.raises(ImageFileError) as error:
            read_image(path)
        assert error.value.path == path
        assert error.value.reason


def test_jpeg_in_tiff_cut_short_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    write_tiff(path, pixels(3), compression="jpeg")
    read_image(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ImageFileError, match="truncated"):
        read_image(path)


@settings(max_examples=60, deadline=None)
@given(name=st.sampled_from(FORMATS), data=st.data())
def test_damaged_bytes_never_raise_anything_else(tmp_path_factory, name, data):
    broken = bytearray(encoded(name))
    for _ in range(3):
        broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("broken") / "a"
    path.write_bytes(broken)
    for read in (read_image, image_info):
        with suppress(ImageFileError):
            read(path)


def test_a_wrong_checksum_in_a_png_is_refused(tmp_path):
    data = bytearray(encoded("png"))
    data[-17] ^= 1
    (tmp_path / "a.png").write_bytes(data)
    with pytest.raises(ImageFileError, match="corrupt"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif", "webp"])
def test_empty_and_foreign_files_say_what_to_do(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    for content, reason in ((b"", r"empty \(0 bytes\)"), (b"operator notes, not an image\n" * 20, "not a PNG, JPEG")):
        path.write_bytes(content)
        for read in (read_image, image_info):
            with pytest.raises(ImageFileError, match=reason):
                read(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageFileError, match="does not exist"):
        read_image(tmp_path / "a.png")
    with pytest.raises(ImageFileError, match="cannot be opened"):
        read_image(tmp_path)


def forged_png(height, width):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 10)) + chunk(b"IEND", b"")


def test_bombs_are_refused_from_the_header(tmp_path):
    (tmp_path / "a.png").write_bytes(forged_png(60_000, 60_000))
    bmp = bytearray(encoded("bmp"))
    bmp[18:26] = struct.pack("<ii", 60_000, 60_000)
    (tmp_path / "a.bmp").write_bytes(bmp)
    jpeg = bytearray(encoded("jpg"))
    start = jpeg.index(b"\xff\xc0") + 5
    jpeg[start : start + 4] = struct.pack(">HH", 65_000, 65_000)
    (tmp_path / "a.jpg").write_bytes(jpeg)
    write_tiff(tmp_path / "a.tif", pixels(1))
    tiff = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offsets = [file.pages[0].tags[name].valueoffset for name in ("ImageWidth", "ImageLength")]
    for offset in offsets:
        tiff[offset : offset + 2] = struct.pack("<H", 65_000)
    (tmp_path / "a.tif").write_bytes(tiff)
    for path in sorted(tmp_path.iterdir()):
        for read in (read_image, image_info):
            with pytest.raises(ImageFileError, match=r"pixels, more than the 536,870,912 that are allowed"):
                read(path)


def test_large_images_below_the_limit_are_not_bombs(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(forged_png(15_000, 15_000))  # above Pillow's own limit
    assert image_info(tmp_path / "a.png") == (15_000, 15_000, 3, "uint8")
    monkeypatch.setattr(header, "MAX_PIXELS", 100)
    write_pillow(tmp_path / "a.webp", pixels(3))
    with pytest.raises(ImageFileError, match="more than the 100"):
        read_image(tmp_path / "a.webp")
    monkeypatch.setattr(header, "MAX_PIXELS", H * W)
    write_tiff(tmp_path / "a.tif", pixels(4), photometric="minisblack", planarconfig="contig")
    assert read_image(tmp_path / "a.tif").shape == (H, W, 4)
    write_tiff(tmp_path / "a.tif", pixels(7), photometric="minisblack", planarconfig="contig")
    with pytest.raises(ImageFileError, match=f"more than the {H * W * 4 // 7} "):
        image_info(tmp_path / "a.tif")


def test_animations_and_pages_are_refused(tmp_path):
    frames = [Image.fromarray(pixels(3, seed=k)) for k in range(3)]
    for name in ("a.png", "a.webp"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        with pytest.raises(ImageFileError, match="animation of 3 frames"):
            read_image(tmp_path / name)
    tifffile.imwrite(tmp_path / "a.tif", np.stack([pixels(1)[..., 0]] * 3), photometric="minisblack")
    with pytest.raises(ImageFileError, match="several pages"):
        image_info(tmp_path / "a.tif")


def test_other_colour_modes_and_sample_formats_are_refused(tmp_path):
    Image.fromarray(pixels(4), "CMYK").save(tmp_path / "a.jpg")
    with pytest.raises(ImageFileError, match="colour mode CMYK; convert it to grey or RGB"):
        read_image(tmp_path / "a.jpg")
    write_tiff(tmp_path / "a.tif", pixels(4), photometric="separated")
    with pytest.raises(ImageFileError, match="SEPARATED; convert"):
        read_image(tmp_path / "a.tif")
    write_tiff(tmp_path / "b.tif", pixels(1), photometric="miniswhite")
    with pytest.raises(ImageFileError, match="MINISWHITE; convert"):
        read_image(tmp_path / "b.tif")
    for dtype in ("int16", "uint32", "float64", "bool"):
        tifffile.imwrite(tmp_path / "c.tif", pixels(1)[..., 0].astype(dtype), photometric="minisblack")
        with pytest.raises(ImageFileError, match="sample format that is not supported"):
            read_image(tmp_path / "c.tif")


def test_list_images_sorts_naturally_and_skips_what_is_hidden(tmp_path):
    names = ["img10.png", "img2.PNG", "sub/img1.tif", "sub/img1.txt", ".hidden/a.png", "sub/._a.png", "Img3.jpeg"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = [str(path.relative_to(tmp_path)) for path in list_images([tmp_path])]
    assert listed == ["img2.PNG", "Img3.jpeg", "img10.png", "sub/img1.tif"]
    first = tmp_path / "img10.png"
    assert list_images([first, tmp_path])[:2] == [first, tmp_path / "img2.PNG"]
    assert len(list_images([first, tmp_path, first])) == 4


def test_list_images_wants_something_to_list(tmp_path):
    with pytest.raises(DatasetError, match="does not exist"):
        list_images([tmp_path / "nowhere"])
    with pytest.raises(DatasetError, match=r"holds no image; expected files with \.png"):
        list_images([tmp_path])


@given(numbers=st.lists(st.integers(0, 10**6), min_size=1, max_size=30, unique=True))
@settings(max_examples=15, deadline=None)
def test_numbered_files_come_in_the_order_of_their_numbers(tmp_path_factory, numbers):
    folder: Path = tmp_path_factory.mktemp("numbered")
    for number in numbers:
        (folder / f"part {number} a.png").touch()
    assert [int(path.name.split()[1]) for path in list_images([folder])] == sorted(numbers)
