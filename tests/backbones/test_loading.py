import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from anomaly.backbones import BackboneSpec, describe, load_backbone, restore_backbone
from anomaly.backbones.backbone import fingerprint
from anomaly.backbones.bundled import WEIGHTS
from anomaly.backbones.loading import TEACHER, read_weights
from anomaly.detectors.embedding import embed, feature_maps
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.errors import BackboneError, SettingError, UnknownNameError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

SHARED = {
    "resnet18": ("resnet18_layers1to3_bnfolded", [(128, 8), (256, 16)]),
    "mobilenetv2_100": ("mobilenetv2_100_onnxzoo_headless", [(32, 8), (96, 16)]),
    TEACHER: ("resnetv2_50_gluon_stages1to3", [(512, 8), (1024, 16)]),
    "vit_tiny_patch16_224": ("vit_tiny_patch16_224_tinyimagenet200", [(192, 16), (192, 16)]),
}
HEIGHT, WIDTH = 64, 96


def pixels(count=1, channels=3):
    return torch.rand(count, channels, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def shared_weights(shared: Path, name: str) -> str:
    return str(shared / "weights" / f"{SHARED[name][0]}.safetensors")


@pytest.fixture(scope="module")
def bundled():
    return load_backbone(BackboneSpec())


@pytest.mark.shared
@pytest.mark.parametrize("name", SHARED)
def test_shared_weights_load_strictly_and_survive_a_model_file(shared, name):
    # 64 x 96 is no multiple of 224: a ViT interpolates its position embeddings.
    backbone = load_backbone(BackboneSpec(name=name, weights=shared_weights(shared, name)))
    maps = backbone(pixels(2))
    assert [tuple(m.shape) for m in maps] == [(2, c, HEIGHT // s, WIDTH // s) for c, s in SHARED[name][1]]
    assert all(bool(torch.isfinite(m).all() and m.std() > 0) for m in maps)
    assert not torch.allclose(maps[0][0], maps[0][1])
    assert not backbone.training
    assert not backbone.train().training
    assert not any(p.requires_grad for p in backbone.parameters())
    assert backbone.spec.weights is None
    assert backbone.provenance.source == f"{SHARED[name][0]}.safetensors"
    restored = restore_backbone(backbone.spec, backbone.provenance, backbone.network.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(maps, restored(pixels(2)), strict=True))


@pytest.mark.shared
def test_weights_are_those_of_the_file(shared):
    import timm

    name, wanted = "resnet18", load_file(shared_weights(shared, "resnet18"))
    network = timm.create_model(name, pretrained=False, features_only=True, out_indices=(2, 3)).eval()
    network.load_state_dict(wanted, strict=True)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        reference = network((pixels() - mean) / std)
        maps = load_backbone(BackboneSpec(name=name, weights=shared_weights(shared, name)))(pixels())
    for got, expected in zip(maps, reference, strict=True):
        assert torch.allclose(got, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.shared
@pytest.mark.parametrize("layers", [("layer1",), ("layer3", "layer1"), ("layer2", "layer3", "layer1")])
def test_chosen_layers_come_in_the_order_of_the_network(shared, layers):
    channels = {"layer1": (64, 4), "layer2": (128, 8), "layer3": (256, 16)}
    backbone = load_backbone(BackboneSpec(name="resnet18", layers=layers, weights=shared_weights(shared, "resnet18")))
    assert backbone.spec.layers == tuple(sorted(layers))
    wanted = [(1, c, HEIGHT // s, WIDTH // s) for c, s in (channels[layer] for layer in sorted(layers))]
    assert [tuple(m.shape) for m in backbone(pixels())] == wanted


@pytest.mark.shared
def test_vit_blocks_are_those_that_were_chosen(shared):
    weights = shared_weights(shared, "vit_tiny_patch16_224")
    name = "vit_tiny_patch16_224"
    assert describe(name).default == ("blocks.5", "blocks.8")
    one = load_backbone(BackboneSpec(name=name, layers=("blocks.8",), weights=weights))(pixels())
    both = load_backbone(BackboneSpec(name=name, weights=weights))(pixels())
    assert len(one) == 1
    assert torch.allclose(one[0], both[1], atol=1e-4)
    assert not torch.allclose(one[0], both[0], atol=1e-2)


@pytest.mark.shared
def test_a_canvas_that_the_patches_of_a_vit_do_not_fill_is_refused(shared):
    name = "vit_tiny_patch16_224"
    spec = InputSpec(size=(72, 96))
    detector = SubspaceDetector(input=spec, backbone=BackboneSpec(name=name, weights=shared_weights(shared, name)))
    with pytest.raises(SettingError, match=r"multiples of 16 for backbone 'vit_tiny_patch16_224'; got \(72, 96\)"):
        detector.fit([sample_images(spec, 1, seed=0)])


@pytest.mark.parametrize(("given", "hint"), [("resnet19", "Did you mean 'resnet18'"), ("bundeld", "'bundled'")])
def test_unknown_backbone_names_the_closest(given, hint):
    with pytest.raises(UnknownNameError, match=f"unknown backbone {given!r}") as caught:
        load_backbone(BackboneSpec(name=given))
    assert hint in str(caught.value)


def test_unknown_layer_lists_the_valid_ones():
    with pytest.raises(UnknownNameError) as caught:
        load_backbone(BackboneSpec(name="resnet18", layers=("layer2", "layer9")))
    message = str(caught.value)
    assert "unknown layer of backbone 'resnet18' 'layer9'" in message
    assert message.endswith("Valid: act1, layer1, layer2, layer3, layer4")
    with pytest.raises(UnknownNameError, match=r"Valid: stages\.2, stages\.3"):
        load_backbone(BackboneSpec(layers=("stages.9",)))


def altered(tmp_path, change):
    """The bundled weights with a change, as a file."""
    tensors = load_file(WEIGHTS)
    change(tensors)
    save_file(tensors, tmp_path / "weights.safetensors")
    return str(tmp_path / "weights.safetensors")


FIRST = "stages.0.reduce.conv.weight"


def test_missing_key_is_named(tmp_path):
    weights = altered(tmp_path, lambda tensors: tensors.pop(FIRST))
    with pytest.raises(BackboneError, match=rf"do not belong to backbone 'bundled'.*missing {FIRST}; unknown nothing"):
        load_backbone(BackboneSpec(weights=weights))


def test_unknown_key_is_named(tmp_path):
    weights = altered(tmp_path, lambda tensors: tensors.update({"head.weight": torch.zeros(2)}))
    with pytest.raises(BackboneError, match=r"missing nothing; unknown head\.weight\..*wants keys like stages\.0"):
        load_backbone(BackboneSpec(weights=weights))


def test_wrong_shape_is_named_with_both_shapes(tmp_path):
    weights = altered(tmp_path, lambda tensors: tensors.update({FIRST: torch.zeros(32, 1, 3, 3)}))
    with pytest.raises(BackboneError) as caught:
        load_backbone(BackboneSpec(weights=weights))
    assert f"{FIRST} (32, 1, 3, 3) instead of (32, 3, 3, 3)" in str(caught.value)


def test_weights_of_another_network_are_refused():
    with pytest.raises(BackboneError, match=r"do not belong to backbone 'resnet18' with layers layer2, layer3"):
        load_backbone(BackboneSpec(name="resnet18", weights=str(WEIGHTS)))


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
def test_a_text_file_is_no_weights(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_text("these are not the weights you are looking for\n" * 20)
    with pytest.raises(
        BackboneError, match=rf"weights\{suffix} (is not a readable file|holds more than plain tensors)"
    ):
        load_backbone(BackboneSpec(weights=str(path)))


def test_missing_file_is_named(tmp_path):
    with pytest.raises(BackboneError, match=r"no weights file at .*nowhere\.pth"):
        load_backbone(BackboneSpec(weights=str(tmp_path / "nowhere.pth")))


class Touching:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickled_object_is_never_executed(tmp_path, writer):
    trace, path = tmp_path / "trace", tmp_path / "weights.pth"
    content = {"x": torch.zeros(2), "object": Touching(trace)}
    pickle.loads(pickle.dumps(content["object"]))
    assert trace.is_file()  # it is a trap: an ordinary load springs it
    trace.unlink()
    if writer == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content))
    with pytest.raises(BackboneError, match=r"weights\.pth holds more than plain tensors and is not loaded"):
        load_backbone(BackboneSpec(weights=str(path)))
    assert not trace.exists()


@pytest.mark.parametrize("content", [[torch.zeros(2)], {"weight": 3.0}, torch.zeros(2)])
def test_what_is_no_mapping_of_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(BackboneError, match=r"weights\.pt must hold a mapping of names to tensors"):
        read_weights(tmp_path / "weights.pt")


@pytest.mark.parametrize("wrapped", [None, "state_dict", "model"])
def test_a_plain_pth_of_tensors_equals_the_safetensors_file(tmp_path, bundled, wrapped):
    tensors = load_file(WEIGHTS)
    torch.save({wrapped: tensors, "epoch": 3} if wrapped else tensors, tmp_path / "weights.pth")
    backbone = load_backbone(BackboneSpec(weights=str(tmp_path / "weights.pth")))
    assert backbone.provenance.sha256 == bundled.provenance.sha256
    assert backbone.provenance.source == "weights.pth"
    assert backbone.provenance.licence == "not stated"
    assert all(torch.equal(a, b) for a, b in zip(backbone(pixels()), bundled(pixels()), strict=True))


def test_without_a_network_the_error_says_what_to_do(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    assert huggingface_hub.constants.HF_HUB_OFFLINE, "tests must not use the network"
    with pytest.raises(BackboneError) as caught:
        load_backbone(BackboneSpec(name="resnet18"))
    message = str(caught.value)
    assert "the weights of 'resnet18' (hub timm/resnet18" in message
    assert "--weights FILE" in message
    assert "--backbone bundled" in message


def test_weights_of_the_teacher_come_from_a_file_only():
    with pytest.raises(BackboneError, match=r"not on a hub; give its weights with --weights FILE"):
        load_backbone(BackboneSpec(name=TEACHER))


def test_provenance_of_the_bundled_network(bundled):
    assert (bundled.provenance.source, bundled.provenance.licence) == ("package", "Apache-2.0")
    assert bundled.provenance.mean == (0.485, 0.456, 0.406)
    assert bundled.provenance.std == (0.229, 0.224, 0.225)
    assert bundled.provenance.sha256 == fingerprint(bundled.network.state_dict())


def test_fingerprint_depends_on_names_types_shapes_and_bytes_but_not_on_order():
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(1), "c": torch.ones(2, dtype=torch.float16)}
    known = fingerprint(tensors)
    assert fingerprint(dict(reversed(tensors.items()))) == known
    assert fingerprint({**tensors, "a": tensors["a"].T.contiguous().T}) == known  # other strides, equal values
    others = [
        {**tensors, "a": tensors["a"].reshape(3, 2)},
        {**tensors, "b": torch.tensor(1, dtype=torch.int32)},
        {**tensors, "c": torch.tensor([1.0, 1.001], dtype=torch.float16)},
        {"a": tensors["a"], "b": tensors["b"], "d": tensors["c"]},
    ]
    assert len({known, *map(fingerprint, others)}) == 5


def test_restored_tensors_that_do_not_fit_are_refused(bundled):
    tensors = bundled.network.state_dict()
    tensors.pop(FIRST)
    with pytest.raises(BackboneError, match=r"the artifact's tensors do not fit backbone 'bundled'"):
        restore_backbone(bundled.spec, bundled.provenance, tensors)


def canvas_of(channels):
    spec = InputSpec(channels=channels, size=(HEIGHT, WIDTH))
    return spec.canvas(sample_images(spec, 2, seed=0))


def test_grey_is_the_same_as_three_equal_channels(bundled):
    grey = canvas_of(1)
    colour = grey._replace(pixels=grey.pixels.expand(-1, 3, -1, -1).contiguous())
    assert torch.allclose(embed(bundled, grey), embed(bundled, colour), atol=1e-5)


def test_bands_go_through_in_groups_of_three_and_none_is_lost(bundled):
    five = canvas_of(5)
    maps = feature_maps(bundled, five)
    assert [tuple(m.shape) for m in maps] == [(2, 192, 8, 12), (2, 384, 4, 6)]
    first = five._replace(pixels=five.pixels[:, :3])
    second = five._replace(pixels=five.pixels[:, [3, 4, 4]])
    for whole, a, b in zip(maps, feature_maps(bundled, first), feature_maps(bundled, second), strict=True):
        assert torch.allclose(whole, torch.cat([a, b], dim=1), atol=1e-5)
