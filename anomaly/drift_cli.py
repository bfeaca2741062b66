"""The command ``anomaly drift``: is the present input still what was learned?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_SOME_FAILED, EXIT_DRIFT, EXIT_MANY_ANOMALIES = 1, 3, 4


def drift_command(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors) that `anomaly fit` wrote.")],
    paths: Annotated[list[Path], typer.Argument(help="Image files and folders, in the order of time.")],
    out: Annotated[Path, typer.Option(help="Folder for drift.html and drift.json.")],
    order: Annotated[
        str, typer.Option(help="name: as listed, folders in natural order of names; modified: by time of change.")
    ] = "name",
    alarm_rate: Annotated[float, typer.Option(help="Probability of any false alarm over the whole run.")] = 0.01,
    anomalies: Annotated[float, typer.Option(help="Largest share of anomalies that is no drift.")] = 0.10,
    manifest: Annotated[Path | None, typer.Option(help="CSV that names a group for each file; see --group.")] = None,
    group: Annotated[
        str, typer.Option(help="Column of the manifest: of each group only the first image is tested.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Tell whether images still look like those that a model was calibrated on.

    Exit status: 0 no drift; 1 no drift, but some files could not be used; 2 not done, the error says why; 3 drift;
    4 more anomalies than allowed, without drift of light, lens, position or embedding.

    Example: anomaly drift part.safetensors week47/ --out drift/
    """
    from importlib.metadata import version

    from anomaly.artifact import load
    from anomaly.drift.monitor import Monitoring
    from anomaly.drift.page import JSON, write_report
    from anomaly.drift.run import ORDERS, Outcome, first_of_groups, in_time_order, monitor_files, reference_of
    from anomaly.errors import ImageFileError, SettingError
    from anomaly.images import groups_from_manifest, list_images
    from anomaly.progress import bars

    if order not in ORDERS:
        raise SettingError(f"--order must be one of {', '.join(ORDERS)}; got {order!r}")
    if (manifest is None) != (not group):
        raise SettingError("--manifest and --group go together: a CSV file, and its column that names the groups")
    settings = Monitoring(alarm_rate=alarm_rate, anomalies=anomalies)
    artifact = load(model)
    reference_of(artifact)
    files = in_time_order(list_images(paths), order)
    if manifest is not None:
        files = first_of_groups(files, groups_from_manifest(manifest, group))
    failures: list[ImageFileError] = []
    with bars() as progress:
        result = monitor_files(artifact, files, settings, failures, progress)
    provenance = {"model file": model.name, **artifact.provenance(), "anomaly-suite": version("anomaly-suite")}
    page = write_report(
        out,
        result,
        title=f"{model.stem}: drift of the input",
        model=provenance,
        value_range=artifact.scorer.input.value_range,
        failures=failures,
    )
    if as_json:
        typer.echo((out / JSON).read_text(encoding="utf-8"))
    else:
        typer.echo("\n".join([result.headline(), *result.in_words(), f"Open {page} in a browser."]))
    for failure in failures:
        typer.echo(f"  could not be used: {failure}", err=True)
    status = {Outcome.DRIFT: EXIT_DRIFT, Outcome.MANY_ANOMALIES: EXIT_MANY_ANOMALIES}
    code = status.get(result.outcome, EXIT_SOME_FAILED if failures else 0)
    if code:
        raise typer.Exit(code)
