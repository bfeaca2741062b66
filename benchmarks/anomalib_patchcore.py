"""The peer: anomalib's Patchcore torch model, fed directly, on the weights and canvases that our detectors get."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from anomaly.backbones import Backbone
from anomaly.detector import Scores
from anomaly.errors import BackboneError
from anomaly.input_spec import Canvas

LAYERS = ("layer2", "layer3")
_TOLERANCE = 1e-4


class Peer:
    """anomalib's PatchcoreModel with a ResNet-18 of given weights and everything else at its defaults.

    Attributes:
        model: the PatchcoreModel.
    """

    def __init__(self, weights: Path, provenance_mean: Tensor, provenance_std: Tensor) -> None:
        """Builds the model, empty of normal images.

        Args:
            weights: safetensors file of a timm ResNet-18 with `features_only`; loaded strictly.
            provenance_mean: (1, 3, 1, 1), what the weights want subtracted from an image in [0, 1].
            provenance_std: (1, 3, 1, 1), what they want it divided by after that.
        """
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
        from safetensors.torch import load_file

        self.model: Any = PatchcoreModel(layers=list(LAYERS), backbone="resnet18", pre_trained=False)
        self.model.feature_extractor.feature_extractor.load_state_dict(load_file(weights), strict=True)
        self._mean, self._std = provenance_mean, provenance_std
        self.model.eval()

    def learn(self, canvas: Canvas) -> Tensor:
        """Collects the embeddings of normal images, (patches, D)."""
        self.model.train()
        self.model.feature_extractor.eval()
        embedding: Tensor = self.model(self._normalised(canvas))
        return embedding

    def reduce(self, ratio: float) -> None:
        """Reduces what was collected to its coreset."""
        self.model.subsample_embedding(ratio)
        self.model.eval()

    def __call__(self, canvas: Canvas) -> Scores:
        """Returns the model's own image score and map, as they come."""
        found = self.model(self._normalised(canvas))
        return Scores(found.pred_score.reshape(-1), found.anomaly_map[:, 0])

    def feature_difference(self, backbone: Backbone, canvas: Canvas) -> float:
        """Returns the largest difference between the feature maps of both programs, relative to the largest value.

        Raises:
            BackboneError: it is more than rounding.
        """
        with torch.no_grad():
            theirs = list(self.model.feature_extractor(self._normalised(canvas)).values())
            ours = backbone(canvas.pixels)
        difference = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(theirs, ours, strict=True))
        if difference > _TOLERANCE:
            raise BackboneError(f"the feature maps of both programs differ by {difference:.2g}; nothing is compared")
        return difference

    def _normalised(self, canvas: Canvas) -> Tensor:
        return (canvas.pixels - self._mean) / self._std
