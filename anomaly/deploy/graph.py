"""One graph from the raw frame to score, map, p-value and decision: what every export is made of."""

import numpy as np
import torch
from jaxtyping import Float, Int32, Shaped
from torch import Tensor, nn

from anomaly.artifact import Artifact
from anomaly.deploy.manifest import Frame, Manifest


class ScoringGraph(nn.Module):
    """The scorer of a model with its calibration, as one module without any choice that depends on data.

    Attributes:
        frame: the frames that the graph takes.
    """

    held_out: Tensor

    def __init__(self, artifact: Artifact, frame: Frame) -> None:
        """Builds the graph.

        Args:
            artifact: a fitted, calibrated model.
            frame: of a fixed size.
        """
        super().__init__()
        self.frame = frame
        self.scorer = artifact.scorer.eval()
        calibration = artifact.calibration
        self.register_buffer("held_out", _at_or_below(calibration.scores))
        self.review, self.ng = _at_or_below((calibration.review.value, calibration.ng.value)).tolist()

    def example(self, count: int) -> Shaped[Tensor, "n _ _ _"]:
        """Returns `count` frames of the lowest raw value."""
        low = self.frame.value_range[0]
        return torch.full(self.frame.shape(count), low).to(getattr(torch, self.frame.dtype))

    def forward(
        self, frames: Shaped[Tensor, "n _ _ _"]
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "n h w"], Float[Tensor, " n"], Int32[Tensor, " n"]]:
        """Scores and judges raw frames.

        Args:
            frames: (N, C, H, W) or (N, H, W, C) as `frame.layout` says; raw values in `frame.dtype`.

        Returns:
            score, map, p-value and decision code, as `Manifest.to_metadata` describes them.
        """
        images = frames if self.frame.layout == "NCHW" else frames.permute(0, 3, 1, 2)
        score, anomaly_map = self.scorer(images)
        # A score that is not finite comes from a broken image; it counts as more anomalous than everything.
        judged = torch.where(torch.isfinite(score), score, torch.inf)
        at_or_above = (self.held_out[None] >= judged[:, None]).to(torch.float32).sum(dim=1)
        p_value = (1 + at_or_above) / (1 + len(self.held_out))
        decision = (judged > self.review).to(torch.int32) + (judged > self.ng).to(torch.int32)
        return score, anomaly_map, p_value, decision


def describe(artifact: Artifact, frame: Frame, target: str, precision: str, model: dict[str, str]) -> Manifest:
    """Returns the manifest of an export, or of the model file itself, before its parity was measured.

    Args:
        artifact: the model.
        frame: the frames that are taken.
        target: format of the file.
        precision: "fp32", "fp16" or "int8".
        model: further rows on where the model comes from.
    """
    spec, calibration, normal = artifact.scorer.input, artifact.calibration, artifact.map_calibration
    return Manifest(
        target=target,
        precision=precision,  # type: ignore[arg-type]
        frame=frame,
        canvas=spec.size,
        covered=spec.covered(frame.height, frame.width) if frame.height and frame.width else None,
        review=calibration.review.value,
        ng=calibration.ng.value,
        calibrated_on=len(calibration.scores),
        promise=calibration.in_words(),
        score_typical=float(np.median(calibration.scores)),
        map_typical=normal.typical,
        map_threshold=normal.threshold.value,
        model={**artifact.provenance(), **model},
        parity={},
    )


def _at_or_below(values: tuple[float, ...]) -> Tensor:
    """Returns the largest float32 at or below each value: no float32 score changes its side by the rounding."""
    exact = np.array(values, dtype=np.float64)
    rounded = exact.astype(np.float32)
    return torch.from_numpy(np.where(rounded > exact, np.nextafter(rounded, np.float32(-np.inf)), rounded))
