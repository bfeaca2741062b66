import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter1d
from torch.nn import functional as F

from anomaly.backbones import BackboneSpec, load_backbone
from anomaly.detectors import embedding
from anomaly.detectors.coreset import k_center, k_means
from anomaly.detectors.memory_bank import MemoryBankDetector, MemoryBankScorer
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

FEW = settings(max_examples=15, deadline=None)
SPEC = InputSpec(size=(64, 96))


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def cloud(kind, n, d, seed=0):
    x = torch.randn(n, d, generator=seeded(seed))
    if kind == "clusters":  # ten tight ones and a few points far away
        centres = 10 * torch.randn(10, d, generator=seeded(seed + 1))
        x = centres[torch.arange(n) % 10] + 0.3 * x
        x[:5] *= 4
    elif kind == "line":
        x = torch.linspace(0, 1, n)[:, None] * torch.ones(d) + 1e-3 * x
    elif kind == "heavy tails":
        x = x / torch.rand(n, 1, generator=seeded(seed + 1))
    return x


def literal_greedy(x, count, first):
    """Farthest-point selection, one point at a time, in float64."""
    x = x.double()
    distance = (x - x[first]).norm(dim=1)
    chosen = [first]
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = torch.minimum(distance, (x - x[chosen[-1]]).norm(dim=1))
    return torch.tensor(chosen)


def cover_radius(x, chosen):
    return float(torch.cdist(x.double(), x[chosen].double(), compute_mode="donot_use_mm_for_euclid_dist").amin(1).max())


@pytest.mark.parametrize("kind", ["gauss", "clusters", "line", "heavy tails"])
@pytest.mark.parametrize(("n", "d", "count"), [(3000, 6, 200), (4000, 24, 100), (900, 3, 300), (2500, 64, 330)])
def test_cover_radius_is_that_of_the_literal_greedy_selection(kind, n, d, count):
    x = cloud(kind, n, d)
    chosen = k_center(x, count, seeded(5))
    first = int(torch.randint(n, (1,), generator=seeded(5)))
    radius, reference = cover_radius(x, chosen), cover_radius(x, literal_greedy(x, count, first))
    assert radius <= 1.15 * reference
    chance = min(cover_radius(x, torch.randperm(n, generator=seeded(seed))[:count]) for seed in range(3))
    assert radius < chance


def test_many_dimensions_are_projected_and_still_covered():
    # Points of a 12-dimensional subspace of 300 dimensions, as features are: a random projection keeps distances.
    x = cloud("heavy tails", 2000, 12) @ torch.randn(12, 300, generator=seeded(9))
    chosen = k_center(x, 150, seeded(0))
    chance = min(cover_radius(x, torch.randperm(2000, generator=seeded(seed))[:150]) for seed in range(3))
    assert cover_radius(x, chosen) < 0.5 * chance


@FEW
@given(st.integers(1, 300), st.integers(1, 100), st.integers(1, 150), st.integers(1, 300), st.integers(0, 2**31))
def test_chosen_points_are_all_different_sorted_and_repeatable(n, d, count, distinct, seed):
    x = torch.randn(distinct, d, generator=seeded(seed))[torch.arange(n) % distinct]
    chosen = k_center(x, count, seeded(seed))
    assert len(chosen) == min(n, count)
    assert len(set(chosen.tolist())) == len(chosen)
    assert chosen.tolist() == sorted(chosen.tolist())
    assert 0 <= int(chosen[0]) <= int(chosen[-1]) < n
    assert torch.equal(chosen, k_center(x, count, seeded(seed)))


def test_equal_points_are_chosen_once_each():
    x = torch.full((200, 5), 0.1)
    for seed in range(20):
        chosen = k_center(x, 70, seeded(seed))
        assert len(set(chosen.tolist())) == 70


def test_every_distinct_point_is_chosen_before_any_twin():
    x = cloud("gauss", 40, 8).repeat(50, 1)[torch.randperm(2000, generator=seeded(3))]
    assert cover_radius(x, k_center(x, 40, seeded(0))) == 0.0


