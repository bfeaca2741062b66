import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as tv

from anomaly.errors import SettingError
from anomaly.images.augmentation import Augmentation, augment

STILL = {"shift": 0.0, "rotation": 0.0, "zoom": 0.0, "brightness": 0.0, "contrast": 0.0}


def images(count=3, height=40, width=64, seed=0):
    return torch.rand(count, 2, height, width, generator=torch.Generator().manual_seed(seed))


def test_no_variation_changes_nothing():
    assert torch.equal(augment(images(), Augmentation(**STILL)), images())


@settings(max_examples=20, deadline=None)
@given(
    st.builds(
        Augmentation,
        shift=st.floats(0, 0.5),
        rotation=st.floats(0, 180),
        zoom=st.floats(0, 0.5),
        brightness=st.floats(0, 0.5),
        contrast=st.floats(0, 0.9),
        mirror=st.booleans(),
        upside_down=st.booleans(),
    ),
    st.integers(0, 1000),
)
def test_varied_images_stay_images_and_depend_on_the_generator_only(chosen, seed):
    torch.manual_seed(seed)
    first = augment(images(), chosen)
    torch.manual_seed(seed)
    assert torch.equal(augment(images(), chosen), first)
    assert first.shape == images().shape
    assert 0 <= float(first.min()) <= float(first.max()) <= 1


def test_each_image_is_varied_by_itself():
    torch.manual_seed(0)
    varied = augment(images(1).expand(4, -1, -1, -1), Augmentation())
    assert all(float((varied[i] - varied[0]).abs().max()) > 0.01 for i in range(1, 4))


def test_mirrored_images_are_exact_mirrors():
    torch.manual_seed(1)
    varied = augment(images(16), Augmentation(**STILL, mirror=True))
    flipped = [torch.allclose(v, i.flip(2), atol=1e-5) for v, i in zip(varied, images(16), strict=True)]
    kept = [torch.allclose(v, i, atol=1e-5) for v, i in zip(varied, images(16), strict=True)]
    assert sum(flipped) + sum(kept) == 16
    assert 0 < sum(flipped) < 16


def test_a_rotation_is_a_rotation_in_pixels_on_a_rectangle():
    smooth = torch.nn.functional.interpolate(images(1, 5, 8), size=(40, 64), mode="bicubic").clamp(0, 1)
    torch.manual_seed(2)
    varied = augment(smooth, Augmentation(**{**STILL, "rotation": 30.0}))
    torch.manual_seed(2)
    degrees = 30.0 * float((2 * torch.rand(1, 8) - 1)[0, 2])
    wanted = tv.rotate(smooth, degrees, tv.InterpolationMode.BILINEAR)
    inner = (..., slice(14, 26), slice(20, 44))  # no corner comes in from beyond the border
    assert float((varied[inner] - wanted[inner]).abs().max()) < 0.02
    assert float((smooth[inner] - wanted[inner]).abs().max()) > 0.1


@pytest.mark.parametrize(
    ("name", "value"), [("shift", 0.6), ("rotation", -1.0), ("contrast", 1.0), ("zoom", float("nan"))]
)
def test_values_that_cannot_be_meant_are_refused(name, value):
    with pytest.raises(SettingError, match=f"{name} of Augmentation must be 0 to"):
        Augmentation(**{name: value})
