"""Takes back a table of verdicts: checks every row against the store, then stores all of them or none."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from anomaly.errors import SettingError
from inspection.results.records import StoredResult, Verdict
from inspection.results.store import ResultsStore
from inspection.review.verdict_table import check_rows, read_table


@dataclass(frozen=True)
class Taken:
    """What became of a table.

    Attributes:
        stored: verdicts that are new.
        known: verdicts that were stored already, the same.
        open: rows without a verdict.
    """

    stored: int
    known: int
    open: int

    def in_words(self) -> str:
        """One sentence for people."""
        known = f", {self.known:,} were there already" if self.known else ""
        left = f"; {self.open:,} rows have no verdict and stay open" if self.open else ""
        return f"{self.stored:,} verdicts stored{known}{left}."


def take_verdicts(store: ResultsStore, table: Path, who: str, *, correct: bool = False) -> Taken:
    """Stores the verdicts of a table.

    Args:
        store: open store of the results.
        table: file as `verdict_table.read_table` reads it.
        who: who gave the verdicts, not empty.
        correct: whether a verdict may differ from the one that is stored.

    Raises:
        DatasetError: rows are not right, parts unknown, or verdicts in conflict; all are listed, nothing is stored.
        SettingError: `who` is empty.
        StoreError: the store cannot be read or written; nothing is stored.
    """
    if not who.strip():
        raise SettingError.of("a verdict", "who", "the name of a person", who)
    rows = read_table(table)
    wanted = {(row.run, row.part) for row in rows}
    known: dict[tuple[str, str], StoredResult] = {}
    for run in sorted({row.run for row in rows} & {run.id for run in store.runs()}):
        known |= {(run, one.result.part): one for one in store.results(run=run) if (run, one.result.part) in wanted}
    new = check_rows(rows, known, correct=correct)
    given = datetime.now(UTC)
    store.add_verdicts(
        [
            Verdict(run=row.run, part=row.part, verdict=row.verdict, who=who.strip(), given=given)
            for row in new
            if row.verdict is not None
        ]
    )
    left = sum(row.verdict is None for row in rows)
    return Taken(len(new), len(rows) - left - len(new), left)
