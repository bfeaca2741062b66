"""The table that people fill in: one row per part, OK or NG in the column `verdict`, every row checked when it returns.

A row without a verdict is allowed and counted: nobody is made to decide. All else that is not right is an error that
lists every place, and nothing is stored.
"""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from anomaly.calibration import Decision
from anomaly.errors import DatasetError
from inspection.results.records import StoredResult

COLUMNS = ("run", "part", "decision", "reason", "score", "why", "verdict")
NEEDED = ("run", "part", "verdict")
VERDICTS = ("OK", "NG")
_LISTED = 30
_ERRORS = "surrogateescape"
"""File names that are not UTF-8 are parts too."""


@dataclass(frozen=True)
class Row:
    """One verdict of the table.

    Attributes:
        line: of the file, from 1.
        run: id of the run.
        part: id of the part.
        verdict: OK or NG; None if the cell is empty.
    """

    line: int
    run: str
    part: str
    verdict: Decision | None


def write_table(path: Path, rows: Iterable[tuple[StoredResult, str]]) -> None:
    """Writes the table to fill in.

    Args:
        path: file to write.
        rows: (result, why it is in the table); the verdict that a part has already is filled in.
    """
    with path.open("w", encoding="utf-8", errors=_ERRORS, newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(COLUMNS)
        for stored, why in rows:
            result, verdict = stored.result, stored.verdict
            score = "" if result.score is None else f"{result.score:.6g}"
            given = "" if verdict is None else verdict.verdict.value
            writer.writerow([stored.run, result.part, result.decision.value, result.reason.value, score, why, given])


def read_table(path: Path) -> list[Row]:
    """Reads a table that people have filled in; other columns than the needed ones are ignored.

    Verdicts may be written in small letters and with spaces around; spreadsheets do that.

    Raises:
        DatasetError: it cannot be read, a needed column is missing, or a row is not right; every such row is named.
    """
    rows, problems = [], []
    try:
        with path.open(encoding="utf-8-sig", errors=_ERRORS, newline="") as stream:
            first = stream.readline()
            stream.seek(0)
            reader = csv.DictReader(stream, delimiter=";" if first.count(";") > first.count(",") else ",")
            missing = [name for name in NEEDED if name not in (reader.fieldnames or ())]
            if missing:
                raise DatasetError(f"{path}: it needs the columns {', '.join(NEEDED)}; missing: {', '.join(missing)}")
            for cells in reader:
                try:
                    rows.append(_row(reader.line_num, cells))
                except ValueError as error:
                    problems.append(f"line {reader.line_num}: {error}")
    except (OSError, csv.Error) as error:
        raise DatasetError(f"{path}: it cannot be read as a table: {error}") from error
    if problems:
        raise DatasetError(_listed(f"{path}: {len(problems)} row(s) are not right, nothing was stored", problems))
    return rows


def check_rows(rows: Sequence[Row], known: Mapping[tuple[str, str], StoredResult], *, correct: bool) -> list[Row]:
    """Checks verdicts against the store and against each other.

    Args:
        rows: of the table.
        known: (run, part) -> result, of the store.
        correct: whether a verdict may differ from the one that is stored.

    Returns:
        The rows with a verdict that is not stored yet, each once.

    Raises:
        DatasetError: parts are unknown, have two verdicts in the table, or another one in the store; all are listed.
    """
    given: dict[tuple[str, str], Row] = {}
    problems = []
    for row in rows:
        key = row.run, row.part
        if key not in known:
            problems.append(f"line {row.line}: run {row.run!r} has no part {row.part!r}")
        elif row.verdict is not None:
            first = given.setdefault(key, row)
            if first.verdict != row.verdict:
                problems.append(
                    f"line {row.line}: part {row.part!r} of run {row.run!r} is {row.verdict} here and {first.verdict} "
                    f"in line {first.line}"
                )
    new = []
    for key, row in given.items():
        stored = known[key].verdict
        if stored is None or (correct and stored.verdict != row.verdict):
            new.append(row)
        elif stored.verdict != row.verdict:
            problems.append(
                f"line {row.line}: part {row.part!r} of run {row.run!r} is {row.verdict} here, but {stored.who} said "
                f"{stored.verdict} on {stored.given:%Y-%m-%d %H:%M} (--correct stores the new one beside it)"
            )
    if problems:
        raise DatasetError(_listed(f"{len(problems)} verdict(s) cannot be taken, nothing was stored", problems))
    return new


def _row(line: int, cells: Mapping[str | None, str | None]) -> Row:
    run, part, verdict = (cells.get(name) or "" for name in NEEDED)
    verdict = verdict.strip()
    if not run or not part:
        raise ValueError("run and part must not be empty")
    if None in cells:
        raise ValueError("it has more cells than the header")
    if verdict and verdict.upper() not in VERDICTS:
        raise ValueError(f"verdict must be OK, NG or empty; got {verdict!r} for part {part!r}")
    return Row(line, run, part, Decision(verdict.upper()) if verdict else None)


def _listed(headline: str, problems: Sequence[str]) -> str:
    left = [f"  and {len(problems) - _LISTED} more"] if len(problems) > _LISTED else []
    return "\n".join([f"{headline}:", *(f"  {problem}" for problem in problems[:_LISTED]), *left])
