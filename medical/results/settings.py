"""What can be chosen about results, what was written, and the error of this part."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from anomaly.errors import AnomalyError, SettingError


class Kind(StrEnum):
    """The kinds of results; the values are short and go into file names."""

    SR = "sr"
    SEG = "seg"
    PM = "pm"
    SC = "sc"
    KO = "ko"


MARKING = (Kind.SEG, Kind.PM)
"""Kinds that mark regions: written only with heatmaps."""


@dataclass(frozen=True)
class ResultSettings:
    """Which results are written.

    Attributes:
        with_heatmaps: whether anything marks regions: segmentations, parametric maps, and colours over the picture of
            the summary. Off by default: software that marks regions is another class of device than software that
            raises priorities.
        kinds: the kinds that are wanted; SEG and PM among them need `with_heatmaps`, KO needs a flagged study.
        compact_maps: parametric maps hold 256 levels, run-length encoded, instead of the float32 values themselves;
            about a quarter of the size, and read by fewer viewers.
    """

    with_heatmaps: bool = False
    kinds: tuple[Kind, ...] = tuple(Kind)
    compact_maps: bool = False

    def __post_init__(self) -> None:
        """Checks the kinds.

        Raises:
            SettingError: `kinds` is empty or holds what is none.
        """
        valid = [str(kind) for kind in Kind]
        if not self.kinds or any(kind not in valid for kind in self.kinds):
            raise SettingError.of("ResultSettings", "kinds", f"some of {', '.join(valid)}", self.kinds)

    def wants(self, kind: Kind) -> bool:
        """Returns whether this kind is to be written."""
        return kind in self.kinds and (self.with_heatmaps or kind not in MARKING)


@dataclass(frozen=True)
class Written:
    """One DICOM object that was written.

    Attributes:
        path: the file; its name is made of pseudonyms.
        sop_class: SOP Class UID.
        uid: SOP Instance UID; the same whenever the same model judges the same objects.
        kind: what it is.
    """

    path: Path
    sop_class: str
    uid: str
    kind: Kind


class ResultError(AnomalyError):
    """A result cannot be written as DICOM. The message holds no patient data."""
