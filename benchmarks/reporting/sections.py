"""The sections of a report, each from the rows of the runs."""

from collections.abc import Sequence
from itertools import groupby
from statistics import mean as average

from benchmarks.datasets.registry import SETS as PUBLIC
from benchmarks.reporting.anchors import MEAN, Anchor
from benchmarks.reporting.page import Picture, Section, Table
from benchmarks.reporting.pictures import Point, critical_difference, pareto, ranks
from benchmarks.reporting.results import Experiment, Figure, Method, Results, Row, leader, mean, mean_of
from benchmarks.running.coverage import LEVELS
from benchmarks.tables import number

QUALITY = {  # title: column, digits
    "within strata": ("image_auroc_strata", 3),
    "AP": ("image_ap", 3),
    "F1-max": ("image_f1_max", 3),
    "FPR at 95 % recall": ("image_fpr_at_95_recall", 3),
    "pixel AUROC": ("pixel_auroc", 3),
    "pixel AP": ("pixel_ap", 3),
    "AUPRO 0.3": ("aupro_0.3", 3),
    "AUPRO 0.05": ("aupro_0.05", 3),
    "peak in a box": ("box_hits", 2),
    "in another's": ("box_hits_crossed", 2),
}
COSTS = {
    "fit, CPU s": ("fit_cpu_s", 1),
    "fit, wall s": ("fit_wall_s", 1),
    "p50 ms": ("ms_1_image", 1),
    "p95 ms": ("ms_1_image_p95", 1),
    "p99 ms": ("ms_1_image_p99", 1),
    "images/s at batch 8": ("images_per_s_8", 1),
    "fit peak, MiB": ("peak_mib", 0),
    "GPU peak, MiB": ("gpu_peak_mib", 0),
    "scoring peak, MiB": ("scoring_peak_mib", 0),
    "file, MiB": ("file_mib", 1),
}
_PUBLISHED = "published, not measured here"
_AUROC = "image AUROC"


def sets(results: Results, anchors: Sequence[Anchor]) -> list[Section]:
    """Returns a section per set: its products, or itself; shortcuts below the figures that they put in question."""
    found = []
    for dataset, group in groupby(results.experiments(), key=lambda one: one.dataset):
        experiments = list(group)
        section = Section(f"Set: {dataset}")
        published = _comparable(anchors, experiments)
        if len(experiments) > 1:
            whole = [anchor for anchor in published if anchor.category == MEAN]
            section.tables.append(_means(results, experiments, f"Mean over {len(experiments)} categories", whole))
        for experiment in experiments:
            name = experiment.category or MEAN
            own = [anchor for anchor in published if anchor.category == name]
            section.tables.append(_experiment(results, experiment, own))
        section.tables.append(_costs(results, experiments))
        section.lines = [f"Published, not measured here: {a.method} {a.image_auroc:.3f}, {a.source}" for a in published]
        found.append(section)
    return found


def _comparable(anchors: Sequence[Anchor], experiments: Sequence[Experiment]) -> list[Anchor]:
    """Returns the published figures of a set; those over all of its categories only where all were measured."""
    dataset, measured = experiments[0].dataset, {experiment.category for experiment in experiments}
    return [
        anchor
        for anchor in anchors
        if anchor.set == dataset
        and (anchor.category in measured or (anchor.category == MEAN and measured == set(PUBLIC[dataset].categories)))
    ]


def means(results: Results) -> Section:
    """Returns the table of means over all experiments, one weight for each."""
    experiments = results.experiments()
    title = f"Mean over {len(experiments)} set(s) and categories"
    section = Section(title, tables=[_means(results, experiments, "", ())])
    leading = section.tables[0].rows
    if not any("**" in cell for row in leading for cell in row):
        section.lines.append("Nothing is marked: no method is ahead of all others beyond the noise.")
    return section


