import pytest
import torch
from torch import Tensor, nn

from anomaly.errors import TrainingError
from anomaly.training import CHECKPOINT, TrainingSettings, train
from anomaly.training.precision import resolve


def _run(folder, amp, stop_after=None, device="cpu", factor=1.0):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 1)).to(device)
    types = set()

    def loss_at(step: int) -> Tensor:
        x = torch.randn(32, 4, device=device)
        y = model(x)
        types.add(y.dtype)
        return (y.float() - x.sum(1, keepdim=True)).square().mean() * factor

    settings = TrainingSettings(60, 0.05, ema=0.0, amp=amp)
    average = train(model, loss_at, settings, folder=folder, stop_after=stop_after, progress=False)
    with torch.no_grad():
        x = torch.ones(2, 4, device=device)
        return types, average.state_dict(), float((average(x) - 4).abs().max())


@pytest.mark.parametrize(("amp", "dtype"), [("off", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)])
def test_losses_are_computed_in_the_type_asked_for_and_weights_stay_float32(amp, dtype):
    types, weights, error = _run(None, amp)
    assert types == {dtype}
    assert {value.dtype for value in weights.values()} == {torch.float32}
    assert error < 0.5


def test_auto_is_off_on_a_cpu():
    assert resolve(TrainingSettings(1), torch.device("cpu")) == "off"
    assert _run(None, "auto")[0] == {torch.float32}


def test_fp16_run_resumes_with_its_loss_scale_bit_for_bit(tmp_path):
    factor = 1e-3 * 65504  # the first scale, 65536, overflows: steps are left out until it has fallen
    _, whole, _ = _run(tmp_path / "whole", "fp16", factor=factor)
    _run(tmp_path / "parts", "fp16", stop_after=2, factor=factor)
    _, parts, _ = _run(tmp_path / "parts", "fp16", factor=factor)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    assert (tmp_path / "whole" / CHECKPOINT).exists()


def test_loss_that_is_not_finite_ends_the_training():
    with pytest.raises(TrainingError, match=r"the loss of step 1 is nan: lower the learning rate \(0.05\)"):
        _run(None, "off", factor=float("nan"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("amp", ["auto", "fp16"])
def test_gpu_trains_in_mixed_precision(amp, tmp_path):
    types, weights, error = _run(tmp_path, amp, device="cuda")
    assert types <= {torch.bfloat16, torch.float16}
    assert {value.device.type for value in weights.values()} == {"cuda"}
    assert error < 0.5
