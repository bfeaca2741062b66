"""Faithfulness on cases whose answer is known: a perfect map, a random one, an inverted one."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.errors import InputError
from explain.cells import Blend, Cells
from explain.explanation import Check, Explanation
from explain.faithfulness import Ground, faithfulness, ground, infidelity
from explain.localisation import against_mask, lifts
from explain.native import AnomalyMap, Random
from explain.stability import Stability, randomised, rank_correlation, sensitivity, stability
from explain.trust import trust


@pytest.fixture
def judge(square):
    """Faithfulness of a map on an image that is anomalous in one square of 8 x 8 of 32 x 32 pixels: 6.25 %."""
    _, subject, inside = square
    blend = Blend(subject, Cells((32, 32), (8, 8)))
    on = ground(blend)

    def measured(values):
        return faithfulness(Explanation("test", np.asarray(values, np.float32)), blend, on)

    return measured, inside, blend, on


def test_perfect_random_and_inverted_maps(judge):
    measured, inside, _, on = judge
    assert (on.image, on.twin, on.judged) == (1.0, 0.0, True)
    perfect, inverted = measured(inside), measured(~inside)
    noisy = measured(np.random.default_rng(0).random((8, 8)).repeat(4, 0).repeat(4, 1))
    # 4 of 64 cells hold the square: 4 % (3 cells) take 3/4 of it away, 8 % (6 cells) all of it
    assert perfect.deletion == pytest.approx((1, 0.75, 0.5, 0.25, 0, 0, 0, 0, 0))
    assert perfect.insertion == pytest.approx((0, 0.25, 0.5, 0.75, 1, 1, 1, 1, 1))
    assert perfect.removed == pytest.approx(0.75)
    assert inverted.deletion == pytest.approx((1, 1, 1, 1, 1, 1, 1, 1, 0))
    assert inverted.removed == pytest.approx(0)
    assert perfect.deletion_auc < noisy.deletion_auc < inverted.deletion_auc
    assert perfect.insertion_auc > noisy.insertion_auc > inverted.insertion_auc
    assert perfect.infidelity == pytest.approx(0, abs=1e-5)
    assert perfect.infidelity < noisy.infidelity < 1
    assert "takes away 75 % of the anomaly" in perfect.in_words()


def test_infidelity_is_that_of_yeh_by_hand(judge):
    from explain.faithfulness import REMOVALS, _removals

    measured, _, blend, _ = judge
    values = np.random.default_rng(1).random((8, 8)).astype(np.float32)
    found = measured(values.repeat(4, 0).repeat(4, 1)).infidelity
    removed = _removals(64, REMOVALS)
    change = (1.0 - blend(1 - removed)).numpy()
    predicted = removed.numpy() @ (16 * values.ravel())
    scale = (change * predicted).sum() / (predicted**2).sum()
    assert found == pytest.approx(((scale * predicted - change) ** 2).mean() / (change**2).mean(), rel=1e-4)


def test_a_map_of_zeros_predicts_nothing(judge):
    _, _, blend, _ = judge
    assert infidelity(Explanation("test", np.zeros((32, 32), np.float32)), blend) == 1.0


def test_nothing_is_judged_by_a_twin_that_is_no_better(judge):
    _, inside, blend, on = judge
    for bad in (replace(on, twin=1.0), replace(on, twin=0.6, typical=0.0)):
        assert not bad.judged
        assert faithfulness(Explanation("test", inside.astype(np.float32)), blend, bad) is None
    assert replace(on, twin=0.4, typical=0.0).judged


def test_mixtures_are_scored_once(judge, monkeypatch):
    _, _, blend, _ = judge
    kept = torch.ones(3, 64)
    kept[1, 5] = 0
    first = blend(kept)
    monkeypatch.setattr(type(blend.subject), "scores", lambda *_: pytest.fail("scored again"))
    assert torch.equal(blend(kept), first)


@settings(max_examples=12, deadline=None)
@given(st.integers(5, 60), st.integers(5, 60), st.integers(1, 12))
def test_cells_cover_every_pixel_once(height, width, shorter):
    cells = Cells.over((height, width), shorter)
    assert set(cells.labels.ravel()) == set(range(cells.count))
    values = np.random.default_rng(0).random((height, width))
    assert cells.sums(values).sum() == pytest.approx(values.sum())
    full, empty = cells.spread(torch.ones(1, cells.count)), cells.spread(torch.zeros(1, cells.count))
    torch.testing.assert_close(full, torch.ones_like(full))
    assert not empty.any()


def test_a_control_that_knows_no_model_is_called_out_by_random_weights(square):
    scorer, subject, _ = square
    forgotten = randomised(scorer)
    assert not torch.equal(forgotten.weights, scorer.weights)
    assert torch.equal(forgotten.weights.sort().values.sum(), scorer.weights.sort().values.sum())
    found = Random().explain(subject)
    blind = stability(Random(), found, subject, forgotten)
    assert blind.randomised == pytest.approx(1)
    assert blind.about_the_image
    assert blind.sensitivity == 0
    own = AnomalyMap().explain(subject)
    assert not stability(AnomalyMap(), own, subject, forgotten).about_the_image


def test_sensitivity_of_a_linear_map(square):
    # the map is weight * pixel: noise of at most 1 % of the range changes it by at most 1 % of a white square
    _, subject, _ = square
    found = AnomalyMap().explain(subject)
    assert 0 < sensitivity(AnomalyMap(), found, subject) <= 0.011


def test_rank_correlation_is_spearman():
    a = np.array([1.0, 2.0, 3.0, 4.0])
    assert rank_correlation(a, a**3) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert rank_correlation(a, np.ones(4)) == 0


def test_against_a_mask_by_hand():
    values, mask = np.zeros((4, 4), np.float32), np.zeros((4, 4), bool)
    mask[0, :2] = True
    values[0, 0], values[3, 3], values[2, 2] = 3, 2, -5
    assert against_mask(values, mask) == {"pointing": 1.0, "iou": 1 / 3, "energy": 0.6}
    assert against_mask(np.zeros_like(values), mask) == {"pointing": 0.0, "iou": 0.0, "energy": 0.0}
    with pytest.raises(InputError, match="pixel"):
        against_mask(values, np.zeros((4, 4), bool))


def test_lift_is_zero_where_all_defects_lie_at_one_place():
    mask = np.zeros((8, 8), bool)
    mask[2:4, 2:4] = True
    same = lifts([mask.astype(np.float32)] * 6, [mask] * 6)
    assert same["energy"].paired == 1
    assert same["energy"].lift == 0
    assert not same["energy"].proven


def test_lift_is_all_of_it_where_maps_follow_their_own_masks():
    masks = []
    for k in range(6):
        masks.append(np.zeros((8, 12), bool))
        masks[-1][4, 2 * k : 2 * k + 2] = True
    own = lifts([m.astype(np.float32) for m in masks], masks)
    for name in ("pointing", "iou", "energy"):
        assert (own[name].paired, own[name].crossed, own[name].lift) == (1, 0, 1)
        assert own[name].proven
    random = lifts([np.random.default_rng(k).random((8, 12)).astype(np.float32) for k in range(6)], masks)
    assert not random["energy"].proven
    single = lifts([masks[0].astype(np.float32)], masks[:1])["iou"]
    assert (single.lift, single.low, single.proven) == (None, None, False)


def test_trust_calls_out_what_is_wrong(judge):
    measured, inside, _, on = judge
    good, bad = measured(inside), measured(~inside)
    control = {"random": measured(np.random.default_rng(0).random((8, 8)).repeat(4, 0).repeat(4, 1))}
    calm, blind = Stability(0.1, 0.1), Stability(0.9, 2.0)
    map_of = Explanation("ig", inside.astype(np.float32))
    assert trust(map_of, good, calm, on, control) == trust(map_of, good, None, on, control)
    assert trust(map_of, good, calm, on, control).word == "holds"
    assert "chance" in trust(map_of, bad, calm, on, control).warnings[0]
    assert len(trust(map_of, good, blind, on, control).warnings) == 2
    broken = Explanation("ig", map_of.map, check=Check("completeness", 0.4, 0.1))
    assert "40.0 %" in trust(broken, good, calm, on, control).warnings[0]
    hardly = replace(good, removed=0.05, removed_by_chance=-0.1)
    assert "hardly any" in trust(map_of, hardly, calm, on, control).warnings[0]
    unjudged = trust(map_of, None, calm, Ground(1.0, 2.0), {})
    assert unjudged.word == "not judged"
    assert trust(map_of, good, calm, replace(on, normal=False), control).word == "doubtful"
    assert trust(Explanation("random", map_of.map), good, None, on, control).word == "control"
