import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.detectors.map_store import LayerMap, MapStore
from anomaly.errors import InputError


def _batches(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    return [
        [
            LayerMap(
                torch.randn(n, d, s, s + 1, generator=generator), torch.rand(n, s, s + 1, generator=generator) < 0.5
            )
            for d, s in ((3, 4), (5, 2))
        ]
        for n in sizes
    ]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.integers(1, 5), st.integers(0, 99))
def test_reads_what_was_written_in_float16(sizes, step, seed):
    batches = _batches(sizes, seed)
    store = MapStore(2, iter(batches))
    assert len(store) == sum(sizes)
    for layer in (0, 1):
        features = torch.cat([batch[layer].features for batch in batches])
        inside = torch.cat([batch[layer].inside for batch in batches])
        chosen = list(range(len(store)))[::-1]
        read = store.read(layer, chosen)
        assert torch.equal(read.features, features[chosen].half().float())
        assert torch.equal(read.inside, inside[chosen])
        parts = list(store.batches(layer, step))
        assert torch.equal(torch.cat([part.features for part in parts]), features.half().float())
        assert max(len(part.inside) for part in parts) <= step


def test_no_image_is_an_error():
    with pytest.raises(InputError, match="no image to fit on"):
        MapStore(2, [])
