from dataclasses import FrozenInstanceError, asdict, replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from anomaly import catalog
from anomaly.artifact import Artifact, MapCalibration, Training, load, save
from anomaly.calibration import calibrate
from anomaly.detectors.edge_levels import edge_levels, relative_to_edges
from anomaly.detectors.volume_autoencoder import VolumeAutoencoderDetector
from anomaly.detectors.volume_store import VolumeStore
from anomaly.errors import ArtifactError, InputError, SettingError
from anomaly.metrics import auroc
from anomaly.volume_spec import VolumeSpec

MR = VolumeSpec(dtype="uint16", value_range=(0.0, 1000.0), unit="signal")
DETECTOR = VolumeAutoencoderDetector(
    input=MR, patch=(8, 16, 16), widths=(8, 16), noise=0.4, noise_cell=4, steps=400, learning_rate=5e-3
)


def brain(seed, size=(16, 32, 32)):
    """A brain without skull: two tissues that fold into each other, and noise; uint16 (1, D, H, W); and its mask."""
    generator = torch.Generator().manual_seed(seed)
    z, y, x = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in size), indexing="ij")
    far = (z / 1.3) ** 2 + (y / (0.85 + 0.1 * torch.rand((), generator=generator))) ** 2 + (x / 0.8) ** 2
    inside = torch.sigmoid(12 * (1 - far))
    folds = F.interpolate(torch.rand(1, 1, 4, 6, 6, generator=generator), size=size, mode="trilinear")[0, 0]
    signal = inside * (350 + 150 * torch.sigmoid(12 * (folds - 0.5))) + 15 * torch.randn(size, generator=generator)
    return signal.clamp(0, 1000).round().to(torch.uint16)[None], far < 0.7


def with_lesion(seed):
    """The brain of a seed with a bright ellipsoid in it, and its mask."""
    volume, inside = brain(seed)
    places = inside.nonzero()
    centre = places[int(torch.randint(len(places), (), generator=torch.Generator().manual_seed(seed)))]
    grid = torch.stack(torch.meshgrid(*(torch.arange(side) for side in inside.shape), indexing="ij"), dim=-1)
    mask = (((grid - centre) / torch.tensor([2.0, 3.5, 3.5])) ** 2).sum(dim=-1) < 1
    changed = volume.float()
    changed[0][mask] += 350
    return changed.clamp(0, 1000).to(torch.uint16), mask


@pytest.fixture(scope="module")
def scorer():
    return DETECTOR.fit([torch.stack([brain(seed)[0] for seed in range(start, start + 4)]) for start in (0, 4, 8)])


def test_planted_lesions_are_found_and_localised(scorer):
    normals = torch.stack([brain(seed)[0] for seed in range(100, 106)])
    planted = [with_lesion(seed) for seed in range(200, 206)]
    with torch.inference_mode():
        healthy, sick = scorer(normals), scorer(torch.stack([volume for volume, _ in planted]))
    scores = np.concatenate([healthy.score.numpy(), sick.score.numpy()])
    assert auroc(scores, np.repeat([0, 1], 6)) >= 0.9
    found = [
        auroc(m[0].flatten().numpy(), mask.flatten().numpy())
        for m, (_, mask) in zip(sick.map[:, None], planted, strict=True)
    ]
    assert min(found) > 0.85


def test_volumes_keep_the_contract(scorer):
    volumes = torch.stack([brain(seed)[0] for seed in (300, 301)])
    with torch.inference_mode():
        together = scorer(volumes)
        alone = scorer(volumes[1:])
        as_float = scorer(volumes.float())
        listed = scorer([volumes[0], volumes[1][:, :10, :24]])
        small = scorer(volumes[1:, :, :10, :24])
    assert together.map.shape == (2, 16, 32, 32)
    assert together.score.shape == (2,)
    assert together.score.dtype == together.map.dtype == torch.float32
    assert torch.allclose(alone.score, together.score[1:], atol=1e-4)
    assert torch.allclose(alone.map, together.map[1:], atol=1e-3)
    assert torch.equal(as_float.map, together.map)
    assert torch.allclose(listed.score[1:], small.score, atol=1e-4)
    assert torch.allclose(listed.map[1, :10, :24], small.map[0], atol=1e-3)
    assert torch.equal(listed.map[1, 10:], small.map.amin().expand(6, 32, 32))
    leaf = volumes[:1].float().requires_grad_()
    scorer(leaf).score.sum().backward()
    assert torch.isfinite(leaf.grad).all()
    assert leaf.grad.abs().sum() > 0


def test_a_volume_thinner_than_a_patch_is_scored(scorer):
    with torch.inference_mode():
        scores = scorer(brain(400)[0][None, :, :3])
    assert scores.map.shape == (1, 3, 32, 32)
    assert torch.isfinite(scores.map).all()


