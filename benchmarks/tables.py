"""Result files that a broken-off run continues, and Markdown tables."""

import csv
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from anomaly.errors import DatasetError

Row = Mapping[str, object]


class ResultFile:
    """A CSV file of results; a row that is there already need not be measured again.

    Every added row is on the disk, complete, before `add` returns.

    Attributes:
        rows: all rows, as text, in the order they were added.
    """

    def __init__(self, path: Path | None, key: Sequence[str], values: Sequence[str]) -> None:
        """Reads what is there.

        Args:
            path: the file, which need not exist yet; None keeps the rows in memory only.
            key: columns that tell one measurement from another.
            values: the other columns.

        Raises:
            DatasetError: the file has other columns.
        """
        self.path = path
        self._key = tuple(key)
        self._columns = (*key, *values)
        self.rows: list[dict[str, str]] = []
        if path is None or not path.is_file():
            return
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            self.rows = list(reader)
        if tuple(reader.fieldnames or ()) != self._columns:
            raise DatasetError(f"{path} has other columns than {', '.join(self._columns)}; name another folder")

    def find(self, key: Row) -> dict[str, str] | None:
        """Returns the row of a measurement, None if it has not been made."""
        wanted = self._identity(key)
        return next((row for row in self.rows if self._identity(row) == wanted), None)

    def add(self, row: Row) -> dict[str, str]:
        """Adds a measurement, in place of an older one of the same, and returns it as text.

        Columns that it lacks stay empty.
        """
        added = {name: _text(row.get(name)) for name in self._columns}
        self.rows = [*(old for old in self.rows if self._identity(old) != self._identity(added)), added]
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            partial = self.path.with_suffix(".part")
            with partial.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, self._columns)
                writer.writeheader()
                writer.writerows(self.rows)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(self.path)
        return added

    def _identity(self, row: Row) -> list[str]:
        return [_text(row[name]) for name in self._key]


def markdown(header: Sequence[str], rows: Iterable[Sequence[object]], texts: int = 1) -> str:
    """Returns a Markdown table; the first `texts` columns are aligned to the left, the others to the right."""
    cells = [list(header), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    rule = ["-" * width if i < texts else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    lines = [
        " | ".join(f"{cell:{'<' if i < texts else '>'}{widths[i]}}" for i, cell in enumerate(row))
        for row in [cells[0], rule, *cells[1:]]
    ]
    return "\n".join(f"| {line} |" for line in lines)


def number(value: str | float | None, digits: int) -> str:
    """Returns a number for a table; a dash where there is none."""
    return "-" if value in (None, "") else f"{float(value):.{digits}f}"


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
