"""Content of normal studies by which regions are replaced, so that faithfulness can be measured; it is never shown.

Model files keep no pictures of the patients that they learned from, so the caller names normal studies. They pass the
same reader and contract as what is explained; what is refused is not used. A patient is not replaced by themselves, as
far as both folders name them alike: by the same identifier, and with its issuer in both or in neither of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from anomaly.progress import Progress, silent
from explain.twin import MOST_NORMALS, Normals
from medical.model import TriageModel
from medical.objects import RefusedFile, Study
from medical.refusals import RefusedError
from medical.scoring import Frames, Prepared, prepare
from medical.units import Pixels, read_units

VOLUMES = 8
"""Volumes that are used at most; of each at most `MOST_NORMALS` slices are held, evenly spaced."""


@dataclass(frozen=True, eq=False)
class _Frame:
    """One normal frame: whose it is, where in its volume it lies (0 to 1), and (1, h, w) values for the scorer."""

    patient: str
    place: float
    values: Float[Tensor, "1 h w"]


@dataclass(frozen=True, eq=False)
class NormalContent:
    """Frames of normal studies.

    Memory: 4 bytes a pixel, e.g. 8 volumes with 24 slices of 512 x 512: 200 MB.
    """

    _frames: tuple[_Frame, ...]
    studies: int

    @classmethod
    def read(
        cls, studies: Sequence[Study], model: TriageModel, pixels: Pixels, progress: Progress = silent
    ) -> "NormalContent":
        """Reads normal studies, evenly spaced where there are more than are used.

        Raises:
            RefusedError: none of them can be used; the reason of the first.
        """
        most = MOST_NORMALS if model.contract.geometry == "image" else VOLUMES
        chosen = np.unique(np.linspace(0, len(studies) - 1, min(most, len(studies))).round().astype(int))
        frames: list[_Frame] = []
        refusals = [one.refusal for study in studies for one in study.refused]
        used = 0
        advance = progress("reading normal studies", len(chosen))
        for index in chosen:
            before = len(frames)
            for unit in read_units(studies[index], model.contract, pixels):
                if isinstance(unit, RefusedFile):
                    refusals.append(unit.refusal)
                    continue
                try:
                    frames += _frames(studies[index].patient, prepare(unit, model.contract, model.voxel))
                except RefusedError as error:
                    refusals.append(error.refusal)
            used += len(frames) > before
            advance(1)
        if not frames:
            raise RefusedError(refusals[0].reason, f"no normal study can be used: {refusals[0].detail}")
        return cls(tuple(frames), used)

    def like(self, patient: str, place: float) -> Normals | None:
        """Returns frames of other patients that lie nearest to a place, at most `MOST_NORMALS`; None if there are none.

        Args:
            patient: key of the patient that is explained; made as those of the normals, see above.
            place: 0 for the first slice of a volume, 1 for the last; any for single images.
        """
        others = [one for one in self._frames if one.patient != patient]
        nearest = sorted(others, key=lambda one: abs(one.place - place))[:MOST_NORMALS]
        if not nearest:
            return None
        return Normals(tuple(f"normal {k + 1}" for k in range(len(nearest))), tuple(one.values for one in nearest))


def _frames(patient: str, prepared: Prepared) -> list[_Frame]:
    """Returns at most `MOST_NORMALS` frames of a unit, evenly spaced."""
    whole = prepared.values if isinstance(prepared, Frames) else prepared.placed.as_tensor().permute(1, 0, 2, 3)
    count = len(whole)
    indices = np.unique(np.linspace(0, count - 1, min(count, MOST_NORMALS)).round().astype(int)).tolist()
    return [_Frame(patient, place_of(k, count), whole[k].clamp(*prepared.window).clone()) for k in indices]


def place_of(index: int, count: int) -> float:
    """Returns where a slice lies in its volume: 0 for the first, 1 for the last, 0 for a single one."""
    return index / (count - 1) if count > 1 else 0.0
