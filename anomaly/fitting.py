"""The main job, first half: a folder of normal images -> a calibrated model."""

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from anomaly.artifact import Artifact, MapCalibration, Training
from anomaly.calibration import calibrate, hold_out
from anomaly.detector import Detector, Scorer
from anomaly.drift.making import ReferenceMaker
from anomaly.errors import CalibrationError, DatasetError, ImageFileError, InputError, SettingError
from anomaly.images import ImageLoader
from anomaly.input_spec import Images
from anomaly.progress import Progress, silent
from anomaly.scoring import BATCH, score_files


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How normals are split and which rates are wanted.

    Attributes:
        fraction: share of the files (or groups) held out of the fit for the calibration, in (0, 1).
        groups: file name -> group, where only groups are independent (patients, lots); None for one group per file.
        unit: what a group is, e.g. "patient_id".
        review_rate: wanted share of normal units that are not OK.
        ng_rate: wanted share of normal units that are NG.
        confidence: probability with which the rates hold.
    """

    fraction: float = 0.25
    groups: Mapping[str, str] | None = None
    unit: str | None = None
    review_rate: float = 0.10
    ng_rate: float = 0.01
    confidence: float = 0.95

    def __post_init__(self) -> None:
        """Refuses rates that are not allowed, before anything is fitted."""
        if not 0 < self.ng_rate <= self.review_rate < 1:
            got = (self.ng_rate, self.review_rate)
            raise SettingError.of("Plan", "(ng_rate, review_rate)", "0 < ng_rate <= review_rate < 1", got)


def fit_files(
    detector: Detector,
    paths: Sequence[Path],
    plan: Plan,
    failures: list[ImageFileError],
    progress: Progress = silent,
    run: Path | None = None,
) -> Artifact:
    """Fits a detector on normal image files and calibrates it on those that it holds out.

    Args:
        detector: the settings.
        paths: normal images.
        plan: split and wanted rates.
        failures: receives the errors of files that could not be used.
        progress: is told what is being done.
        run: folder in which a detector that trains keeps checkpoints and log; the same call with the same folder goes
            on where it was stopped. None for none.

    Raises:
        ArtifactError: the folder of the run belongs to other images or settings.
        CalibrationError: too few usable files to hold any out.
        DatasetError: no file can be used, or the plan's groups lack a file.
    """
    fitted, held = split(paths, plan, detector.seed)
    # In random order: detectors may take the first images as typical.
    order = np.random.default_rng(detector.seed).permutation(len(fitted))
    chosen = [paths[fitted[i]] for i in order]
    with _resumable(run, detector, chosen) if run else nullcontext():
        scorer, used = _fit(detector, chosen, failures, progress)

    held_paths = [paths[i] for i in held]
    advance = progress("scoring the normals held out", len(held_paths))
    scores, highest, medians, kept = [], [], [], []
    maker = ReferenceMaker(scorer)
    for scored in score_files(scorer, held_paths, failures):
        scores.append(scored.score)
        highest.append(float(scored.map.max()))
        medians.append(float(scored.map.median()))
        kept.append(scored.path)
        group = scored.path.as_posix() if plan.groups is None else plan.groups[scored.path.name]
        maker.add(scored.image, scored.score, group)
        advance(1)
    if not scores:
        raise CalibrationError(f"none of the {len(held_paths)} files held out can be used: {_reasons(failures)}")
    calibrated = partial(
        calibrate,
        groups=None if plan.groups is None else [plan.groups[path.name] for path in kept],
        unit=plan.unit,
        review_rate=plan.review_rate,
        ng_rate=plan.ng_rate,
        confidence=plan.confidence,
    )
    return Artifact(
        scorer=scorer,
        calibration=calibrated(scores),
        map_calibration=MapCalibration(float(np.median(medians)), calibrated(highest).ng),
        training=Training(
            images=len(used),
            held_out=len(kept),
            fingerprint=fingerprint_of([*used, *kept]),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        ),
        reference=maker.reference(),
    )


def few_images_note(artifact: Artifact) -> str | None:
    """Returns what to tell a user whose model was learned from few images; None where they were not few."""
    limit = getattr(artifact.scorer.detector, "few_images", 0)
    count = artifact.training.images
    if count > limit:
        return None
    return (
        f"FEW IMAGES: learned from {count} image(s) and their flips and turns (--set few_images=0 learns without). "
        "More normals make a better model; what so few held out can promise is said below."
    )


def split(paths: Sequence[Path], plan: Plan, seed: int) -> tuple[list[int], list[int]]:
    """Returns which of some files a fit learns from, and which it holds out for the calibration; see `hold_out`."""
    names = _below_common_folder(paths) if plan.groups is None else [path.name for path in paths]
    return hold_out(names, seed=seed, fraction=plan.fraction, groups=plan.groups)


def _fit(
    detector: Detector, paths: Sequence[Path], failures: list[ImageFileError], progress: Progress
) -> tuple[Scorer, list[Path]]:
    """Returns the scorer and the files that it has really seen."""
    loader = ImageLoader(paths, detector.input, BATCH)
    used: list[Path] = []

    def frames() -> Iterator[Images]:
        advance = progress("learning what is normal", len(paths))  # begins once settings and backbone are accepted
        for batch in loader:
            used.extend(batch.paths)
            yield batch.images
            advance(len(batch.paths))

    try:
        scorer = detector.fit(frames())
    except InputError:
        if used:
            raise
        raise DatasetError(
            f"none of the {len(paths)} files to learn from can be used: {_reasons(loader.failures)}"
        ) from None
    failures.extend(loader.failures)
    return scorer.eval(), used


def _resumable(run: Path, detector: Detector, paths: Sequence[Path]) -> AbstractContextManager[None]:
    from anomaly.training import run_folder

    readable = [path for path in paths if path.is_file()]  # the fit reports the others
    images = hashlib.sha256("".join(_digests(readable)).encode()).hexdigest()  # in order: batches depend on it
    return run_folder(run, {"detector": detector.name, "settings": asdict(detector), "images": images})


def _below_common_folder(paths: Sequence[Path]) -> list[str]:
    """Names that stay the same when the whole folder moves, so that the split stays the same too."""
    folder = os.path.commonpath([path.resolve().parent for path in paths])
    return [path.resolve().relative_to(folder).as_posix() for path in paths]


def _reasons(failures: Sequence[ImageFileError]) -> str:
    return "; ".join(str(failure) for failure in failures[:3])


def fingerprint_of(paths: Sequence[Path]) -> str:
    """Returns the sha256 over the sorted sha256 of files: the `Training.fingerprint` of a fit on them."""
    return hashlib.sha256("\n".join(sorted(_digests(paths))).encode()).hexdigest()


def _digests(paths: Sequence[Path]) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
