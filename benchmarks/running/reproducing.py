"""Does a run come out again? Its rows measured anew in another folder, compared figure by figure.

Compared are the areas (AUROC, AP, AUPRO) and how many normals raised an alarm. F1-max, FPR at recall and box hits turn
on single images and follow from these. Equal seeds on equal machines agree to the digit; other processors and versions
round differently, which `NOISE` allows. Costs are told, not judged: they belong to a machine.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from anomaly.errors import SettingError
from anomaly.progress import Progress, silent
from benchmarks.running.run import RESULTS, RUN, VALUES, Settings, Wish, run
from benchmarks.running.work import KEY
from benchmarks.tables import ResultFile, markdown, number

NOISE = 0.01
"""Largest difference of an area, and of the share of normals that raised an alarm, that rounding may make."""
_ROUNDING = 1e-9
AREAS = ("image_auroc", "image_auroc_strata", "image_ap", "pixel_auroc", "pixel_ap", "aupro_0.3", "aupro_0.05")
ALARMS = ("review", "ng")
AGAIN, DIFFERS, MISSING = "again", "DIFFERS", "MISSING"


class Compared(NamedTuple):
    """One row of a run, and the same row measured anew.

    Attributes:
        old: the row.
        new: the row of the other run; None where it has none.
        difference: largest difference of its areas and shares of alarms; infinite where only one of both has a figure.
    """

    old: Mapping[str, str]
    new: Mapping[str, str] | None
    difference: float

    @property
    def verdict(self) -> str:
        """`AGAIN`, `DIFFERS` or `MISSING`."""
        if self.new is None:
            return MISSING
        return AGAIN if self.difference <= NOISE + _ROUNDING else DIFFERS


def reproduce(known: Path, out: Path, progress: Progress = silent) -> list[Compared]:
    """Measures all rows of a run anew, with its settings, and compares them; goes on where it was broken off.

    Args:
        known: folder of the run.
        out: folder of the new run.
        progress: is told what is being done.

    Returns:
        Its rows in their order.

    Raises:
        SettingError: the folder holds no run, or `out` is the same folder or belongs to a run under other conditions.
        DatasetError: a set cannot be used.
    """
    if not (known / RUN).is_file() or not (known / RESULTS).is_file():
        raise SettingError(f"{known} holds no run: it lacks {RUN} or {RESULTS}; name a folder of `anomaly bench run`")
    if known.resolve() == out.resolve():
        raise SettingError("--out must be another folder than that of the run, which stays as it is")
    content = json.loads((known / RUN).read_text(encoding="utf-8"))
    settings = Settings(**{name: content["depends"][name] for name in Settings.__dataclass_fields__})
    for asked in content["asked"]:
        wish = Wish(**{name: tuple(values) for name, values in asked.items()})
        run(wish, settings, out, fresh=False, ray=False, progress=progress)
    return compare(_rows(known), _rows(out))


def compare(old: Sequence[Mapping[str, str]], new: Sequence[Mapping[str, str]]) -> list[Compared]:
    """Pairs the rows of two runs by what they measure.

    Args:
        old: rows of the run.
        new: rows of the other one; those that the first lacks are left out.
    """
    by_key = {_key(row): row for row in new}
    found = [(row, by_key.get(_key(row))) for row in old]
    return [Compared(row, again, 0.0 if again is None else _difference(row, again)) for row, again in found]


def told(found: Sequence[Compared]) -> str:
    """Returns the comparison as a Markdown table with a sentence below it."""
    header = ["set", "detector", "backbone", "seed", "image AUROC", "again", "pixel AUROC", "again", "difference"]
    rows = [_cells(one) for one in found]
    counts = {word: sum(one.verdict == word for one in found) for word in (AGAIN, DIFFERS, MISSING)}
    sentence = (
        f"{counts[AGAIN]} of {len(found)} rows came out again within {NOISE}; {counts[DIFFERS]} differ, "
        f"{counts[MISSING]} could not be measured. CPU time of all fits: {_cpu(found)}."
    )
    return f"{markdown([*header, 'fit CPU', 'verdict'], rows, texts=3)}\n\n{sentence}"


def _cells(one: Compared) -> list[str]:
    old, new = one.old, one.new or {}
    pairs = [number(row.get(name), 3) for name in ("image_auroc", "pixel_auroc") for row in (old, new)]
    place = "/".join(filter(None, (old["dataset"], old["category"])))
    difference = "-" if one.new is None else f"{one.difference:.4f}"
    return [place, old["detector"], old["backbone"], old["seed"], *pairs, difference, _cpu([one]), one.verdict]


def _cpu(found: Sequence[Compared]) -> str:
    """How many times the CPU time of before the fits took."""
    pairs = [(one.new["fit_cpu_s"], one.old["fit_cpu_s"]) for one in found if one.new and one.old["fit_cpu_s"]]
    now, before = (sum(map(float, times)) for times in (zip(*pairs, strict=True) if pairs else ((), ())))
    return f"{now / before:.2f} x" if before else "-"


def _difference(old: Mapping[str, str], new: Mapping[str, str]) -> float:
    pairs = [(old[name], new[name]) for name in AREAS]
    for level in ALARMS:
        flagged, normals = f"{level}_flagged", f"{level}_normals"
        pairs.append((_share(old[flagged], old[normals]), _share(new[flagged], new[normals])))
    if any(bool(before) != bool(after) for before, after in pairs):
        return float("inf")
    return max((abs(float(before) - float(after)) for before, after in pairs if before), default=0.0)


def _share(flagged: str, normals: str) -> str:
    return str(int(flagged) / int(normals)) if normals else ""


def _key(row: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(row[name] for name in KEY)


def _rows(folder: Path) -> list[dict[str, str]]:
    return ResultFile(folder / RESULTS, KEY, VALUES).rows
