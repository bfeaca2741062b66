import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from anomaly.errors import ArtifactError
from anomaly.storage import Storage

NAMES = ("conv.weight",)


def network(seed=0, scale=1.0):
    torch.manual_seed(seed)
    net = nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5))
    with torch.no_grad():
        net[0].weight.mul_(scale * torch.logspace(-6, 3, 5).view(5, 1, 1, 1))
    return net


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000), kind=st.sampled_from(["float16", "int8"]))
def test_packing_what_was_unpacked_changes_no_bit(seed, kind):
    net = network(seed)
    storage = Storage.of(net, kind)
    once = storage.unpack(storage.pack(net.state_dict()))
    twice = storage.unpack(storage.pack(once))
    assert set(once) == set(net.state_dict())
    assert all(torch.equal(once[name], twice[name]) for name in once)


@pytest.mark.parametrize(("kind", "error"), [("float16", 2**-11), ("int8", 0.51 / 127)])
def test_the_error_is_bounded_in_each_channel_however_unlike_they_are(kind, error):
    net = network(scale=10.0)
    storage = Storage.of(net, kind)
    before, after = net.state_dict()["0.weight"], storage.unpack(storage.pack(net.state_dict()))["0.weight"]
    largest = before.abs().amax(dim=(1, 2, 3))
    assert ((before - after).abs().amax(dim=(1, 2, 3)) <= error * largest + 2**-24).all()  # the least float16 step


def test_only_parameters_are_shortened_and_int8_spares_biases():
    net = network()
    assert Storage.of(net, "float16").names == ("0.bias", "0.weight", "1.bias", "1.weight")
    assert Storage.of(net, "int8").names == ("0.weight",)
    packed = Storage.of(net, "int8").pack(net.state_dict())
    assert packed["0.weight"].dtype == torch.int8
    assert packed["0.weight.scale"].shape == (5, 1, 1, 1)
    assert packed["1.running_mean"].dtype == torch.float32


def test_a_channel_of_zeros_stays_zero():
    tensors = {"conv.weight": torch.zeros(2, 3)}
    storage = Storage("int8", NAMES)
    assert torch.equal(storage.unpack(storage.pack(tensors))["conv.weight"], torch.zeros(2, 3))


def test_values_that_float16_cannot_hold_are_refused():
    with pytest.raises(ArtifactError, match="beyond 65504"):
        Storage("float16", NAMES).pack({"conv.weight": torch.tensor([1e5])})


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        ("float16", {}),
        ("float16", {"conv.weight": torch.ones(2)}),
        ("int8", {"conv.weight": torch.ones(2, dtype=torch.int8)}),
        ("int8", {"conv.weight": torch.ones(2).half(), "conv.weight.scale": torch.ones(2)}),
    ],
)
def test_tensors_of_another_kind_are_refused(kind, stored):
    with pytest.raises(ArtifactError, match=f"conv.weight must be stored as {kind}"):
        Storage(kind, NAMES).unpack(stored)


def test_the_manifest_form_comes_back_equal():
    storage = Storage("int8", ("a", "b"))
    assert Storage.from_dict(storage.to_dict()) == storage
