"""The command `anomaly triage evaluate`: a worklist against known labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def evaluate_command(
    worklist: Annotated[Path, typer.Argument(help="worklist.json that `anomaly triage run` wrote.")],
    labels: Annotated[Path, typer.Option(help="CSV: study, label (normal or abnormal), further columns.")],
    by: Annotated[str, typer.Option(help="Column of the labels, e.g. view: figures for each of its values.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap intervals.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")] = False,
) -> None:
    """Measure a worklist on studies with known labels; shortcut baselines stand beside every figure.

    Columns of numbers in the labels are taken as shortcuts: what a single number of the image reaches by itself.

    Example: anomaly triage evaluate worklist/worklist.json --labels labels.csv --by view
    """
    from medical.evaluation import evaluate, read_cases

    found = evaluate(read_cases(worklist, labels, by), seed)
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(_lines(found, seed)))


def _lines(found: dict[str, Any], seed: int) -> list[str]:
    from medical.outcome import DISCLAIMER

    moved, inside = found["worklist"], found["worklist"]["abnormal_in_first_quarter"]
    lines = [_counted(found["studies"]), *_figures(found)]
    for name, words in (("flagged_abnormal", "abnormal studies flagged"), ("flagged_normal", "normal studies flagged")):
        one = found[name]
        lines.append(f"{words}: {one['hits']} of {one['total']} ({one['low']:.0%} to {one['high']:.0%})")
    lines.append(
        f"first quarter of the worklist ({moved['places']} places): {inside['share']:.1%} of the abnormal studies "
        f"({inside['low']:.0%} to {inside['high']:.0%}); {moved['by_chance']:.1%} by chance, "
        f"{moved['at_most']:.1%} at most"
    )
    if found["auroc_within_strata"] is not None:
        lines.append(f"AUROC over pairs of one stratum only: {found['auroc_within_strata']:.3f}")
    for name, part in found["strata"].items():
        lines += ["", f"{name}: {_counted(part['studies'])}", *(f"  {line}" for line in _figures(part))]
    if found["shortcuts"]:
        lines += ["", "shortcuts, each a single number of the image (AUROC):"]
        lines += [f"  {name}: {value:.3f}" for name, value in found["shortcuts"].items()]
    return [*lines, "", f"95 % intervals, studies taken as independent; bootstrap seed {seed}. {DISCLAIMER}"]


def _counted(counts: dict[str, int]) -> str:
    silent = counts["normal_not_analysed"] + counts["abnormal_not_analysed"]
    said = f"{counts['normal']} normal and {counts['abnormal']} abnormal studies"
    if not silent:
        return f"{said}, all analysed"
    return f"{said}; NOT_ANALYSED: {counts['normal_not_analysed']} normal, {counts['abnormal_not_analysed']} abnormal"


def _figures(found: dict[str, Any]) -> list[str]:
    names = {"auroc": "AUROC", "sensitivity_at_90_specificity": "sensitivity at 90 % specificity"}
    return [
        f"{words}: {found[name]['value']:.3f} ({found[name]['low']:.3f} to {found[name]['high']:.3f})"
        for name, words in names.items()
        if found[name] is not None
    ]
