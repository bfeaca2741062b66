"""Feature extractors: RGB images in [0, 1] -> feature maps, with provenance of the weights."""

from anomaly.backbones.backbone import Backbone, BackboneSpec, Provenance
from anomaly.backbones.loading import describe, load_backbone, restore_backbone

__all__ = ["Backbone", "BackboneSpec", "Provenance", "describe", "load_backbone", "restore_backbone"]
