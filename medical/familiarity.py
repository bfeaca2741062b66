"""Is this at all the kind of image that the model was trained on? Asked of the pixels, whatever the header claims.

A hand labelled as a chest, an inverted or a turned image, a photograph of a screen: a header may lie, and an anomaly
score of such an image means nothing. The check must not be a second anomaly detector, since what it refuses is not
analysed: so it looks at the coarse layout alone. Features of the bundled backbone at 128 px are averaged over the
four quarters of the image; what normals have in common there is a subspace, found by principal components, and an image
that lies farther from it than every normal held out is not familiar. Under the assumption of conformal prediction (the
image comes from the source of the training), at most 1 in n + 1 normals is refused, on average.

Grid, components and canvas were chosen on chest X-rays (see docs/triage.md for what is refused and what is not).

Sources: Guan and Tibshirani, Prediction and outlier detection in classification problems, 2022, for refusing what
is not like the training before classifying; Rippel et al., Modeling the distribution of normal data in pre-trained deep
features for anomaly detection, ICPR 2020, for global features.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, Float64
from torch import Tensor

from anomaly.backbones import Backbone, BackboneSpec, load_backbone
from anomaly.detectors.embedding import feature_maps
from anomaly.errors import ArtifactError, CalibrationError
from anomaly.input_spec import InputSpec

SIDE, GRID, COMPONENTS, MARGIN = 128, 2, 32, 1.2
LEAST_SPREAD, LEAST_LIMIT = 0.1, 1.0
_VERSION = 1
_INPUT = InputSpec(channels=1, dtype="float32", value_range=(0.0, 1.0), size=(SIDE, SIDE), resize="stretch")


def layout_of(frame: Float[Tensor, "1 h w"]) -> Float32[np.ndarray, " d"]:
    """Returns the coarse layout of one frame: features averaged over each quarter.

    Args:
        frame: (1, h, w) float32, 0 to 1.

    Raises:
        InputError: a value lies outside 0..1 or is not finite.
    """
    with torch.inference_mode():
        maps = feature_maps(_backbone(), _INPUT.canvas([frame]))
        pooled = [torch.nn.functional.adaptive_avg_pool2d(m, GRID).flatten() for m in maps]
    return np.asarray(torch.cat(pooled).numpy(), dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Familiarity:
    """What the layouts of normal images have in common.

    Attributes:
        center: (d,) mean layout.
        spread: (d,) standard deviation of each number, `LEAST_SPREAD` times the mean number at least.
        components: (k, d) orthonormal directions in which normals differ.
        limit: `MARGIN` times the largest distance among normals that were held out, `LEAST_LIMIT` at least; beyond it
            nothing is familiar.
        held_out: their number.
        backbone: sha256 of the weights that made the layouts.
    """

    center: Float32[np.ndarray, " d"]
    spread: Float32[np.ndarray, " d"]
    components: Float32[np.ndarray, "k d"]
    limit: float
    held_out: int
    backbone: str

    def distance(self, layouts: Float32[np.ndarray, "n d"]) -> Float64[np.ndarray, " n"]:
        """Returns how far layouts lie from what normals have in common: rms of the standardised residual."""
        standard = (layouts.astype(np.float64) - self.center) / self.spread
        inside = standard @ self.components.T.astype(np.float64)
        squares = (standard**2).sum(axis=1) - (inside**2).sum(axis=1)
        return np.asarray(np.sqrt(np.maximum(squares, 0.0) / standard.shape[1]))

    def knows(self, distance: float) -> bool:
        """Returns whether an image at this distance is of the kind that the model was trained on."""
        return distance <= self.limit

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` gives back equal numbers."""
        arrays = {name: _text(getattr(self, name)) for name in ("center", "spread", "components")}
        return {
            "version": _VERSION, **arrays, "limit": self.limit, "held_out": self.held_out, "backbone": self.backbone,
        }  # fmt: skip

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Familiarity":
        """Reads what `to_dict` wrote.

        Raises:
            ArtifactError: it is damaged, or was made with other weights than this package holds.
        """
        if data.get("version") != _VERSION:
            raise ArtifactError(f"a stored familiarity must be of version {_VERSION}; got {data.get('version')!r}")
        try:
            center, spread = _array(data["center"]), _array(data["spread"])
            components = _array(data["components"]).reshape(-1, len(center))
            found = cls(center, spread, components, float(data["limit"]), int(data["held_out"]), str(data["backbone"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(f"the stored familiarity is damaged: {error}") from error
        if found.backbone != _backbone().provenance.sha256:
            raise ArtifactError("the model was fitted with another version of the bundled backbone; fit it again")
        return found


def learn(layouts: Float32[np.ndarray, "n d"], held_out: Float32[np.ndarray, "m d"]) -> Familiarity:
    """Learns from the layouts of normals.

    Args:
        layouts: of the images that the model is fitted on.
        held_out: of normals that it is not fitted on; they set the limit.

    Raises:
        CalibrationError: fewer than two to learn from, or none held out.
    """
    if len(layouts) < 2 or len(held_out) < 1:
        raise CalibrationError(
            f"knowing what is familiar needs two normals to learn from and one held out; got {len(layouts)} and "
            f"{len(held_out)}"
        )
    center = layouts.mean(axis=0, dtype=np.float64).astype(np.float32)
    least = LEAST_SPREAD * float(np.abs(center).mean()) + 1e-6
    spread = np.maximum(layouts.std(axis=0, dtype=np.float64), least).astype(np.float32)
    standard = (layouts.astype(np.float64) - center) / spread
    kept = min(COMPONENTS, len(layouts) - 1)
    components = np.linalg.svd(standard, full_matrices=False)[2][:kept].astype(np.float32)
    known = Familiarity(center, spread, components, np.inf, len(held_out), _backbone().provenance.sha256)
    limit = max(MARGIN * float(known.distance(held_out).max()), LEAST_LIMIT)
    return Familiarity(center, spread, components, limit, len(held_out), known.backbone)


@lru_cache(maxsize=1)
def _backbone() -> Backbone:
    return load_backbone(BackboneSpec(name="bundled"))


def _text(values: Float32[np.ndarray, "..."]) -> str:
    return base64.b64encode(values.astype("<f4").tobytes()).decode()


def _array(text: str) -> Float32[np.ndarray, " n"]:
    return np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
