"""Feature transformer: a transformer decoder learns to reconstruct the tokens of a frozen backbone, loosely.

One model serves several kinds of products: nothing in it belongs to a kind. What keeps it from copying anomalies are
four kinds of looseness: dropout in front of the decoder (a noisy bottleneck), attention that cannot focus (linear
attention), layers that are reconstructed in groups instead of one by one, and gradients that are shrunk where the
reconstruction is good already. Patches whose reconstruction points elsewhere than their features are anomalous.

Source: Guo et al., Dinomaly: The Less Is More Philosophy in Multi-Class Unsupervised Anomaly Detection, CVPR 2025
(arXiv 2405.14325). Linear attention: Katharopoulos et al., Transformers are RNNs, ICML 2020 (arXiv 2006.16236).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from anomaly.backbones import Backbone, describe, load_backbone
from anomaly.detectors.feature_reconstruction import ReconstructionDetector, Reconstructor
from anomaly.errors import SettingError

_SHRINKAGE = 0.1
"""What is left of the gradient of a patch that is reconstructed well already."""
_RAMP = 0.5
"""Share of the training over which the loosened share grows to its final value."""


@dataclass(frozen=True, kw_only=True)
class FeatureTransformerDetector(ReconstructionDetector):
    """Transformer decoder on the tokens of a ViT, or on the patches of a CNN.

    Layers: by default the middle two thirds of a ViT. Layers of one width are averaged in two groups, an early and a
    late one; layers of several widths (a CNN) are a group each.

    Attributes:
        width: channels of the decoder.
        depth: blocks of the decoder.
        heads: heads of its attention; must divide `width`.
        dropout: probability with which a value is dropped in the bottleneck while training.
        loose: share of the patches, the best reconstructed ones, whose gradients are shrunk at the end of the training.
    """

    name: ClassVar[str] = "feature_transformer"

    steps: int = 400
    width: int = 96
    depth: int = 4
    heads: int = 4
    dropout: float = 0.2
    loose: float = 0.9

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        super().__post_init__()
        if not 1 <= self.width <= 4096:
            raise SettingError.of(self.name, "width", "1 to 4096 channels", self.width)
        if not 1 <= self.depth <= 32:
            raise SettingError.of(self.name, "depth", "1 to 32 blocks", self.depth)
        if self.heads < 1 or self.width % self.heads:
            raise SettingError.of(self.name, "heads", f"a divisor of width {self.width}", self.heads)
        if not 0 <= self.dropout < 1:
            raise SettingError.of(self.name, "dropout", "at least 0 and below 1", self.dropout)
        if not 0 <= self.loose < 1:
            raise SettingError.of(self.name, "loose", "at least 0 and below 1", self.loose)

    def prepared(self) -> Backbone:
        """Loads the backbone, with the middle two thirds of the blocks where a ViT's layers are not named."""
        backbone = load_backbone(self.backbone)
        if self.backbone.layers or backbone.multiple == 1:
            return backbone
        layers = describe(self.backbone.name).layers
        sixth = len(layers) // 6
        return load_backbone(replace(self.backbone, layers=layers[sixth : len(layers) - sixth]))

    def targets(self, maps: list[Tensor]) -> list[Float[Tensor, "n _ h w"]]:
        """Returns the groups of layers: means of an early and a late half, or every layer of a CNN."""
        maps = super().targets(maps)
        if len({m.shape[1] for m in maps}) > 1 or len(maps) == 1:
            return maps
        half = len(maps) // 2
        return [torch.stack(part).mean(dim=0) for part in (maps[:half], maps[half:])]

    def network(self, groups: Sequence[int]) -> "LooseDecoder":
        """Builds the untrained decoder."""
        return LooseDecoder(groups, self)


