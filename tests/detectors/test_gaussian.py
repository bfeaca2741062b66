from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.artifact import ArtifactError
from anomaly.backbones import load_backbone
from anomaly.detectors.gaussian import GaussianDetector, random_directions
from anomaly.detectors.gaussian_model import Model
from anomaly.detectors.gaussian_summary import PositionSums, Summary
from anomaly.detectors.levels import Batch
from anomaly.errors import InputError, SettingError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

SPEC = InputSpec(size=(64, 64))
SMALL = GaussianDetector(input=SPEC, local_components=8)
D, K, GRID = 6, 2, (2, 3)


def batch_of(seed, images=40, seen=1.0, spread=3.0, dims=D):
    """Features of positions whose means differ by `spread`, in directions that vary unlike."""
    g = torch.Generator().manual_seed(seed)
    means = spread * torch.randn(*GRID, dims, generator=torch.Generator().manual_seed(99))
    mix = torch.randn(dims, dims, generator=torch.Generator().manual_seed(98))
    features = means + torch.randn(images, *GRID, dims, generator=g) @ mix
    inside = torch.rand(images, *GRID, generator=g) < seen
    return Batch(torch.arange(images) + 1000 * seed, features, inside)


def reference_scores(batch, directions, query, prior, shrinkage):
    """The distances by the formulas of the two-covariance model, position by position, in plain coordinates."""
    x, inside = batch.features.double().numpy(), batch.inside.numpy()
    count = inside.sum(0)
    total, positions = count.sum(), (count > 0).sum()
    center = x[inside].mean(0)
    means = {p: x[:, *p][inside[:, *p]].mean(0) for p in np.ndindex(GRID)}
    residuals = {p: x[:, *p][inside[:, *p]] - means[p] for p in np.ndindex(GRID)}
    spread = np.concatenate([x[inside] - center])
    within = sum(r.T @ r for r in residuals.values())
    pseudo = 0.1 * positions
    within = (within + pseudo * (spread.T @ spread) / total) / (total - positions + pseudo)
    within = within + shrinkage * np.trace(within) / len(within) * np.eye(len(within))
    among = sum(count[p] * np.outer(means[p] - center, means[p] - center) for p in means) / total

    z = directions.double().numpy()
    rest = np.linalg.svd(z, full_matrices=True)[0][:, z.shape[1] :]
    r = rest - z @ np.linalg.solve(z.T @ within @ z, z.T @ within @ rest)  # what z does not predict
    scores = np.zeros((len(query), *GRID))
    for p in np.ndindex(GRID):
        for part, is_local in ((z, True), (r, False)):
            if part.shape[1] == 0:
                continue
            w = part.T @ within @ part
            root = np.linalg.cholesky(w)
            white = np.linalg.inv(root)
            values, vectors = np.linalg.eigh(white @ part.T @ among @ part @ white.T)
            between = root @ vectors @ np.diag((values - positions / total).clip(0)) @ vectors.T @ root.T
            gain = between @ np.linalg.inv(between + w / count[p])
            mean = part.T @ center + gain @ part.T @ (means[p] - center)
            covariance = w
            if is_local:
                own = part.T @ residuals[p].T @ residuals[p] @ part
                covariance = (own + prior * w) / (count[p] - 1 + prior)
            d = query[:, *p].double().numpy() @ part - mean
            scores[:, *p] += np.einsum("ni,ij,nj->n", d, np.linalg.inv(covariance + between - gain @ between), d)
    return np.sqrt(scores)


def scores_of(summary, query, prior, shrinkage):
    detector = replace(SMALL, prior=prior, shrinkage=shrinkage, relative=False)
    scorer = detector.from_summary(summary)
    return scorer.patch_scores([query.permute(0, 3, 1, 2)]).double().numpy()


@pytest.mark.parametrize("k", [1, 2, D])
@pytest.mark.parametrize("spread", [0.0, 3.0])
@pytest.mark.parametrize(("images", "seen", "prior"), [(40, 1.0, 5.0), (30, 0.4, 100.0), (3, 1.0, 2.0)])
def test_scores_are_those_of_the_two_covariance_model(k, spread, images, seen, prior):
    batch, query = batch_of(1, images, seen, spread), batch_of(2, 5, spread=spread).features
    directions = random_directions(D, k, seed=0)
    assert (batch.inside.sum(0) > 0).all()
    got = scores_of(Summary.of(batch, directions), query, prior, 0.01)
    assert np.allclose(got, reference_scores(batch, directions, query, prior, 0.01), rtol=2e-4)