def test_a_volume_scorer_survives_the_model_file(scorer, tmp_path):
    calibration = calibrate(np.linspace(0, 1, 40).tolist())
    training = Training(images=12, held_out=40, fingerprint="0" * 64, created="2026-01-01T00:00:00+00:00")
    artifact = Artifact(scorer, calibration, MapCalibration(0.5, calibration.ng), training)
    save(tmp_path / "brain.safetensors", artifact)
    loaded = load(tmp_path / "brain.safetensors")
    assert loaded.scorer.detector == scorer.detector
    assert loaded.provenance()["input"] == "volumes, 1 x uint16, window 0 to 1000 (signal)"
    with torch.inference_mode():
        volume = brain(500)[0][None]
        assert torch.equal(loaded.scorer(volume).map, scorer(volume).map)


@pytest.mark.parametrize("change", [{"network": "plain", "code": 64, "measure": "ssim"}, {"network": "variational"}])
def test_other_networks_fit_alike_under_one_seed(change):
    detector = replace(DETECTOR, steps=3, **change)
    volumes = [brain(0)[0][None], [brain(1, (12, 20, 24))[0], brain(2, (6, 32, 32))[0]]]
    with torch.inference_mode():
        first, second = (detector.fit(iter(volumes))(volumes[0]) for _ in range(2))
    assert torch.equal(first.score, second.score)
    assert torch.isfinite(first.map).all()


def test_settings_are_frozen_and_survive_json():
    assert catalog.build(catalog.detector_class("volume_autoencoder"), asdict(DETECTOR)) == DETECTOR
    with pytest.raises(FrozenInstanceError):
        DETECTOR.seed = 1
    with pytest.raises(SettingError, match="patch of volume_autoencoder must be three multiples of 8"):
        VolumeAutoencoderDetector(patch=(16, 64, 60))
    with pytest.raises(SettingError, match=r"value_range of VolumeSpec must be \(low, high\) with low < high"):
        VolumeSpec(value_range=(80.0, 0.0))


@pytest.mark.parametrize(
    ("volumes", "message"),
    [
        (torch.zeros(2, 16, 32, 32), r"volumes must be \(N, C, D, H, W\)"),
        (torch.zeros(1, 2, 8, 32, 32), r"volumes must have 1 channel\(s\) in axis 1"),
        ([torch.zeros(2, 8, 32, 32)], r"volumes must have 1 channel\(s\) in axis 0"),
        (torch.zeros(1, 1, 8, 32, 32, dtype=torch.float64), "volumes must be uint16 or float32; got torch.float64"),
        (torch.full((1, 1, 8, 32, 32), torch.nan), "finite values only"),
        ([], "no volume in the batch"),
    ],
)
def test_volumes_that_do_not_fit_are_refused(scorer, volumes, message):
    with pytest.raises(InputError, match=message):
        scorer(volumes)


def test_no_volume_and_a_foreign_state_are_refused(scorer):
    with pytest.raises(InputError, match="no volume to fit on"):
        DETECTOR.fit([])
    with pytest.raises(ArtifactError, match="does not fit volume_autoencoder"):
        DETECTOR.restore({"level": torch.zeros(3, 16)}, {})
    with pytest.raises(ArtifactError, match="must be empty"):
        DETECTOR.restore(dict(scorer.state_dict()), {"backbone": {}})


def test_the_window_clips_and_patches_lie_inside_their_volume():
    volume = torch.arange(6 * 10 * 12, dtype=torch.int16).reshape(1, 6, 10, 12) - 100
    spec = VolumeSpec(value_range=(0.0, 400.0))
    wanted = ((volume.float() / 400).clamp(0, 1),)
    store = VolumeStore(spec, [volume[None]])
    assert torch.equal(store.read(0), wanted[0])
    torch.manual_seed(0)
    patches = store.patches([0] * 20, (4, 4, 4))
    cuts = wanted[0].unfold(1, 4, 1).unfold(2, 4, 1).unfold(3, 4, 1).reshape(-1, 4, 4, 4)
    assert all((cuts == patch[0]).flatten(1).all(dim=1).any() for patch in patches)
    assert len({float(patch.sum()) for patch in patches}) > 5
    large = store.patches([0], (8, 16, 12))
    assert torch.equal(large[0, :, 6], wanted[0][:, 5, list(range(10)) + [9] * 6])


def test_residuals_are_relative_to_edges_as_steep():
    generator = torch.Generator().manual_seed(0)
    steep = torch.rand(50_000, generator=generator)
    noise = torch.randn(50_000, generator=generator)
    levels = edge_levels(steep, 2 + 3 * steep + (0.5 + steep) * noise)
    again = relative_to_edges(2 + 3 * steep + (0.5 + steep) * noise, steep, levels)
    for low in (0.0, 0.25, 0.5, 0.75):
        part = again[(steep >= low) & (steep < low + 0.25)]
        assert abs(float(part.mean())) < 0.05
        assert float(part.std()) == pytest.approx(1, abs=0.1)
    flat = edge_levels(steep, torch.ones_like(steep))
    assert torch.equal(relative_to_edges(torch.full((4,), 5.0), steep[:4], flat), torch.full((4,), 5.0))
