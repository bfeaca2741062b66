"""Repeated judgements of the same parts, as a study of the gauge reads them.

The table is CSV with the columns `part`, `appraiser`, `trial`, `decision`, and optionally `truth` and `score`. An
appraiser is whoever or whatever judged: a person, a station, a run of the inspection.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.calibration import Decision
from anomaly.errors import DatasetError, SettingError

COLUMNS = ("part", "appraiser", "trial", "decision")
OPTIONAL = ("truth", "score")
TRUTHS = (Decision.OK, Decision.NG)


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What one appraiser decided about one part in one trial.

    Attributes:
        part: the part that was judged.
        appraiser: who or what judged it.
        trial: which repetition it was, e.g. "1".
        decision: OK, REVIEW or NG.
        truth: OK or NG as it is known from elsewhere; None if it is not.
        score: anomaly score, finite; None if there is none.
    """

    part: str
    appraiser: str
    trial: str
    decision: Decision
    truth: Decision | None = None
    score: float | None = None

    def __post_init__(self) -> None:
        """Refuses a judgement without a name, a truth that is neither OK nor NG, and a score that is not finite."""
        if not (self.part and self.appraiser and self.trial):
            names = self.part, self.appraiser, self.trial
            raise SettingError.of("Judgement", "part, appraiser and trial", "not empty", names)
        if self.truth is not None and self.truth not in TRUTHS:
            raise SettingError.of("Judgement", "truth", "OK, NG or empty", str(self.truth))
        if self.score is not None and not math.isfinite(self.score):
            raise SettingError.of("Judgement", "score", "finite or empty", self.score)


def read_judgements(path: Path) -> list[Judgement]:
    """Reads the table of a study.

    Raises:
        DatasetError: the file cannot be read or has not the columns, a row is not possible (every such row is named),
            or `check_judgements` refuses them.
    """
    rows, problems = [], []
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            _check_columns(path, tuple(reader.fieldnames or ()))
            for row in reader:
                try:
                    rows.append(_judgement(row))
                except ValueError as error:
                    problems.append(f"  line {reader.line_num}: {error}")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: it cannot be read as a UTF-8 table: {error}") from error
    if problems:
        raise DatasetError(f"{path}: {len(problems)} row(s) cannot be used:\n" + "\n".join(problems))
    check_judgements(rows)
    return rows


def check_judgements(judgements: Sequence[Judgement]) -> None:
    """Checks that a study is complete: every appraiser judged every part, equally often, and no truth changes.

    Raises:
        DatasetError: a judgement is there twice, one is missing, or a part has two truths, or one in some rows only.
    """
    if not judgements:
        raise DatasetError("a study needs judgements; the table has none")
    places = [(j.part, j.appraiser, j.trial) for j in judgements]
    twice = sorted({place for place in places if places.count(place) > 1}) if len(set(places)) < len(places) else []
    if twice:
        raise DatasetError(f"{len(twice)} judgement(s) are there twice; the first is part, appraiser, trial {twice[0]}")
    parts = _names(j.part for j in judgements)
    trials = {name: _names(j.trial for j in judgements if j.appraiser == name) for name in appraisers(judgements)}
    expected = [(part, name, trial) for name, own in trials.items() for trial in own for part in parts]
    missing = sorted(set(expected) - set(places))
    if missing:
        raise DatasetError(
            f"{len(missing)} judgement(s) are missing, the first is part, appraiser, trial {missing[0]}; "
            "every appraiser must judge every part in each of their trials, or the part must leave the study"
        )
    if len({len(own) for own in trials.values()}) > 1:
        counts = ", ".join(f"{name} {len(own)}" for name, own in trials.items())
        raise DatasetError(f"every appraiser must judge equally often; trials: {counts}")
    truths: dict[str, Decision | None] = {}
    for j in judgements:
        if truths.setdefault(j.part, j.truth) != j.truth:
            raise DatasetError(f"part {j.part!r} has the truths {truths[j.part]} and {j.truth}; a part has one")


def appraisers(judgements: Iterable[Judgement]) -> list[str]:
    """Returns the appraisers in the order of their first judgement."""
    return _names(j.appraiser for j in judgements)


def _check_columns(path: Path, found: tuple[str, ...]) -> None:
    missing, unknown = sorted(set(COLUMNS) - set(found)), sorted(set(found) - {*COLUMNS, *OPTIONAL})
    if missing or unknown:
        raise DatasetError(
            f"{path}: a study needs the columns {', '.join(COLUMNS)} and may have {', '.join(OPTIONAL)}; "
            f"missing: {', '.join(missing) or 'none'}; unknown: {', '.join(unknown) or 'none'}"
        )


def _judgement(row: dict[str, str]) -> Judgement:
    if None in row or None in row.values():
        raise ValueError("it has not as many cells as the header")
    cells = {name: value.strip() for name, value in row.items()}
    for name, allowed in (("decision", tuple(Decision)), ("truth", ("", *TRUTHS))):
        if cells.get(name, "OK") not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(filter(None, allowed))}; got {cells[name]!r}")
    return Judgement(
        part=cells["part"],
        appraiser=cells["appraiser"],
        trial=cells["trial"],
        decision=Decision(cells["decision"]),
        truth=Decision(cells["truth"]) if cells.get("truth") else None,
        score=float(cells["score"]) if cells.get("score") else None,
    )


def _names(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))
