"""The command ``anomaly explain``: why images were flagged, with proof that the answer is faithful."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_SOME_FAILED = 1


def explain_command(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors) that `anomaly fit` wrote.")],
    images: Annotated[list[Path], typer.Argument(help="Image files and folders.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, report.pdf, report.json and figures/.")],
    methods: Annotated[
        str,
        typer.Option(
            help="Comma separated: gradcam, guided_gradcam, ig, occlusion, gradient_shap, kernel_shap, lime, residual."
        ),
    ] = "gradcam,ig,occlusion",
    normals: Annotated[
        Path | None,
        typer.Option(
            help="Folder of normal images: what regions are replaced by, and where nearest patches come from."
        ),
    ] = None,
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks of known defects: KIND/STEM_mask.png or STEM_mask.png.")
    ] = None,
    layer: Annotated[
        str, typer.Option(help="Layer that Grad-CAM looks at; default: the first whose features are scored.")
    ] = "",
    most: Annotated[int, typer.Option(min=1, help="Images that are explained, the highest scores first.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="Explain images that are OK, too.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of methods that draw samples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print report.json on standard output.")] = False,
) -> None:
    """Show why images were flagged, and whether each explanation can be trusted.

    Every map is tested: what it marks is replaced by normal content and the model scores again. Give --normals: without
    normal images, regions are replaced by a reconstruction (autoencoders) or a blur, which says less.

    Exit status: 0 done; 1 done, but some files could not be used; 2 not done, the error says why.

    Examples:
        anomaly explain part.safetensors incoming/ --normals parts/good --out why/

        anomaly explain part.safetensors test/ --normals train/good --masks ground_truth --methods lime --out why
    """
    from hashlib import sha256
    from importlib.metadata import version

    from anomaly.artifact import load
    from anomaly.errors import ImageFileError
    from anomaly.images import list_images
    from anomaly.progress import bars
    from explain.cam import GradCam, GuidedGradCam
    from explain.methods import methods_named
    from explain.run import FileExplainer, choose
    from explain.twin import Normals
    from explain.writer import HTML, JSON, About, ReportWriter, Unused, refuse_foreign

    chosen_methods = [
        type(method)(layer=layer) if isinstance(method, GradCam | GuidedGradCam) else method
        for method in methods_named([name.strip() for name in methods.split(",") if name.strip()])
    ]
    refuse_foreign(out)
    artifact = load(model)
    files = list_images(images)
    failures: list[ImageFileError] = []
    spec = artifact.scorer.input
    normal = Normals.read(list_images([normals]), spec, failures) if normals else None
    explainer = FileExplainer(artifact, chosen_methods, normal, masks, seed, failures)
    versions = {name: version(name) for name in ("anomaly-suite", "captum", "torch")}
    about = About(
        title=f"{model.stem}: why these images?",
        model={
            "model file": model.name,
            "model sha256": sha256(model.read_bytes()).hexdigest(),
            **artifact.provenance(),
            **versions,
        },
        calibration=artifact.calibration,
        methods=tuple(method.name for method in chosen_methods),
        normals=normal.names if normal else (),
        seed=seed,
    )
    with bars() as progress:
        judged = explainer.judged(files, progress)
        chosen = choose(judged, most, everything)
        with ReportWriter(out, about, judged, chosen) as writer:
            for part in explainer.explained(chosen, progress):
                writer.add(part)
            writer.failures = [Unused(str(failure.path), failure.reason) for failure in failures]
    if as_json:
        typer.echo((out / JSON).read_text(encoding="utf-8"))
    else:
        typer.echo(f"{writer.headline}\nOpen {out / HTML} in a browser; report.pdf and report.json lie beside it.")
    if failures:
        typer.secho(f"\n{len(failures)} file(s) could not be used:", fg=typer.colors.YELLOW, err=True)
        for failure in failures:
            typer.echo(f"  {failure}", err=True)
        raise typer.Exit(EXIT_SOME_FAILED)
