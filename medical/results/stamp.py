"""What every result carries: identifiers that a second run makes again, the algorithm, "NOT FOR DIAGNOSTIC USE".

Identifiers are UUIDs of version 5 (RFC 9562) below 2.25 (PS3.5 B.2), made from the model, its settings and the source
objects: after a crash the same study gets the same identifiers, and an archive holds nothing twice.
"""

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any

from medical.outcome import DISCLAIMER, Algorithm, Outcome
from medical.results.codes import PRIVATE, PROCESSING_EQUIPMENT, SCHEME_NAME
from medical.results.settings import Kind, ResultError
from medical.results.sources import Sources, give_patient
from medical.vocabulary import OURS

NAMESPACE = uuid.UUID("7f1c6e0b-8f0e-5d0c-9a36-4a1de5e2a5c7")
SERIES = {
    Kind.SR: (9901, "measurements"),
    Kind.SEG: (9902, "regions"),
    Kind.PM: (9903, "anomaly map"),
    Kind.SC: (9904, "summary"),
    Kind.KO: (9905, "flagged images"),
}
"""Series Number and words of the Series Description."""
WARNING = "NOT FOR DIAGNOSTIC USE"


@dataclass(frozen=True)
class Stamp:
    """Identity of the results of one study.

    Attributes:
        algorithm: what computed them.
        seed: hash of the model, its settings, the mode and the source objects.
    """

    algorithm: Algorithm
    seed: str

    @classmethod
    def of(cls, algorithm: Algorithm, outcome: Outcome, sources: Sources, *, mode: str) -> "Stamp":
        """Returns the identity of the results of a study.

        Args:
            algorithm: what computed them.
            outcome: of the study; what was refused counts, scores do not.
            sources: headers of the study.
            mode: settings that change what is in the results.

        Raises:
            ResultError: the name or version of the algorithm is empty or longer than 64 characters.
        """
        for name, value in (("name", algorithm.name), ("version", algorithm.version), ("model", algorithm.model)):
            if not 0 < len(value) <= 64 or "\\" in value:
                raise ResultError(f"the {name} of the algorithm must have 1 to 64 characters without \\; got {value!r}")
        parts = [algorithm.model, algorithm.name, algorithm.version, mode]
        parts += [f"{name}={value}" for name, value in sorted(algorithm.settings.items())]
        parts += sorted(str(header.SOPInstanceUID) for header in sources.headers)
        parts += sorted(str(file.refusal) for file in outcome.unread)
        return cls(algorithm, hashlib.sha256("\n".join(parts).encode()).hexdigest())

    def uid(self, *parts: str) -> str:
        """Returns the identifier of what `parts` name, the same in every run."""
        return f"2.25.{uuid.uuid5(NAMESPACE, '/'.join((self.seed, *parts))).int}"

    @property
    def device(self) -> str:
        """Identifier of the model as a device observer; the same for all studies."""
        return f"2.25.{uuid.uuid5(NAMESPACE, self.algorithm.model).int}"

    def arguments(self, kind: Kind, key: str = "", place: int = 0) -> dict[str, Any]:
        """Returns the arguments that the constructors of highdicom share.

        Args:
            kind: of the result.
            key: tells series of one kind apart.
            place: how many series of the kind come before.
        """
        from highdicom import ContributingEquipment
        from highdicom.coding_schemes import CodingSchemeIdentificationItem

        number, words = SERIES[kind]
        equipment = ContributingEquipment(
            OURS,
            PROCESSING_EQUIPMENT.concept(),
            manufacturer_model_name=self.algorithm.name,
            software_versions=self.algorithm.version,
            device_serial_number=self.algorithm.model,
            contribution_description=DISCLAIMER,
        )
        return {
            "series_instance_uid": self.uid(kind, "series", key),
            "series_number": number + 10 * place,
            "sop_instance_uid": self.uid(kind, "object", key),
            "instance_number": 1,
            "manufacturer": OURS,
            "manufacturer_model_name": self.algorithm.name,
            "software_versions": self.algorithm.version,
            "device_serial_number": self.algorithm.model,
            "series_description": f"{WARNING} - research {words}",
            "contributing_equipment": [equipment],
            "coding_schemes": [
                CodingSchemeIdentificationItem(PRIVATE, name=SCHEME_NAME, responsible_organization=OURS)
            ],
        }

    @property
    def parameters(self) -> list[str]:
        """The settings and the model of the algorithm as texts."""
        return [
            *(f"{name}: {value}" for name, value in self.algorithm.settings.items()),
            f"model: {self.algorithm.model}",
        ]


def finish(result: Any, header: Any) -> Any:
    """Gives a built result its patient and study; the last step before it is written."""
    give_patient(result, header)
    return result
