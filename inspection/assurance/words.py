"""Studies as lines for people."""

from inspection.assurance.gauge import GaugeStudy, Verdict
from inspection.assurance.repeatability import REACH, Repeatability

SOURCE = "limits: AIAG, Measurement Systems Analysis, 4th edition, 2010; they are guidelines for point estimates"
_LISTED = 12


def study_in_words(study: GaugeStudy) -> list[str]:
    """Returns the outcome of a study, figure by figure with its interval and verdict."""
    times = f"{study.trials} time{'' if study.trials == 1 else 's'}"
    lines = [f"{study.parts} parts, {len(study.appraisers)} appraiser(s), each part judged {times} by each."]
    for one in study.appraisers:
        verdicts = one.verdicts()
        lines += ["", f"{one.name}:"]
        rows = (
            ("agrees with itself", one.within, ""),
            ("kappa of repeats", one.repeat_kappa, "kappa of repeats"),
            ("effectiveness (always right)", one.effective, "effectiveness"),
            ("kappa with truth", one.truth_kappa, "kappa with truth"),
            ("miss rate", one.misses, "miss rate"),
            ("false-alarm rate", one.false_alarms, "false-alarm rate"),
        )
        for name, figure, key in rows:
            if figure is not None:
                lines.append(_line(name, figure.in_words(), verdicts.get(key)))
    together = [
        _line("all agree", study.between.in_words(), None) if study.between else "",
        _line("kappa of all judgements", study.all_kappa.in_words(), None)
        if study.all_kappa and len(study.appraisers) > 1
        else "",
        _line("all always right", study.all_effective.in_words(), None)
        if study.all_effective and len(study.appraisers) > 1
        else "",
        *(_line(f"kappa {a}, {b}", kappa.in_words(), None) for (a, b), kappa in study.pairs.items()),
    ]
    if any(together):
        lines += ["", "Together:", *filter(None, together)]
    if study.unlike:
        lines += ["", f"Not always judged alike ({len(study.unlike)}): {_names(study.unlike)}"]
    verdict = study.verdict()
    lines += ["", f"{verdict.value.capitalize() if verdict else 'No verdict: no figure with a limit'} ({SOURCE})."]
    return lines


def repeatability_in_words(found: Repeatability) -> list[str]:
    """Returns the spread of scores and what it means."""
    interval = f"{100 * found.confidence:g} % interval {found.low:.3g} to {found.high:.3g}"
    room = (
        "  no part has its mean on the passing side: no tolerance figure"
        if found.ratio is None
        else f"  {REACH:g} deviations are {100 * found.ratio:.1f} % of the way from the passing parts to the threshold"
        f"  [{found.verdict().value}]"
    )
    lines = [
        f"Scores of {found.parts} parts, threshold {found.threshold:.6g}:",
        f"  repeat deviation {found.deviation:.3g} ({interval}), between parts {found.between:.3g}",
        room,
        f"  widest spread: part {found.worst[0]}, deviation {found.worst[1]:.3g}",
    ]
    if found.flipped:
        lines.append(f"  on both sides of the threshold ({len(found.flipped)}): {_names(found.flipped)}")
    if found.open:
        lines.append(f"  so near that they may be decided otherwise ({len(found.open)}): {_names(found.open)}")
    return lines


def _line(name: str, words: str, verdict: Verdict | None) -> str:
    return f"  {name:30}{words}" + (f"  [{verdict.value}]" if verdict else "")


def _names(parts: tuple[str, ...]) -> str:
    return ", ".join(parts[:_LISTED]) + (f" and {len(parts) - _LISTED} more" if len(parts) > _LISTED else "")
