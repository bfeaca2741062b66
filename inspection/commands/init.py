"""The commands `anomaly inspect init` and `anomaly inspect calibrate`: from good images to a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from anomaly.errors import ImageFileError
    from anomaly.fitting import Plan

EXIT_SOME_FAILED = 1

Manifest = Annotated[Path | None, typer.Option(help="CSV that names a group for each file; see --group.")]
Group = Annotated[
    str, typer.Option(help="Column of the manifest, e.g. lot: images of one group are not independent, never split.")
]


def init_command(
    folder: Annotated[Path, typer.Argument(help="Folder of images of good parts.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Recipe to write, *.toml; its files lie beside it.")],
    pixel_size_mm: Annotated[float, typer.Option(help="Side of a pixel on the part in millimetres.")],
    tile: Annotated[
        int | None, typer.Option(help="Side of a tile in pixels, 0 for whole frames; default: by the frames' size.")
    ] = None,
    golden: Annotated[Path | None, typer.Option(help="Good image that every part is laid over before scoring.")] = None,
    ng_rate: Annotated[float, typer.Option(help="Wanted share of good parts that are called NG.")] = 0.01,
    review_rate: Annotated[float, typer.Option(help="Wanted share of good parts that are not called OK.")] = 0.10,
    value_range: Annotated[str, typer.Option(help="Lowest,highest raw value; a 12-bit camera has 0,4095.")] = "",
    manifest: Manifest = None,
    group: Group = "",
) -> None:
    """Make a recipe from a folder of good images: fit a model, calibrate it, write everything with comments.

    A quarter of the images is held out; the false-reject rates rest on them alone.

    Examples:
        anomaly inspect init parts/good -o lid.toml --pixel-size-mm 0.05

        anomaly inspect init parts/good -o lid.toml --pixel-size-mm 0.05 --golden parts/good/0001.png

        anomaly inspect init sheets/ -o sheet.toml --pixel-size-mm 0.02 --tile 256 --manifest lots.csv --group lot
    """
    from anomaly.errors import SettingError
    from anomaly.images import list_images
    from anomaly.progress import bars
    from inspection.recipe.choosing import Wishes
    from inspection.recipe.making import make_recipe

    low_high = None
    if value_range:
        try:
            low, high = (float(value) for value in value_range.split(","))
        except ValueError:
            raise SettingError(f"--value-range must be two numbers, like 0,4095; got {value_range!r}") from None
        low_high = low, high
    wishes = Wishes(
        pixel_size_mm=pixel_size_mm,
        tile=tile,
        golden=golden,
        value_range=low_high,
        plan=_plan(manifest, group, ng_rate, review_rate),
    )
    failures: list[ImageFileError] = []
    with bars() as progress:
        made = make_recipe(list_images([folder]), output, wishes, failures, progress)
    model, calibration = made.recipe.model.file, made.recipe.model.calibration
    typer.echo("\n".join([*made.said, "", f"Wrote {output}, beside it {model} and {calibration}."]))
    _list(failures)


def calibrate_command(
    recipe: Annotated[Path, typer.Argument(help="Recipe whose regions, registration or tiles were edited.")],
    folder: Annotated[Path, typer.Argument(help="Folder of images of good parts; those learned from are left out.")],
    manifest: Manifest = None,
    group: Group = "",
) -> None:
    """Measure good parts again in the way of an edited recipe, so that its rates hold.

    Example: anomaly inspect calibrate lid.toml parts/good
    """
    from anomaly.images import list_images
    from anomaly.progress import bars
    from inspection.recipe.making import recalibrated

    failures: list[ImageFileError] = []
    with bars() as progress:
        made = recalibrated(recipe, list_images([folder]), _plan(manifest, group), failures, progress)
    typer.echo("\n".join([*made.said, "", f"Wrote {made.recipe.model.calibration}, and its hash into {recipe}."]))
    _list(failures)


def _plan(manifest: Path | None, group: str, ng_rate: float = 0.01, review_rate: float = 0.10) -> Plan:
    from anomaly.errors import SettingError
    from anomaly.fitting import Plan
    from anomaly.images import groups_from_manifest

    if (manifest is None) != (not group):
        raise SettingError("--manifest and --group go together: a CSV file, and its column that names the groups")
    groups = groups_from_manifest(manifest, group) if manifest else None
    return Plan(groups=groups, unit=group or None, ng_rate=ng_rate, review_rate=review_rate)


def _list(failures: list[ImageFileError]) -> None:
    """Prints every file that could not be used, last of all; sets the exit status."""
    for failure in failures:
        typer.echo(f"  could not be used: {failure}", err=True)
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)
