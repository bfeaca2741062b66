"""What a model file keeps of its calibration normals, so that later input can be compared with them."""

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from anomaly.errors import ArtifactError

VERSION = 1
SCORE = "score"
SIDE = 64
"""Height and width of the template in pixels."""

Thumbnail = UInt8[np.ndarray, "64 64"]


@dataclass(frozen=True)
class Reference:
    """Score and descriptors of normals that the fit has not seen: one row each.

    Attributes:
        names: what the columns are; the first is "score", the others as `descriptors.names` gives them.
        rows: (n, k) values; n is the number of normals.
        template: how the parts lie: mean of the thumbnails of other normals, row by row, 64 x 64 bytes.
    """

    names: tuple[str, ...]
    rows: tuple[tuple[float, ...], ...]
    template: bytes

    def __post_init__(self) -> None:
        """Refuses rows that do not fit the names, or values that are not finite."""
        if not self.names or self.names[0] != SCORE or not self.rows:
            raise ArtifactError(f"a reference has rows, and columns that begin with {SCORE!r}; got {self.names}")
        if any(len(row) != len(self.names) or not all(map(math.isfinite, row)) for row in self.rows):
            raise ArtifactError(f"every row of a reference must hold {len(self.names)} finite numbers")
        if len(self.template) != SIDE**2:
            raise ArtifactError(f"the template of a reference must hold {SIDE**2} bytes; got {len(self.template)}")

    @property
    def values(self) -> Float64[np.ndarray, "n k"]:
        """The rows as one array."""
        return np.array(self.rows, dtype=np.float64)

    @property
    def thumbnail(self) -> Thumbnail:
        """The template as a picture."""
        return np.frombuffer(self.template, np.uint8).reshape(SIDE, SIDE)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; `from_dict` gives back an equal reference."""
        rows, template = [list(row) for row in self.rows], base64.b64encode(self.template).decode()
        return {"version": VERSION, "names": list(self.names), "rows": rows, "template": template}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Reference":
        """Reads what `to_dict` wrote.

        Raises:
            ArtifactError: another version, a key is missing or unknown, or rows and names do not fit.
        """
        if data.get("version") != VERSION:
            raise ArtifactError(f"a stored reference must be of version {VERSION}; got {data.get('version')!r}")
        if set(data) != {"version", "names", "rows", "template"}:
            raise ArtifactError(f"a stored reference must hold names, rows, template and version; got {sorted(data)}")
        try:
            rows = tuple(tuple(map(float, row)) for row in data["rows"])
            return cls(tuple(map(str, data["names"])), rows, base64.b64decode(data["template"], validate=True))
        except (TypeError, ValueError) as error:
            raise ArtifactError(f"the stored reference is damaged: {error}") from error
