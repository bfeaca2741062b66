"""The command `anomaly triage explain`: why studies were flagged, with proof that the answer is faithful."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anomaly.progress import Progress
    from explain.writer import Unused
    from medical.explaining.normals import NormalContent
    from medical.model import TriageModel
    from medical.objects import RefusedFile
    from medical.outcome import Outcome
    from medical.pseudonyms import Pseudonyms
    from medical.reading import PixelReader

EXIT_SOME_FAILED = 1


def explain_command(
    model: Annotated[Path, typer.Argument(help="Model that `anomaly triage fit` wrote.")],
    paths: Annotated[list[Path], typer.Argument(help="DICOM files, folders, DICOMDIR or ZIP archives.")],
    out: Annotated[Path, typer.Option(help="Folder for report.html, .pdf, .json, figures/ and studies.csv.")],
    methods: Annotated[
        str,
        typer.Option(
            help="Comma separated: gradcam, guided_gradcam, ig, occlusion, gradient_shap, kernel_shap, lime, residual."
        ),
    ] = "gradcam,ig,occlusion",
    normals: Annotated[
        list[Path] | None,
        typer.Option(help="Normal studies: what regions are replaced by. They are never shown. Repeatable."),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Images or slices of a study, the highest scores first.")] = 3,
    most: Annotated[int, typer.Option(min=1, help="Studies that are explained, the highest scores first.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="Explain studies that are not flagged, too.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of methods that draw samples.")] = 0,
    key_file: Annotated[
        Path | None, typer.Option(help="Key of pseudonyms; default: ANOMALY_MEDICAL_KEY, else one kept in the folder.")
    ] = None,
) -> None:
    """Show what moved the score of flagged studies, and whether each map can be trusted. It marks regions.

    Studies are read, refused and judged as by `anomaly triage run`. Maps show what the model reacts to, not where
    disease is: not for finding, outlining, measuring or ruling out anything. Give --normals: without normal studies,
    regions are replaced by a blur, which says less. The report names studies by pseudonyms; studies.csv alone says
    which they are. Research use, not a medical device.

    Exit status: 0 done; 1 done, but some objects could not be analysed (the report says why); 2 not done.

    Examples:
        anomaly triage explain chest.safetensors incoming/ --normals normals/ --out why

        anomaly triage explain head.safetensors ct/ --methods ig,occlusion --top 5 --out why
    """
    from anomaly.progress import bars
    from explain.methods import methods_named
    from explain.run import choose
    from explain.writer import HTML, ReportWriter, refuse_foreign
    from medical.commands.shared import StoppedError, made_folder, say_refused
    from medical.explaining.explaining import StudyExplainer, judged_of
    from medical.model import TriageModel
    from medical.privacy.log_fields import Event
    from medical.privacy.logs import log, set_up_logging, words_of
    from medical.pseudonyms import key_from
    from medical.reading import PixelReader, take_inventory
    from medical.run_folder import LOG, STUDIES, folder_pseudonyms
    from medical.running import Run
    from medical.triage import Triage

    chosen_methods = methods_named([name.strip() for name in methods.split(",") if name.strip()])
    triage_model = TriageModel.load(model)
    key = key_from(key_file)
    refuse_foreign(out, _beside())
    with _for_its_owner():
        pseudonyms = folder_pseudonyms(made_folder(out), key)
        set_up_logging(out / LOG)
        run = Run(
            out, triage_model, pseudonyms, key, dicom=False, with_heatmaps=False, command="anomaly triage explain"
        )
        with (
            bars() as progress,
            PixelReader() as reader,
            take_inventory(paths, pseudonyms, progress, reader) as inventory,
            run,
        ):
            if not inventory.files:
                raise StoppedError("there is no file below what was given; nothing was explained")
            triage = Triage(triage_model, reader, pseudonyms)
            advance = progress("analysing studies", len(inventory.studies))
            for outcome in triage.outcomes(inventory.studies):
                run.add(outcome)
                advance(1)
            _write_studies(out / STUDIES, run.outcomes)
            content = _normals(normals, triage_model, reader, pseudonyms, progress) if normals else None
            scored = {judged_of(one): one for one in run.outcomes if one.refusal is None}
            judged = sorted(scored, key=lambda one: (-one.score, one.name))
            chosen = choose(judged, most, everything)
            explainer = StudyExplainer(triage_model, reader, chosen_methods, content, top, seed)
            studies = {study.uid: study for study in inventory.studies}
            wanted = [(studies[scored[one].study], scored[one]) for one in chosen]
            about = _about(triage_model, [method.name for method in chosen_methods], content, seed)
            with ReportWriter(out, about, judged, chosen) as writer:
                try:
                    for part in explainer.explained(wanted, progress):
                        writer.add(part)
                except Exception as error:
                    log(Event.FAILED, error=error)
                    raise StoppedError(words_of(error)) from None
                finally:
                    writer.failures = [*explainer.failures, *_unused(run.outcomes, inventory.refused)]
    typer.echo(f"{writer.headline}.\nOpen {out / HTML} in a browser; report.pdf and report.json lie beside it.")
    typer.echo(about.wording.notice)
    for failure in explainer.failures:
        typer.secho(f"not explained: {failure}", fg=typer.colors.YELLOW, err=True)
    for line in run.failed:
        typer.secho(f"not written: {line}", fg=typer.colors.YELLOW, err=True)
    refused = [one for outcome in run.outcomes for one in (*outcome.refused, *outcome.others)]
    silent = any(outcome.refusal is not None for outcome in run.outcomes)
    if say_refused([*inventory.refused, *refused]) or silent or run.failed or explainer.failures:
        raise typer.Exit(EXIT_SOME_FAILED)


@contextmanager
def _for_its_owner() -> Iterator[None]:
    """Files that are made within the block can be read by their owner only."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def _write_studies(path: Path, outcomes: Sequence[Outcome]) -> None:
    """Writes which study each pseudonym stands for, apart from the report, which can then be passed on without it."""
    import csv
    import io

    from medical.privacy.files import whole_file

    stream = io.StringIO(newline="")
    table = csv.writer(stream)
    table.writerow(["pseudonym", "study_instance_uid"])
    table.writerows([outcome.pseudonym, outcome.study] for outcome in outcomes)
    with whole_file(path) as file:
        file.write(stream.getvalue().encode())


