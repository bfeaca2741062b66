"""Newly accepted normals into a model, without its old images: refit, recalibrate, compare, and only then write.

The old calibration does not survive a refit: its scores were given by another scorer, and the images are gone. The new
thresholds rest on the new normals held out of the refit alone, and so does the reference for drift. What they promise
is therefore said for normals like the new ones and for as many of them as were held out.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from anomaly.artifact import Artifact
from anomaly.detector import Detector, Refittable, Scorer
from anomaly.errors import ArtifactError, ImageFileError, SettingError
from anomaly.fitting import Plan, fit_files, split
from anomaly.input_spec import Images
from anomaly.progress import Progress, silent

FRACTION = 0.5
"""Share of the new normals held out by default: the fit has the old ones too, the calibration has only these."""


@dataclass(frozen=True)
class Refit:
    """A model that has learned further normals.

    Attributes:
        artifact: the new model.
        held_out: files of the new normals that only its calibration has seen.
    """

    artifact: Artifact
    held_out: tuple[Path, ...]


def refit_files(
    artifact: Artifact,
    paths: Sequence[Path],
    plan: Plan,
    failures: list[ImageFileError],
    progress: Progress = silent,
) -> Refit:
    """Learns new normal image files and calibrates on those of them that it holds out; the old model stays as it is.

    Args:
        artifact: the old model.
        paths: new normal images.
        plan: split and wanted rates; `plan_like` keeps those of the old model.
        failures: receives the errors of files that could not be used.
        progress: is told what is being done.

    Raises:
        ArtifactError: the model cannot be refitted: its family keeps no sums, or its file is older than they are.
        CalibrationError: too few usable files to hold any out.
        DatasetError: no file can be used, or the plan's groups lack a file.
        SettingError: the old rates count groups and the plan names none.
    """
    scorer = artifact.scorer
    if not isinstance(scorer, Refittable):
        raise ArtifactError(
            f"a model of detector {scorer.detector.name!r} cannot learn further normals without its old images "
            "(subspace and gaussian can); fit it again on old and new images together"
        )
    unit = artifact.calibration.unit
    if unit != "image" and plan.groups is None:
        raise SettingError(
            f"the rates of this model count {unit}; name the groups of the new images (--manifest, --group)"
        )
    _, held = split(paths, plan, scorer.detector.seed)
    continued = _Continued(input=scorer.input, seed=scorer.detector.seed, scorer=scorer)
    new = fit_files(continued, paths, plan, failures, progress)
    old, added = artifact.training, new.training
    chained = hashlib.sha256(f"{old.fingerprint}\n{added.fingerprint}".encode()).hexdigest()
    training = replace(added, images=old.images + added.images, fingerprint=chained)
    return Refit(replace(new, training=training), tuple(paths[i] for i in held))


def plan_like(artifact: Artifact, fraction: float, groups: Mapping[str, str] | None, unit: str | None) -> Plan:
    """Returns a plan with the rates and the confidence that the old model was calibrated for."""
    calibration = artifact.calibration
    return Plan(
        fraction=fraction,
        groups=groups,
        unit=unit,
        review_rate=calibration.review.wanted,
        ng_rate=calibration.ng.wanted,
        confidence=calibration.ng.confidence,
    )


@dataclass(frozen=True, kw_only=True)
class _Continued(Detector):
    """Fits by going on from a fitted scorer, so that a refit takes the one way that every fit takes."""

    name: ClassVar[str] = "continued"

    scorer: Scorer

    def fit(self, images: Iterable[Images]) -> Scorer:
        assert isinstance(self.scorer, Refittable)
        return self.scorer.refitted(images)

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> Scorer:
        return self.scorer.detector.restore(state, description)
