"""From a folder of good images to a recipe: chooses, fits, calibrates, writes; and measures again what was edited."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from anomaly.errors import CalibrationError, ImageFileError, SettingError
from anomaly.fitting import Plan
from anomaly.progress import Progress, silent
from inspection.geometry.regions import Regions
from inspection.measuring import Measuring, way_of
from inspection.part_calibration import PartCalibration
from inspection.recipe.choosing import Wishes, choose_registration, choose_size, readable
from inspection.recipe.faults import RecipeError
from inspection.recipe.files import measuring_of
from inspection.recipe.learning import Learned, good_parts, learn, measure
from inspection.recipe.recipe import Recipe, sha256_of
from inspection.recipe.sections import ThresholdsSection
from inspection.recipe.text import recipe_text

_PATIENCE = 10  # a part may take this many times as long as it usually does before the line gives up on it


class Made(NamedTuple):
    """What was written.

    Attributes:
        recipe: the recipe.
        said: lines for people: what was chosen and why, what is promised.
    """

    recipe: Recipe
    said: list[str]


def make_recipe(
    paths: Sequence[Path], output: Path, wishes: Wishes, failures: list[ImageFileError], progress: Progress = silent
) -> Made:
    """Makes a recipe with its model and its calibration.

    Args:
        paths: good images.
        output: recipe to write, *.toml; model, calibration and golden image lie beside it under the same name.
        wishes: what is wanted.
        failures: receives the errors of files that could not be used.
        progress: is told what is being done.

    Raises:
        CalibrationError: too few usable files to hold any out.
        DatasetError: no file can be used, the files mix depths or channels, or tiles do not fit into the frames.
        SettingError: the recipe exists already, or a value is not allowed.
    """
    from anomaly.artifact import save
    from anomaly.detectors.subspace import SubspaceDetector

    if output.suffix != ".toml":
        raise SettingError(f"the recipe must end in .toml; got {output.name!r}")
    if output.exists():
        raise SettingError(f"{output} exists already and may have been edited: name another file, or remove it")
    infos = readable(paths)
    shapes = {(info.height, info.width) for info in infos}
    frame = shapes.pop() if len(shapes) == 1 else None
    size = choose_size(paths, infos, wishes)
    placed = choose_registration(paths, wishes.golden, progress) if wishes.golden else None
    measuring = Measuring(Regions(), placed.golden if placed else None, size.tiling, frame)
    learned = learn(SubspaceDetector(input=size.input), paths, measuring, wishes.plan, failures, progress)

    output.parent.mkdir(parents=True, exist_ok=True)
    model = output.with_suffix(".safetensors")
    milliseconds = float(np.median([part.milliseconds for part in learned.parts]))
    values: dict[str, dict[str, Any]] = {
        "model": {"file": model.name, "sha256": save(model, learned.artifact)},
        "frame": {"pixel_size_mm": wishes.pixel_size_mm} | ({"height": frame[0], "width": frame[1]} if frame else {}),
        "thresholds": {name: getattr(wishes.plan, name) for name in ThresholdsSection.model_fields},
        "defects": {"severity": [{"name": "defect", "decision": "REVIEW"}]},
        "line": _line(milliseconds),
    }
    training = learned.artifact.training
    said = {
        "model": [
            f"The subspace detector learned from {training.images} good images; {training.held_out} were held out.",
            *size.why,
        ],
        "frame": [f"All good images have {frame[0]} x {frame[1]} px (H x W)." if frame else "Frames differ in size."],
        "line": [f"Here a part took {milliseconds:.0f} ms from frame to map; the deadline must leave room for it."],
    }
    if size.tiling:
        values["tiling"] = {"size": size.tiling.size, "overlap": size.tiling.overlap}
    if wishes.golden and placed:
        copied = output.with_name(f"{output.stem}.golden{wishes.golden.suffix}")
        shutil.copyfile(wishes.golden, copied)
        names = {"golden": copied.name, "golden_sha256": sha256_of(copied)}
        values["registration"] = names | placed.limits(wishes.pixel_size_mm)
        said["registration"] = placed.why
    return _written(output, values, said, learned, wishes.plan)


def recalibrated(
    path: Path, good: Sequence[Path], plan: Plan, failures: list[ImageFileError], progress: Progress = silent
) -> Made:
    """Measures good parts in the way of a recipe that was edited, and writes its calibration anew.

    Args:
        path: the recipe; only its `calibration_sha256` changes.
        good: images of good parts; those that the model has learned from are left out.
        plan: groups; its rates do not matter, those of the recipe count.
        failures: receives the errors of files that could not be used.
        progress: is told what is being done.

    Raises:
        ArtifactError: the calibration that is to be replaced is damaged.
        CalibrationError: no image is left that can be used.
        RecipeError: the recipe has a fault, or a file is not the one that it was made with.
    """
    from anomaly.deploy import load
    from anomaly.input_spec import InputSpec

    recipe = Recipe.read(path)
    file = recipe.folder / recipe.model.calibration
    before = PartCalibration.read(file)
    model, wanted = recipe.file("model.file", recipe.model.file, recipe.model.sha256), recipe.runtime
    runtime = load(model, device=wanted.device, provider=wanted.provider, threads=wanted.threads)
    if runtime.manifest.model["training fingerprint"] != before.training:
        raise RecipeError(path, [f"model.calibration: {file} belongs to a model that learned from other images"])
    takes = runtime.frame
    spec = InputSpec(channels=takes.channels, dtype=takes.dtype, value_range=takes.value_range, unit=takes.unit)
    unknown = [image for image in good if sha256_of(image) not in before.fitted]
    parts = list(measure(unknown, spec, measuring_of(recipe), runtime, failures, progress))
    if not parts:
        raise CalibrationError(
            f"of {len(good)} images the model has learned from {len(good) - len(unknown)}, and no other can be used: "
            "give images of good parts that it has not seen"
        )
    calibration = replace(
        before, model=recipe.model.sha256, way=way_of(recipe), unit=plan.unit or "image", parts=good_parts(parts, plan)
    )
    old, new = (one.thresholds(recipe.thresholds, recipe.defects) for one in (before, calibration))
    digest = calibration.write(file)
    content = path.read_bytes().replace(recipe.model.calibration_sha256.encode(), digest.encode())
    path.write_bytes(content)
    left_out = f"{len(good) - len(unknown)} images were left out: the model has learned from them."
    alike = (before.way, before.model) == (calibration.way, calibration.model)
    beside = (
        new.beside(old, calibration.parts) if alike else ["The old thresholds were those of another way to measure."]
    )
    said = [*([left_out] if len(unknown) < len(good) else []), *new.in_words(), *beside]
    return Made(Recipe.read(path), said)


def _written(
    output: Path, values: dict[str, dict[str, Any]], said: Mapping[str, list[str]], learned: Learned, plan: Plan
) -> Made:
    """Writes calibration and recipe, in this order: a recipe is complete once it is there."""
    file = output.with_suffix(".calibration.json")
    values["model"] |= {"calibration": file.name, "calibration_sha256": "0" * 64}
    draft = Recipe.from_toml(recipe_text(output.stem, values, said).encode(), output)
    calibration = PartCalibration(
        model=draft.model.sha256,
        training=learned.artifact.training.fingerprint,
        way=way_of(draft),
        unit=plan.unit or "image",
        fitted=tuple(sha256_of(path) for path in learned.fitted),
        parts=good_parts(learned.parts, plan),
    )
    values["model"]["calibration_sha256"] = calibration.write(file)
    promised = calibration.thresholds(draft.thresholds, draft.defects).in_words()
    content = recipe_text(output.stem, values, {**said, "thresholds": ["When this was written:", *promised]}).encode()
    recipe = Recipe.from_toml(content, output)
    output.write_bytes(content)
    return Made(recipe, [line for lines in (*said.values(), promised) for line in lines])


def _line(milliseconds: float) -> dict[str, Any]:
    """Returns what slow parts need of the line; nothing where its defaults will do."""
    usual = Recipe.model_fields["line"].get_default(call_default_factory=True)
    if _PATIENCE * milliseconds <= usual.deadline_ms:
        return {}
    patience = float(round(_PATIENCE * milliseconds, -2))
    return {"deadline_ms": patience, "part_timeout_ms": max(usual.part_timeout_ms, patience), "batch": 1}