def test_many_images_give_the_plain_mahalanobis_distance_of_each_position():
    batch, query = batch_of(1, 20_000), batch_of(2, 5).features
    got = scores_of(Summary.of(batch, random_directions(D, D, 0)), query, 1e-3, 1e-6)
    for p in np.ndindex(GRID):
        own = batch.features[:, *p].double().numpy()
        d = query[:, *p].double().numpy() - own.mean(0)
        wanted = np.sqrt(np.einsum("ni,ij,nj->n", d, np.linalg.inv(np.cov(own.T)), d))
        assert np.allclose(got[:, *p], wanted, rtol=1e-3)


def test_one_image_is_scored_by_the_spread_over_all_positions():
    batch, query = batch_of(1, 1), batch_of(2, 5).features
    got = scores_of(Summary.of(batch, random_directions(D, K, 0)), query, 100.0, 0.5)
    patches = batch.features.flatten(0, 2).double().numpy()
    covariance = np.cov(patches.T, bias=True)
    covariance += 0.5 * np.trace(covariance) / D * np.eye(D)
    d = query.double().numpy() - patches.mean(0)
    assert np.allclose(got, np.sqrt(np.einsum("nhwi,ij,nhwj->nhw", d, np.linalg.inv(covariance), d)), rtol=1e-4)


@pytest.mark.parametrize(("images", "seen"), [(12, 1.0), (12, 0.6), (2, 1.0)])
def test_leave_one_out_is_the_score_by_a_model_without_the_image(images, seen):
    batch, directions = batch_of(1, images, seen), random_directions(D, K, 0)
    summary = Summary.of(batch, directions)
    model = Model.of(summary, 10.0, 0.01)
    mapped = [(f.flatten(0, 1).double() - model.center) @ model.matrix for f in batch.features]
    got = model.leave_one_out(mapped)
    for i in range(images):
        keep = torch.arange(images) != i
        others = Summary.of(Batch(batch.keys[keep], batch.features[keep], batch.inside[keep]), directions)
        turn = directions.double().T @ model.matrix[:, :K]  # shared quantities stay, those of positions forget
        local = turn.T @ others.local.flatten(0, 1) @ turn
        means = (others.center.flatten(0, 1) - model.center) @ model.matrix
        count = others.count.reshape(-1, 1)
        mean, whitening, scale = replace(model, count=count, means=means, local=local).positions()
        d = mapped[i] - mean
        wanted = (d[:, None, :K] @ whitening).square().sum(dim=(1, 2)) + (d[:, K:] * scale).square().sum(dim=1)
        inside = batch.inside[i].flatten()
        assert torch.allclose(got[i][inside], wanted.sqrt()[inside], rtol=1e-8)


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, 11), seen=st.sampled_from([0.3, 1.0]), seed=st.integers(0, 1000))
def test_merged_halves_equal_the_whole(cut, seen, seed):
    batch, directions = batch_of(seed, 12, seen), random_directions(D, K, 0)
    whole = Summary.of(batch, directions)
    halves = [Batch(*(part[rows] for part in batch)) for rows in (slice(None, cut), slice(cut, None))]
    for first, second in (halves, halves[::-1]):
        merged = Summary.of(first, directions).merge(Summary.of(second, directions))
        for name in ("count", "center", "scatter", "local"):
            assert torch.allclose(getattr(merged, name), getattr(whole, name), rtol=1e-5, atol=1e-5), name
        assert merged.sample.keys == whole.sample.keys


def test_fits_on_two_machines_merge_to_the_fit_on_all_images():
    tall, wide = sample_images(replace(SPEC, size=(64, 40)), 10, 1), sample_images(replace(SPEC, size=(40, 64)), 10, 2)
    backbone = load_backbone(SMALL.backbone)
    batches = [tall[:5], tall[5:], wide[:5], wide[5:]]
    whole = SMALL.fit(batches)
    first, second = (SMALL.summarise(part, backbone) for part in (batches[:1], batches[1:]))
    merged = SMALL.from_summary(second.merge(first))
    test = sample_images(SPEC, 3, seed=9)
    with torch.inference_mode():
        for got, wanted in zip(merged(test), whole(test), strict=True):
            assert torch.allclose(got, wanted, rtol=1e-4, atol=1e-4)


def test_summaries_of_other_directions_or_grids_do_not_merge():
    batch = batch_of(1)
    one = Summary.of(batch, random_directions(D, K, 0))
    with pytest.raises(InputError, match="same random directions"):
        one.merge(Summary.of(batch, random_directions(D, K, 1)))
    small = Batch(batch.keys, batch.features[:, :1], batch.inside[:, :1])
    with pytest.raises(InputError, match=r"got grids \(2, 3\) and \(1, 3\)"):
        one.merge(Summary.of(small, random_directions(D, K, 0)))


