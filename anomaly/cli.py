"""The command `anomaly`. Frontends hang subcommands into it through the entry-point group anomaly.commands."""

import json
import sys
from contextlib import nullcontext
from functools import cache
from importlib.metadata import entry_points, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from anomaly.compress_cli import compress_command
from anomaly.detectors.anomalib_bridge.models import USABLE
from anomaly.distill_cli import distill_command
from anomaly.drift_cli import drift_command
from anomaly.errors import AnomalyError, SettingError
from anomaly.export_cli import export_command
from anomaly.refit_cli import refit_command
from anomaly.selfcheck_cli import selfcheck_command

if TYPE_CHECKING:
    from anomaly.errors import ImageFileError
    from anomaly.fitting import Plan

EXIT_OK, EXIT_SOME_FAILED, EXIT_ERROR = 0, 1, 2

app = typer.Typer(
    name="anomaly",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help=(
        "Learns what normal looks like from normal images alone; finds and shows what is not.\n\n"
        "Exit status: 0 done; 1 done, but some files could not be used (they are listed); 2 not done, the error says "
        "why."
    ),
)
Model = Annotated[Path, typer.Argument(help="Model file (.safetensors) that `anomaly fit` wrote.")]
_DETECTORS = (
    "subspace, memory_bank, autoencoder, feature_autoencoder, feature_transformer, gaussian or student; or a model of "
    f"anomalib, if that is installed: anomalib:MODEL with MODEL of {', '.join(USABLE)}."
)
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output, for machines.")]