def _normals(
    paths: Sequence[Path], model: TriageModel, reader: PixelReader, pseudonyms: Pseudonyms, progress: Progress
) -> NormalContent:
    from anomaly.errors import DatasetError
    from medical.explaining.normals import NormalContent
    from medical.reading import take_inventory

    with take_inventory(list(paths), pseudonyms, progress, reader) as inventory:
        if not inventory.studies:
            raise DatasetError("--normals names no study that can be read")
        return NormalContent.read(inventory.studies, model, reader, progress)


def _about(model: TriageModel, methods: Sequence[str], content: NormalContent | None, seed: int) -> Any:
    from importlib.metadata import version

    from explain.writer import About
    from medical.explaining.wording import wording

    algorithm = model.algorithm()
    libraries = {name: version(name) for name in ("captum", "torch", "highdicom", "pydicom")}
    return About(
        title="Triage: what moved the scores of these studies?",
        model={
            "algorithm": f"{algorithm.name} {algorithm.version}",
            "model sha256": algorithm.model,
            **algorithm.settings,
            **{f"contract, {name}": value for name, value in model.contract.rows().items()},
            **model.artifact.provenance(),
            **libraries,
        },
        calibration=model.artifact.calibration,
        methods=tuple(methods),
        normals=(f"content of {content.studies} normal studies, not shown",) if content else (),
        seed=seed,
        wording=wording(model.artifact.calibration),
        beside=_beside(),
    )


def _beside() -> tuple[str, ...]:
    """Returns what lies in the folder besides the report."""
    from medical.pseudonyms import KEY_FILE
    from medical.run_folder import LOG, STUDIES
    from medical.running import AUDIT

    return (LOG, STUDIES, KEY_FILE, AUDIT, f"{AUDIT}.head", f"{AUDIT}.lock")


def _unused(outcomes: Sequence[Outcome], strays: Sequence[RefusedFile]) -> list[Unused]:
    """Lists the images that were not analysed, with coded reasons: study by study, then files of no readable study."""
    from collections import Counter

    from explain.writer import Unused

    listed = [(f"study {outcome.pseudonym}", outcome.unread) for outcome in outcomes]
    return [
        Unused(name, f"{refusal} ({count} object{'s' if count > 1 else ''})", count)
        for name, refused in [*listed, ("files of no readable study", strays)]
        for refusal, count in Counter(one.refusal for one in refused).most_common()
    ]