def test_a_refitted_scorer_has_the_distributions_of_one_fit():
    old, new = sample_images(SPEC, 6, seed=1), sample_images(SPEC, 4, seed=2)
    plain = replace(SMALL, few_images=0)  # turned copies would be in the sums
    scorer = plain.fit([old]).refitted([new])
    wanted = plain.fit([old, new]).sums.summary()
    for name, value in vars(scorer.sums.summary()).items():
        if name != "sample":
            assert torch.allclose(value, getattr(wanted, name), rtol=1e-5, atol=1e-5), name
    assert scorer.sums.levels[0].max() == 10


def test_levels_of_a_refit_come_close_to_those_of_one_fit():
    backbone, directions = load_backbone(SMALL.backbone), random_directions(D, K, 0)
    old, new = Summary.of(batch_of(1, 60), directions), Summary.of(batch_of(2, 4), directions)
    whole = SMALL.from_summary(old.merge(new), backbone).level
    together = replace(old.merge(new), sample=new.sample)  # as after a refit: features of the new images only
    refitted = SMALL.merged(together, backbone, SMALL.from_summary(old, backbone)).level
    alone = SMALL.from_summary(together, backbone).level
    assert (refitted - whole).abs().max() < 0.3 * (alone - whole).abs().max()


@pytest.mark.parametrize("images", [0, 1, 3])
def test_positions_never_or_seldom_seen_are_scored_like_the_others(images):
    g = torch.Generator().manual_seed(images)
    grid, often = (16, 16), torch.arange(16) < 8
    means = 3 * torch.randn(*grid, D, generator=g)
    features = means + torch.randn(60, *grid, D, generator=g)
    inside = (torch.arange(60)[:, None, None] < images) | often[None, :, None].expand(60, 8 * 2, 16)
    directions = random_directions(D, K, 0)
    scorer = replace(SMALL, relative=False).from_summary(
        Summary.of(Batch(torch.arange(60), features, inside), directions)
    )
    test = means + torch.randn(200, *grid, D, generator=g)
    squared = scorer.patch_scores([test.permute(0, 3, 1, 2)]).square()
    assert squared[:, often].mean() == pytest.approx(D, rel=0.05)
    assert squared[:, ~often].mean() == pytest.approx(D, rel=0.12)  # by its own mean only, n = 1 would have 2 D


def test_the_sums_stay_exact_and_on_the_cpu_when_the_scorer_is_moved():
    scorer = SMALL.fit([sample_images(SPEC, 3, seed=1)])
    scatter = scorer.sums.scatter.clone()
    moved = scorer.to(torch.bfloat16)
    assert moved.whitening.dtype == torch.bfloat16
    assert moved.sums.scatter.dtype == torch.float64
    assert torch.equal(moved.sums.scatter, scatter)


def test_damaged_sums_are_refused():
    scorer = SMALL.fit([sample_images(SPEC, 3, seed=1)])
    state = dict(scorer.sums.state_dict())
    with pytest.raises(ArtifactError, match="must be"):
        PositionSums({**state, "local": state["local"][..., 1:]})


def test_a_model_file_is_far_smaller_than_with_full_covariances():
    scorer = GaussianDetector(relative=False).fit([sample_images(InputSpec(), 1, seed=1)])
    size = sum(value.numel() * value.element_size() for value in scorer.state_dict().values())
    own = sum(v.numel() * v.element_size() for k, v in scorer.state_dict().items() if not k.startswith("backbone"))
    assert size < 168e6 / 7
    assert own == pytest.approx(1024 * (64 * 65 / 2 + 288 + 1) * 4 + 288**2 * 8 + 288 * 64 * 4, rel=1e-4)


def test_directions_are_orthonormal_repeatable_and_not_more_than_features():
    directions = random_directions(10, 4, seed=3)
    assert torch.allclose(directions.T @ directions, torch.eye(4), atol=1e-6)
    assert torch.equal(directions, random_directions(10, 4, seed=3))
    assert random_directions(3, 64, seed=0).shape == (3, 3)


@pytest.mark.parametrize("bad", [{"local_components": 0}, {"prior": 0.0}, {"shrinkage": 0.0}, {"shrinkage": 1.5}])
def test_settings_are_checked(bad):
    with pytest.raises(SettingError, match=next(iter(bad))):
        GaussianDetector(**bad)
