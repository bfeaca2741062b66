"""The defect list: one row per defect, with the part that it is on, as CSV or as JSON Lines; version 1.

Columns are only ever added, at the end. The JSON schema of a row is docs/defects.schema.json. Places are in the raw
frame of the part, (0, 0) is its upper left corner.
"""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from anomaly.errors import SettingError
from anomaly.settings_file import Section
from inspection.results.files import cell
from inspection.results.messages import DefectMessage
from inspection.results.records import StoredResult
from inspection.results.tables import escaped

_BOX = ("top_px", "left_px", "bottom_px", "right_px")


class DefectRow(Section):
    """One defect of one part. Text is as the database holds it."""

    version: Literal[1] = Field(description="of this format")
    run: str = Field(description="id of the run")
    part: str = Field(description="serial number or frame id, unique within the run")
    source: str = Field(description="the camera or the file")
    captured: str = Field(description="when the part was seen, ISO 8601 with time zone")
    decision: Literal["OK", "REVIEW", "NG"] = Field(description="of the part")
    recipe: str = Field(description="sha256 of the recipe")
    model: str = Field(description="sha256 of the model file")
    defect: DefectMessage = Field(description="the defect")

    @classmethod
    def of(cls, stored: StoredResult) -> "Iterator[DefectRow]":
        """Yields the rows of a stored result, the most severe defect first."""
        result = stored.result
        for defect in result.defects:
            yield cls(
                version=1,
                run=escaped(stored.run),
                part=escaped(result.part),
                source=escaped(result.source),
                captured=result.captured.isoformat(),
                decision=result.decision.value,
                recipe=escaped(result.recipe),
                model=escaped(result.model),
                defect=DefectMessage.of(defect),
            )

    def cells(self) -> dict[str, Any]:
        """Returns the row flat: the keys of the defect beside those of the part, its id as `defect`."""
        values: dict[str, Any] = self.model_dump()
        defect = values.pop("defect")
        number, box = defect.pop("id"), defect.pop("box_px")
        values |= {"defect": number, **defect, **dict(zip(_BOX, box, strict=True))}
        return values


COLUMNS = (
    *("version", "run", "part", "source", "captured", "decision", "recipe", "model", "defect"),
    *(name for name in DefectMessage.model_fields if name not in ("id", "box_px")),
    *_BOX,
)
"""Columns of the CSV file."""


def write_defects(path: Path, results: Iterable[StoredResult]) -> int:
    """Writes the defects of some results, in their order; an existing file is replaced.

    Args:
        path: *.csv or *.jsonl.
        results: stored results.

    Returns:
        The number of defects.

    Raises:
        SettingError: another suffix.
    """
    if path.suffix not in (".csv", ".jsonl"):
        raise SettingError(f"a defect list must end in .csv or .jsonl; got {path.name!r}")
    rows = (row for stored in results for row in DefectRow.of(stored))
    count = 0
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        if path.suffix == ".csv":
            table.writerow(COLUMNS)
        for count, row in enumerate(rows, 1):  # noqa: B007  # the last count is what is wanted
            if path.suffix == ".csv":
                cells = row.cells()
                table.writerow([cell(cells[name]) for name in COLUMNS])
            else:
                file.write(row.model_dump_json() + "\n")
    return count


def schema() -> dict[str, Any]:
    """Returns the JSON schema (2020-12) of a row."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "anomaly-suite: one defect of one part, version 1",
        **{key: value for key, value in DefectRow.model_json_schema().items() if key != "title"},
    }
