"""The command ``anomaly distill``: trains the backbone that the package carries, or one like it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def distill_command(
    photographs: Annotated[
        Path, typer.Argument(help="Folder of unlabelled photographs, searched with its subfolders.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for caches, checkpoint, log and weights; go on there after a stop.")
    ],
    teacher_weights: Annotated[Path, typer.Option(help="Safetensors file of the teacher.")],
    teacher: Annotated[str, typer.Option(help="Backbone with maps at strides 8 and 16.")] = "resnetv2_50_stages",
    crops: Annotated[int, typer.Option(min=64, help="Training crops; the teacher sees each once.")] = 6000,
    size: Annotated[int, typer.Option(min=32, help="Side of a crop in pixels, a multiple of 16.")] = 192,
    steps: Annotated[int, typer.Option(min=1, help="Optimiser steps.")] = 5000,
    batch: Annotated[int, typer.Option(min=2, help="Crops per step and process.")] = 8,
    learning_rate: Annotated[float, typer.Option(help="Peak learning rate.")] = 2e-3,
    whitening: Annotated[float, typer.Option(min=0, max=1, help="0: by variance; 1: all components alike.")] = 0.5,
    seed: Annotated[int, typer.Option(help="Seed of crops, order and initial weights.")] = 0,
    evaluate_every: Annotated[int, typer.Option(min=1, help="Steps between rows of the log.")] = 500,
    start: Annotated[
        Path | None, typer.Option(help="OUT of an earlier distillation, with whose weights this one begins.")
    ] = None,
    probe_data: Annotated[
        Path | None,
        typer.Option(envvar="ANOMALY_SHARED", help="Folder of development data; adds detection figures to the log."),
    ] = None,
) -> None:
    """Distil a large backbone into a small, fast one, on photographs without labels.

    The same command goes on where an interrupted one stopped. OUT receives bundled.safetensors (float16, batch norm
    folded), run/training.csv (curves) and photographs.csv (names and hashes).

    Example: anomaly distill photographs --teacher-weights resnetv2_50_gluon_stages1to3.safetensors --out distilled
    """
    import os
    from functools import partial

    from rich.console import Console

    from anomaly.backbones.backbone import BackboneSpec
    from anomaly.backbones.bundled import save_bundled
    from anomaly.backbones.distill import DistillSettings, distill, provenance
    from anomaly.backbones.loading import load_backbone
    from anomaly.backbones.probe import load_probe_sets, probe

    settings = DistillSettings(
        crops=crops,
        size=size,
        whitening=whitening,
        batch=batch,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        evaluate_every=evaluate_every,
    )
    network = load_backbone(BackboneSpec(name=teacher, weights=str(teacher_weights)))
    sets = load_probe_sets(probe_data) if probe_data else []
    student = distill(photographs, network, out, settings, probe=partial(probe, sets=sets), start=start)
    if os.environ.get("RANK", "0") != "0":  # under torchrun the first process alone writes
        return
    origin = f"{teacher} {teacher_weights.name}, tensors sha256 {network.provenance.sha256}"
    weights = out / "bundled.safetensors"
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    save_bundled(
        student, weights, provenance(settings, origin, out / "photographs.csv", processes=processes, start=start)
    )
    Console().print(f"Weights: {weights}; curves: {out / 'run' / 'training.csv'}", soft_wrap=True)
