"""What a model file keeps of its calibration normals, so that later input can be compared with them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from anomaly.errors import ArtifactError

VERSION = 1
SCORE = "score"
MOST = 500
"""Normals that are kept at most: about 0.1 MB. Which ones depends on their content alone."""


@dataclass(frozen=True)
class Reference:
    """Score and descriptors of normals that the fit has not seen: one row each.

    Attributes:
        names: what the columns are; the first is "score", the others as `descriptors.names` gives them.
        rows: (n, k) values; n is the number of normals.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        """Refuses rows that do not fit the names, or values that are not finite."""
        if not self.names or self.names[0] != SCORE or not self.rows:
            raise ArtifactError(f"a reference has rows, and columns that begin with {SCORE!r}; got {self.names}")
        if any(len(row) != len(self.names) or not all(map(math.isfinite, row)) for row in self.rows):
            raise ArtifactError(f"every row of a reference must hold {len(self.names)} finite numbers")

    @property
    def values(self) -> Float64[np.ndarray, "n k"]:
        """The rows as one array."""
        return np.array(self.rows, dtype=np.float64)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` gives back an equal reference."""
        return {"version": VERSION, "names": list(self.names), "rows": [list(row) for row in self.rows]}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Reference":
        """Reads what `to_dict` wrote.

        Raises:
            ArtifactError: another version, a key is missing or unknown, or rows and names do not fit.
        """
        if data.get("version") != VERSION:
            raise ArtifactError(f"a stored reference must be of version {VERSION}; got {data.get('version')!r}")
        if set(data) != {"version", "names", "rows"}:
            raise ArtifactError(f"a stored reference must hold names, rows and version; got {sorted(data)}")
        try:
            return cls(tuple(map(str, data["names"])), tuple(tuple(map(float, row)) for row in data["rows"]))
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"the stored reference is damaged: {error}") from error
