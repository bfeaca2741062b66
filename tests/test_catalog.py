"""Settings come from JSON and the command line: their types are checked, never bent."""

import pytest

from anomaly.catalog import build, detector_class
from anomaly.errors import SettingError, UnknownNameError
from anomaly.input_spec import InputSpec

BANK = detector_class("memory_bank")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"relative": "no"}, "relative of memory_bank must be of type bool; got 'no'"),
        ({"seed": 1.5}, "seed of memory_bank must be of type int; got 1.5"),
        ({"top_fraction": True}, "top_fraction of memory_bank must be of type float; got True"),
        ({"bank_size": 0}, "bank_size of memory_bank must be 1 to 1,000,000; got 0"),
        ({"reduction": "median"}, "reduction of memory_bank must be of type Literal"),
        ({"backbone": "resnet18"}, "backbone of memory_bank must be a mapping of settings; got 'resnet18'"),
        ({"backbone": {"name": 3}}, "name of BackboneSpec must be of type str; got 3"),
    ],
)
def test_wrong_value_is_refused_in_one_sentence(settings, said):
    with pytest.raises(SettingError) as refused:
        build(BANK, settings)
    assert said in str(refused.value)


def test_json_types_become_those_of_the_settings():
    built = build(BANK, {"smoothing": 2, "input": {"size": [64, 96]}, "backbone": {"layers": ["stages.2"]}})
    assert (built.smoothing, built.input.size, built.backbone.layers) == (2.0, (64, 96), ("stages.2",))
    assert build(BANK, {"input": InputSpec(channels=1)}).input.channels == 1


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(UnknownNameError, match=r"Did you mean 'bank_size'\? Valid: .*bank_size"):
        build(BANK, {"banksize": 1})
    with pytest.raises(UnknownNameError, match=r"Valid: .*memory_bank.*subspace"):
        detector_class("patchcore")
