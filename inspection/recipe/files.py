"""The files that a recipe names, read and checked: golden image, mask, calibration."""

from anomaly.errors import AnomalyError
from inspection.geometry.regions import Regions
from inspection.geometry.registration import Golden
from inspection.geometry.tiling import Tiling
from inspection.measuring import Measuring, way_of
from inspection.part_calibration import PartCalibration, Thresholds
from inspection.recipe.faults import RecipeError
from inspection.recipe.recipe import Recipe


def measuring_of(recipe: Recipe) -> Measuring:
    """Returns how the parts of a recipe are measured.

    Raises:
        RecipeError: the golden image or the mask is missing, another one, or cannot be used.
    """
    frame, tiling = recipe.frame, recipe.tiling
    return Measuring(
        regions=_regions(recipe),
        golden=_golden(recipe),
        tiling=Tiling(tiling.size, tiling.overlap) if tiling else None,
        frame=(frame.height, frame.width) if frame.height and frame.width else None,
        batch=recipe.runtime.batch,
    )


def calibration_of(recipe: Recipe) -> PartCalibration:
    """Returns the calibration of a recipe.

    Raises:
        RecipeError: the file is missing or another one, or was measured with another model or in another way.
        ArtifactError: it is damaged.
    """
    file = recipe.file("model.calibration", recipe.model.calibration, recipe.model.calibration_sha256)
    found = PartCalibration.read(file)
    again = f"measure good parts again: anomaly inspect calibrate {recipe.path.name} FOLDER_OF_GOOD_IMAGES"
    if found.model != recipe.model.sha256:
        raise RecipeError(
            recipe.path,
            [f"model.calibration: measured with another model, sha256 {found.model}; {again}"],
        )
    if found.way != way_of(recipe):
        changed = "measured with other regions, registration or tiles than the recipe has now, so its promise is void"
        raise RecipeError(recipe.path, [f"model.calibration: {changed}; {again}"])
    return found


def thresholds_of(recipe: Recipe) -> Thresholds:
    """Returns the thresholds that the recipe's rates give; see `calibration_of` for the errors."""
    return calibration_of(recipe).thresholds(recipe.thresholds, recipe.defects)


def _regions(recipe: Recipe) -> Regions:
    wanted, mask = recipe.regions, None
    if wanted.mask is not None and wanted.mask_sha256 is not None:
        from anomaly.images import image_info, read_mask

        file = recipe.file("regions.mask", wanted.mask, wanted.mask_sha256)
        try:
            info = image_info(file)
            mask = read_mask(file, info.height, info.width)
        except AnomalyError as error:
            raise RecipeError(recipe.path, [f"regions.mask: {error}"]) from error
    scale = 1.0 if wanted.unit == "px" else 1 / recipe.frame.pixel_size_mm
    inspect, ignore = (
        tuple(tuple((x * scale, y * scale) for x, y in polygon) for polygon in polygons)
        for polygons in (wanted.inspect, wanted.ignore)
    )
    return Regions(inspect, ignore, mask)


def _golden(recipe: Recipe) -> Golden | None:
    wanted = recipe.registration
    if wanted is None:
        return None
    from anomaly.images import read_image

    file = recipe.file("registration.golden", wanted.golden, wanted.golden_sha256)
    try:
        return Golden(
            image=read_image(file),
            motion=wanted.motion,
            max_shift_px=wanted.max_shift_mm / recipe.frame.pixel_size_mm,
            max_angle_deg=wanted.max_angle_deg,
            max_residual=wanted.max_residual,
        )
    except AnomalyError as error:
        raise RecipeError(recipe.path, [f"registration.golden: {error}"]) from error
