import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from anomaly.backbones.bundled import LAYERS, BundledNet, BundledSettings, load_bundled, save_bundled
from anomaly.errors import BackboneError

TINY = BundledSettings((4, 4, 8, 16), (0, 1, 1, 1))


def _trained():
    """A network whose norms have moved away from their start."""
    torch.manual_seed(0)
    model = BundledNet(TINY)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    for _ in range(3):
        model(torch.randn(4, 3, 32, 32))
    return model.eval()


def test_folding_changes_no_feature():
    model = _trained()
    x = torch.randn(2, 3, 40, 64)
    for own, folded in zip(model(x), model.fold()(x), strict=True):
        torch.testing.assert_close(folded, own, rtol=1e-4, atol=1e-5)


def test_features_are_those_of_the_plain_formula():
    model = _trained().fold()
    images = torch.randn(2, 3, 40, 64)
    x, maps = images, []
    for stage in model.stages:
        x = functional.relu(stage.reduce(x))
        for block in stage.blocks:
            x = functional.relu(x + block.second(functional.relu(block.first(x))))
        maps.append(x)
    assert all(map(torch.equal, model(images), maps[2:]))


def test_every_rectifier_is_a_module_that_runs_once():
    model = _trained().fold()
    rectifiers = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    calls = []
    for module in rectifiers:
        module.register_forward_hook(lambda module, *_: calls.append(module))
    model(torch.randn(1, 3, 32, 32))
    assert sorted(map(id, calls)) == sorted(map(id, rectifiers))
    assert len(rectifiers) == 4 + 2 * sum(TINY.blocks)


def test_folded_network_has_no_norm_and_folds_once():
    folded = _trained().fold()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert not any(p.requires_grad for p in folded.parameters())
    with pytest.raises(BackboneError, match="folded already"):
        folded.fold()


def test_maps_have_the_declared_channels_and_strides():
    model = BundledNet(TINY).eval()
    for side in (64, 72):
        maps = model(torch.randn(1, 3, side, 2 * side))
        for m, channels, stride in zip(maps, model.channels, model.strides, strict=True):
            assert m.shape == (1, channels, -(-side // stride), -(-2 * side // stride))
    assert all(name in dict(model.named_modules()) for name in LAYERS)


def test_stored_network_loads_with_float16_rounding_only(tmp_path):
    model = _trained().fold()
    save_bundled(model, tmp_path / "w.safetensors", {"licence": "Apache-2.0"})
    loaded = load_bundled(tmp_path / "w.safetensors")
    assert loaded.settings == TINY
    assert not loaded.training
    x = torch.randn(1, 3, 32, 32)
    for a, b in zip(model(x), loaded(x), strict=True):
        assert a.dtype == b.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=0.01, atol=0.01)


def test_unfolded_network_is_not_stored(tmp_path):
    with pytest.raises(BackboneError, match="fold"):
        save_bundled(BundledNet(TINY), tmp_path / "w.safetensors", {})


def test_missing_file_is_a_clear_error(tmp_path):
    with pytest.raises(BackboneError, match="does not exist"):
        load_bundled(tmp_path / "none.safetensors")


def test_foreign_incomplete_and_broken_files_are_refused(tmp_path):
    path = tmp_path / "w.safetensors"
    save_bundled(_trained().fold(), path, {})
    tensors = load_file(path)
    save_file(tensors, tmp_path / "foreign.safetensors")
    dropped = dict(list(tensors.items())[1:])
    save_file(
        dropped, tmp_path / "incomplete.safetensors", {"architecture": '{"widths": [4,4,8,16], "blocks": [0,1,1,1]}'}
    )
    (tmp_path / "broken.safetensors").write_bytes(path.read_bytes()[:100])
    for name in ("foreign", "incomplete", "broken"):
        with pytest.raises(BackboneError, match=f"{name}.safetensors must hold"):
            load_bundled(tmp_path / f"{name}.safetensors")


def test_default_network_is_within_its_budget():
    model = BundledNet()
    macs = 0

    def count(module, _, output):
        nonlocal macs
        macs += output.numel() * module.weight[0].numel()

    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(count)
    with torch.inference_mode():
        model.eval()(torch.zeros(1, 3, 256, 256))
    assert sum(p.numel() for p in model.parameters()) < 3e6
    assert macs < 1.2e9
