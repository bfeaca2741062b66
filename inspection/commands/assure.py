"""The commands `anomaly inspect assure ...`: gauge study and control charts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from inspection.commands.selecting import ModelSha, PasswordEnv, Since, Store, Until

if TYPE_CHECKING:
    from inspection.assurance.ewma import EwmaChart
    from inspection.assurance.judgements import Judgement
    from inspection.assurance.p_chart import PChart

assure_app = typer.Typer(help="How far the inspection can be trusted: gauge study, charts.", no_args_is_help=True)
EXIT_ALARM = 3
MOST_ALARMS = 20
P_CHART, EWMA, JSON, REPEATS = "p-chart", "ewma", "charts.json", "repeats"


@assure_app.command("gauge")
def gauge_command(
    table: Annotated[
        Path | None,
        typer.Argument(help="CSV with the columns part, appraiser, trial, decision, and if known truth and score."),
    ] = None,
    store: Annotated[str, typer.Option(help="Instead of a table: store of results, with two --run or more.")] = "",
    run: Annotated[list[str] | None, typer.Option(help="Run over the same parts; each run is a trial.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="REVIEW threshold of the score: also study how far repeated scores spread.")
    ] = None,
    confidence: Annotated[float, typer.Option(help="Of the intervals.")] = 0.95,
    picture: Annotated[Path | None, typer.Option(help="Picture of the repeated scores, *.svg or *.png.")] = None,
    password_env: PasswordEnv = "",
) -> None:
    """Study whether the same parts are judged alike when they are seen again, and rightly (attribute gauge R&R).

    With a store, the truth is what people said in a review.

    Examples:
        anomaly inspect assure gauge study.csv

        anomaly inspect assure gauge --store results.sqlite --run RUN1 --run RUN2 --threshold 14.2 --picture repeats.svg
    """
    from anomaly.errors import SettingError
    from inspection.assurance.gauge import study
    from inspection.assurance.judgements import read_judgements
    from inspection.assurance.pictures import draw_repeats
    from inspection.assurance.repeatability import repeatability
    from inspection.assurance.words import repeatability_in_words, study_in_words

    if (table is None) == (not store):
        raise SettingError("give either a table or --store with two --run or more")
    if picture is not None and (threshold is None or picture.suffix not in (".svg", ".png")):
        raise SettingError("--picture must end in .svg or .png and needs --threshold")
    judgements = read_judgements(table) if table is not None else _judgements(store, run or [], password_env)
    lines = study_in_words(study(judgements, confidence))
    scored = [one for one in judgements if one.score is not None]
    if threshold is not None:
        found = repeatability(scored, threshold, confidence)
        lines += ["", *repeatability_in_words(found)]
        if len(scored) < len(judgements):
            lines.append(f"  {len(judgements) - len(scored)} judgement(s) without a score are not in it")
        if picture is not None:
            draw_repeats(picture, scored, found, "Scores of the same parts, seen again")
            lines.append(f"Picture: {picture}")
    elif scored:
        lines += ["", "Decisions alone hide how near they were: --threshold also studies the spread of the scores."]
    typer.echo("\n".join(lines))


@assure_app.command("charts")
def charts_command(
    store: Store,
    out: Annotated[Path, typer.Option(help="Folder for the two pictures and charts.json.")],
    reference_until: Annotated[str, typer.Option(help="The limits rest on what was captured before this time.")],
    by: Annotated[str, typer.Option(help="Points of the charts: hour, day, or a number of parts.")] = "hour",
    count: Annotated[str, typer.Option(help="What the p-chart counts: ng, stopped (REVIEW or NG) or unjudged.")] = "ng",
    weight: Annotated[float, typer.Option(help="Weight of the newest part in the EWMA (lambda).")] = 0.1,
    limit: Annotated[float, typer.Option(help="Control limit of the EWMA in deviations (L).")] = 2.814,
    image: Annotated[str, typer.Option(help="Format of the pictures: svg or png.")] = "svg",
    since: Since = "",
    until: Until = "",
    model_sha256: ModelSha = "",
    password_env: PasswordEnv = "",
) -> None:
    """Chart stored results over time: share of NG parts (p-chart) and level of the scores (EWMA), with alarms.

    Exit status: 0 no alarm after the reference; 2 not done, the error says why; 3 alarm.

    Example: anomaly inspect assure charts results.sqlite --out charts --reference-until 2026-11-20
    """
    import json

    from anomaly.errors import DatasetError, SettingError
    from inspection.assurance.ewma import EwmaSettings, ewma_chart
    from inspection.assurance.from_store import Seen, stretches
    from inspection.assurance.p_chart import p_chart
    from inspection.assurance.pictures import draw_ewma, draw_p_chart
    from inspection.commands.selecting import Selection, new_folder, opened, time_of

    if image not in ("svg", "png"):
        raise SettingError(f"--image must be svg or png; got {image!r}")
    end = time_of("--reference-until", reference_until)
    if end is None:
        raise SettingError("--reference-until must be a date or time; it is empty")
    selection = Selection(since=since, until=until, model=model_sha256)
    with opened(store, password_env) as results:
        seen = sorted(map(Seen.of, selection.results(results)), key=lambda one: one.captured)
    if len(models := sorted({one.model for one in seen if one.score is not None})) > 1:
        raise DatasetError(
            f"the scores of {len(models)} models cannot be compared; --model-sha256: {', '.join(models)}"
        )
    cut, early = stretches(seen, by, end)
    judged = [one for one in cut if one.scores()]
    begun = sum(bool(one.scores()) for one in cut[:early])
    if begun < 2:
        period = f"{seen[0].captured:%Y-%m-%d %H:%M} to {seen[-1].captured:%Y-%m-%d %H:%M}" if seen else "never"
        raise DatasetError(
            f"before --reference-until {reference_until} lie {begun} groups (--by {by}) with judged parts; limits need "
            f"2 at least, 20 are usual. Parts were captured: {period}"
        )
    shares = p_chart([one.group(count) for one in cut], early)
    levels = ewma_chart([one.scores() for one in judged], begun, EwmaSettings(weight=weight, limit=limit))
    new_folder(out, (f"{P_CHART}.{image}", f"{EWMA}.{image}", JSON))
    names, labels = [one.label for one in cut], [one.label for one in judged]
    counted = {"ng": "NG", "stopped": "REVIEW or NG", "unjudged": "not judged"}[count]
    draw_p_chart(out / f"{P_CHART}.{image}", shares, f"Share of {counted}: {selection.in_words()}", counted)
    draw_ewma(out / f"{EWMA}.{image}", levels, labels, f"Level of the scores: {selection.in_words()}")
    (out / JSON).write_text(json.dumps(_machine(shares, levels, labels), indent=1) + "\n", encoding="utf-8")
    lines = [*_chart(shares, names), "", *_chart(levels, labels), "", f"Pictures and {JSON} are in {out}."]
    typer.echo("\n".join(lines))
    if any(alarm.point >= chart.reference for chart in (shares, levels) for alarm in chart.alarms):
        raise typer.Exit(EXIT_ALARM)


def _judgements(store: str, runs: list[str], password_env: str) -> list[Judgement]:
    from inspection.assurance.from_store import judgements_of_runs
    from inspection.commands.selecting import Selection, opened

    with opened(store, password_env) as results:
        found = [one for run in runs for one in Selection(run=run).results(results)]
    return judgements_of_runs(found, runs)


def _chart(chart: PChart | EwmaChart, labels: list[str]) -> list[str]:
    late = [alarm for alarm in chart.alarms if alarm.point >= chart.reference]
    lines = [f"{chart.kind}.", f"  reference: the first {chart.reference} of {len(labels)} groups"]
    lines += [f"  note: {line}" for line in chart.warnings()]
    lines += [f"  ALARM {alarm.in_words(labels)}" for alarm in late[:MOST_ALARMS]]
    if len(late) > MOST_ALARMS:
        lines.append(f"  and {len(late) - MOST_ALARMS} more alarms")
    return lines if late else [*lines, "  no alarm after the reference"]


def _machine(shares: PChart, levels: EwmaChart, labels: list[str]) -> dict[str, Any]:
    groups = [
        {"label": group.label, "count": group.count, "of": group.of, "low": float(low), "high": float(high)}
        for group, low, high in zip(shares.groups, shares.low, shares.high, strict=True)
    ]
    return {
        "p_chart": {
            "kind": shares.kind,
            "reference": shares.reference,
            "centre": shares.centre,
            "sigma_z": shares.sigma_z,
            "groups": groups,
            "alarms": _alarms(shares, [group.label for group in shares.groups]),
            "notes": shares.warnings(),
        },
        "ewma": {
            "weight": levels.settings.weight,
            "limit": levels.settings.limit,
            "reference": levels.reference,
            "sigma_z": levels.sigma_z,
            "labels": labels,
            "values": levels.values.tolist(),
            "alarms": _alarms(levels, labels),
            "notes": levels.warnings(),
        },
    }


def _alarms(chart: PChart | EwmaChart, labels: list[str]) -> list[dict[str, Any]]:
    return [
        {"point": alarm.point, "label": labels[alarm.point], "rule": alarm.rule.value, "above": alarm.above}
        for alarm in chart.alarms
    ]
