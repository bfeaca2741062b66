"""What a model may be asked about is learned from headers; all else is refused with its code."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from anomaly.errors import ArtifactError, SettingError
from medical.contract import Contract, age_group, learned, view_of
from medical.objects import Image, Instance, Spacing, Volume
from medical.planes import plane_of
from medical.refusals import Reason

INSTANCE = Instance(
    path=Path("x.dcm"), sop_class="1.2", uid="1.3", series="1.4", study="1.5", transfer_syntax="1.6", modality="DX",
    body_part="CHEST", view="PA", laterality="unknown", sex="F", age=50.0, scanner="A B", priority="unknown",
    acquired=None, photometric="MONOCHROME2", rows=8, columns=8, frames=1, bits=12, image_type=(),
    spacing=Spacing(0.2, 0.2, "PixelSpacing"), orientation=None, position=None, frame_of_reference=None,
    acquisition=None, number=None,
)  # fmt: skip
CONTRACT = learned([("1", INSTANCE), ("2", replace(INSTANCE, view="AP"))], "image", "stored", (0.0, 1.0))


def volume(**changes):
    affine = np.diag([5.0, 1.0, 1.0, 1.0])
    values, valid = np.zeros((2, 4, 4), np.float32), np.ones((2, 4, 4), bool)
    return replace(Volume((INSTANCE,), values, valid, affine, "HU", "none"), **changes)


def test_what_the_training_held_is_accepted():
    assert CONTRACT.refusal_of(INSTANCE) is None
    assert CONTRACT.views == ("PA", "AP")
    assert CONTRACT.spacing == pytest.approx((0.18, 0.22))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"modality": "CT"}, Reason.MODALITY),
        ({"body_part": "HAND"}, Reason.BODY_PART),
        ({"body_part": "unknown"}, Reason.BODY_PART),
        ({"view": "LL"}, Reason.VIEW),
        ({"age": 4.0}, Reason.AGE),
        ({"age": None}, Reason.AGE),
        ({"spacing": None}, Reason.SPACING),
        ({"spacing": Spacing(0.2, 0.4, "PixelSpacing")}, Reason.SPACING),
        ({"orientation": (1.0, 0, 0, 0, 1.0, 0)}, Reason.VIEW),
    ],
)
def test_everything_else_is_refused_with_its_code(change, reason):
    refusal = CONTRACT.refusal_of(replace(INSTANCE, **change))
    assert refusal is not None
    assert refusal.reason == reason


def test_free_text_of_a_header_is_not_repeated():
    refusal = CONTRACT.refusal_of(replace(INSTANCE, body_part="CHEST OF JOHN DOE"))
    assert "DOE" not in str(refusal)


def test_a_rare_value_is_not_taken_into_the_contract():
    many = [(str(index), INSTANCE) for index in range(300)]
    contract = learned([*many, ("odd", replace(INSTANCE, view="LL"))], "image", "stored", (0.0, 1.0))
    assert contract.views == ("PA",)


def test_distances_are_not_checked_where_the_training_does_not_state_them():
    contract = learned([("1", INSTANCE), ("2", replace(INSTANCE, spacing=None))], "image", "stored", (0.0, 1.0))
    assert contract.spacing is None
    assert contract.refusal_of(replace(INSTANCE, spacing=None)) is None


def test_pixels_of_another_unit_colour_or_slice_distance_are_refused():
    values, valid = np.zeros((4, 4), np.float32), np.ones((4, 4), bool)
    image = Image(INSTANCE, 1, values, valid, "stored", "none")
    assert CONTRACT.refusal_of_pixels(image) is None
    assert CONTRACT.refusal_of_pixels(replace(image, unit="HU")).reason == Reason.VALUE_UNIT
    colour = replace(image, values=np.zeros((4, 4, 3), np.float32))
    assert CONTRACT.refusal_of_pixels(colour).reason == Reason.PHOTOMETRIC
    slices = learned([("1", INSTANCE)], "slices", "HU", (0.0, 80.0), [4.8, 5.2])
    assert slices.refusal_of_pixels(volume()) is None
    thin = volume(affine=np.diag([1.0, 1.0, 1.0, 1.0]))
    assert slices.refusal_of_pixels(thin).reason == Reason.SPACING


def test_it_survives_the_model_file():
    assert Contract.from_dict(CONTRACT.to_dict()) == CONTRACT
    with pytest.raises(ArtifactError, match="damaged"):
        Contract.from_dict({**CONTRACT.to_dict(), "more": 1})
    with pytest.raises(ArtifactError, match="window"):
        Contract.from_dict({**CONTRACT.to_dict(), "window": [1, 0]})


def test_it_needs_an_object():
    with pytest.raises(SettingError, match="at least one"):
        learned([], "image", "stored", None)


def test_ages_and_planes():
    assert [age_group(age) for age in (None, 0.0, 17.9, 18.0)] == ["unknown", "CHILD", "CHILD", "ADULT"]
    assert plane_of((1.0, 0, 0, 0, 1.0, 0)) == "AXIAL"
    assert plane_of((0, 1.0, 0, 0, 0, -1.0)) == "SAGITTAL"
    assert plane_of((1.0, 0, 0, 0, 0, -1.0)) == "CORONAL"
    assert plane_of((1.0, 0, 0, 0, 0.7071, 0.7071)) == "OBLIQUE"
    assert view_of(INSTANCE) == "PA"


def test_what_one_patient_alone_has_is_not_in_the_contract():
    named = replace(INSTANCE, body_part="DOE")
    listed = [("1", named), ("1", named), ("1", named), ("2", INSTANCE), ("3", INSTANCE)]  # three studies of one
    assert learned(listed, "image", "stored", (0.0, 1.0)).body_parts == ("CHEST",)
    few = [("1", named), ("2", INSTANCE)]
    assert learned(few, "image", "stored", (0.0, 1.0)).body_parts == ("CHEST",)
    with pytest.raises(SettingError, match="body part") as caught:
        learned([("1", named), ("2", replace(INSTANCE, body_part="ROE"))], "image", "stored", (0.0, 1.0))
    assert "DOE" not in str(caught.value)
    assert "DOE" not in str(CONTRACT.refusal_of(named))
    assert "DOE" not in str(CONTRACT.refusal_of(replace(INSTANCE, view="DOE")))
