"""A triage model: a detector with its calibration per patient, the input contract, and what is familiar. One file.

It is an ordinary model file of the suite (see `anomaly.artifact`); what this frontend needs lies in its extension
"medical". A model file without it says nothing about which studies it may be asked about, and is refused.
"""

from dataclasses import dataclass, replace
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path
from typing import Any

from anomaly.artifact import Artifact, load, save
from anomaly.errors import ArtifactError, SettingError
from medical.contract import Contract
from medical.familiarity import Familiarity
from medical.outcome import Algorithm
from medical.preparing import Voxel
from medical.subgroups import Subgroup

EXTENSION, SCHEMA = "medical", 1


@dataclass(frozen=True, kw_only=True)
class Aggregation:
    """How scores of slices become the score of a volume.

    The score of a study is the highest of its images and volumes, that of a patient the highest of the studies.

    Attributes:
        top: the mean of this many highest slices, 1 or more; fewer where a volume has fewer.
    """

    top: int = 1

    def __post_init__(self) -> None:
        """Refuses values that are not allowed."""
        if self.top < 1:
            raise SettingError.of("Aggregation", "top", "1 or more", self.top)

    def in_words(self, geometry: str) -> str:
        """Returns one line for people."""
        if geometry != "slices":
            return f"study: highest {'image' if geometry == 'image' else 'volume'}"
        slices = "highest slice" if self.top == 1 else f"mean of the {self.top} highest slices"
        return f"volume: {slices}; study: highest volume"


@dataclass(frozen=True)
class TriageModel:
    """What `anomaly triage fit` writes and `anomaly triage run` reads.

    Attributes:
        artifact: scorer and calibration; one score per patient.
        contract: what it may be asked about.
        familiarity: what kind of image it was trained on.
        aggregation: slices -> volume.
        voxel: voxel size of a model of whole volumes; else None.
        subgroups: how the held-out normals that would be flagged are spread.
        digest: sha256 of the model file; empty before it is saved.
    """

    artifact: Artifact
    contract: Contract
    familiarity: Familiarity
    aggregation: Aggregation
    voxel: Voxel | None
    subgroups: tuple[Subgroup, ...]
    digest: str = ""

    def save(self, path: Path) -> "TriageModel":
        """Writes the model file and returns the model with its digest.

        Raises:
            ArtifactError: the name does not end in .safetensors, or the folder cannot be written.
        """
        extension = {
            "schema": SCHEMA,
            "contract": self.contract.to_dict(),
            "familiarity": self.familiarity.to_dict(),
            "aggregation": {"top": self.aggregation.top},
            "voxel": list(self.voxel) if self.voxel else None,
            "subgroups": [group._asdict() for group in self.subgroups],
        }
        return replace(self, digest=save(path, replace(self.artifact, extensions={EXTENSION: extension})))

    @classmethod
    def load(cls, path: Path) -> "TriageModel":
        """Reads a model file.

        Raises:
            ArtifactError: it is no model of the suite, or was not fitted by `anomaly triage fit`.
        """
        artifact = load(path)
        data: dict[str, Any] = dict(artifact.extensions.get(EXTENSION, {}))
        if not data:
            raise ArtifactError(
                f"{path} states no input contract: it was not made by `anomaly triage fit`, and nothing says which "
                "studies it may be asked about"
            )
        if data.get("schema") != SCHEMA:
            raise ArtifactError(f"{path}: the medical part must be of schema {SCHEMA}; got {data.get('schema')!r}")
        try:
            voxel = tuple(float(side) for side in data["voxel"]) if data["voxel"] else None
            return cls(
                artifact=artifact,
                contract=Contract.from_dict(data["contract"]),
                familiarity=Familiarity.from_dict(data["familiarity"]),
                aggregation=Aggregation(**data["aggregation"]),
                voxel=voxel,  # type: ignore[arg-type]  # three numbers
                subgroups=tuple(Subgroup(**group) for group in data["subgroups"]),
                digest=sha256(path.read_bytes()).hexdigest(),
            )
        except (KeyError, TypeError, SettingError) as error:
            raise ArtifactError(f"{path}: the medical part is damaged: {error}") from error

    def algorithm(self) -> Algorithm:
        """Returns what goes into every result."""
        calibration = self.artifact.calibration
        settings = {
            "REVIEW above": f"{calibration.review.value:.6g}",
            "NG above": f"{calibration.ng.value:.6g}",
            "aggregation": self.aggregation.in_words(self.contract.geometry),
            "calibrated on": f"{len(calibration.scores)} normal patients",
        }
        name = f"anomaly-suite {self.artifact.scorer.detector.name}"
        return Algorithm(name=name, version=version("anomaly-suite"), model=self.digest, settings=settings)