def _means(results: Results, experiments: Sequence[Experiment], caption: str, published: Sequence[Anchor]) -> Table:
    """Only methods that were measured on all experiments compete; others show on how many they were."""
    figures, rows = {}, []
    for method in results.methods():
        own = [figure for one in experiments if (figure := results.auroc(one, method))]
        if len(own) == len(experiments):
            figures[method] = mean_of(own)
    best = leader(figures)
    columns = {
        t: c for t, c in (QUALITY | COSTS).items() if t in ("AP", "pixel AUROC", "AUPRO 0.3", "fit, CPU s", "p50 ms")
    }
    for method in results.methods():
        measured = [rows_ for one in experiments if (rows_ := results.of(one, method))]
        shown = _auroc_cells(figures.get(method), method == best)
        cells = [_mean_of_means(measured, column, digits, len(experiments)) for column, digits in columns.values()]
        rows.append([method.title, f"{len(measured)} of {len(experiments)}", *shown, *cells])
    tops = [float(found[0]["image_auroc"]) for one in experiments if (found := results.shortcuts_of(one))]
    if len(tops) == len(experiments):
        rows.append(
            [
                "best shortcut of each",
                f"{len(tops)} of {len(tops)}",
                number(average(tops), 3),
                *["-"] * (1 + len(columns)),
            ]
        )
    header, rows = _with_published(["method", "measured on", _AUROC, "95 % noise", *columns], rows, published, results)
    return Table(caption, header, rows, 1)


def _mean_of_means(measured: Sequence[Sequence[Row]], column: str, digits: int, count: int) -> str:
    values = [value for rows in measured if (value := mean(rows, column)) is not None]
    note = "" if len(values) in (0, count) else f" ({len(values)})"
    return number(average(values) if values else None, digits) + note


def _auroc_cells(figure: Figure | None, best: bool) -> list[str]:
    if figure is None:
        return ["-", "-"]
    text = f"{figure.value:.3f}"
    return [f"**{text}**" if best else text, f"±{1.96 * figure.error:.3f}"]


def _experiment(results: Results, experiment: Experiment, published: Sequence[Anchor]) -> Table:
    methods = [method for method in results.methods() if results.of(experiment, method)]
    figures = {method: figure for method in methods if (figure := results.auroc(experiment, method))}
    best = leader(figures)
    own = {method: results.of(experiment, method) for method in methods}
    columns = {
        title: (column, digits)
        for title, (column, digits) in QUALITY.items()
        if any(row[column] for rows in own.values() for row in rows)
    }
    rows = []
    for method in methods:
        cells = [number(mean(own[method], column), digits) for column, digits in columns.values()]
        rows.append([method.title, str(len(own[method])), *_auroc_cells(figures[method], method == best), *cells])
    for row in results.shortcuts_of(experiment):
        low, high = float(row["image_auroc_low"]), float(row["image_auroc_high"])
        cells = [number(row[column], digits) for column, digits in columns.values()]
        rows.append([row["detector"], "-", number(row["image_auroc"], 3), f"{low:.2f} to {high:.2f}", *cells])
    header, rows = _with_published(["method", "seeds", _AUROC, "95 % noise", *columns], rows, published, results)
    first = own[methods[0]][0]
    caption = f"{experiment.title}: {first['train']} training images, {first['test']} test images"
    return Table(caption, header, rows, 1)


def _costs(results: Results, experiments: Sequence[Experiment]) -> Table:
    """Returns time, memory and size of every row of a set, means over seeds."""
    rows = results.rows
    columns = {title: where for title, where in COSTS.items() if any(row[where[0]] for row in rows)}
    table = [
        [one.title, method.title, *(number(mean(own, column), digits) for column, digits in columns.values())]
        for one in experiments
        for method in results.methods()
        if (own := results.of(one, method))
    ]
    return Table("Time, memory, size", ["set", "method", *columns], table, 2)


def _with_published(
    header: list[str], rows: list[list[str]], published: Sequence[Anchor], results: Results
) -> tuple[list[str], list[list[str]]]:
    """Adds the column of published figures where there are any: beside their own row, else in a row of their own."""
    if not published:
        return header, rows
    beside = {anchor.detector: anchor for anchor in published if anchor.detector}
    names = [method.detector for method in results.methods()]
    rows = [
        [*row, f"{beside[names[i]].image_auroc:.3f}" if i < len(names) and names[i] in beside else "-"]
        for i, row in enumerate(rows)
    ]
    alone = [anchor for anchor in published if anchor.detector not in names]
    rows += [[a.method, *["-"] * (len(header) - 1), f"{a.image_auroc:.3f}"] for a in alone]
    return [*header, _PUBLISHED], rows


