"""Values, units, padding and spacing; against highdicom and against what the phantom was made of."""

import highdicom
import numpy as np
import pytest
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from medical.refusals import Reason, RefusedError
from tests.medical import phantoms


@pytest.mark.parametrize("signed", [True, False])
def test_ct_in_hounsfield_units(instance, pixels, signed):
    image = pixels.image(instance(phantoms.ct_series((3, 20, 24), signed=signed)[1]))
    assert image.unit == "HU"
    assert image.decoder == "none"
    assert np.array_equal(image.values, phantoms.body((3, 20, 24))[1])
    assert image.valid.all()


@pytest.mark.parametrize(
    ("change", "unit"),
    [
        ({"RescaleType": "HU"}, "HU"),
        ({"RescaleType": None}, "HU"),
        ({"RescaleType": "US"}, "stored"),
        ({"RescaleType": None, "ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "stored"),
        ({"RescaleType": None, "MultienergyCTAcquisition": "YES"}, "stored"),
        ({"RescaleSlope": None, "RescaleIntercept": None, "RescaleType": None}, "stored"),
    ],
)
def test_hounsfield_units_only_where_stated(instance, pixels, change, unit):
    slice_ = phantoms.ct_series((3, 20, 24))[1]
    for name, value in change.items():
        if value is None:
            delattr(slice_, name)
        else:
            setattr(slice_, name, value)
    image = pixels.image(instance(slice_))
    assert image.unit == unit
    if unit == "stored":
        stored = (phantoms.body((3, 20, 24))[1] + 1024.0 + 32768) / 65535
        assert np.allclose(image.values, stored, atol=1e-6)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("modality", ["DX", "CR"])
def test_monochrome1_shows_what_monochrome2_shows(instance, pixels, bits, modality):
    shown = {}
    for photometric in ("MONOCHROME1", "MONOCHROME2"):
        made = phantoms.projection(modality=modality, bits=bits, photometric=photometric, seed=photometric)
        image = pixels.image(instance(made))
        assert image.unit == "stored"
        shown[photometric] = image.values
    expected = np.clip((phantoms.body((64, 48)).astype(float) + 1000) / 1400, 0, 1)
    step = 1 / (2**bits - 1)
    assert np.abs(shown["MONOCHROME2"] - expected).max() <= step
    assert np.abs(shown["MONOCHROME1"] - expected).max() <= step
    inside = phantoms.lesion((64, 48))
    assert shown["MONOCHROME1"][inside].min() > 0.9


@pytest.mark.parametrize(("photometric", "shape"), [("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE")])
def test_contradiction_of_brightness_is_refused(instance, photometric, shape):
    made = phantoms.projection(photometric=photometric)
    made.PresentationLUTShape = shape
    assert instance(made).reason == Reason.PHOTOMETRIC


@pytest.mark.parametrize("signed", [True, False])
def test_padding_is_masked_before_rescale(instance, pixels, signed):
    padding = -2000 if signed else 63536
    made = phantoms.ct_series((3, 40, 44), padding=padding, signed=signed)[1]
    image = pixels.image(instance(made))
    body = phantoms.body((3, 40, 44))[1]
    assert 0.05 < (~image.valid).mean() < 0.5
    assert np.array_equal(image.values[image.valid], body[image.valid])
    assert (image.values[~image.valid] == body[image.valid].min()).all()


def test_padding_whose_vr_was_confused(instance, pixels):
    made = phantoms.ct_series((3, 40, 44), padding=-2000)[1]
    del made["PixelPaddingValue"]
    made.add_new("PixelPaddingValue", "US", 65536 - 2000)
    assert not pixels.image(instance(made)).valid.all()


@pytest.mark.parametrize(("padding", "limit"), [(-2000, -1500), (-1500, -2000)])
def test_padding_range(instance, pixels, padding, limit):
    made = phantoms.ct_series((3, 20, 24))[1]
    made.add_new("PixelPaddingValue", "SS", padding)
    made.add_new("PixelPaddingRangeLimit", "SS", limit)
    stored = made.pixel_array.copy()
    stored[0, :4] = [-2000, -1700, -1500, -1499]
    made.PixelData = stored.astype("<i2").tobytes()
    image = pixels.image(instance(made))
    assert image.valid[0, :4].tolist() == [False, False, False, True]
    assert image.values.min() == -1499 - 1024


@pytest.mark.parametrize("case", ["constant", "all padding", "constant but for padding"])
def test_nothing_to_see_is_refused(instance, pixels, case):
    made = phantoms.ct_series((3, 20, 24), padding=0 if case != "constant" else None)[1]
    stored = np.zeros((20, 24), "<i2") if case == "all padding" else np.full((20, 24), 7, "<i2")
    stored[0, 0] = 7 if case == "constant" else 0
    made.PixelData = stored.tobytes()
    found = instance(made)
    with pytest.raises(RefusedError) as caught:
        pixels.image(found)
    assert caught.value.refusal.reason == Reason.PIXELS


def test_high_bits_of_native_pixels_are_no_values(instance, pixels):
    made = phantoms.ct_series((3, 20, 24), bits=12, signed=False)[1]
    made.PixelData = (made.pixel_array | 0xA000).astype("<u2").tobytes()  # old overlays lie there
    image = pixels.image(instance(made))
    assert np.array_equal(image.values, phantoms.body((3, 20, 24))[1])


@pytest.mark.parametrize("slope", ["0", ""])
def test_rescale_must_be_a_mapping(instance, pixels, slope):
    made = phantoms.ct_series((3, 20, 24))[1]
    made.RescaleSlope = slope
    found = instance(made)
    with pytest.raises(RefusedError, match="PIXELS: Rescale Slope"):
        pixels.image(found)


@pytest.mark.parametrize(
    ("syntax", "decoder"), [(RLELossless, "rle"), (JPEG2000Lossless, "openjpeg"), (JPEGLSLossless, "pyjpegls")]
)
def test_compressed_frames_are_the_native_ones_and_name_their_decoder(instance, pixels, syntax, decoder):
    made = phantoms.ct_series((3, 40, 44))[1]
    made.compress(syntax, generate_instance_uid=False)
    image = pixels.image(instance(made))
    assert np.array_equal(image.values, phantoms.body((3, 40, 44))[1])
    assert decoder in image.decoder
    assert any(character.isdigit() for character in image.decoder)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"modality": "DX"}, (0.2, 0.15, "ImagerPixelSpacing")),
        ({"modality": "CR", "imager_pixel_spacing": None}, None),
        ({"modality": "CR", "pixel_spacing": (0.1, 0.12), "imager_pixel_spacing": None}, (0.1, 0.12, "PixelSpacing")),
        ({"modality": "CR", "pixel_spacing": (0.1, 0.12)}, (0.1, 0.12, "PixelSpacing")),
        ({"modality": "CR", "pixel_spacing": (0.2, 0.15)}, (0.2, 0.15, "ImagerPixelSpacing")),
    ],
)
def test_spacing_says_where_it_comes_from(instance, how, expected):
    spacing = instance(phantoms.projection(**how)).spacing
    assert (None if spacing is None else (spacing.rows, spacing.columns, spacing.source)) == expected


