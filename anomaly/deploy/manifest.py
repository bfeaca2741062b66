"""What an exported model says of itself: the frame it takes, what its outputs mean, where it comes from.

Plain JSON in the metadata of the model file, so that an integrator in any language needs nothing but the file. This
module needs the standard library and numpy alone: it is part of the light runtime.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from anomaly.errors import ArtifactError, InputError, SettingError

FORMAT = "anomaly-suite export"
SCHEMA = 1
KEY = "anomaly.manifest"
"""Name under which the manifest lies in the metadata of a model file."""
DECISIONS = ("OK", "REVIEW", "NG")
"""Decision codes 0, 1, 2."""
INPUT = "frame"
OUTPUTS = ("score", "map", "p_value", "decision")

Frames = npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The raw frames that a runtime takes, exactly as the camera gives them.

    Attributes:
        channels: channels of a frame.
        height: rows in pixels; None where any size is taken.
        width: columns in pixels; None where any size is taken.
        dtype: "uint8", "uint16" or "float32"; nothing is converted.
        layout: "NCHW" (planes) or "NHWC" (interleaved, as most cameras give it).
        value_range: lowest and highest raw value that is allowed.
        unit: what a raw value means.
        batch: fewest and most frames of one run; `Runtime` splits larger batches and fills up smaller ones.
    """

    channels: int
    height: int | None
    width: int | None
    dtype: Literal["uint8", "uint16", "float32"]
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    value_range: tuple[float, float] = (0.0, 255.0)
    unit: str = "grey value"
    batch: tuple[int, int] = (1, 1)

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if self.layout not in ("NCHW", "NHWC"):
            raise SettingError.of("Frame", "layout", "'NCHW' or 'NHWC'", self.layout)
        if len(self.batch) != 2 or not 1 <= self.batch[0] <= self.batch[1]:
            raise SettingError.of("Frame", "batch", "(fewest, most) with 1 <= fewest <= most", self.batch)
        if (self.height is None) != (self.width is None) or 0 in (self.height, self.width):
            raise SettingError.of("Frame", "(height, width)", "positive, or both None", (self.height, self.width))

    def shape(self, count: int | str = "N") -> tuple[Any, ...]:
        """Returns the shape of a batch of `count` frames; a side that may be anything is named by a letter."""
        sides = (self.height or "H", self.width or "W")
        return (count, self.channels, *sides) if self.layout == "NCHW" else (count, *sides, self.channels)

    def in_words(self) -> str:
        """One line for people: what a frame must be."""
        shape = ", ".join(str(side) for side in self.shape())
        low, high = self.value_range
        return f"{self.dtype} ({shape}) in layout {self.layout}, raw values {low:g} to {high:g} ({self.unit})"

    def batch_of(self, frames: Any) -> Frames:
        """Checks raw frames and returns them as a batch of shape `shape(N)`; never converts or copies.

        Args:
            frames: a batch, one frame without its first axis, or (H, W) where there is one channel.

        Raises:
            InputError: wrong type, dtype, number of dimensions, channels, size, no frame, or a value out of range.
        """
        if not isinstance(frames, np.ndarray):
            raise InputError(f"frames must be a numpy array, {self.in_words()}; got {type(frames).__name__}")
        if frames.dtype != self.dtype:
            raise InputError(f"frames must be {self.in_words()}; got dtype {frames.dtype}. Nothing is converted here")
        batch = frames
        if frames.ndim == 2 and self.channels == 1:
            batch = frames[None, None] if self.layout == "NCHW" else frames[None, :, :, None]
        elif frames.ndim == 3:
            batch = frames[None]
        wanted = self.shape()
        fits = batch.ndim == 4 and all(
            w == got for w, got in zip(wanted, batch.shape, strict=True) if isinstance(w, int)
        )
        if not fits or 0 in batch.shape:
            raise InputError(f"frames must be {self.in_words()}, or one such frame; got shape {frames.shape}")
        self._check_values(batch)
        return batch

    def _check_values(self, batch: Frames) -> None:
        low, high = self.value_range
        if batch.dtype.kind == "u" and (low, high) == (0.0, float(np.iinfo(batch.dtype).max)):
            return
        least, greatest = float(batch.min()), float(batch.max())
        if not (low <= least and greatest <= high):  # also true for NaN
            raise InputError(f"frames must be {self.in_words()}; got values {least:g} to {greatest:g}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What an exported model is.

    Attributes:
        target: format of the file, e.g. "onnx"; "eager" for a model file of the suite itself.
        precision: "fp32", "fp16" or "int8".
        frame: the frames that it takes.
        canvas: height and width in pixels of the map.
        covered: height and width in canvas pixels that a frame covers, from the top left corner; beyond it the map
            holds its smallest value. None where frames may have any size.
        review: scores above it are REVIEW.
        ng: scores above it are NG.
        calibrated_on: number of held-out normals that the p-values and thresholds come from.
        promise: lines for people: what the thresholds promise.
        score_typical: median score of held-out normals.
        map_typical: median pixel of their maps.
        map_threshold: map values above it are unusual; for contours, never for a decision.
        model: what the model is and where it comes from, rows for people.
        parity: how far the scores are from those of the model file it was made from; empty for that file itself.
    """

    target: str
    precision: Literal["fp32", "fp16", "int8"]
    frame: Frame
    canvas: tuple[int, int]
    covered: tuple[int, int] | None
    review: float
    ng: float
    calibrated_on: int
    promise: str
    score_typical: float
    map_typical: float
    map_threshold: float
    model: Mapping[str, str]
    parity: Mapping[str, Any]

    def to_metadata(self) -> dict[str, str]:
        """Returns the metadata of a model file: the manifest as JSON, and the same for people as plain lines."""
        manifest = json.dumps(
            {"format": FORMAT, "schema": SCHEMA, "decisions": DECISIONS, **asdict(self)}, sort_keys=True
        )
        height, width = self.canvas
        return {
            KEY: manifest,
            f"input.{INPUT}": self.frame.in_words(),
            "input.layout": self.frame.layout,
            "input.range": " ".join(repr(value) for value in self.frame.value_range),
            "output.score": "float32 (N): anomaly score, raw and unbounded, higher is more anomalous",
            "output.map": f"float32 (N, {height}, {width}): anomaly map on the canvas, higher is more anomalous",
            "output.p_value": "float32 (N): share of normal units that score at least this high, above 0 to 1",
            "output.decision": "int32 (N): " + ", ".join(f"{code} {name}" for code, name in enumerate(DECISIONS)),
            "threshold.review": repr(self.review),
            "threshold.ng": repr(self.ng),
            "threshold.map": repr(self.map_threshold),
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], path: object) -> "Manifest":
        """Reads what `to_metadata` wrote; strict.

        Raises:
            ArtifactError: the file is no export of this suite, of another schema, or its manifest is damaged.
        """
        if KEY not in metadata:
            raise ArtifactError(f"{path} has no manifest of this suite; make the file with `anomaly export`")
        try:
            data = json.loads(metadata[KEY])
            stored, schema = data.pop("format"), data.pop("schema")
            if (stored, schema, tuple(data.pop("decisions"))) != (FORMAT, SCHEMA, DECISIONS):
                raise ArtifactError(
                    f"{path}: this version reads {FORMAT!r} of schema {SCHEMA}; got {stored!r} of schema {schema}: "
                    "install a newer anomaly-suite, or export again"
                )
            if set(data) != (names := {f.name for f in fields(cls)}):
                raise ArtifactError(f"{path}: the manifest must hold {sorted(names)}; got {sorted(data)}")
            frame = data.pop("frame")
            frame |= {"batch": tuple(frame["batch"]), "value_range": tuple(frame["value_range"])}
            covered = data.pop("covered")
            return cls(
                frame=Frame(**frame),
                canvas=tuple(data.pop("canvas")),
                covered=tuple(covered) if covered else None,
                **data,
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ArtifactError(f"{path}: the manifest is damaged: {error}; export again") from error
