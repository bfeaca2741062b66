import numpy as np
import pytest
import torch

from anomaly.detectors.feature_store import FeatureStore
from anomaly.detectors.map_store import LayerMap
from anomaly.errors import InputError


def batch(count, seed, grid=(3, 4), channels=5):
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, channels, *grid, generator=generator) * torch.arange(1.0, channels + 1)[:, None, None]
    inside = torch.ones(count, *grid, dtype=torch.bool)
    inside[::2, :, -1] = False
    return LayerMap(features, inside)


def test_features_come_back_in_half_precision_in_any_order():
    parts = [batch(3, 0), batch(1, 1), batch(2, 2)]
    store = FeatureStore(iter(parts))
    whole, inside = torch.cat([p.features for p in parts]), torch.cat([p.inside for p in parts])
    read = store.read([5, 0, 3, 0])
    assert len(store) == 6
    assert torch.equal(read.features, whole[[5, 0, 3, 0]].half().float())
    assert torch.equal(read.inside, inside[[5, 0, 3, 0]])


def test_mean_and_deviation_are_those_of_the_patches_inside():
    parts = [batch(3, 0), batch(4, 1)]
    parts[0].features[0, :, :, -1] = 1e4  # padding
    store = FeatureStore(parts)
    patches = np.concatenate([p.features.permute(0, 2, 3, 1)[p.inside].numpy() for p in parts])
    np.testing.assert_allclose(store.mean, patches.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(store.deviation, patches.std(axis=0), rtol=1e-5)


def test_a_channel_that_never_varies_has_deviation_one():
    features = torch.full((2, 1, 3, 3), 7.0)
    store = FeatureStore([LayerMap(features, torch.ones(2, 3, 3, dtype=torch.bool))])
    assert store.mean.tolist() == [7.0]
    assert store.deviation.tolist() == [1.0]


def test_spread_covers_the_whole_store():
    store = FeatureStore([batch(10, 0)])
    assert store.spread(4) == [0, 3, 6, 9]
    assert store.spread(64) == list(range(10))


def test_no_image_is_refused():
    with pytest.raises(InputError, match="no image"):
        FeatureStore([])
