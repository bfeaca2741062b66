from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.backbones import BackboneSpec, load_backbone
from anomaly.detectors.autoencoder import AutoencoderDetector, Shrink
from anomaly.detectors.autoencoder_networks import Architecture, Reconstructor, coarse_noise, working_size
from anomaly.detectors.autoencoder_residuals import L1Residual, PerceptualResidual, SSIMResidual, feature_scale
from anomaly.errors import ArtifactError, SettingError
from anomaly.images.augmentation import Augmentation
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

GREY = InputSpec(channels=1, size=(64, 64))
STILL = Augmentation(shift=0.0, rotation=0.0, zoom=0.0, brightness=0.0, contrast=0.0)
TINY = {"resolution": 32, "widths": (4, 8), "code": 16, "steps": 2, "batch": 2}


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(40, 56), (18, 20, 24)])
def test_ssim_is_that_of_monai_in_the_interior(size):
    from monai.metrics.regression import compute_ssim_and_cs

    images, others = noise(2, 3, *size), noise(2, 3, *size, seed=1)
    others = 0.7 * images + 0.3 * others
    dims = len(size)
    wanted, _ = compute_ssim_and_cs(others, images, dims, (13,) * dims, (1.5,) * dims)
    inner = (slice(None), *[slice(6, -6)] * dims)
    assert torch.allclose(SSIMResidual(size)(images, others)[inner], 1 - wanted.mean(dim=1), atol=1e-4)


def residuals():
    backbone = load_backbone(BackboneSpec())
    return [
        L1Residual(),
        SSIMResidual((64, 64)),
        PerceptualResidual(backbone, feature_scale(backbone, noise(4, 1, 64, 64))),
    ]


@pytest.mark.parametrize("residual", residuals(), ids=lambda residual: type(residual).__name__)
def test_residuals_are_zero_for_equal_images_and_highest_at_the_difference(residual):
    images = sample_images(GREY, 2, seed=0) / 255.0
    changed = images.clone()
    changed[1, :, 16:32, 32:48] = 1 - changed[1, :, 16:32, 32:48]
    found = residual(images, changed)
    assert float(found[0].abs().max()) < 1e-5
    assert float(found.min()) > -1e-5
    centres = (torch.arange(found.shape[1]) + 0.5) * (64 / found.shape[1])
    away = torch.maximum((centres - 24).abs()[:, None], (centres - 40).abs()[None])  # from the middle of the change
    assert float(found[1][away < 8].mean()) > 2 * float(found[1][away > 20].mean())


def test_features_count_in_units_of_their_deviation():
    backbone = load_backbone(BackboneSpec())
    images = noise(4, 3, 64, 64)
    scale = feature_scale(backbone, images)
    doubled = PerceptualResidual(backbone, 2 * scale)(images, images.flip(0))
    assert torch.allclose(doubled, 2 * PerceptualResidual(backbone, scale)(images, images.flip(0)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(32, 600), min_size=2, max_size=3),
    st.integers(32, 256),
    st.integers(2, 5),
)
def test_working_sizes_suit_the_network(size, resolution, halvings):
    found = working_size(size, resolution, halvings)
    step = 2**halvings
    assert all(side % step == 0 and side >= 32 for side in found)
    scale = min(1.0, resolution / torch.tensor(size).double().prod().item() ** (1 / len(size)))
    assert all(
        side in (32, step) or abs(side - full * scale) <= step / 2 for side, full in zip(found, size, strict=True)
    )


@pytest.mark.parametrize("size", [(64, 96), (32, 40, 48)])
def test_coarse_noise_is_as_strong_and_as_coarse_as_asked(size):
    torch.manual_seed(0)
    plain = torch.zeros(128, 1, *size)
    found = coarse_noise(plain, 0.2, 8)
    assert found.shape == plain.shape
    assert abs(float(found.mean())) < 0.02
    strongest = 0.2 * (2 / 3) ** (len(size) / 2)  # interpolation averages
    assert strongest / 3**0.5 == pytest.approx(float(found.std()), rel=0.15)  # strengths are uniform from 0
    assert (
        float(found.flatten(1).std(dim=1).min())
        < 0.1 * strongest
        < 0.8 * strongest
        < float(found.flatten(1).std(dim=1).max())
    )
    one = (found[..., 1:] * found[..., :-1]).mean() / found.square().mean()
    far = (found[..., 24:] * found[..., :-24]).mean() / found.square().mean()
    assert float(one) > 0.95
    assert abs(float(far)) < 0.1
    assert coarse_noise(plain, 0.0, 8) is plain


def test_the_code_of_the_variational_network_is_drawn_in_training_only():
    torch.manual_seed(0)
    network = Reconstructor(Architecture("variational", (32, 32), 1, (4, 8), 6))
    images = noise(3, 1, 32, 32)
    drawn, divergence = network.train()(images)
    assert not torch.equal(network(images)[0], drawn)
    mean, log_variance = network.network.encode_forward(images)
    prior = torch.distributions.Normal(torch.zeros_like(mean), torch.ones_like(mean))
    wanted = torch.distributions.kl_divergence(torch.distributions.Normal(mean, (0.5 * log_variance).exp()), prior)
    assert torch.allclose(divergence, wanted.sum(dim=1), atol=1e-5)
    network.eval()
    assert torch.equal(network(images)[0], network(images)[0])