def test_calibrated_spacing_is_of_the_patient(instance):
    made = phantoms.projection(pixel_spacing=(0.2, 0.15))
    made.PixelSpacingCalibrationType = "FIDUCIAL"
    assert instance(made).spacing.source == "PixelSpacing"


def test_view_and_laterality_are_never_guessed(instance):
    made = phantoms.projection(modality="CR", view="", laterality="", body_part="")
    found = instance(made)
    assert (found.view, found.laterality, found.body_part) == ("unknown",) * 3


def test_header_of_a_projection(instance):
    made = phantoms.projection(view="PA", laterality="R")
    made.ViewPosition = ""
    made.RequestedProcedurePriority = "HIGH"
    found = instance(made)
    assert (found.view, found.laterality, found.body_part) == ("PA", "R", "CHEST")  # the view by its code
    assert (found.sex, found.age, found.priority) == ("F", 55.0, "HIGH")
    assert (found.scanner, found.acquired) == ("PHANTOM WORKS BENCH", "2025-03-05T10:15:00")


def test_age_between_birth_and_study(instance):
    made = phantoms.projection()
    del made.PatientAge
    assert instance(made).age == pytest.approx(55.17, abs=0.01)
    made.PatientAge = "018M"
    assert instance(made).age == 1.5


@pytest.mark.filterwarnings("ignore")  # of pydicom, which writes them
@pytest.mark.parametrize("charset", [["", "ISO 2022 IR 87"], "ISO 2022 IR 6", "NONSENSE", ["ISO_IR 100", "ISO_IR 192"]])
def test_character_sets_refuse_nothing(instance, charset):
    made = phantoms.ct_series((3, 20, 24))[1]
    made.PatientName = made.ManufacturerModelName = "Bench"
    made.SpecificCharacterSet = charset
    assert instance(made).scanner == "PHANTOM WORKS BENCH"


def test_enhanced_frames_are_rescaled_by_their_own_slope(instance, pixels):
    made = phantoms.enhanced_ct((4, 20, 24), slopes=(1.0, 0.5, 2.0), shuffled=True)
    found = instance(made)
    reference = highdicom.Image.from_dataset(made)
    assert (found.frames, found.body_part, found.laterality) == (4, "CHEST", "U")
    for frame in range(1, 5):
        image = pixels.image(found, frame)
        assert image.unit == "HU"
        assert image.frame == frame
        assert np.allclose(image.values, reference.get_frame(frame, apply_real_world_transform=False), atol=1e-3)


@pytest.mark.parametrize("frame", [0, 5, -1])
def test_frames_that_are_not_there(instance, pixels, frame):
    found = instance(phantoms.enhanced_ct((4, 20, 24)))
    with pytest.raises(RefusedError, match=f"PIXELS: there is no frame {frame} of 4"):
        pixels.image(found, frame)
