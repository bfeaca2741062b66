"""The packaged weights give the same features on every machine.

`python tests/backbones/test_bundled_features.py` writes the stored figures anew; only new weights are a reason to.
"""

import json
from pathlib import Path

import torch

from anomaly.backbones import BackboneSpec, load_backbone

STORED = Path(__file__).with_name("bundled_features.json")


def _image() -> torch.Tensor:
    """A (1, 3, 96, 160) image from integer arithmetic alone: the same bits everywhere."""
    y, x = torch.arange(96)[:, None], torch.arange(160)[None, :]
    channels = [(7 * x + 13 * y + (x * y) % 31 + 40 * c) % 256 for c in range(3)]
    return torch.stack(channels)[None].float() / 255


def _figures() -> dict[str, object]:
    backbone = load_backbone(BackboneSpec())
    with torch.inference_mode():
        maps = backbone(_image())
    return {
        "weights_sha256": backbone.provenance.sha256,
        "layers": {
            layer: {
                "shape": list(m.shape),
                "mean": float(m.mean()),
                "deviation": float(m.std()),
                "every 997th value": m.flatten()[::997].tolist(),
            }
            for layer, m in zip(backbone.spec.layers, maps, strict=True)
        },
    }


def test_packaged_weights_give_the_stored_features():
    stored, now = json.loads(STORED.read_text()), _figures()
    assert now["weights_sha256"] == stored["weights_sha256"]
    assert now["layers"].keys() == stored["layers"].keys()
    for layer, figures in stored["layers"].items():
        found = now["layers"][layer]
        assert found["shape"] == figures["shape"]
        for name in ("mean", "deviation", "every 997th value"):
            torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(figures[name]), rtol=1e-3, atol=1e-3)


if __name__ == "__main__":
    STORED.write_text(json.dumps(_figures(), indent=1) + "\n")
