"""Further normals into a fitted scorer: exact where it is promised, defined where it is not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.detector import Refittable
from anomaly.detectors.embedding import embed
from anomaly.detectors.levels import LevelSums, level_map
from anomaly.detectors.memory_bank import MemoryBankDetector
from anomaly.detectors.patch_sums import PREFIX, PatchSums
from anomaly.detectors.subspace import SubspaceDetector
from anomaly.errors import ArtifactError, InputError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images

SPEC = InputSpec(size=(64, 96))


@pytest.fixture(scope="module")
def parts():
    """Old images, new ones that differ (darker), and images to score."""
    new = (sample_images(SPEC, 8, seed=1).float() * 0.8).round().to(torch.uint8)
    return list(sample_images(SPEC, 12, seed=0).split(4)), list(new.split(4)), sample_images(SPEC, 4, seed=2)


def projector(scorer):
    """What the columns of the matrix mean, whatever their signs and order."""
    return scorer.matrix.double() @ scorer.matrix.double().T


@pytest.mark.parametrize("score", ["residual", "mahalanobis"])
def test_refit_equals_one_fit_on_old_and_new_images(parts, score):
    old, new, test = parts
    detector = SubspaceDetector(input=SPEC, score=score, relative=False)
    with torch.inference_mode():
        refitted, joint = detector.fit(old).refitted(new), detector.fit([*old, *new])
        before = detector.fit(old)(test).score
        a, b = refitted(test), joint(test)
    assert refitted.matrix.shape == joint.matrix.shape
    assert torch.allclose(projector(refitted), projector(joint), rtol=1e-5, atol=1e-5 * float(projector(joint).max()))
    assert torch.allclose(a.score, b.score, rtol=1e-5)
    assert torch.allclose(a.map, b.map, rtol=1e-5, atol=1e-5 * float(b.map.max()))
    assert not torch.allclose(before, b.score, rtol=1e-2), "the new images must matter for this test to say anything"


def test_refits_in_a_row_equal_one_fit(parts):
    old, new, test = parts
    detector = SubspaceDetector(input=SPEC, relative=False)
    batches = [*old, *new]
    with torch.inference_mode():
        scorer = detector.fit(batches[:3])
        for batch in batches[3:]:
            scorer = scorer.refitted([batch])
        assert torch.allclose(scorer(test).score, detector.fit(batches)(test).score, rtol=1e-5)


def test_a_stored_scorer_refits_as_the_fresh_one_does(parts):
    old, new, test = parts
    detector = SubspaceDetector(input=SPEC)
    with torch.inference_mode():
        fresh = detector.fit(old)
        stored = fresh.settings.restore(fresh.state_dict(), fresh.description())
        assert torch.equal(stored.refitted(new)(test).score, fresh.refitted(new)(test).score)


def test_levels_of_one_source_come_close_to_those_of_one_fit():
    images = sample_images(SPEC, 44, seed=3)
    images[:, :, :32] //= 2  # positions differ
    images, test = images[:40], images[40:]
    detector = SubspaceDetector(input=SPEC)
    with torch.inference_mode():
        refitted, joint = detector.fit([images[:20]]).refitted([images[20:]]), detector.fit([images])
    assert torch.allclose(refitted.level[0], joint.level[0], rtol=0.02)
    assert torch.allclose(refitted.level[1], joint.level[1], rtol=0.25)
    assert torch.equal(refitted.sums.level_sums().seen, torch.full((8, 12), 40.0).double())
    with torch.inference_mode():
        assert torch.allclose(refitted(test).score, joint(test).score, rtol=0.2)


def test_levels_are_the_earlier_ones_in_new_units_merged_with_those_of_the_new_images(parts):
    old, new, _ = parts
    detector = SubspaceDetector(input=SPEC)
    with torch.inference_mode():
        fitted = detector.fit(old)
        refitted = fitted.refitted(new)
        sample = detector.summarise(new, fitted.backbone).sample
        inside = torch.stack(sample.inside)
        now = refitted.sample_scores(sample)
    squares = [fitted.sums.mean_square(s.matrix, s.offset) for s in (refitted, fitted)]
    factor = (squares[0] / squares[1]) ** 0.5
    wanted = fitted.sums.level_sums().scaled(factor).merge(LevelSums.of(now, inside)).map()
    assert torch.allclose(refitted.level, wanted, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 9), st.integers(0, 2**16), st.floats(0.1, 10))
def test_level_sums_merge_to_those_of_all_images_and_scale(cut, seed, factor):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.rand(10, 3, 4, generator=generator) + 1
    inside = torch.rand(10, 3, 4, generator=generator) > 0.3
    merged = LevelSums.of(scores[:cut], inside[:cut]).merge(LevelSums.of(scores[cut:], inside[cut:]))
    assert torch.allclose(merged.map(), level_map(scores, inside), rtol=1e-5)
    scaled = LevelSums.of(scores, inside).scaled(factor).map()
    assert torch.allclose(scaled, level_map(scores * factor, inside), rtol=1e-4)


def test_mean_square_of_scores_over_a_fit_needs_no_image(parts):
    old, new, _ = parts
    detector = SubspaceDetector(input=SPEC)
    with torch.inference_mode():
        fitted = detector.fit(old)
        other = fitted.refitted(new)
        features = torch.cat([embed(fitted.backbone, SPEC.canvas(batch)) for batch in old]).permute(0, 3, 1, 2)
        for scorer in (fitted, other):
            wanted = float(scorer.patch_scores([features]).double().square().mean())
            assert fitted.sums.mean_square(scorer.matrix, scorer.offset) == pytest.approx(wanted, rel=1e-4)


def test_a_model_from_before_sums_were_kept_scores_and_says_why_it_cannot_be_refitted(parts):
    old, new, test = parts
    with torch.inference_mode():
        scorer = SubspaceDetector(input=SPEC).fit(old)
        before = {key: value for key, value in scorer.state_dict().items() if not key.startswith(PREFIX)}
        aged = scorer.settings.restore(before, scorer.description())
        assert torch.equal(aged(test).score, scorer(test).score)
    with pytest.raises(ArtifactError, match=r"written before models kept the sums.*fit it once more on all images"):
        aged.refitted(new)


@pytest.mark.parametrize("lost", ["sums.count", "sums.levels"])
def test_sums_that_are_there_in_part_are_refused(parts, lost):
    scorer = SubspaceDetector(input=SPEC).fit(parts[0])
    state = {key: value for key, value in scorer.state_dict().items() if key != lost}
    with pytest.raises(ArtifactError, match=lost):
        scorer.settings.restore(state, scorer.description())


def test_sums_of_another_size_are_refused(parts):
    scorer = SubspaceDetector(input=SPEC).fit(parts[0])
    state = scorer.state_dict()
    state["sums.scatter"] = state["sums.scatter"][:-1]
    with pytest.raises(ArtifactError, match="must hold one count, D means"):
        scorer.settings.restore(state, scorer.description())


def test_sums_stay_exact_where_the_scorer_is_moved(parts):
    scorer = SubspaceDetector(input=SPEC).fit(parts[0])
    wanted = scorer.sums.full_scatter().clone()
    scorer.half()
    assert scorer.matrix.dtype == torch.float16
    assert torch.equal(scorer.sums.full_scatter(), wanted)
    scorer.to("meta")
    assert torch.equal(scorer.sums.full_scatter(), wanted)


def test_packed_scatter_unpacks():
    full = torch.randn(5, 5, dtype=torch.float64)
    full = full + full.T
    sums = PatchSums.of(torch.tensor(3.0), torch.zeros(5), full, None)
    assert sums.scatter.shape == (15,)
    assert torch.equal(sums.full_scatter(), full)


def test_who_can_be_refitted(parts):
    old, _, _ = parts
    assert isinstance(SubspaceDetector(input=SPEC).fit(old), Refittable)
    assert not isinstance(MemoryBankDetector(input=SPEC, bank_size=32).fit(old), Refittable)


def test_a_refit_on_no_image_is_refused(parts):
    with pytest.raises(InputError, match="no image"):
        SubspaceDetector(input=SPEC).fit(parts[0]).refitted([])