def test_fewer_points_than_wanted_are_all_kept():
    assert k_center(torch.randn(7, 3), 7, seeded(0)).tolist() == list(range(7))
    assert k_center(torch.randn(7, 3), 100, seeded(0)).tolist() == list(range(7))


def test_other_seeds_begin_elsewhere():
    x = cloud("gauss", 500, 4)
    assert not torch.equal(k_center(x, 50, seeded(0)), k_center(x, 50, seeded(1)))


def quantisation_error(points, centres):
    return float(torch.cdist(points.double(), centres.double()).amin(dim=1).square().mean())


@FEW
@given(st.sampled_from(["gauss", "clusters", "heavy tails"]), st.integers(1, 40), st.integers(0, 2**31))
def test_k_means_lowers_the_quantisation_error_and_keeps_the_prototypes(kind, count, seed):
    points = cloud(kind, 400, 6, seed % 1000)
    start = points[torch.randperm(400, generator=seeded(seed))[:count]]
    centres, seen = k_means(points, start, torch.zeros(count))
    assert centres.shape == start.shape
    assert bool(torch.isfinite(centres).all())
    assert float(seen.sum()) == 400.0
    assert quantisation_error(points, centres) < quantisation_error(points, start)


def test_k_means_finds_the_centres_of_separate_clusters():
    truth = 20.0 * torch.eye(5)
    points = truth[torch.arange(500) % 5] + 0.1 * torch.randn(500, 5, generator=seeded(0))
    centres, seen = k_means(points, points[:5].clone(), torch.zeros(5))
    expected = torch.stack([points[k::5].mean(dim=0) for k in range(5)])
    assert torch.allclose(centres, expected, atol=1e-4)
    assert seen.tolist() == [100.0] * 5


def test_k_means_weighs_the_past_of_a_prototype_by_what_it_has_seen():
    centres, seen = k_means(torch.tensor([[4.0], [4.0]]), torch.tensor([[1.0]]), torch.tensor([6.0]), rounds=1)
    assert centres.tolist() == [[(6 * 1.0 + 2 * 4.0) / 8]]
    assert seen.tolist() == [8.0]


def test_a_prototype_that_no_point_is_nearest_to_stays():
    centres, seen = k_means(torch.tensor([[0.0], [2.0]]), torch.tensor([[0.5], [100.0]]), torch.zeros(2))
    assert centres.tolist() == [[1.0], [100.0]]
    assert seen.tolist() == [2.0, 0.0]


@pytest.fixture(scope="module")
def bundled():
    return load_backbone(BackboneSpec())


@pytest.mark.parametrize("channels", [1, 3, 5])
def test_project_equals_the_product_with_the_embedded_features(bundled, channels):
    spec = InputSpec(channels=channels, size=(64, 88))
    canvas = spec.canvas(sample_images(spec, 2, seed=1))
    features = embedding.embed(bundled, canvas)
    assert features.shape[:3] == (2, 8, 11)
    matrix = torch.randn(features.shape[-1], 7, generator=seeded(0)) / features.shape[-1] ** 0.5
    offset = torch.randn(7, generator=seeded(1))
    projected = embedding.project(embedding.feature_maps(bundled, canvas), matrix, offset)
    assert torch.allclose(projected, features @ matrix + offset, rtol=0, atol=1e-4)


def test_feature_maps_are_averaged_over_what_exists_of_3_x_3_neighbours(bundled):
    canvas = SPEC.canvas(sample_images(SPEC, 1, seed=0))
    raw, pooled = bundled(canvas.pixels)[0], embedding.feature_maps(bundled, canvas)[0]
    assert torch.allclose(pooled[0, :, 3, 4], raw[0, :, 2:5, 3:6].mean(dim=(1, 2)), atol=1e-5)
    assert torch.allclose(pooled[0, :, 0, 0], raw[0, :, :2, :2].mean(dim=(1, 2)), atol=1e-5)


