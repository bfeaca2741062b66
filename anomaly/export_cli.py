"""The command ``anomaly export``: a model file -> one graph for the line, from raw frame to decision."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export_command(
    model: Annotated[Path, typer.Argument(help="Model file (.safetensors) that `anomaly fit` wrote.")],
    out: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write; default: beside the model, named after it.")
    ] = None,
    target: Annotated[
        str, typer.Option("--format", help="onnx; openvino; or tensorrt, on the machine with the GPU of the line.")
    ] = "onnx",
    precision: Annotated[str, typer.Option(help="fp32, fp16 or int8.")] = "fp32",
    size: Annotated[
        str, typer.Option(help="Frames of the camera as HEIGHTxWIDTH; default: the canvas, which needs no resize.")
    ] = "",
    layout: Annotated[
        str, typer.Option(help="NCHW (planes), or NHWC (interleaved, as most cameras give it).")
    ] = "NCHW",
    batch: Annotated[str, typer.Option(help="Frames of one run: 1, 8, or 1..8 for any number up to 8.")] = "1",
    images: Annotated[
        Path | None, typer.Option(help="Folder of normal images: compared before and after; int8 needs them.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option(help="Data set with known answers: AUROC before and after goes into the file.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Export a model to one graph: raw frame in; score, map, p-value and decision out.

    The export is compared with the model on normal, defective and extreme frames. Beyond the stated bounds nothing is
    written; the differences that were measured go into the file.

    Examples:
        anomaly export part.safetensors

        anomaly export part.safetensors --format openvino --size 1024x1280 --layout NHWC --batch 1..8

        anomaly export part.safetensors --precision int8 --images parts/good --dataset datasets/part

        anomaly export part.safetensors --format tensorrt --precision fp16      on a machine with a CUDA GPU
    """
    import hashlib
    import json
    from dataclasses import asdict

    from anomaly.artifact import load
    from anomaly.deploy.export import export, frame_of, suffix_of
    from anomaly.images import find_dataset, list_images
    from anomaly.progress import bars

    path = out or model.with_suffix(suffix_of(target))
    artifact = load(model)
    frame = frame_of(artifact, _size(size), layout.upper(), _batch(batch))
    with bars() as progress:
        manifest = export(
            artifact,
            frame,
            path,
            target=target,
            precision=precision,
            normals=list_images([images]) if images else (),
            tests=find_dataset(dataset).test if dataset else (),
            source_sha256=hashlib.sha256(model.read_bytes()).hexdigest(),
            progress=progress,
        )
    parity = manifest.parity
    if as_json:
        typer.echo(json.dumps({"file": str(path), **asdict(manifest)}, indent=2))
        return
    lines = [
        f"Wrote {path} ({path.stat().st_size / 1e6:.1f} MB), {parity['covers']}.",
        f"  takes {manifest.frame.in_words()}, {manifest.frame.batch[0]} to {manifest.frame.batch[1]} at once",
        f"  compared on {sum(parity['frames'].values())} frames, batches {parity['batches']}, {parity['measured_on']}:",
        f"  score differs by {parity['score_max']:.2g} of the way to an alarm at most, {parity['score_mean']:.2g} on "
        f"average ({parity['score_absolute']:.2g} absolute)",
        f"  map differs by {parity['map_max']:.2g} at most, {parity['map_mean']:.2g} on average",
        f"  decisions changed: {parity['decisions_changed']}, and {parity['decisions_at_threshold']} of scores at "
        "a threshold",
    ]
    if found := parity.get("auroc"):
        lines.append(f"  image AUROC on {found['images']} images: {found['before']:.4f} -> {found['after']:.4f}")
    if target == "tensorrt":
        from anomaly.deploy.tensorrt import trtexec

        lines.append(f"  to build one elsewhere from an ONNX export: {trtexec(path.with_suffix('.onnx'), frame)}")
    typer.echo("\n".join(lines))


def _size(text: str) -> tuple[int, int] | None:
    from anomaly.errors import SettingError

    if not text:
        return None
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise SettingError(f"--size must be HEIGHTxWIDTH, like 480x640; got {text!r}")
    return int(height), int(width)


def _batch(text: str) -> tuple[int, int]:
    from anomaly.errors import SettingError

    fewest, dots, most = text.partition("..")
    most = most if dots else fewest
    if not (fewest.isdigit() and most.isdigit() and 1 <= int(fewest) <= int(most)):
        raise SettingError(f"--batch must be a number, or a range like 1..8; got {text!r}")
    return int(fewest), int(most)
