"""The command `anomaly triage fit`: normal studies -> a calibrated triage model."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from anomaly.progress import Progress
    from medical.model import TriageModel
    from medical.objects import RefusedFile, Study
    from medical.units import Pixels

EXIT_SOME_FAILED = 1


def fit_command(
    paths: Annotated[
        list[Path], typer.Argument(help="DICOM files and folders of NORMAL studies; or one manifest.csv.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model file to write, *.safetensors.")],
    detector: Annotated[
        str, typer.Option(help="A detector of `anomaly fit`, or volume_autoencoder for whole volumes.")
    ] = "feature_autoencoder",
    backbone: Annotated[str, typer.Option(help="bundled, or any timm model.")] = "bundled",
    layers: Annotated[str, typer.Option(help="Layers of the backbone, comma separated.")] = "",
    weights: Annotated[Path | None, typer.Option(help="File with the backbone's weights; no network is used.")] = None,
    analyse_as: Annotated[
        str, typer.Option("--as", help="image, slices or volume; default: image for X-ray, slices for CT and MR.")
    ] = "",
    window: Annotated[str, typer.Option(help="CT: lowest,highest HU that the model looks at, e.g. 0,80 (brain).")] = "",
    top: Annotated[int, typer.Option(min=1, help="Score of a volume: mean of this many highest slices.")] = 3,
    voxel: Annotated[str, typer.Option(help="Voxel in mm of a model of whole volumes: depth,height,width.")] = "",
    size: Annotated[str, typer.Option(help="Canvas of images and slices as HEIGHTxWIDTH.")] = "",
    modality: Annotated[str, typer.Option(help="Of the pictures of a manifest, e.g. DX.")] = "",
    body_part: Annotated[str, typer.Option(help="Of the pictures of a manifest, e.g. CHEST.")] = "",
    hold_out: Annotated[float, typer.Option(help="Share of the PATIENTS held out for the calibration.")] = 0.25,
    review_rate: Annotated[float, typer.Option(help="Wanted share of normal patients that are flagged.")] = 0.10,
    ng_rate: Annotated[float, typer.Option(help="Wanted share of normal patients that are flagged strongly.")] = 0.01,
    seed: Annotated[int, typer.Option(help="Seed of the split and of the fit.")] = 0,
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Setting of the detector, name=value; may be repeated.")
    ] = None,
) -> None:
    r"""Learn what normal studies look like, and what the model may be asked about at all.

    Patients are never split between learning and calibration. Modality, body part, view, age group and pixel distance
    of the training become the input contract; `anomaly triage run` refuses everything else with a coded reason.
    Research use, not a medical device.

    Exit status: 0 done; 1 done, but some objects could not be learned from; 2 not done.

    Examples:
        anomaly triage fit normals/ -o chest.safetensors

        anomaly triage fit heads/ -o head.safetensors --window 0,80

        anomaly triage fit ct/ -o ct.safetensors --window 0,80 --as volume \
            --detector volume_autoencoder

        anomaly triage fit png/manifest.csv -o chest.safetensors \
            --modality DX --body-part CHEST
    """
    from anomaly.errors import SettingError
    from anomaly.fitting import Plan
    from anomaly.options import DetectorOptions, two_numbers
    from anomaly.progress import bars
    from medical.choosing import Wishes, choose
    from medical.commands.shared import say_refused
    from medical.fitting import StudyFit
    from medical.model import Aggregation

    if output.suffix != ".safetensors":
        raise SettingError(f"--output must end in .safetensors; got {output.name!r}")
    wishes = Wishes(
        geometry=_geometry(analyse_as),
        window=two_numbers("--window", window, ",", float),
        voxel=_voxel(voxel),
        size=two_numbers("--size", size, "x", int),
    )
    plan = Plan(fraction=hold_out, review_rate=review_rate, ng_rate=ng_rate)
    options = DetectorOptions(detector, backbone, layers, weights, settings or [], seed)
    with bars() as progress, _training(paths, modality, body_part, progress) as (studies, refused, pixels):
        choice = choose(studies, wishes)
        fit = StudyFit(pixels, choice.contract, plan, Aggregation(top=top), choice.voxel, progress, refused)
        model = fit.fit(options.build(choice.input), studies).save(output)
    typer.echo("\n".join([f"Wrote {output} ({output.stat().st_size / 1e6:.1f} MB).", *lines_of(model)]))
    if say_refused(fit.refused):
        raise typer.Exit(EXIT_SOME_FAILED)


def lines_of(model: TriageModel) -> list[str]:
    """Returns what a model is, what it may be asked about and what it promises, for people."""
    from medical.outcome import DISCLAIMER

    rows = model.artifact.provenance() | {"sha256": model.digest}
    rows |= {"score": model.aggregation.in_words(model.contract.geometry)}
    known = model.familiarity
    lines = [*(f"  {name}: {value}" for name, value in rows.items()), "", "It may be asked about:"]
    lines += [f"  {name}: {value}" for name, value in model.contract.rows().items()]
    lines += [f"  kind of image: hardly farther from the training than {known.held_out} normals held out", ""]
    lines += [model.artifact.calibration.in_words(), ""]
    if model.subgroups:
        lines.append("Flags among the normal patients held out (the thresholds were set on them):")
        lines += [
            f"  {g.attribute} {g.value}: {g.flagged} of {g.patients} ({g.low:.0%} to {g.high:.0%})"
            for g in model.subgroups
        ]
    return [*lines, "", DISCLAIMER]


@contextmanager
def _training(
    paths: list[Path], modality: str, body_part: str, progress: Progress
) -> Iterator[tuple[list[Study], list[RefusedFile], Pixels]]:
    """Opens the normal studies: their list, what was refused of them, and what decodes their pixels."""
    from anomaly.errors import SettingError
    from medical.commands.shared import site_pseudonyms
    from medical.pictures import PictureReader, read_manifest

    if len(paths) == 1 and paths[0].suffix.lower() == ".csv":
        if not modality or not body_part:
            raise SettingError("pictures need --modality and --body-part: no header says what they are of")
        yield read_manifest(paths[0], modality, body_part, site_pseudonyms()), [], PictureReader()
        return
    if modality or body_part:
        raise SettingError("--modality and --body-part go with a manifest of pictures; DICOM objects say theirs")
    from medical.reading import PixelReader, take_inventory

    with PixelReader() as reader, take_inventory(paths, site_pseudonyms(), progress, reader) as inventory:
        yield list(inventory.studies), list(inventory.refused), reader


def _geometry(text: str) -> Any:
    from anomaly.errors import SettingError

    if text not in ("", "image", "slices", "volume"):
        raise SettingError(f"--as must be image, slices or volume; got {text!r}")
    return text or None


def _voxel(text: str) -> Any:
    from anomaly.errors import SettingError

    if not text:
        return None
    try:
        depth, height, width = (float(side) for side in text.split(","))
    except ValueError:
        raise SettingError(f"--voxel must be three numbers in mm, like 5,1,1; got {text!r}") from None
    if min(depth, height, width) <= 0:
        raise SettingError(f"--voxel must be above 0; got {text!r}")
    return depth, height, width