def test_the_plain_network_is_as_narrow_as_asked():
    network = Reconstructor(Architecture("plain", (64, 32), 1, (4, 8, 8), 32)).eval().network
    assert network.intermediate(network.encode(noise(1, 1, 64, 32))).shape == (1, 1, 8, 4)


def test_training_reconstructs_normals_better_and_foreign_squares_worse():
    detector = AutoencoderDetector(input=GREY, measure="l1", **{**TINY, "steps": 150, "batch": 4}, learning_rate=1e-2)
    normals = sample_images(GREY, 16, seed=0)
    first = replace(detector, steps=1).fit([normals])
    scorer = detector.fit([normals[:10], normals[10:]])
    wanted = Shrink(detector)(GREY.canvas(normals)).pixels
    before, after = ((s.reconstruct(normals) - wanted).abs().mean() for s in (first, scorer))
    assert float(after) < 0.6 * float(before)
    foreign = normals[:4].clone()
    foreign[:, :, 16:32, 40:56] = 255
    scores = scorer(torch.cat([normals[:4], foreign]))
    assert float(scores.score[4:].min()) > float(scores.score[:4].max())
    for found in scores.map[4:]:
        row, column = divmod(int(found.argmax()), 64)
        assert 14 <= row < 34
        assert 38 <= column < 58


def test_loss_is_the_mean_of_the_map_on_the_image_and_padding_has_no_part_in_it():
    detector = AutoencoderDetector(
        input=GREY, measure="l1", **TINY, noise=0.0, augmentation=STILL, smoothing=0.0, relative=False
    )
    scorer = detector.fit([sample_images(GREY, 4, seed=0)])
    flat = sample_images(replace(GREY, size=(32, 64)), 1, seed=1)
    canvas = scorer.shrink(GREY.canvas(flat))
    assert canvas.sizes == ((16, 32),)
    cells, inside = scorer.cells(canvas)
    assert torch.equal(inside[0], torch.arange(32)[:, None].expand(32, 32) < 16)
    assert float(scorer.loss(canvas)) == pytest.approx(float(cells[inside].mean()), rel=1e-5)


def test_cells_beside_padding_are_smoothed_without_it():
    scorer = AutoencoderDetector(input=GREY, measure="l1", **TINY, relative=False).fit([sample_images(GREY, 4, seed=0)])
    scorer.residual.forward = lambda images, _: torch.where(torch.arange(32)[:, None] < 16, 1.0, 9.0).expand(1, 32, 32)
    flat = scorer.shrink(GREY.canvas(sample_images(replace(GREY, size=(32, 64)), 1, seed=1)))
    cells, inside = scorer.cells(flat)
    assert torch.allclose(cells[inside], torch.ones(()), atol=1e-5)


@pytest.mark.parametrize(
    ("measure", "network"), [("perceptual", "plain"), ("ssim", "variational"), ("l1", "denoising")]
)
def test_the_scorer_exports(measure, network):
    detector = AutoencoderDetector(input=GREY, measure=measure, network=network, **TINY)
    scorer = detector.fit([sample_images(GREY, 4, seed=0)])
    test = sample_images(GREY, 2, seed=1)
    with torch.no_grad():
        exported = torch.export.export(scorer, (test,)).module()(test)
        wanted = scorer(test)
    assert torch.allclose(exported[0], wanted.score, atol=1e-4)
    assert torch.allclose(exported[1], wanted.map, atol=1e-4)


def test_a_state_that_does_not_fit_is_refused():
    detector = AutoencoderDetector(input=GREY, measure="l1", **TINY)
    state = dict(detector.fit([sample_images(GREY, 4, seed=0)]).state_dict())
    with pytest.raises(ArtifactError, match="description of autoencoder must hold"):
        detector.restore(state, {"backbone": {}})
    with pytest.raises(ArtifactError, match="does not fit autoencoder"):
        detector.restore({**state, "more": torch.zeros(1)}, {})
    with pytest.raises(ArtifactError, match="does not fit autoencoder"):
        detector.restore({**state, "level": torch.zeros(2, 3, 3)}, {})
    del state["level"]
    with pytest.raises(ArtifactError, match="does not fit autoencoder"):
        detector.restore(state, {})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"network": "gan"}, "network of autoencoder must be one of plain"),
        ({"measure": "l2"}, "measure of autoencoder must be one of l1"),
        ({"network": "denoising", "noise": 0.0}, "noise of autoencoder must be above 0"),
        ({"widths": (8,)}, "widths of autoencoder must be 2 to 6"),
        ({"steps": 0}, "steps of TrainingSettings must be at least 1"),
        ({"batch": 1}, "batch of autoencoder must be 2 or more"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(wrong, message):
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(SettingError, match=message):
            AutoencoderDetector(**wrong)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
