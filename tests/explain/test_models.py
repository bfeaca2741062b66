"""Real scorers: convolutional and ViT backbones, autoencoders, volumes; twins and nearest patches."""

import numpy as np
import pytest
import torch

from anomaly.catalog import build, detector_class
from anomaly.errors import InputError, SettingError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images, with_square
from explain.cam import GradCam, GuidedGradCam
from explain.gradients import IntegratedGradients
from explain.layers import choose_layer
from explain.native import AnomalyMap, Residual
from explain.nearest import PatchSearch
from explain.perturbation import Occlusion
from explain.stability import randomised
from explain.subject import Subject
from explain.twin import Normals, Twin, blurred, make_twin, nearest_image, nearest_patches, reconstruction

SPEC = InputSpec(channels=1, size=(64, 96))
RANGE = (0.0, 255.0)


def fitted(name, **settings):
    detector = build(detector_class(name), {"input": SPEC} | settings)
    return detector.fit([sample_images(detector.input, 8, seed=k) for k in (1, 2)]).eval()


def inside():
    mask = np.zeros((64, 96), bool)
    mask[21:42, 32:64] = True
    return mask


@pytest.fixture(scope="module")
def image():
    return with_square(sample_images(SPEC, 1, seed=9)[0], SPEC)


@pytest.fixture(scope="module")
def normals():
    images = sample_images(SPEC, 8, seed=1)
    return Normals(tuple(f"{k}.png" for k in range(8)), tuple(images))


@pytest.fixture(scope="module")
def subspace():
    return fitted("subspace")


def test_bundled_backbone(subspace, image, normals):
    subject = Subject.of(subspace, image, make_twin(subspace, image, normals))
    layer = choose_layer(subject)
    assert layer.name.endswith("stages.2")
    assert layer.grid == (8, 12)
    for method in (GradCam(), IntegratedGradients(), AnomalyMap()):
        found = method.explain(subject).map
        positive = np.maximum(found, 0)
        assert positive[inside()].sum() > 2 * positive.sum() * inside().mean()


def test_guided_grad_cam_of_the_bundled_backbone(subspace, image, normals, hooks):
    subject = Subject.of(subspace, image, make_twin(subspace, image, normals))
    found = GuidedGradCam().explain(subject).map
    assert found[inside()].sum() > 2 * found.sum() * inside().mean()
    assert hooks(subspace) == 0


@pytest.mark.parametrize(("name", "obstacle"), [("feature_autoencoder", "leaky_relu"), ("student", "no module")])
def test_guided_grad_cam_says_what_it_would_not_guide(name, obstacle, image, normals):
    scorer = fitted(name, steps=2)
    subject = Subject.of(scorer, image, make_twin(scorer, image, normals))
    with pytest.raises(SettingError, match=obstacle):
        GuidedGradCam().explain(subject)


def test_raw_frames_of_another_size_than_the_canvas(subspace, normals):
    tall = InputSpec(channels=1, size=(80, 64))
    image = sample_images(tall, 1, seed=4)[0]
    subject = Subject.of(subspace, image, make_twin(subspace, image, normals))
    for method in (GradCam(), IntegratedGradients(steps=2), Occlusion(window=0.4, overlap=1)):
        assert method.explain(subject).map.shape == (80, 64)


def test_convolutional_timm_backbone_with_relu(image, normals, hooks, shared):
    weights = str(shared / "weights/resnet18_layers1to3_bnfolded.safetensors")
    scorer = fitted("memory_bank", bank_size=64, backbone={"name": "resnet18", "weights": weights})
    subject = Subject.of(scorer, image, make_twin(scorer, image, normals))
    assert choose_layer(subject).name.endswith("layer2")
    found = GuidedGradCam().explain(subject).map
    assert found[inside()].sum() > 2 * found.sum() * inside().mean()
    assert hooks(scorer) == 0
    forgotten = randomised(scorer)
    assert torch.equal(forgotten.transposed, forgotten.bank.float().T)
    assert not torch.equal(forgotten.bank, scorer.bank)


def test_tokens_of_a_vit(normals, shared):
    weights = str(shared / "weights/vit_tiny_patch16_224_tinyimagenet200.safetensors")
    backbone = {"name": "vit_tiny_patch16_224", "weights": weights}
    scorer = fitted("subspace", backbone=backbone)
    image = with_square(sample_images(SPEC, 1, seed=9)[0], SPEC)
    subject = Subject.of(scorer, image, make_twin(scorer, image, normals))
    found = GradCam().explain(subject)
    assert found.settings["grid"] == [4, 6]
    assert "blocks" in found.settings["layer"]
    module = scorer.get_submodule(found.settings["layer"])
    seen = []
    handle = module.register_forward_hook(lambda *call: seen.append(call[2]))
    leaf = subject.image[None].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(subject.score(leaf).sum(), seen[0])
    handle.remove()
    tokens = seen[0].shape[1] - 24
    cam = (seen[0][0, tokens:] @ gradient[0, tokens:].mean(0)).view(4, 6).clamp(min=0).detach()
    wanted = torch.nn.functional.interpolate(cam[None, None], size=(64, 96), mode="bilinear")[0, 0]
    np.testing.assert_allclose(found.map, wanted.numpy(), rtol=1e-3, atol=1e-6)


