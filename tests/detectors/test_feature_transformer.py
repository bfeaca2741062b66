from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from anomaly.backbones import BackboneSpec
from anomaly.detectors.feature_transformer import FeatureTransformerDetector, LinearAttention, LooseDecoder
from anomaly.errors import SettingError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images, with_square

FEW = settings(max_examples=10, deadline=None)
SPEC = InputSpec(size=(64, 96))
QUICK = {"input": SPEC, "steps": 25, "width": 32, "depth": 2, "heads": 2, "batch": 4}


def features(seed, shape=(2, 10, 3, 4)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def decoder(**changes):
    torch.manual_seed(0)
    detector = FeatureTransformerDetector(**{"width": 16, "depth": 3, "heads": 2} | changes)
    return LooseDecoder([4, 6], detector).eval()


@FEW
@given(st.integers(0, 99), st.integers(1, 9))
def test_linear_attention_is_the_normalised_kernel_average(seed, tokens):
    torch.manual_seed(seed)
    attention = LinearAttention(8, heads=2)
    x = torch.randn(2, tokens, 8)
    mixed = attention.mix(x)
    heads = []
    for head in range(2):
        query, key, value = (mixed[..., 8 * i + 4 * head : 8 * i + 4 * head + 4] for i in range(3))
        kernel = (F.elu(query) + 1) @ (F.elu(key) + 1).transpose(1, 2)
        heads.append(kernel / kernel.sum(dim=2, keepdim=True) @ value)
    assert torch.allclose(attention(x), attention.merge(torch.cat(heads, dim=-1)), atol=1e-5)


def test_attention_commutes_with_the_order_of_tokens():
    torch.manual_seed(0)
    attention, x, order = LinearAttention(8, heads=2), torch.randn(1, 6, 8), torch.randperm(6)
    assert torch.allclose(attention(x)[:, order], attention(x[:, order]), atol=1e-5)


def test_loss_is_the_cosine_distance_of_whole_images():
    network, x = decoder(), features(0)
    inside = torch.ones(2, 3, 4, dtype=torch.bool)
    inside[1, 2] = False
    wanted = []
    for target, got in zip(x.split([4, 6], dim=1), network(x), strict=True):
        got = got.transpose(1, 2).unflatten(2, (3, 4))
        for i in range(2):
            a, b = target[i][:, inside[i]].flatten(), got[i][:, inside[i]].flatten()
            wanted.append(1 - a @ b / (a.norm() * b.norm()))
    assert network.loss(x, inside, 1.0).item() == pytest.approx(torch.stack(wanted).mean().item(), abs=1e-5)


def test_gradients_of_well_reconstructed_patches_are_shrunk_to_a_tenth(monkeypatch):
    network, x, inside = decoder(loose=0.5), features(0), torch.ones(2, 3, 4, dtype=torch.bool)
    gradients = []
    for progress in (0.0, 1.0):
        leaves = [output.detach().requires_grad_() for output in network(x)]
        monkeypatch.setattr(network, "forward", lambda _, leaves=leaves: leaves)
        network.loss(x, inside, progress).backward()
        monkeypatch.undo()
        gradients.append([leaf.grad for leaf in leaves])
    for target, output, whole, shrunk in zip(x.split([4, 6], dim=1), network(x), *gradients, strict=True):
        distances = 1 - F.cosine_similarity(target.flatten(2).transpose(1, 2), output, dim=-1)
        well = distances < distances.quantile(0.5)
        assert torch.allclose(shrunk[well], 0.1 * whole[well], rtol=1e-4, atol=1e-9)
        assert torch.allclose(shrunk[~well], whole[~well], rtol=1e-4, atol=1e-9)


def test_layers_of_one_width_are_averaged_in_an_early_and_a_late_half():
    detector, maps = FeatureTransformerDetector(), [features(i, (1, 5, 2, 2)) for i in range(4)]
    early, late = detector.targets(maps)
    assert torch.allclose(early, (maps[0] + maps[1]) / 2)
    assert torch.allclose(late, (maps[2] + maps[3]) / 2)


def test_layers_of_several_widths_stay_apart():
    maps = [features(0, (1, 5, 4, 4)), features(1, (1, 7, 2, 2))]
    assert [t.shape[1] for t in FeatureTransformerDetector().targets(maps)] == [5, 7]


@FEW
@given(st.integers(1, 6), st.integers(1, 3))
def test_any_depth_serves_any_number_of_groups(depth, groups):
    network = LooseDecoder([4] * groups, FeatureTransformerDetector(width=8, depth=depth, heads=2))
    outputs = network(features(0, (1, 4 * groups, 2, 3)))
    assert [tuple(out.shape) for out in outputs] == [(1, 6, 4)] * groups
    torch.stack(outputs).square().sum().backward()
    assert all(p.grad is not None for p in network.parameters()), "every block must be used"


def test_one_model_learns_two_kinds_of_products():
    first = sample_images(SPEC, 10, seed=1)
    second = (255 - first.flip(-1)) // 2
    scorer = FeatureTransformerDetector(**QUICK).fit([first, second])
    for kind in (first, second):
        test = torch.stack([with_square(kind[0], SPEC), *kind[1:4]])
        assert int(scorer(test).score.argmax()) == 0


@pytest.mark.shared
def test_vit_without_named_layers_takes_the_middle_two_thirds(shared: Path):
    weights = shared / "weights" / "vit_tiny_patch16_224_tinyimagenet200.safetensors"
    detector = FeatureTransformerDetector(
        **QUICK | {"steps": 2, "backbone": BackboneSpec(name="vit_tiny_patch16_224", weights=str(weights))}
    )
    scorer = detector.fit([sample_images(SPEC, 2, seed=1)])
    assert scorer.settings.backbone.layers == tuple(f"blocks.{i}" for i in range(2, 10))
    assert scorer.scale.shape == (2 * 192,)
    state, image = scorer.state_dict(), sample_images(SPEC, 1, seed=3)
    restored = scorer.settings.restore(state, scorer.description()).eval()
    assert torch.equal(restored(image).score, scorer(image).score)


@pytest.mark.parametrize(
    "setting", [{"width": 0}, {"depth": 0}, {"heads": 5}, {"dropout": 1.0}, {"loose": 1.0}, {"steps": 0}]
)
def test_settings_that_cannot_be_meant_are_refused(setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        FeatureTransformerDetector(**setting)
