"""A smaller model for small machines: fewer patches in the bank, fewer components, shorter weights.

Every one of these changes the scores, so the old thresholds and levels say nothing of the smaller model, however small
the change. A compression therefore takes normal images and makes both anew, as a fit does: levels from one part, the
calibration from another that the model has not seen. Given exactly the images of the fit, they are split as the fit
split them, and its promise holds as before. Given other normals, none of them may have been in the fit.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from anomaly.artifact import Artifact
from anomaly.detector import Detector, Scorer
from anomaly.errors import ImageFileError, SettingError
from anomaly.fitting import Plan, fingerprint_of, fit_files
from anomaly.input_spec import Images
from anomaly.progress import Progress, silent
from anomaly.refit import plan_like
from anomaly.storage import KINDS, Kind, Storage

FRACTION = 0.5
"""Share of new normals that calibrate; the images of the fit are split as the fit did."""


@runtime_checkable
class Reducible(Protocol):
    """A scorer that can forget part of what it has learned."""

    def reduced(self, bank: int | None, components: int | None, images: Iterable[Images], *, fitted: bool) -> Scorer:
        """Returns a smaller scorer with levels measured anew; this one stays as it is.

        Args:
            bank: patches to keep; None for all.
            components: components to keep; None for all.
            images: batches of normal raw frames for the levels of positions.
            fitted: whether the scorer was fitted on these images.

        Raises:
            SettingError: the scorer has no such part, or not more of it than is to be kept.
        """


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What is to be made smaller; None leaves it.

    Attributes:
        bank: patches that a memory bank keeps, chosen as a coreset of the bank.
        components: principal components of a memory bank, or local components of a Gaussian.
        weights: how the weights of networks are stored: "float16" (half the size), or "int8" with one scale per
            channel (a quarter). They are computed with in float32 all the same: smaller files, no faster scoring.
    """

    bank: int | None = None
    components: int | None = None
    weights: Kind | None = None

    def __post_init__(self) -> None:
        """Refuses values that are not allowed, and nothing to do."""
        for name in ("bank", "components"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingError.of("Compression", name, "1 or more", value)
        if self.weights is not None and self.weights not in KINDS:
            raise SettingError.of("Compression", "weights", f"one of {', '.join(KINDS)}", self.weights)
        if self.bank is None and self.components is None and self.weights is None:
            raise SettingError("nothing to compress: give a size for the bank, a number of components, or weights")


def compress_files(
    artifact: Artifact,
    compression: Compression,
    paths: Sequence[Path],
    failures: list[ImageFileError],
    *,
    groups: Mapping[str, str] | None = None,
    unit: str | None = None,
    progress: Progress = silent,
) -> Artifact:
    """Returns a smaller, newly calibrated model; the old one stays as it is.

    Args:
        artifact: the model.
        compression: what is to be made smaller.
        paths: the images that the model was fitted on, all of them, or normals that were not in its fit.
        failures: receives the errors of files that could not be used.
        groups: file name -> group, where only groups are independent.
        unit: what a group is.
        progress: is told what is being done.

    Raises:
        CalibrationError: too few usable files to hold any out.
        DatasetError: no file can be used.
        SettingError: the model has no such part; or its rates count groups and none are given.
    """
    counted = artifact.calibration.unit
    if counted != "image" and groups is None:
        raise SettingError(
            f"the rates of this model count {counted}; name the groups of the images (--manifest, --group)"
        )
    training, fitted = artifact.training, of_the_fit(artifact, paths)
    share = training.held_out / (training.images + training.held_out) if fitted else FRACTION
    plan: Plan = plan_like(artifact, share, groups, unit)
    smaller = _Smaller(
        input=artifact.scorer.input,
        seed=artifact.scorer.detector.seed,
        scorer=artifact.scorer,
        compression=compression,
        fitted=fitted,
    )
    new = fit_files(smaller, paths, plan, failures, progress)
    storage = Storage.of(new.scorer, compression.weights) if compression.weights else artifact.storage
    kept = replace(new.training, images=training.images, fingerprint=training.fingerprint)
    return replace(new, training=kept, storage=storage)


def of_the_fit(artifact: Artifact, paths: Sequence[Path]) -> bool:
    """Returns whether files are exactly those that a model was fitted and calibrated on."""
    return fingerprint_of(paths) == artifact.training.fingerprint


@dataclass(frozen=True, kw_only=True)
class _Smaller(Detector):
    """Fits by making a fitted scorer smaller, so that levels and calibration take the one way that every fit takes."""

    name: ClassVar[str] = "smaller"

    scorer: Scorer
    compression: Compression
    fitted: bool

    def fit(self, images: Iterable[Images]) -> Scorer:
        scorer, wanted = self.scorer, self.compression
        if wanted.weights:
            scorer = with_rounded_weights(scorer, wanted.weights)
        if isinstance(scorer, Reducible):
            return scorer.reduced(wanted.bank, wanted.components, images, fitted=self.fitted)
        if wanted.bank or wanted.components:
            raise SettingError(
                f"a model of detector {scorer.detector.name!r} has neither a bank nor components to be made fewer "
                "(memory_bank and gaussian have); only its weights can be compressed"
            )
        for _ in images:  # read, so that it is known which files can be used
            pass
        return scorer

    def restore(self, state: Mapping[str, Tensor], description: Mapping[str, Any]) -> Scorer:
        return self.scorer.detector.restore(state, description)


def with_rounded_weights(scorer: Scorer, kind: Kind) -> Scorer:
    """Returns a scorer whose networks have just the weights that the file will hold; this one stays as it is."""
    storage = Storage.of(scorer, kind)
    state = {name: value.detach().clone() for name, value in scorer.state_dict().items()}
    with torch.inference_mode(False):
        return scorer.detector.restore(storage.unpack(storage.pack(state)), scorer.description()).eval()