def test_autoencoder_has_its_residual_and_its_reconstruction(image):
    scorer = fitted("autoencoder", resolution=64, widths=[4, 8], code=16, steps=20, batch=4, measure="ssim")
    twin = make_twin(scorer, image, None)
    assert twin.kind == "reconstruction"
    subject = Subject.of(scorer, image, twin)
    found = Residual().explain(subject).map
    np.testing.assert_allclose(found, (image.float() - twin.image).abs().mean(0).numpy(), rtol=1e-5)
    assert GradCam().explain(subject).map.shape == (64, 96)


def test_residual_needs_a_reconstruction(subspace, image, normals):
    with pytest.raises(SettingError, match="reconstructs"):
        Residual().explain(Subject.of(subspace, image, make_twin(subspace, image, normals)))
    with pytest.raises(SettingError, match="reconstructs"):
        reconstruction(subspace, image)


def test_volumes_slice_by_slice():
    from anomaly.detectors.volume_autoencoder import VolumeAutoencoderDetector
    from anomaly.volume_spec import VolumeSpec

    spec = VolumeSpec(dtype="float32", value_range=(0.0, 1.0), unit="1")
    detector = VolumeAutoencoderDetector(input=spec, patch=(8, 16, 16), widths=(4, 8), steps=5, batch=2, measure="l1")
    generator = torch.Generator().manual_seed(0)
    volumes = 0.4 + 0.1 * torch.rand(3, 1, 10, 20, 24, generator=generator)
    scorer = detector.fit([volumes]).eval()
    volume = volumes[0].clone()
    volume[:, 5, 8:12, 10:14] = 1.0
    subject = Subject.of_slice(scorer, volume, 5, blurred(volumes[0, :, 5]))
    found = Occlusion(window=0.2, overlap=1).explain(subject)
    assert found.map.shape == (20, 24)
    assert np.unravel_index(found.map.argmax(), found.map.shape)[0] in range(8, 12)
    assert IntegratedGradients(steps=4).explain(subject).map.shape == (20, 24)
    with pytest.raises(SettingError, match="volumes"):
        GradCam().explain(subject)
    with pytest.raises(InputError, match="0 to 9"):
        Subject.of_slice(scorer, volume, 10, blurred(volumes[0, :, 5]))


def test_twin_of_a_defective_image_is_normal_where_the_defect_is(subspace, image, normals):
    twin = nearest_patches(image, normals, RANGE)
    assert set(twin.sources) <= set(normals.names)
    before, after = (float(subspace(x[None].float()).score) for x in (image, twin.image))
    assert after < 0.5 * before
    good = sample_images(SPEC, 1, seed=1)[0]
    same = nearest_patches(good, Normals(("itself",), (good,)), RANGE)
    np.testing.assert_allclose(same.image, good.float(), atol=0.5)


def test_the_whole_normal_image_that_fits_best(normals):
    brighter = (normals.images[3].float() + 12).clamp(0, 255)
    found = nearest_image(brighter, normals, RANGE)
    assert (found.kind, found.sources) == ("nearest normal image", ("3.png",))
    np.testing.assert_allclose(found.image, brighter, atol=1.0)


def test_a_whole_normal_image_stands_in_where_the_mosaic_is_strange(subspace, image, normals, monkeypatch):
    assert make_twin(subspace, image, normals).kind == "nearest normal patches"
    noise = 255 * torch.rand(image.shape, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr("explain.twin.nearest_patches", lambda *_: Twin(noise, "nearest normal patches", ("0.png",)))
    found = make_twin(subspace, image, normals)
    assert found.kind == "nearest normal image"
    assert float(subspace(found.image[None]).score) < float(subspace(image[None]).score)
    # the score may be another one than that of the scorer, as for slices of a volume
    for scores, kind in (((4.0, 2.1, 0.0), "nearest normal image"), ((4.0, 1.9, 0.0), "nearest normal patches")):
        assert make_twin(subspace, image, normals, lambda _, told=scores: torch.tensor(told)).kind == kind


def test_blur_is_no_normal_content(subspace, image):
    twin = make_twin(subspace, image, None)
    assert (twin.kind, twin.normal) == ("blur", False)
    assert float(twin.image.std()) < float(image.float().std())


def test_a_twin_must_fit_its_image(subspace, image):
    with pytest.raises(InputError, match="shape"):
        Subject.of(subspace, image, blurred(image[:, :32]))
    with pytest.raises(InputError, match="normal image"):
        Normals((), ())


def test_nearest_normal_patch_of_an_image_that_is_known(subspace, normals):
    image = normals.images[3]
    subject = Subject.of(subspace, image, nearest_patches(image, normals, RANGE))
    found = PatchSearch.of(subspace, normals).nearest(subject)
    assert (found.name, found.index) == ("3.png", 3)
    assert found.distance == pytest.approx(0, abs=0.05)
    assert found.box[0] - found.normal_box[0] in range(-8, 9)
    assert PatchSearch.of(subspace, None) is None


def test_nearest_normal_patch_of_a_defect_is_far(subspace, image, normals):
    subject = Subject.of(subspace, image, nearest_patches(image, normals, RANGE))
    found = PatchSearch.of(subspace, normals).nearest(subject)
    assert found.distance > 1.5 * found.typical
