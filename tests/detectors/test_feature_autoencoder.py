import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from anomaly.detectors.feature_autoencoder import (
    ConvolutionalAutoencoder,
    FeatureAutoencoderDetector,
    structural_similarity,
)
from anomaly.errors import ArtifactError, SettingError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

FEW = settings(max_examples=15, deadline=None)
SPEC = InputSpec(size=(64, 96))
QUICK = {"input": SPEC, "steps": 60, "channels": 32, "widths": (16, 16, 16)}


@pytest.fixture(scope="module")
def scorer():
    return FeatureAutoencoderDetector(**QUICK).fit([sample_images(SPEC, 12, seed=1)])


def features(seed, shape=(2, 3, 7, 9)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def reference_similarity(a, b, first, second):
    """Wang et al., equation 13, written with scipy's Gaussian."""

    def local(x):
        return gaussian_filter(x, 1.5, mode="reflect", truncate=4.0)

    mean_a, mean_b = local(a), local(b)
    var_a, var_b = local(a * a) - mean_a**2, local(b * b) - mean_b**2
    covariance = local(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + first) / (mean_a**2 + mean_b**2 + first)
    return luminance * (2 * covariance + second) / (var_a + var_b + second)


@FEW
@given(st.integers(0, 99), st.integers(0, 99))
def test_structural_similarity_is_that_of_the_paper(one, other):
    a, b = features(one), features(other) + 0.5 * features(one)
    got = structural_similarity(a, b, (0.02, 0.05))
    for i, j in np.ndindex(2, 3):
        wanted = reference_similarity(a[i, j].double().numpy(), b[i, j].double().numpy(), 0.02, 0.05)
        np.testing.assert_allclose(got[i, j], wanted, rtol=1e-3, atol=1e-4)


@FEW
@given(st.integers(0, 99))
def test_structural_similarity_is_symmetric_at_most_one_and_one_for_equal_maps(seed):
    a, b = features(seed), features(seed + 1)
    assert torch.allclose(structural_similarity(a, a), torch.ones_like(a), atol=1e-4)
    assert torch.allclose(structural_similarity(a, b), structural_similarity(b, a), atol=1e-5)
    assert bool((structural_similarity(a, b).abs() <= 1 + 1e-4).all())


@FEW
@given(st.integers(1, 17), st.integers(1, 17))
def test_reconstruction_has_the_shape_of_the_features_on_any_grid(rows, columns):
    network = ConvolutionalAutoencoder(5, (4, 6, 8), dropout=0.0).eval()
    assert network(features(0, (1, 5, rows, columns))).shape == (1, 5, rows, columns)


def test_padding_does_not_count_in_the_loss():
    network = ConvolutionalAutoencoder(3, (4, 4), dropout=0.0).eval()
    x, inside = features(0), torch.ones(2, 7, 9, dtype=torch.bool)
    inside[1, 4:] = False
    assert network.loss(x, inside, 0.0).item() == pytest.approx(network.error(x)[inside].mean().item())


def test_training_lowers_the_error_of_normal_images():
    images = sample_images(SPEC, 12, seed=1)
    short, long = (
        FeatureAutoencoderDetector(**QUICK | {"steps": steps, "relative": False}).fit([images])(images).score.mean()
        for steps in (3, 40)
    )
    assert long < short - 0.02


def test_a_foreign_patch_raises_the_map_there_more_than_elsewhere():
    spec = InputSpec(size=(224, 224))
    noise = 4 * torch.randn(13, 3, *spec.size, generator=torch.Generator().manual_seed(3))
    images = (sample_images(spec, 1, seed=1) + noise).clamp(0, 255).to(torch.uint8)  # one part, seen again and again
    changed = images[12].clone()
    changed[:, 160:192, 160:192] = 240
    changed[:, 160:192:4, 160:192] = 0
    settings = {"input": spec, "steps": 40, "batch": 4, "relative": False}
    scorer = FeatureAutoencoderDetector(**QUICK | settings).fit([images[:12]])
    with torch.inference_mode():
        maps = scorer(torch.stack([changed, images[12]])).map
    gain = maps[0] - maps[1]
    square = torch.zeros(spec.size, dtype=torch.bool)
    square[160:192, 160:192] = True
    assert gain[square].mean() > 2 * gain[~square].mean()


def test_fit_works_where_the_caller_has_switched_gradients_off(scorer):
    images = sample_images(SPEC, 12, seed=1)
    with torch.no_grad():
        again = FeatureAutoencoderDetector(**QUICK).fit([images])
        assert not torch.is_grad_enabled()
    assert torch.equal(again(images).score, scorer(images).score)


def test_one_image_is_enough():
    image = sample_images(SPEC, 1, seed=1)
    scores = FeatureAutoencoderDetector(**QUICK | {"steps": 3}).fit([image])(image)
    assert bool(torch.isfinite(scores.score).all())


def test_fewer_channels_than_asked_for_are_all_taken():
    scorer = FeatureAutoencoderDetector(**QUICK | {"steps": 2, "channels": 1000}).fit([sample_images(SPEC, 2, seed=1)])
    assert scorer.scale.shape == (288,)


@pytest.mark.parametrize("change", ["missing", "unknown", "shape"])
def test_tensors_that_do_not_fit_are_refused(scorer, change):
    state = dict(scorer.state_dict())
    if change == "missing":
        del state["network.expand.bias"]
    elif change == "unknown":
        state["network.more"] = torch.zeros(1)
    else:
        state["network.expand.bias"] = torch.zeros(7)
    with pytest.raises(ArtifactError, match="network of feature_autoencoder"):
        scorer.detector.restore(state, scorer.description())


@pytest.mark.parametrize(
    "setting",
    [{"steps": 0}, {"batch": 0}, {"learning_rate": 0.0}, {"channels": 0}, {"widths": (8,)}, {"dropout": 1.0}],
)
def test_settings_that_cannot_be_meant_are_refused(setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        FeatureAutoencoderDetector(**setting)
