import pytest
import torch

from anomaly.detectors.canvas_store import CanvasStore
from anomaly.errors import InputError
from anomaly.input_spec import InputSpec
from anomaly.testing import sample_images


@pytest.mark.parametrize(("dtype", "high", "bound"), [("uint8", 255.0, 2.5e-4), ("uint16", 65535.0, 0.0)])
def test_canvases_come_back_in_any_order(dtype, high, bound):
    spec = InputSpec(size=(64, 96), dtype=dtype, value_range=(0.0, high), channels=2)
    images = sample_images(spec, 7, seed=0)
    store = CanvasStore(spec, [images[:3], list(images[3:, :, :32])])
    assert len(store) == 7
    read = store.read([6, 0, 3])
    wanted = spec.canvas([images[6, :, :32], images[0], images[3, :, :32]])
    assert read.sizes == wanted.sizes == ((32, 96), (64, 96), (32, 96))
    assert read.pixels.dtype == torch.float32
    assert float((read.pixels - wanted.pixels).abs().max()) <= bound


def test_a_store_of_nothing_is_refused():
    with pytest.raises(InputError, match="no image to fit on"):
        CanvasStore(InputSpec(), [])
