"""The command ``anomaly refit``: newly accepted normals into a model, without its old images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_SOME_FAILED, EXIT_WORSE = 1, 3


def refit_command(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors) of a subspace or gaussian detector.")],
    normals: Annotated[list[Path], typer.Argument(help="Files and folders of newly accepted normal images.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write, *.safetensors.")],
    hold_out: Annotated[float, typer.Option(help="Share of the new normals held out for the calibration.")] = 0.5,
    manifest: Annotated[Path | None, typer.Option(help="CSV that names a group for each file; see --group.")] = None,
    group: Annotated[str, typer.Option(help="Column of the manifest: images of one group are never split.")] = "",
    dataset: Annotated[
        Path | None, typer.Option(help="Data set with known answers, as for `anomaly evaluate`, to compare on too.")
    ] = None,
    bound: Annotated[
        float, typer.Option(help="Largest loss of AUROC, or rise of a share of wrong decisions, that is accepted.")
    ] = 0.02,
    force: Annotated[bool, typer.Option("--force", help="Write the new model even if it is worse.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Learn newly accepted normals into a model, compare old and new, and write the new one if it is no worse.

    The old images are not needed. The new thresholds rest on the new normals held out, and on nothing else.

    Exit status: 0 written; 1 written, but some files could not be used; 2 not done, the error says why; 3 not
    written: the new model is worse beyond the bound.

    Example: anomaly refit part.safetensors accepted/ -o part-2.safetensors --dataset datasets/part
    """
    import json
    from dataclasses import asdict

    from anomaly.artifact import load, save
    from anomaly.errors import ImageFileError, SettingError
    from anomaly.images import find_dataset, groups_from_manifest, list_images
    from anomaly.progress import bars
    from anomaly.refit import plan_like, refit_files
    from anomaly.refit_compare import compare_on_normals, compare_on_samples

    if output.suffix != ".safetensors":
        raise SettingError(f"--output must end in .safetensors; got {output.name!r}")
    if (manifest is None) != (not group):
        raise SettingError("--manifest and --group go together: a CSV file, and its column that names the groups")
    if not 0 <= bound < 1:
        raise SettingError(f"--bound must be at least 0 and below 1; got {bound}")
    old = load(model)
    samples = find_dataset(dataset).test if dataset else []
    groups = groups_from_manifest(manifest, group) if manifest else None
    plan = plan_like(old, hold_out, groups, group or None)
    failures: list[ImageFileError] = []
    with bars() as progress:
        refit = refit_files(old, list_images(normals), plan, failures, progress)
        known = {failure.path for failure in failures}
        usable = [path for path in refit.held_out if path not in known]
        figures = compare_on_normals(old, refit.artifact, usable, failures, bound, progress)
        if samples:
            figures += compare_on_samples(old, refit.artifact, samples, failures, bound, progress)
    worse = [figure.what for figure in figures if figure.worse]
    written = force or not worse
    if written:
        save(output, refit.artifact)
    lines = [f"  {'compared on images that neither model has fitted':54} {'images':>6} {'old':>8} {'new':>8}"]
    lines += [figure.in_words() for figure in figures]
    lines += ["", "Promised by the old model:", old.calibration.in_words()]
    lines += ["", "Promised by the new model, of normals like the new ones:", refit.artifact.calibration.in_words(), ""]
    lines.append(
        f"{'Wrote' if written else 'NOT written:'} {output}"
        + (f" although it is worse: {'; '.join(worse)} (--force)." if written and worse else "")
        + (f" is worse by more than {bound:g}: {'; '.join(worse)}. --force writes it." if not written else "")
        + ("." if written and not worse else "")
    )
    machine = {
        "model": str(output) if written else None,
        "written": written,
        "worse": worse,
        "figures": [asdict(figure) for figure in figures],
        "held_out": refit.artifact.training.held_out,
        "failed": [{"path": str(failure.path), "reason": failure.reason} for failure in failures],
    }
    typer.echo(json.dumps(machine, indent=2) if as_json else "\n".join(lines))
    for failure in failures:
        typer.echo(f"  could not be used: {failure}", err=True)
    if not written:
        raise typer.Exit(EXIT_WORSE)
    if failures:
        raise typer.Exit(EXIT_SOME_FAILED)
