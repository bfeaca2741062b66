"""The command ``anomaly selfcheck``: what does a model find of synthetic defects in held-out normals?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

EXIT_SOME_FAILED = 1


def selfcheck_command(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors) that `anomaly fit` wrote.")],
    normals: Annotated[Path, typer.Argument(help="Folder of normal images that the model has not seen.")],
    limit: Annotated[int, typer.Option(min=1, help="Images at most, evenly spaced over the folder.")] = 20,
    seed: Annotated[int, typer.Option(help="Seed of places and textures.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Plant SYNTHETIC defects in normal images and count what the model's thresholds find; no label is needed.

    Two kinds of defect (a piece of the image in another place, a region of Perlin noise with foreign texture), three
    sizes and three contrasts. It shows what the model is blind to; it promises nothing about real defects.

    Example: anomaly selfcheck part.safetensors parts/held_out
    """
    from anomaly.artifact import load
    from anomaly.errors import ImageFileError
    from anomaly.images import list_images
    from anomaly.progress import bars
    from anomaly.selfcheck import Trials, self_check

    artifact = load(model)
    files = list_images([normals])
    count = min(limit, len(files))
    chosen = [files[i * len(files) // count] for i in range(count)]
    failures: list[ImageFileError] = []
    with bars() as progress:
        result = self_check(artifact, chosen, Trials(seed=seed), failures, progress)
    failed = [{"path": str(failure.path), "reason": failure.reason} for failure in failures]
    summary = result.summary() | {"failed": failed}
    typer.echo(json.dumps(summary, indent=2) if as_json else "\n".join(result.in_words()))
    if failures:
        typer.echo("\n".join(str(failure) for failure in failures), err=True)
        raise typer.Exit(EXIT_SOME_FAILED)
