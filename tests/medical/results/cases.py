"""Outcomes of phantoms, written as files, with a map that is high where the lesion lies."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from anomaly.calibration import Decision
from medical.objects import Instance, RefusedFile, Spacing
from medical.outcome import Algorithm, Analysed, Outcome, Priority
from medical.pseudonyms import Pseudonyms
from medical.refusals import Reason, Refusal
from tests.medical.phantoms import affine_of, lesion, save

ALGORITHM = Algorithm(
    name="anomaly-suite subspace",
    version="0.1.0",
    model="ab" * 32,
    settings={"REVIEW above": "0.91", "NG above": "1.4", "aggregation": "highest image"},
)
PSEUDONYMS = Pseudonyms(bytes(32))
CONTOUR, SCALE = 1.0, (0.0, 2.0)


def instance(made, path: Path) -> Instance:
    """As the reader would make it, as far as results look at it."""
    return Instance(
        path=path,
        sop_class=str(made.SOPClassUID),
        uid=str(made.SOPInstanceUID),
        series=str(made.SeriesInstanceUID),
        study=str(made.StudyInstanceUID),
        transfer_syntax=str(made.file_meta.TransferSyntaxUID),
        modality=str(made.get("Modality", "unknown")),
        body_part="CHEST",
        view="unknown",
        laterality="U",
        sex="F",
        age=55.0,
        scanner="unknown",
        priority="ROUTINE",
        acquired=None,
        photometric=str(made.PhotometricInterpretation),
        rows=int(made.Rows),
        columns=int(made.Columns),
        frames=int(made.get("NumberOfFrames", 1)),
        bits=int(made.BitsStored),
        image_type=(),
        spacing=Spacing(1.0, 1.0, "PixelSpacing"),
        orientation=None,
        position=None,
        frame_of_reference=made.get("FrameOfReferenceUID"),
        acquisition=None,
        number=None,
    )


def heat(shape: tuple[int, ...]) -> np.ndarray:
    """A float32 map: a ramp below the contour, above it in the lesion, no value twice in a row."""
    values = np.linspace(-0.5, 0.4, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    inside = lesion(shape)
    values[inside] += np.float32(1.5)
    return values


def volume(made: list, folder: Path, orientation: str = "axial", spacing=(2.5, 0.8, 0.6), values=None) -> Analysed:
    """An analysed volume of slices in the order of the map, or of one multi-frame object; `made` in any order."""
    paths = save(made, folder)
    depth = len(made) if len(made) > 1 else int(made[0].NumberOfFrames)
    shape = (depth, int(made[0].Rows), int(made[0].Columns))
    found = heat(shape) if values is None else values
    return Analysed(
        instances=tuple(instance(one, path) for one, path in zip(made, paths, strict=True)),
        frame=None,
        score=1.25,
        p_value=0.004,
        map=found,
        contour=CONTOUR,
        scale=SCALE,
        affine=affine_of(shape, spacing, orientation),
    )


def image(made, folder: Path, frame: int = 1, values=None, score: float = 1.25) -> Analysed:
    path = save(made, folder)[0]
    found = heat((int(made.Rows), int(made.Columns))) if values is None else values
    return Analysed((instance(made, path),), frame, score, 0.004, found, CONTOUR, SCALE)


def outcome(*analysed: Analysed, refused: tuple[RefusedFile, ...] = (), decision=Decision.REVIEW) -> Outcome:
    first = analysed[0].instances[0]
    return Outcome(
        study=first.study,
        pseudonym=PSEUDONYMS.of(first.study),
        site_priority=Priority.ROUTINE,
        acquired="2025-03-05T10:15:00",
        modality=first.modality,
        decision=decision,
        score=max(one.score for one in analysed),
        p_value=0.004,
        analysed=analysed,
        refused=refused,
        refusal=None,
        objects=sum(len(one.instances) for one in analysed) + len(refused),
    )


def refused(made, folder: Path, reason=Reason.GANTRY_TILT, detail="tilted by 12.0 degrees; none is allowed"):
    paths = save(made, folder)
    objects = made if isinstance(made, list) else [made]
    refusal = Refusal(reason, detail)
    return tuple(
        RefusedFile(path, refusal, str(one.StudyInstanceUID)) for one, path in zip(objects, paths, strict=True)
    )


def not_analysed(files: tuple[RefusedFile, ...]) -> Outcome:
    study = next(file.study for file in files if file.study)
    return Outcome(
        study=study,
        pseudonym=PSEUDONYMS.of(study),
        site_priority=Priority.ROUTINE,
        acquired=None,
        modality="CT",
        decision=None,
        score=None,
        p_value=None,
        analysed=(),
        refused=files,
        refusal=files[0].refusal,
        objects=len(files),
    )


def bare(found: Analysed) -> Analysed:
    """Without map, as a run without heatmaps keeps it."""
    return replace(found, map=None)
