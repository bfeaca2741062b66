"""What every method returns: one map at the resolution of the image, and how far the method kept its own promise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32

from anomaly.errors import InputError


@dataclass(frozen=True)
class Check:
    """A figure by which a method checks itself.

    Attributes:
        name: "completeness" (what the map does not account for, as a share of the difference of scores that it should
            account for; 0 is perfect) or "fit" (share of the variance that a surrogate explains; 1 is perfect).
        value: the figure.
        bound: completeness may be at most, a fit must be at least so large.
    """

    name: str
    value: float
    bound: float

    @property
    def holds(self) -> bool:
        """Whether the figure keeps its bound; one that is not a number does not."""
        return self.value <= self.bound if self.name == "completeness" else self.value >= self.bound

    def in_words(self) -> str:
        """One sentence for people."""
        if self.name == "completeness":
            return f"{100 * self.value:.1f} % of the difference of scores is not accounted for by the map"
        return f"the linear surrogate explains {100 * max(0.0, self.value):.0f} % of how the score varies"


@dataclass(frozen=True, eq=False)
class Explanation:
    """Where a score comes from, as one method says.

    Attributes:
        method: name of the method in `explain.methods`.
        map: (H, W) float32 at the resolution of the raw frame; positive speaks for an anomaly, negative against it.
            The unit differs from method to method, so maps of several methods are compared by rank or by share.
        settings: settings of the method with defaults filled in, JSON-able; also what it found out, such as the layer.
        check: the figure by which the method checks itself; None for methods that promise nothing of that kind.
    """

    method: str
    map: Float32[np.ndarray, "h w"]
    settings: Mapping[str, Any] = field(default_factory=dict)
    check: Check | None = None

    def __post_init__(self) -> None:
        """Refuses maps that nobody can read."""
        if self.map.ndim != 2 or self.map.dtype != np.float32 or not np.isfinite(self.map).all():
            raise InputError(
                f"the map of {self.method} must be (H, W) float32 with finite values; got shape {self.map.shape}, "
                f"{self.map.dtype}, {int((~np.isfinite(self.map)).sum())} values that are not finite"
            )

    def shown(self) -> Float32[np.ndarray, "h w"]:
        """Returns what speaks for an anomaly, 0 to 1: the positive part as a share of its 99.9th percentile."""
        positive = np.maximum(self.map, 0)
        top = float(np.percentile(positive, 99.9)) or float(positive.max())
        return np.asarray(np.clip(positive / top, 0, 1) if top > 0 else positive, dtype=np.float32)
