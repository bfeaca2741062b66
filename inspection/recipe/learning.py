"""Good images -> a model and what its promise rests on: fit, hold out, measure as on the line.

The split into images to learn from and images to calibrate on is that of `anomaly.fitting`. Of tiled frames the model
learns from tiles cut anywhere: its scores are standardised by position in the tile (docs/adr/0001), so it must see how
the border of a tile looks everywhere, and must not learn where on the part a tile lies. Held-out parts are tiled
exactly as on the line, and each counts as one, however many tiles it has.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import CalibrationError, DatasetError, ImageFileError, InputError
from anomaly.fitting import Plan, fingerprint_of, split
from anomaly.progress import Progress, silent
from inspection.geometry.errors import NotRegisteredError
from inspection.geometry.tiling import Tiling
from inspection.measuring import Measuring, View, as_bands
from inspection.part_calibration import GoodPart
from inspection.recipe.recipe import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

    from anomaly.artifact import Artifact
    from anomaly.deploy.runtime import Runtime
    from anomaly.detector import Detector, Scorer
    from anomaly.input_spec import InputSpec

MOST_TILES = 1024
"""Tiles to learn from, of all frames together."""
_BATCH = 4


class MeasuredFile(NamedTuple):
    """What was measured of the part in an image file.

    Attributes:
        path: the file.
        score: anomaly score.
        highest: highest value of its map where it is judged.
        median: median value of its map there.
        model_score: highest score that the model itself gave.
        milliseconds: time that it took, reading excluded.
    """

    path: Path
    score: float
    highest: float
    median: float
    model_score: float
    milliseconds: float


@dataclass(frozen=True)
class Learned:
    """What was learned of good parts.

    Attributes:
        artifact: the model; its own calibration is of the scores that it gives itself.
        fitted: files that it has learned from.
        parts: held-out good parts.
    """

    artifact: "Artifact"
    fitted: tuple[Path, ...]
    parts: tuple[MeasuredFile, ...]


def learn(
    detector: "Detector",
    paths: Sequence[Path],
    measuring: Measuring,
    plan: Plan,
    failures: list[ImageFileError],
    progress: Progress = silent,
) -> Learned:
    """Fits a detector on good images as a recipe will show them to it, and measures those held out.

    Memory: a few frames and their maps, and what the detector says of itself.

    Args:
        detector: the settings; its input must suit what `measuring` shows.
        paths: good images.
        measuring: how frames become what the model sees.
        plan: split and wanted rates.
        failures: receives the errors of files that could not be used.
        progress: is told what is being done.

    Raises:
        CalibrationError: no held-out file can be used, or there are fewer than two files or groups.
        DatasetError: no file to learn from can be used.
    """
    from anomaly.deploy.run_eager import EagerRuntime

    fitted, held = split(paths, plan, detector.seed)
    order = np.random.default_rng(detector.seed).permutation(len(fitted))
    used: list[Path] = []
    frames = _to_learn([paths[fitted[i]] for i in order], detector, measuring, used, failures, progress)
    try:
        scorer = detector.fit(frames).eval()
    except InputError as error:
        if used:
            raise
        raise DatasetError(f"no image to learn from can be used: {_reasons(failures)}") from error
    nothing = MeasuredFile(Path("none"), 0.0, 0.0, 0.0, 0.0, 0.0)
    runtime = EagerRuntime(_artifact(scorer, used, [nothing], Plan(), ""))  # measuring looks at no threshold
    held_paths = [paths[i] for i in held]
    parts = list(measure(held_paths, scorer.input, measuring, runtime, failures, progress))
    if not parts:
        raise CalibrationError(f"none of the {len(held)} images held out can be used: {_reasons(failures)}")
    fingerprint = fingerprint_of([*used, *(part.path for part in parts)])
    return Learned(_artifact(scorer, used, parts, plan, fingerprint), tuple(used), tuple(parts))


def measure(
    paths: Sequence[Path],
    spec: "InputSpec",
    measuring: Measuring,
    runtime: "Runtime",
    failures: list[ImageFileError],
    progress: Progress = silent,
) -> Iterator[MeasuredFile]:
    """Measures the parts in image files, as on the line.

    Args:
        paths: the files.
        spec: what the frames must be.
        measuring: how they become maps.
        runtime: the model.
        failures: receives the errors of files that could not be used.
        progress: is told what is being done.
    """
    advance = progress("measuring the good parts held out", len(paths))
    for path, view, spent in _views(paths, spec, measuring, failures, advance):
        begun = time.perf_counter()
        try:
            (measured,) = measuring.measured([view], runtime)
        except InputError as error:
            failures.append(ImageFileError(path, str(error)))
            continue
        milliseconds = 1000 * (spent + time.perf_counter() - begun)
        median = float(np.median(measured.map[measured.judged]))
        yield MeasuredFile(path, measured.score, measured.highest, median, measured.model_score, milliseconds)


def good_parts(parts: Sequence[MeasuredFile], plan: Plan) -> tuple[GoodPart, ...]:
    """Returns what a part calibration keeps of measured files."""
    groups = plan.groups
    return tuple(
        GoodPart(
            file=part.path.name,
            sha256=sha256_of(part.path),
            score=part.score,
            highest=part.highest,
            group=part.path.as_posix() if groups is None else groups[part.path.name],
        )
        for part in parts
    )


def _views(
    paths: Sequence[Path],
    spec: "InputSpec",
    measuring: Measuring,
    failures: list[ImageFileError],
    advance: Callable[[int], None],
) -> Iterator[tuple[Path, View, float]]:
    """Yields file, view, and the seconds that the view took."""
    from anomaly.images import ImageLoader

    loader = ImageLoader(paths, spec, 1)
    for batch in loader:
        (path,), image = batch.paths, batch.images[0]
        begun = time.perf_counter()
        try:
            view = measuring.view(as_bands(image.permute(1, 2, 0).numpy(), spec.channels))
        except (NotRegisteredError, InputError) as error:
            failures.append(ImageFileError(path, str(error)))
        else:
            yield path, view, time.perf_counter() - begun
        advance(1)
    advance(len(loader.failures))
    failures.extend(loader.failures)


def _to_learn(
    paths: Sequence[Path],
    detector: "Detector",
    measuring: Measuring,
    used: list[Path],
    failures: list[ImageFileError],
    progress: Progress,
) -> "Iterator[list[Tensor]]":
    """Yields batches of (C, h, w) views or tiles; `used` receives the files that they come from."""
    import torch

    advance = progress("learning what is normal", len(paths))
    random = np.random.default_rng(detector.seed)
    each = max(1, MOST_TILES // len(paths))
    batch: list[Tensor] = []
    for path, view, _ in _views(paths, detector.input, measuring, failures, advance):
        used.append(path)
        tiling = measuring.tiling
        for pixels in [view.pixels] if tiling is None else _some_tiles(view.pixels, tiling, each, random):
            batch.append(torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))))
            if len(batch) == _BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


def _some_tiles(
    pixels: NDArray[Any], tiling: Tiling, count: int, random: np.random.Generator
) -> Iterator[NDArray[Any]]:
    """Yields tiles from anywhere in a frame; those that would reach beyond it lie flush with its border.

    So borders of the part, which look different, are seen often enough.
    """
    spans = [side - tiling.size for side in pixels.shape[:2]]
    for _ in range(count):
        top, left = (
            int(np.clip(random.integers(-tiling.size // 2, span + tiling.size // 2 + 1), 0, span)) for span in spans
        )
        yield pixels[top : top + tiling.size, left : left + tiling.size]


def _artifact(
    scorer: "Scorer", used: Sequence[Path], parts: Sequence[MeasuredFile], plan: Plan, fingerprint: str
) -> "Artifact":
    """The model with what it promises by itself: the highest score of what it sees of a part, and of its map."""
    from anomaly.artifact import Artifact, MapCalibration, Training
    from anomaly.calibration import calibrate

    groups = None if plan.groups is None else [plan.groups[part.path.name] for part in parts]
    rates: dict[str, Any] = {
        "unit": plan.unit or "image",
        "review_rate": plan.review_rate,
        "ng_rate": plan.ng_rate,
        "confidence": plan.confidence,
    }
    highest = calibrate([part.highest for part in parts], groups, **rates)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    return Artifact(
        scorer=scorer,
        calibration=calibrate([part.model_score for part in parts], groups, **rates),
        map_calibration=MapCalibration(float(np.median([part.median for part in parts])), highest.ng),
        training=Training(len(used), len(parts), fingerprint, created),
    )


def _reasons(failures: Sequence[ImageFileError]) -> str:
    return "; ".join(str(failure) for failure in failures[:3])
