"""Folding batch norm changes no feature, and is left alone where it would."""

import pytest
import timm
import torch
from torch import nn

from anomaly.backbones.folding import fold, fold_structure


def _shaken(network: nn.Module) -> nn.Module:
    """Batch norm with statistics and weights unlike those of a fresh network."""
    generator = torch.Generator().manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            module.weight.data.uniform_(0.5, 1.5, generator=generator)
    return network.eval()


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100", "resnetv2_50"])
def test_folded_network_gives_equal_features_without_batch_norm(name):
    network = _shaken(timm.create_model(name, features_only=True, out_indices=(2, 3)))
    folded = fold(network)
    assert folded is not network
    image = torch.rand(2, 3, 96, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for wanted, got in zip(network(image), folded(image), strict=True):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    assert sum(isinstance(m, nn.BatchNorm2d) for m in folded.modules()) < sum(
        isinstance(m, nn.BatchNorm2d) for m in network.modules()
    )


def test_stored_layout_takes_the_folded_weights():
    network = _shaken(timm.create_model("resnet18", features_only=True, out_indices=(2, 3)))
    layout = fold_structure(timm.create_model("resnet18", features_only=True, out_indices=(2, 3)).eval())
    layout.load_state_dict(fold(network).state_dict(), strict=True)


def test_network_that_runs_in_another_order_is_left_alone():
    class Misleading(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3)

        def forward(self, x):
            return [self.conv(self.norm(x))]

    network = _shaken(Misleading())
    assert fold(network) is network
