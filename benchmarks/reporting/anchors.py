"""Published figures for a column of their own, from `benchmarks/anchors.yaml`. Never mixed with what was measured."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from anomaly.errors import DatasetError
from benchmarks.datasets.registry import SETS

FILE = Path(__file__).resolve().parents[1] / "anchors.yaml"
MEAN = "mean"


class Anchor(BaseModel):
    """One published figure.

    Attributes:
        set: name of the public set.
        category: product, or `MEAN` over all.
        method: what it was reached with.
        detector: the detector or peer whose row it stands beside; empty for a row of its own.
        image_auroc: 0..1.
        protocol: learned from normal images, each test image scored alone, nothing chosen on test data. Records of
            another kind have no place here.
        source: paper or document.
        year: year of the source; of a document without a date, the year in which it was read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    set: str
    category: str
    method: str
    detector: str = ""
    image_auroc: float = Field(gt=0, le=1)
    protocol: Literal["inductive"]
    source: str = Field(min_length=1)
    year: int = Field(ge=1990, le=2100)


def read_anchors(path: Path = FILE) -> tuple[Anchor, ...]:
    """Reads the published figures.

    Raises:
        DatasetError: an entry is not complete, out of range, of an unknown set, or not inductive.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        found = TypeAdapter(tuple[Anchor, ...]).validate_python(tuple(yaml.safe_load(path.read_text(encoding="utf-8"))))
    except ValidationError as error:
        raise DatasetError(f"{path}: {error}") from None
    for anchor in found:
        if anchor.set not in SETS or anchor.category not in (MEAN, *SETS[anchor.set].categories):
            raise DatasetError(f"{path}: there is no set or category {anchor.set} {anchor.category}")
    return found
