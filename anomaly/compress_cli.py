"""The command ``anomaly compress``: a smaller model for a small machine, and what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_SOME_FAILED = 1
_WEIGHTS = {"fp16": "float16", "int8": "int8"}
_FIGURES = ("image_auroc", "pixel_auroc")
_SAME = "The images are those of the fit, split as the fit did: the thresholds rest on normals that it has not seen."
_OTHER = "The images are not those of the fit. The thresholds hold if NONE of them was in it; this cannot be checked."


def compress_command(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors) that `anomaly fit` wrote.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write, *.safetensors.")],
    bank: Annotated[int | None, typer.Option(min=1, help="Patches that a memory bank keeps.")] = None,
    components: Annotated[
        int | None, typer.Option(min=1, help="Components that a memory bank, or local ones that a gaussian keeps.")
    ] = None,
    normals: Annotated[
        list[Path] | None,
        typer.Option(
            help="Folder of normals: exactly the images of the fit, or images that it has not seen; may be repeated. "
            "Default: train/good of --dataset."
        ),
    ] = None,
    weights: Annotated[str, typer.Option(help="fp16 or int8: how the file stores the weights of networks.")] = "",
    dataset: Annotated[
        Path | None, typer.Option(help="Data set with known answers, as for `anomaly evaluate`: what it costs.")
    ] = None,
    manifest: Annotated[Path | None, typer.Option(help="CSV that names a group for each file; see --group.")] = None,
    group: Annotated[str, typer.Option(help="Column of the manifest: images of one group are never split.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Make a model smaller, calibrate it anew and say what that costs.

    Normal images are needed, since every compression changes the scores: the old thresholds would promise what they
    cannot keep. Best are exactly the images that the model was fitted on; they are split as the fit split them.

    Examples:
        anomaly compress part.safetensors -o small.safetensors --bank 1024 --weights fp16 --dataset datasets/part

        anomaly compress part.safetensors -o small.safetensors --weights int8 --normals parts/good
    """
    import json

    from anomaly.artifact import load, save
    from anomaly.compression import Compression, compress_files, of_the_fit
    from anomaly.errors import ImageFileError, SettingError
    from anomaly.evaluation import evaluate_samples
    from anomaly.images import find_dataset, groups_from_manifest, list_images
    from anomaly.progress import bars

    if output.suffix != ".safetensors":
        raise SettingError(f"--output must end in .safetensors; got {output.name!r}")
    if weights and weights not in _WEIGHTS:
        raise SettingError(f"--weights must be one of {', '.join(_WEIGHTS)}; got {weights!r}")
    if (manifest is None) != (not group):
        raise SettingError("--manifest and --group go together: a CSV file, and its column that names the groups")
    compression = Compression(bank=bank, components=components, weights=_WEIGHTS.get(weights))  # type: ignore[arg-type]
    if normals:
        paths = list_images(normals)
    elif dataset:
        paths = find_dataset(dataset).train
    else:
        raise SettingError("give --normals or --dataset: without normal images the thresholds cannot be made anew")
    old = load(model)
    samples = find_dataset(dataset).test if dataset else []
    groups = groups_from_manifest(manifest, group) if manifest else None
    same = of_the_fit(old, paths)
    failures: list[ImageFileError] = []
    with bars() as progress:
        new = compress_files(old, compression, paths, failures, groups=groups, unit=group or None, progress=progress)
        rows = {"file, MB": [0.0, 0.0]}
        if samples:
            found = [evaluate_samples(artifact, samples, None, failures, progress).metrics() for artifact in (old, new)]
            rows |= {name: [figures[name] for figures in found] for name in _FIGURES if name in found[0]}
    save(output, new)
    rows["file, MB"] = [path.stat().st_size / 1e6 for path in (model, output)]
    failed = {str(failure.path): failure.reason for failure in failures}
    lines = [
        f"Wrote {output}.",
        _SAME if same else _OTHER,
        f"  {'':14} {'before':>9} {'after':>9} {'change':>9}",
        *(f"  {name:14} {a:9.4g} {b:9.4g} {b - a:+9.4g}" for name, (a, b) in rows.items()),
        "",
        new.calibration.in_words(),
    ]
    machine = {"model": str(output), "images_of_the_fit": same, "before_after": rows, "failed": failed}
    typer.echo(json.dumps(machine, indent=2) if as_json else "\n".join(lines))
    if failed:
        typer.secho(f"\n{len(failed)} file(s) could not be used:", fg=typer.colors.YELLOW, err=True)
        for path, reason in failed.items():
            typer.echo(f"  {path}: {reason}", err=True)
        raise typer.Exit(EXIT_SOME_FAILED)