class LooseDecoder(Reconstructor):
    """Noisy bottleneck, transformer blocks with linear attention, one linear head per group."""

    def __init__(self, groups: Sequence[int], settings: FeatureTransformerDetector) -> None:
        """Builds the decoder for groups of so many channels."""
        super().__init__()
        self.groups, self.loose, width = list(groups), settings.loose, settings.width
        self.bottleneck = nn.Sequential(
            nn.Dropout(settings.dropout),
            nn.Linear(sum(groups), 4 * width),
            nn.GELU(),
            nn.Dropout(settings.dropout),
            nn.Linear(4 * width, width),
            nn.Dropout(settings.dropout),
        )
        self.blocks = nn.ModuleList(_Block(width, settings.heads) for _ in range(settings.depth))
        self.heads = nn.ModuleList(nn.Linear(width, channels) for channels in groups)
        edges = [i * settings.depth // len(groups) for i in range(len(groups) + 1)]
        self.spans = [(start, max(end, start + 1)) for start, end in pairwise(edges)][::-1]

    def forward(self, features: Float[Tensor, "n d h w"]) -> list[Float[Tensor, "n t _"]]:
        """Reconstructs the tokens of each group; late blocks give the early groups, as a decoder mirrors an encoder."""
        x = self.bottleneck(features.flatten(2).transpose(1, 2))
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        parts = [torch.stack(outputs[start:end]).mean(dim=0) for start, end in self.spans]
        return [head(part) for head, part in zip(self.heads, parts, strict=True)]

    def loss(
        self, features: Float[Tensor, "n d h w"], inside: Bool[Tensor, "n h w"], progress: float
    ) -> Float[Tensor, ""]:
        """Returns the cosine distance of whole images; the gradient of well reconstructed patches is shrunk."""
        counted = inside.flatten(1)
        total = features.new_zeros(())
        for wanted, got in zip(self._tokens(features), self(features), strict=True):
            with torch.no_grad():
                distances = 1 - F.cosine_similarity(wanted, got, dim=-1)
                limit = distances[counted].quantile(min(1.0, progress / _RAMP) * self.loose)
            kept = torch.where(distances < limit, _SHRINKAGE, 1.0) * counted
            # Value as without the factor, gradient times the factor.
            shrunk = got.detach() + (got - got.detach()) * kept[..., None]
            mask = counted[..., None]
            total = total + (1 - F.cosine_similarity((wanted * mask).flatten(1), (shrunk * mask).flatten(1))).mean()
        return total / len(self.groups)

    def error(self, features: Float[Tensor, "n d h w"]) -> Float[Tensor, "n h w"]:
        """Returns the cosine distance of each patch, averaged over the groups."""
        pairs = zip(self._tokens(features), self(features), strict=True)
        distances = torch.stack([1 - F.cosine_similarity(wanted, got, dim=-1) for wanted, got in pairs])
        return torch.unflatten(distances.mean(dim=0), 1, tuple(features.shape[-2:]))

    def _tokens(self, features: Tensor) -> list[Tensor]:
        return [part.flatten(2).transpose(1, 2) for part in torch.split(features, self.groups, dim=1)]


class LinearAttention(nn.Module):
    """Attention whose weights are products of positive features: it cannot focus on single tokens."""

    def __init__(self, width: int, heads: int) -> None:
        """Builds the layer."""
        super().__init__()
        self.heads = heads
        self.mix = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        """Lets every token read one summary of all tokens; the cost grows with their number, not its square."""
        parts = torch.unflatten(self.mix(x), -1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # 3, n, heads, t, d
        query, key, value = F.elu(parts[0]) + 1, F.elu(parts[1]) + 1, parts[2]
        summary = key.transpose(-2, -1) @ value
        weight = query @ key.sum(dim=-2).unsqueeze(-1)
        merged: Tensor = self.merge((query @ summary / weight).transpose(1, 2).flatten(2))
        return merged


class _Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attention = nn.Sequential(nn.LayerNorm(width), LinearAttention(width, heads))
        widened = 4 * width
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, widened), nn.GELU(), nn.Linear(widened, width))

    def forward(self, x: Float[Tensor, "n t d"]) -> Float[Tensor, "n t d"]:
        x = x + self.attention(x)
        mixed: Tensor = x + self.mlp(x)
        return mixed