def wins(results: Results) -> Section:
    """Returns who is ahead of whom, on how many experiments, beyond the noise; ranks where there are enough."""
    methods, experiments = results.methods(), results.experiments()
    section = Section(
        "Who wins",
        [
            "Each cell: experiments on which the method of the row is ahead / level within the noise / behind, by "
            "image AUROC."
        ],
    )
    rows = [
        [row.title, *("" if row == other else _duel(results, experiments, row, other) for other in methods)]
        for row in methods
    ]
    section.tables.append(Table("", ["method", *(method.title for method in methods)], rows, 1))
    complete = [m for m in methods if all(results.of(one, m) for one in experiments)]
    table = [[_value(results, one, method) for method in complete] for one in experiments]
    if (found := ranks([method.title for method in complete], table)) is not None:
        says = "some differ" if found.p_value < 0.05 else "the methods cannot be told apart"
        section.lines.append(
            f"Friedman's test over {found.sets} experiments: p = {found.p_value:.3g}, {says}; critical difference of "
            f"average ranks (Nemenyi, 5 %): {found.difference:.2f} (Demsar, JMLR 2006)."
        )
        section.picture = Picture("ranks.svg", "average ranks of the methods", critical_difference(found))
    else:
        section.lines.append("A critical-difference picture needs 5 experiments and 3 methods measured on all of them.")
    return section


def _value(results: Results, experiment: Experiment, method: Method) -> float:
    figure = results.auroc(experiment, method)
    return figure.value if figure else float("nan")


def _duel(results: Results, experiments: Sequence[Experiment], one: Method, other: Method) -> str:
    ahead = level = behind = 0
    for experiment in experiments:
        mine, theirs = results.auroc(experiment, one), results.auroc(experiment, other)
        if mine is None or theirs is None:
            continue
        ahead += mine.ahead_of(theirs)
        behind += theirs.ahead_of(mine)
        level += not (mine.ahead_of(theirs) or theirs.ahead_of(mine))
    return f"{ahead} / {level} / {behind}"


def against_latency(results: Results, busy: bool) -> Section:
    """Returns the picture of accuracy against latency, of the methods that were measured everywhere.

    Args:
        results: all rows.
        busy: whether other programs ran meanwhile, so that the picture must say so.
    """
    experiments = results.experiments()
    points = {}
    for method in results.methods():
        figures = [figure for one in experiments if (figure := results.auroc(one, method))]
        if len(figures) == len(experiments):
            times = [mean(results.of(one, method), "ms_1_image") or 0.0 for one in experiments]
            total = mean_of(figures)
            points[method.title] = Point(average(times), total.value, total.error)
    section = Section("Accuracy against latency")
    if not points:
        section.lines.append("No method was measured on every experiment.")
        return section
    where = f"mean over {len(experiments)} experiment(s), bars: 95 % noise"
    if busy:
        where += "\nBUSY MACHINE: latencies are not quotable"
    section.picture = Picture("pareto.svg", "image AUROC against latency of each method", pareto(points, where))
    return section


def promises(results: Results) -> Section:
    """Returns whether the promised false-alarm rates were kept on the test normals."""
    header = [
        "set",
        "method",
        "seed",
        "level",
        "held out",
        "asked",
        "promised, at most",
        "false alarms",
        "seen",
        "95 % exact",
        "verdict",
    ]
    rows = []
    for row in results.rows:
        title, method = Experiment(row["dataset"], row["category"]).title, Method(row["detector"], row["backbone"])
        for level in LEVELS:
            seen = f"{int(row[f'{level}_flagged'])} of {row[f'{level}_normals']}"
            rate = int(row[f"{level}_flagged"]) / int(row[f"{level}_normals"])
            low, high = (float(row[f"{level}_{end}"]) for end in ("low", "high"))
            rows.append(
                [
                    *(title, method.title, row["seed"], level.upper(), row["held_out_units"]),
                    f"{100 * float(row[f'{level}_wanted']):g} %",
                    f"{100 * float(row[f'{level}_promised']):.1f} %",
                    *(seen, f"{100 * rate:.1f} %", f"{100 * low:.1f} to {100 * high:.1f} %", row[f"{level}_verdict"]),
                ]
            )
    lines = [
        "Promised: the false-alarm rate that the held-out normals support with 95 % confidence; few support little.",
        "kept: the whole exact interval lies within the promise; broken: all of it lies above; not decided: too few "
        "test normals to say. Counted are images, or patients and lots where the set names them.",
        "A broken promise means that test normals are no draw from the source of the training normals (another day, "
        "lot or scanner), which no threshold made of training normals can know; that is a finding about the set.",
    ]
    return Section("Promised false alarms", lines, [Table("", header, rows, 2)])
