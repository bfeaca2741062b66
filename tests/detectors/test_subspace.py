import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from scipy.spatial.distance import mahalanobis

from anomaly.backbones import BackboneSpec, load_backbone
from anomaly.detectors import memory_bank
from anomaly.detectors.embedding import embed
from anomaly.detectors.levels import SAMPLED, Batch, Sample, image_keys, level_map
from anomaly.detectors.memory_bank import MemoryBankDetector, MemoryBankScorer
from anomaly.detectors.subspace import SubspaceDetector, SubspaceScorer, Summary
from anomaly.errors import InputError, SettingError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

FEW = settings(max_examples=15, deadline=None)
SPEC = InputSpec(size=(64, 64))
WIDE = InputSpec(size=(64, 96))


@pytest.fixture(scope="module")
def bundled():
    return load_backbone(BackboneSpec())


def batch(count, seed, dims=6, grid=(3, 4)):
    """A batch as the stream of a detector gives it, with features of unequal variance and some padding."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, *grid, dims, generator=generator) * torch.arange(1.0, dims + 1) + 5.0
    inside = torch.ones(count, *grid, dtype=torch.bool)
    inside[::3, -1] = False
    keys = torch.randint(-(2**62), 2**62, (count,), generator=generator)
    return Batch(keys, features, inside)


def merged(parts):
    total = parts[0]
    for part in parts[1:]:
        total = total.merge(part)
    return total


def same_summary(a, b):
    for name in ("count", "center", "scatter"):
        scale = float(getattr(b, name).abs().max())
        assert torch.allclose(getattr(a, name), getattr(b, name), rtol=1e-9, atol=1e-9 * scale), name
    assert a.sample.keys == b.sample.keys
    for name in ("features", "inside"):
        assert torch.equal(torch.stack(getattr(a.sample, name)), torch.stack(getattr(b.sample, name))), name


@FEW
@given(st.permutations(range(12)), st.integers(1, 10), st.integers(1, 10), st.permutations(range(3)))
def test_three_parts_in_any_order_merge_to_one_fit(images, first, second, order):
    batches = [Summary.of(batch(9, seed)) for seed in range(12)]  # 108 images: more than a sample holds
    cuts = sorted({min(first, 11), min(first + second, 11)})
    parts = [
        merged([batches[i] for i in part])
        for part in (images[: cuts[0]], images[cuts[0] : cuts[-1]], images[cuts[-1] :])
        if part
    ]
    one_fit = merged(batches)
    together = merged([parts[i] for i in order if i < len(parts)])
    same_summary(together, one_fit)
    assert len(one_fit.sample.keys) == SAMPLED


def test_summary_is_mean_and_scatter_of_the_patches_inside():
    batches = [batch(4, seed) for seed in range(3)]
    summary = merged([Summary.of(b) for b in batches])
    x = torch.cat([b.features[b.inside] for b in batches]).double().numpy()
    assert float(summary.count) == len(x) == sum(int(b.inside.sum()) for b in batches)
    assert np.allclose(summary.center.numpy(), x.mean(axis=0), rtol=1e-6)
    assert np.allclose(summary.scatter.numpy(), np.cov(x.T, bias=True) * len(x), rtol=1e-5)


def test_scorers_of_merged_and_whole_fits_score_alike(bundled):
    detector = SubspaceDetector(input=SPEC)
    images = sample_images(SPEC, 12, seed=0)
    parts = [
        detector.summarise([images[i : i + 2] for i in range(start, start + 4, 2)], bundled) for start in (8, 0, 4)
    ]
    whole = detector.summarise([images[i : i + 2] for i in range(0, 12, 2)], bundled)
    same_summary(merged(parts), whole)
    test = sample_images(SPEC, 3, seed=1)
    with torch.inference_mode():
        a = detector.from_summary(merged(parts), bundled)(test)
        b = detector.from_summary(whole, bundled)(test)
        c = detector.fit([images])(test)  # one batch of everything
    assert torch.allclose(a.score, b.score, rtol=1e-5)
    assert torch.allclose(a.map, b.map, rtol=1e-4)
    assert torch.allclose(c.score, b.score, rtol=1e-4)


@pytest.mark.parametrize("kind", ["subspace", "memory_bank"])
def test_sizes_of_the_batches_of_a_fit_change_no_score(kind):
    detector = {"subspace": SubspaceDetector, "memory_bank": MemoryBankDetector}[kind](input=SPEC)
    images = sample_images(SPEC, SAMPLED + 16, seed=0)
    images[: SAMPLED // 2, :, :32] //= 2  # positions differ, so it matters which images the levels are taken from
    with torch.inference_mode():
        one, many = detector.fit([images]), detector.fit(list(images.split(16)))
        test = sample_images(SPEC, 3, seed=1)
        assert torch.allclose(one.level, many.level, rtol=0.05)  # rounding to float16 can flip a choice
        assert torch.allclose(one(test).score, many(test).score, rtol=1e-3)


def test_summary_survives_a_safetensors_file(tmp_path):
    summary = Summary.of(batch(5, 0)).merge(Summary.of(batch(5, 1)))
    save_file(summary.to_tensors(), tmp_path / "part.safetensors")
    same_summary(Summary.from_tensors(load_file(tmp_path / "part.safetensors")), summary)


@pytest.mark.parametrize("change", ["missing", "unknown"])
def test_summary_of_other_tensors_is_refused(change):
    tensors = Summary.of(batch(5, 0)).to_tensors()
    if change == "missing":
        del tensors["sample.keys"]
    else:
        tensors["more"] = torch.zeros(1)
    with pytest.raises(InputError, match=r"a summary holds count, center, scatter and .*sample\.keys"):
        Summary.from_tensors(tensors)


def explicit(bundled, **settings):
    """A scorer, the features that it was fitted on and those of test images, (n, D) float64."""
    detector = SubspaceDetector(input=WIDE, relative=False, **settings)
    train, test = WIDE.canvas(sample_images(WIDE, 8, seed=0)), WIDE.canvas(sample_images(WIDE, 2, seed=1))
    scorer = detector.from_summary(detector.summarise([sample_images(WIDE, 8, seed=0)], bundled), bundled)
    known, queries = (embed(bundled, canvas).flatten(0, 2).double().numpy() for canvas in (train, test))
    maps = [embed(bundled, test).permute(0, 3, 1, 2)]
    return known, queries, scorer.patch_scores(maps).flatten().double().numpy()


@pytest.mark.parametrize("variance", [0.5, 0.9, 0.99])
def test_residual_is_what_numpys_principal_components_leave(bundled, variance):
    known, queries, scores = explicit(bundled, variance=variance)
    center = known.mean(axis=0)
    _, singular, directions = np.linalg.svd(known - center, full_matrices=True)
    shares = np.cumsum(singular**2) / (singular**2).sum()
    inside = directions[: int((shares < variance).sum()) + 1]  # the fewest that hold the wanted variance
    centred = queries - center
    residual = np.linalg.norm(centred - centred @ inside.T @ inside, axis=1)
    assert np.allclose(scores, residual, rtol=1e-3, atol=1e-4 * residual.max())


@pytest.mark.parametrize("shrinkage", [0.01, 0.3])
def test_mahalanobis_is_that_of_scipy_with_the_shrunk_covariance(bundled, shrinkage):
    known, queries, scores = explicit(bundled, score="mahalanobis", shrinkage=shrinkage)
    covariance = np.cov(known.T, bias=True)
    covariance += shrinkage * np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    inverse = np.linalg.inv(covariance)
    wanted = [mahalanobis(query, known.mean(axis=0), inverse) for query in queries]
    assert np.allclose(scores, wanted, rtol=1e-3)


def test_levels_are_the_scorers_own_patch_scores_on_the_sample(bundled):
    detector = SubspaceDetector(input=SPEC)
    summary = detector.summarise([sample_images(SPEC, 6, seed=0)], bundled)
    scorer = detector.from_summary(summary, bundled)
    plain = SubspaceDetector(input=SPEC, relative=False).from_summary(summary, bundled)
    assert plain.level.flatten().tolist() == [0.0, 1.0]
    patches = plain.patch_scores([torch.stack(summary.sample.features).float().permute(0, 3, 1, 2)])
    assert torch.allclose(scorer.level, level_map(patches, torch.stack(summary.sample.inside)), rtol=1e-3)
    assert isinstance(scorer, SubspaceScorer)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": "cosine"}, "score of subspace must be 'residual' or 'mahalanobis'; got 'cosine'"),
        ({"variance": 1.0}, "variance of subspace must be above 0 and below 1; got 1.0"),
        ({"shrinkage": 0.0}, "shrinkage of subspace must be above 0 and at most 1; got 0.0"),
        ({"top_fraction": 0.0}, "top_fraction of subspace must be above 0 and at most 1; got 0.0"),
        ({"smoothing": -1.0}, "smoothing of subspace must be 0 to 100 canvas pixels; got -1.0"),
    ],
)
def test_settings_that_are_not_allowed_are_refused(change, message):
    import jaxtyping

    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        with pytest.raises(SettingError) as caught:
            SubspaceDetector(**change)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)
    assert str(caught.value) == message


def sample(keys):
    """A sample whose features say which image they are of."""
    ordered = sorted(keys)
    inside = [torch.ones(1, 2, dtype=torch.bool)] * len(ordered)
    return Sample(ordered, [torch.full((1, 2, 1), float(key)) for key in ordered], inside)


KEYS = st.lists(st.integers(0, 2000), min_size=1, max_size=90)


@FEW
@given(KEYS, KEYS, KEYS)
def test_merging_samples_is_associative_commutative_and_bounded(a, b, c):
    x, y, z = (sample(keys[:SAMPLED]) for keys in (a, b, c))
    expected = sorted([*a[:SAMPLED], *b[:SAMPLED], *c[:SAMPLED]])[:SAMPLED]
    for merged_sample in (x.merge(y).merge(z), x.merge(y.merge(z)), z.merge(y).merge(x), y.merge(x.merge(z))):
        assert merged_sample.keys == expected
        assert [float(f[0, 1, 0]) for f in merged_sample.features] == expected
        assert len(merged_sample.inside) == len(expected)


def test_what_is_kept_of_a_large_batch_is_bounded_and_in_order():
    large = batch(SAMPLED + 30, seed=0)
    kept = large.kept()
    order = large.keys.argsort()[:SAMPLED]
    assert kept.keys == large.keys[order].tolist()
    assert torch.equal(torch.stack(kept.features), large.features[order].half())
    assert torch.equal(torch.stack(kept.inside), large.inside[order])
    assert len(Summary.of(large).sample.keys) == SAMPLED


def test_equal_images_have_equal_keys_and_others_do_not():
    images = torch.rand(6, 3, 8, 8)
    images[4] = images[1]
    images[5] = images[2]
    images[5, 0, 0, 0] += 1e-6
    keys = image_keys(images).tolist()
    assert keys[4] == keys[1]
    assert len(set(keys)) == 5
    assert image_keys(images[1:2]).tolist() == keys[1:2]


def test_level_map_by_hand():
    scores = torch.tensor([[[1.0, 8.0]], [[3.0, 100.0]]])
    inside = torch.tensor([[[True, True]], [[True, False]]])
    overall = (1.0 + 8.0 + 3.0) / 3  # 100 lies on padding
    left, right = (1.0 + 3.0 + 3 * overall) / 5, (8.0 + 3 * overall) / 4
    squared = (1.0 - left) ** 2 + (3.0 - left) ** 2, (8.0 - right) ** 2
    general = sum(squared) / 3
    mean, deviation = level_map(scores, inside)
    assert torch.allclose(mean, torch.tensor([[left, right]]))
    expected = [((squared[0] + 10 * general) / 12) ** 0.5, ((squared[1] + 10 * general) / 11) ** 0.5]
    assert torch.allclose(deviation, torch.tensor([expected]))


def test_level_of_normals_that_all_score_zero_changes_nothing():
    mean, deviation = level_map(torch.zeros(2, 3, 4), torch.ones(2, 3, 4, dtype=torch.bool))
    assert torch.equal(mean, torch.zeros(3, 4))
    assert torch.equal(deviation, torch.ones(3, 4))


def test_memory_of_a_summary_does_not_grow_with_the_images():
    few = merged([Summary.of(batch(8, seed)) for seed in range(5)])
    many = merged([Summary.of(batch(8, seed)) for seed in range(50)])
    sizes = [{name: tuple(value.shape) for name, value in s.to_tensors().items()} for s in (few, many)]
    for name in ("count", "center", "scatter"):
        assert sizes[0][name] == sizes[1][name]
    assert sizes[0]["sample.keys"] == (40,)
    assert sizes[1]["sample.keys"] == (SAMPLED,)
    assert sizes[1]["sample.features"] == (SAMPLED, 3, 4, 6)
    assert many.sample.features[0].dtype == torch.float16


def test_a_training_image_is_not_its_own_neighbour(bundled):
    detector = MemoryBankDetector(input=SPEC, bank_size=10_000, components=16)  # every patch is kept
    images = sample_images(SPEC, 4, seed=0)
    canvas = SPEC.canvas(images)
    features, keys = embed(bundled, canvas), image_keys(canvas.pixels)
    owners = keys[:, None, None].expand(features.shape[:3]).flatten()
    center = features.flatten(0, 2).mean(dim=0)
    basis = torch.linalg.qr(torch.randn(features.shape[-1], 16, generator=torch.Generator().manual_seed(0))).Q
    points = (features.flatten(0, 2) - center) @ basis
    scorer = MemoryBankScorer(detector, bundled, None, center, basis, points)
    inside = torch.ones(features.shape[:3], dtype=torch.bool)
    found = scorer.leave_one_out(Sample(keys.tolist(), list(features), list(inside)), owners)
    every = torch.cdist(points, points.half().float())
    every[owners[:, None] == owners[None, :]] = torch.inf
    assert torch.allclose(found.flatten(), every.amin(dim=1), rtol=1e-3, atol=1e-3)
    own = scorer.patch_scores([features.permute(0, 3, 1, 2)])
    assert float(own.mean()) < 0.1 * float(found.mean())


def test_a_single_image_has_no_others_and_the_level_changes_nothing(bundled):
    images = sample_images(SPEC, 1, seed=0)
    with torch.inference_mode():
        scorer = MemoryBankDetector(input=SPEC, few_images=0).fit([images])
    assert torch.equal(scorer.level, torch.stack([torch.zeros(8, 8), torch.ones(8, 8)]))


def training_patches(images, bundled):
    return embed(bundled, SPEC.canvas(images)).flatten(0, 2)


def radius(scorer, patches):
    points = (patches - scorer.center) @ scorer.basis
    return float(torch.cdist(points, scorer.bank.float()).amin(dim=1).max())


def test_chunks_give_a_bank_of_the_same_size_that_covers_as_well(bundled, monkeypatch):
    detector = MemoryBankDetector(input=SPEC, bank_size=100, components=32)
    images = sample_images(SPEC, 30, seed=0)
    patches = training_patches(images, bundled)
    one = detector.fit(images.split(5))
    reductions = []
    monkeypatch.setattr(memory_bank, "_CHUNK", 400)
    counted = memory_bank.k_center
    monkeypatch.setattr(memory_bank, "k_center", lambda *given: reductions.append(len(given[0])) or counted(*given))
    chunked = detector.fit(images.split(1))
    assert len(reductions) > 3
    assert max(reductions) < len(patches) / 2, "a chunk must be far less than everything"
    assert chunked.bank.shape == one.bank.shape == (100, 32)
    assert radius(chunked, patches) <= 1.5 * radius(one, patches)


def test_k_means_prototypes_of_chunks_keep_the_size_of_the_bank(monkeypatch):
    monkeypatch.setattr(memory_bank, "_CHUNK", 400)
    detector = MemoryBankDetector(input=SPEC, bank_size=50, components=8, reduction="k_means")
    scorer = detector.fit(sample_images(SPEC, 20, seed=0).split(5))
    assert scorer.bank.shape == (50, 8)
    assert bool(torch.isfinite(scorer.bank).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bank_size": 0}, "bank_size of memory_bank must be 1 to 1,000,000; got 0"),
        ({"components": 5000}, "components of memory_bank must be 1 to 4,096; got 5000"),
    ],
)
def test_settings_of_the_bank_that_are_not_allowed_are_refused(change, message):
    with pytest.raises(SettingError) as caught:
        MemoryBankDetector(**change)
    assert str(caught.value) == message