def literal_top_mean(patches, fraction, inside):
    means = []
    for image, mask in zip(patches.tolist(), inside.tolist(), strict=True):
        rows = zip(image, mask, strict=True)
        values = sorted((v for row, keep in rows for v, k in zip(row, keep, strict=True) if k), reverse=True)
        highest = values[: max(1, round(fraction * len(values)))]
        means.append(sum(highest) / len(highest))
    return torch.tensor(means)


@FEW
@given(st.integers(1, 12), st.integers(1, 12), st.floats(0.001, 1.0), st.integers(0, 2**31))
def test_top_mean_equals_a_literal_loop(height, width, fraction, seed):
    patches = torch.randn(4, height, width, generator=seeded(seed))
    everything = torch.ones_like(patches, dtype=torch.bool)
    assert torch.allclose(
        embedding.top_mean(patches, fraction, None), literal_top_mean(patches, fraction, everything), atol=1e-5
    )
    inside = torch.rand(patches.shape, generator=seeded(seed + 1)) < torch.tensor([0.0, 0.3, 0.9, 1.0])[:, None, None]
    inside[:, 0, 0] = True
    assert torch.allclose(
        embedding.top_mean(patches, fraction, inside), literal_top_mean(patches, fraction, inside), atol=1e-5
    )


@pytest.mark.parametrize("hundredths", [5, 14.5, 28.5, 34.5, 57.5, 66.5])
def test_top_mean_counts_alike_beside_padded_images(hundredths):
    patches = torch.arange(100.0).reshape(1, 10, 10)
    inside = torch.ones(1, 10, 10, dtype=torch.bool)
    fraction = hundredths / 100  # at .575 the product with 100 is a hair below 57.5 in double, exactly 57.5 in single
    assert torch.equal(embedding.top_mean(patches, fraction, None), embedding.top_mean(patches, fraction, inside))


def reference_upsampling(x, target, smoothing):
    up = F.interpolate(torch.from_numpy(x)[None, None], size=target, mode="linear", align_corners=False)[0, 0].numpy()
    return gaussian_filter1d(up, smoothing, mode="reflect", truncate=4.0) if smoothing else up


@pytest.mark.parametrize("smoothing", [0.0, 1.0, 2.5, 4.0, 30.0])
@pytest.mark.parametrize(("source", "target"), [(8, 64), (12, 96), (7, 50), (1, 32), (64, 64)])
def test_upsampling_matrix_is_bilinear_resizing_and_a_gaussian_with_reflected_ends(source, target, smoothing):
    matrix = embedding.upsampling_matrix(source, target, smoothing)
    assert matrix.shape == (target, source)
    assert torch.allclose(matrix.sum(dim=1), torch.ones(target), rtol=0, atol=1e-5)
    x = np.random.default_rng(0).standard_normal(source)
    wanted = reference_upsampling(x, target, smoothing)
    assert np.allclose(matrix.double().numpy() @ x, wanted, rtol=0, atol=1e-5)


def test_bank_distances_are_those_of_cdist(bundled):
    bank, basis = torch.randn(150, 16, generator=seeded(0)), torch.randn(288, 16, generator=seeded(1)) / 17
    center = torch.randn(288, generator=seeded(2))
    scorer = MemoryBankScorer(MemoryBankDetector(input=SPEC), bundled, None, center, basis, bank)
    canvas = SPEC.canvas(sample_images(SPEC, 9, seed=3))  # 864 queries: more than one block
    maps = embedding.feature_maps(bundled, canvas)
    queries = (embedding.embed(bundled, canvas) - center) @ basis
    stored = bank.half().double()
    wanted = torch.cdist(queries.flatten(0, 2).double(), stored).amin(dim=1).view(9, 8, 12)
    assert math.prod(wanted.shape) > 512
    assert torch.allclose(scorer.patch_scores(maps).double(), wanted, rtol=1e-4, atol=1e-4)
