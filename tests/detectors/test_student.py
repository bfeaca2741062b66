from dataclasses import replace

import pytest
import torch

from anomaly.backbones import BackboneSpec
from anomaly.detectors.map_store import LayerMap, MapStore
from anomaly.detectors.student import Student, StudentDetector, _whitening
from anomaly.errors import ArtifactError, SettingError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

SPEC = InputSpec(size=(96, 96))
SMALL = StudentDetector(input=SPEC, steps=60, width=32, batch=4)


@pytest.fixture(scope="module")
def scorer():
    return SMALL.fit([sample_images(SPEC, 24, seed=1)])


def _maps(scorer, images):
    from anomaly.detectors.embedding import feature_maps

    with torch.no_grad():
        return feature_maps(scorer.backbone, SPEC.canvas(images))


def test_whitening_gives_mean_zero_and_covariance_one_inside_the_images():
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(6, 6, generator=generator)
    features = 3 + torch.einsum("ndhw,dk->nkhw", torch.randn(20, 6, 16, 16, generator=generator), mixing)
    inside = torch.rand(20, 16, 16, generator=generator) < 0.7
    features = torch.where(inside[:, None], features, 1e3)
    layer = _whitening([LayerMap(features[:7], inside[:7]), LayerMap(features[7:], inside[7:])])
    patches = layer(features).permute(0, 2, 3, 1)[inside]
    torch.testing.assert_close(patches.mean(0), torch.zeros(6), rtol=0, atol=1e-4)
    values = torch.linalg.eigvalsh(features.permute(0, 2, 3, 1)[inside].T.double().cov())
    shrinkage = 0.01 + 6 / int(inside.sum())
    wanted = (values / (values + shrinkage * values.mean())).sort().values.float()  # what shrinkage leaves of 1
    torch.testing.assert_close(torch.linalg.eigvalsh(patches.T.cov()), wanted, rtol=1e-3, atol=1e-3)


def test_linear_student_scores_the_conditional_mahalanobis_distance():
    """A student that is the linear regression of y on x, against the closed form of a joint Gaussian."""
    generator = torch.Generator().manual_seed(0)
    joint = torch.randn(4000, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    covariance = joint.double().T.cov()
    xx, xy, yy = covariance[:3, :3], covariance[:3, 3:], covariance[3:, 3:]
    gain = torch.linalg.solve(xx, xy)
    center = joint.double().mean(0)
    wanted = joint[:, 3:].double() - center[3:] - (joint[:, :3].double() - center[:3]) @ gain
    conditional = yy - xy.T @ gain
    shrunk = conditional + (0.01 + 2 / 4000) * conditional.trace() / 2 * torch.eye(2, dtype=torch.float64)
    distance = (wanted @ torch.linalg.inv(shrunk) * wanted).sum(1).sqrt()
    residual = wanted.float().T.reshape(1, 2, 40, 100)
    white = _whitening([LayerMap(residual, torch.ones(1, 40, 100, dtype=torch.bool))])(residual)
    torch.testing.assert_close(white.square().sum(1).sqrt().flatten().double(), distance, rtol=1e-3, atol=1e-3)


def test_score_is_the_length_of_what_was_not_expected(scorer):
    shallow, deep = _maps(scorer, sample_images(SPEC, 2, seed=3))
    residual = scorer.deep(deep) - scorer.student(scorer.shallow(shallow), deep.shape[-2:])
    torch.testing.assert_close(scorer.patch_scores([shallow, deep]), torch.linalg.vector_norm(residual, dim=1))
    assert scorer.level.shape == (2, *deep.shape[-2:])


def test_residuals_of_normal_images_are_white(scorer):
    shallow, deep = _maps(scorer, sample_images(SPEC, 24, seed=1))
    residual = scorer.deep(deep) - scorer.student(scorer.shallow(shallow), deep.shape[-2:])
    patches = residual.permute(0, 2, 3, 1).flatten(0, 2)
    assert float(patches.mean(0).abs().max()) < 0.02
    covariance = patches.T.cov()
    assert 0.5 < float(covariance.diag().mean()) < 1  # shrinkage: 864 patches are few for 192 directions
    assert float((covariance - covariance.diag().diag()).abs().max()) < 0.05 * float(covariance.diag().max())


def test_student_learns_what_deep_features_follow_from_shallow_ones():
    """Deep features that are a fixed mixture of the shallow ones are expected; those of another image are not."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(24, 6, 8, 8, generator=generator)
    mixing = torch.randn(4, 6, 1, 1, generator=generator) / 6**0.5
    deep = torch.nn.functional.conv2d(torch.nn.functional.avg_pool2d(features, 2), mixing).tanh()
    inside = [torch.ones(24, side, side, dtype=torch.bool) for side in (8, 4)]
    store = MapStore(2, [[LayerMap(features, inside[0]), LayerMap(deep, inside[1])]])
    whitened = [_whitening(store.batches(layer, 8)) for layer in (0, 1)]
    student = replace(SMALL, steps=150, batch=8)._train(store, *whitened)
    x, y = whitened[0](features), whitened[1](deep)
    unexplained = [float((wanted - student(x, (4, 4))).square().mean()) for wanted in (y, y.roll(1, dims=0))]
    assert unexplained[0] < 0.3
    assert unexplained[1] > 1.2


@pytest.mark.parametrize("grid", [(6, 8), (12, 16), (5, 7)])
def test_student_answers_on_the_grid_asked_for(grid):
    assert Student(4, 8, 3)(torch.zeros(2, 4, 12, 16), grid).shape == (2, 3, *grid)


@pytest.mark.parametrize(
    ("name", "weights", "layers"),
    [
        ("resnet18", "resnet18_layers1to3_bnfolded", ("layer1", "layer3")),
        ("vit_tiny_patch16_224", "vit_tiny_patch16_224_tinyimagenet200", ()),
    ],
)
def test_any_backbone_can_teach(shared, name, weights, layers):
    spec = BackboneSpec(name=name, layers=layers, weights=str(shared / f"weights/{weights}.safetensors"))
    fitted = replace(SMALL, backbone=spec, steps=3).fit([sample_images(SPEC, 6, seed=1)])
    scores = fitted(sample_images(SPEC, 2, seed=2))
    assert torch.isfinite(scores.score).all()
    assert scores.map.shape == (2, 96, 96)


def test_one_layer_or_three_are_refused(shared):
    weights = str(shared / "weights/resnet18_layers1to3_bnfolded.safetensors")
    for layers in (("layer2",), ("layer1", "layer2", "layer3")):
        spec = BackboneSpec(name="resnet18", layers=layers, weights=weights)
        with pytest.raises(SettingError, match="must be two, a shallow and a deep one; got 'layer"):
            replace(SMALL, backbone=spec).fit([sample_images(SPEC, 2, seed=1)])


@pytest.mark.parametrize(("name", "value"), [("width", 0), ("steps", 0), ("batch", 0), ("learning_rate", 0.0)])
def test_bad_settings_are_refused(name, value):
    with pytest.raises(SettingError, match=f"{name} of student must be"):
        replace(SMALL, **{name: value})


def test_tensors_of_another_width_are_refused(scorer):
    with pytest.raises(ArtifactError, match="do not fit its settings"):
        replace(scorer.detector, width=16).restore(scorer.state_dict(), scorer.description())
