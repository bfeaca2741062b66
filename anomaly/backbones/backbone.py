"""A backbone: RGB images in [0, 1] -> feature maps, with a record of where its weights come from."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class BackboneSpec:
    """Which backbone, and which of its layers.

    Attributes:
        name: "bundled" (the network in this package), or any timm model name.
        layers: names of the layers whose maps are used; empty for the default of the network: strides 8 and 16 of a
            CNN, the blocks at one half and three quarters of the depth of a ViT.
        weights: file with the weights (safetensors, or a .pth of plain tensors); None takes the package's own for
            "bundled" and the Hugging Face hub or its local cache for timm models.
    """

    name: str = "bundled"
    layers: tuple[str, ...] = ()
    weights: str | None = None


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where the weights of a backbone come from; travels with every artifact.

    Attributes:
        source: file name, hub repository or "package".
        licence: licence of the weights as their source states it; "not stated" where it does not.
        sha256: hash over names, types, shapes and bytes of the tensors as loaded, the same wherever they came from.
        mean: what is subtracted from each channel of an image in [0, 1].
        std: what each channel is divided by after that.
    """

    source: str
    licence: str
    sha256: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class Backbone(nn.Module):
    """A frozen feature extractor in evaluation mode.

    Attributes:
        spec: name and layers, with the default layers filled in.
        provenance: origin of the weights.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, spec: BackboneSpec, network: nn.Module, provenance: Provenance) -> None:
        """Wraps a network whose forward takes normalised images and returns one map per layer."""
        super().__init__()
        self.spec = spec
        self.provenance = provenance
        # Convolutions on the CPU are about a quarter faster with the channels last in memory.
        self.network = network.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.register_buffer("mean", torch.tensor(provenance.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(provenance.std).view(1, 3, 1, 1), persistent=False)
        self.eval()

    @property
    def multiple(self) -> int:
        """Sides of an image must be multiples of this: the patch size of a ViT, 1 for a CNN."""
        patch_embed = getattr(getattr(self.network, "model", None), "patch_embed", None)
        return int(patch_embed.patch_size[0]) if patch_embed is not None else 1

    def forward(self, images: Float[Tensor, "n 3 h w"]) -> list[Tensor]:
        """Extracts feature maps.

        Args:
            images: (N, 3, H, W) float32 in [0, 1].

        Returns:
            One (N, D, h, w) float32 map per layer of `spec.layers`.
        """
        normalised = (images - self.mean) / self.std
        maps: Sequence[Tensor] = self.network(normalised.contiguous(memory_format=torch.channels_last))
        return list(maps)

    def train(self, mode: bool = True) -> "Backbone":
        """Stays in evaluation mode whatever is asked: a backbone is never trained here."""
        return super().train(False)


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """Returns the sha256 over names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