@app.command()
def fit(
    folder: Annotated[Path, typer.Argument(help="Folder of normal images, or a data set with train/good in it.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write, *.safetensors.")],
    detector: Annotated[str, typer.Option(help=_DETECTORS)] = "subspace",
    backbone: Annotated[str, typer.Option(help="bundled, or any timm model.")] = "bundled",
    layers: Annotated[
        str, typer.Option(help="Layers of the backbone, comma separated; default: the middle ones.")
    ] = "",
    weights: Annotated[Path | None, typer.Option(help="File with the backbone's weights; no network is used.")] = None,
    size: Annotated[str, typer.Option(help="Canvas as HEIGHTxWIDTH, e.g. 192x448; default: from the images.")] = "",
    resize: Annotated[str, typer.Option(help="pad (keeps the aspect ratio) or stretch.")] = "pad",
    value_range: Annotated[str, typer.Option(help="Lowest,highest raw value; a 12-bit camera has 0,4095.")] = "",
    hold_out: Annotated[float, typer.Option(help="Share of the images held out for the calibration.")] = 0.25,
    manifest: Annotated[Path | None, typer.Option(help="CSV that names a group for each file; see --group.")] = None,
    group: Annotated[str, typer.Option(help="Column of the manifest: images of one group are never split.")] = "",
    ng_rate: Annotated[float, typer.Option(help="Wanted share of normal parts that are called NG.")] = 0.01,
    review_rate: Annotated[float, typer.Option(help="Wanted share of normal parts that are not called OK.")] = 0.10,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the fit.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the detector, name=value; may be repeated.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Folder for checkpoints and log of a detector that trains; go on there.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn what normal looks like from a folder of normal images.

    Examples:
        anomaly fit parts/good -o part.safetensors

        anomaly fit parts/good -o part.safetensors --detector memory_bank --set bank_size=8192 --size 192x448

        anomaly fit scans/ -o scans.safetensors --manifest scans.csv --group patient_id
    """
    from anomaly.artifact import save
    from anomaly.fitting import few_images_note, fit_files
    from anomaly.images import infer_input
    from anomaly.options import DetectorOptions, two_numbers
    from anomaly.progress import bars, silent
    from anomaly.training import joined

    if output.suffix != ".safetensors":
        raise SettingError(f"--output must end in .safetensors; got {output.name!r}")
    paths = _normal_images(folder)
    low_high = two_numbers("--value-range", value_range, ",", float)
    height_width = two_numbers("--size", size, "x", int)
    spec = infer_input(paths, height_width, _choice("--resize", resize, ("pad", "stretch")), low_high)
    detector_settings = DetectorOptions(detector, backbone, layers, weights, settings or [], seed).build(spec)
    failures: list[ImageFileError] = []
    plan = _plan(hold_out, manifest, group, ng_rate, review_rate)
    with joined() as (rank, _), bars() if rank == 0 else nullcontext(silent) as progress:
        artifact = fit_files(detector_settings, paths, plan, failures, progress, run)
    if rank > 0:  # under torchrun the first process alone writes
        return
    digest = save(output, artifact)
    note = few_images_note(artifact)
    machine = {"model": str(output), "sha256": digest, **artifact.provenance()} | ({"note": note} if note else {})
    _say(
        as_json,
        machine | {"failed": _failed(failures)},
        [
            f"Wrote {output} ({output.stat().st_size / 1e6:.1f} MB).",
            *(f"  {name}: {value}" for name, value in artifact.provenance().items()),
            *(["", note] if note else []),
            "",
            artifact.calibration.in_words(),
        ],
        failures,
    )


@app.command()
def score(
    model: Model,
    paths: Annotated[list[Path], typer.Argument(help="Image files and folders.")],
    out: Annotated[Path, typer.Option(help="Folder for results.csv, results.jsonl, heatmaps/ and report.html.")],
    as_json: AsJson = False,
) -> None:
    """Score images: OK, REVIEW or NG, with a heatmap of where.

    Example: anomaly score part.safetensors incoming/ --out results/
    """
    from anomaly.artifact import load
    from anomaly.images import list_images
    from anomaly.progress import bars
    from anomaly.report import ResultWriter
    from anomaly.scoring import judge, score_files

    artifact = load(model)
    files = list_images(paths)
    failures: list[ImageFileError] = []
    with ResultWriter(out, title=model.stem, **artifact.report_settings(model.name)) as writer, bars() as progress:
        advance = progress("scoring", len(files))
        for scored in score_files(artifact.scorer, files, failures):
            verdict = judge(artifact, scored.score)
            writer.add(
                scored.path, scored.pixels(), scored.map_on_image(), scored.score, verdict.p_value, verdict.decision
            )
            advance(1)
        for failure in failures:
            writer.failed(failure.path, failure.reason)
    _say(
        as_json,
        {"report": str(out / "report.html"), "headline": writer.headline, "failed": _failed(failures)},
        [writer.headline, f"Open {out / 'report.html'} in a browser; tables are beside it."],
        failures,
    )


@app.command()
def evaluate(
    model: Model,
    dataset: Annotated[Path, typer.Argument(help="Data set with test/good, test/<defect>, ground_truth/<defect>.")],
    out: Annotated[Path | None, typer.Option(help="Folder for results and report, as `anomaly score` writes.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure a model on a data set with known answers; shortcut baselines stand beside every figure.

    Example: anomaly evaluate part.safetensors datasets/part --out results/
    """
    from anomaly.artifact import load
    from anomaly.evaluation import evaluate_samples
    from anomaly.images import find_dataset
    from anomaly.progress import bars
    from anomaly.report import ResultWriter

    artifact = load(model)
    samples = find_dataset(dataset).test
    failures: list[ImageFileError] = []
    title = f"{model.stem} on {dataset.resolve().name}"
    results = ResultWriter(out, title=title, **artifact.report_settings(model.name)) if out else nullcontext()
    with results as writer, bars() as progress:
        evaluation = evaluate_samples(artifact, samples, writer, failures, progress)
    where = {"report": str(out / "report.html")} if out else {}
    _say(as_json, evaluation.summary() | where | {"failed": _failed(failures)}, evaluation.in_words(), failures)


@app.command()
def info(model: Model, as_json: AsJson = False) -> None:
    """Show what a model file is, where it comes from and what it promises.

    Example: anomaly info part.safetensors
    """
    from anomaly.artifact import load

    artifact = load(model)
    rows = artifact.provenance()
    calibration = artifact.calibration
    values = {"review_threshold": calibration.review.value, "ng_threshold": calibration.ng.value}
    _say(as_json, {**rows, **values}, [*(f"{k}: {v}" for k, v in rows.items()), "", calibration.in_words()], [])


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder to create for data, model and report.")] = Path("demo"),
    surface: Annotated[str, typer.Option(help="brushed_metal, cast, woven_fabric, wafer or wafer_edge.")] = "wafer",
    images: Annotated[int, typer.Option(min=20, help="Normal images to learn from.")] = 200,
) -> None:
    """Run the whole job on generated parts: generate, fit, calibrate, score, evaluate, report.

    Example: anomaly demo --surface brushed_metal --out demo-metal
    """
    from anomaly.demo import run_demo
    from anomaly.progress import bars

    with bars() as progress:
        lines = run_demo(out, surface, images, progress)
    typer.echo("\n".join(lines))


app.command("compress")(compress_command)
app.command("distill")(distill_command)
app.command("export")(export_command)
app.command("drift")(drift_command)
app.command("refit")(refit_command)
app.command("selfcheck")(selfcheck_command)


@app.callback(invoke_without_command=True)
def _callback(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if show_version:
        typer.echo(version("anomaly-suite"))
        raise typer.Exit


@cache
def _with_frontends() -> typer.Typer:
    """Adds the commands of the frontends, once a process: to register a command again makes every later call slower."""
    for entry in entry_points(group="anomaly.commands"):
        command = entry.load()  # a Typer of several commands, or the function of one
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    return app


def main() -> None:
    """Runs the command; errors of the suite become one line on standard error and exit status 2."""
    try:
        _with_frontends()()
    except AnomalyError as error:
        typer.secho(f"Error: {error}", fg=typer.colors.RED, err=True)
        sys.exit(EXIT_ERROR)


def _normal_images(folder: Path) -> list[Path]:
    from anomaly.images import find_dataset, list_images

    if (folder / "train" / "good").is_dir():
        typer.echo(f"{folder} is a data set: learning from {folder / 'train' / 'good'} only.", err=True)
        return find_dataset(folder).train
    return list_images([folder])


def _plan(hold_out: float, manifest: Path | None, group: str, ng_rate: float, review_rate: float) -> "Plan":
    from anomaly.fitting import Plan
    from anomaly.images import groups_from_manifest

    if (manifest is None) != (not group):
        raise SettingError("--manifest and --group go together: a CSV file, and its column that names the groups")
    groups = groups_from_manifest(manifest, group) if manifest else None
    return Plan(fraction=hold_out, groups=groups, unit=group or None, ng_rate=ng_rate, review_rate=review_rate)


def _choice(option: str, value: str, allowed: tuple[str, ...]) -> Any:
    if value not in allowed:
        raise SettingError(f"{option} must be one of {', '.join(allowed)}; got {value!r}")
    return value


def _failed(failures: "list[ImageFileError]") -> list[dict[str, str]]:
    return [{"path": str(failure.path), "reason": failure.reason} for failure in failures]


def _say(as_json: bool, machine: dict[str, Any], people: list[str], failures: "list[ImageFileError]") -> None:
    """Prints the outcome and, at the very end, every file that could not be used; sets the exit status."""
    typer.echo(json.dumps(machine, indent=2) if as_json else "\n".join(people))
    if failures:
        typer.secho(f"\n{len(failures)} file(s) could not be used:", fg=typer.colors.YELLOW, err=True)
        for failure in failures:
            typer.echo(f"  {failure}", err=True)
        raise typer.Exit(EXIT_SOME_FAILED)
