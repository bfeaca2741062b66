"""worklist.csv, worklist.json and worklist.html: the same rows, each file there whole or not at all."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from anomaly.calibration import Calibration
from anomaly.errors import SettingError
from medical.objects import RefusedFile
from medical.outcome import DISCLAIMER, Algorithm, Outcome
from medical.privacy.files import whole_file
from medical.worklist.order import RULE
from medical.worklist.rows import Row, rows
from medical.worklist.words import NOT_NORMAL, counted

SCHEMA = "anomaly-suite/worklist/1"
Pictures = Mapping[str, Sequence[UInt8[np.ndarray, "h w 3"]]]
"""Study Instance UID -> RGB pictures of it, e.g. heatmaps."""


@dataclass(frozen=True)
class About:
    """What the worklist says about itself.

    Attributes:
        algorithm: what judged the studies.
        calibration: its thresholds and what they promise.
        written: time of the worklist, with its offset.
    """

    algorithm: Algorithm
    calibration: Calibration
    written: datetime

    def __post_init__(self) -> None:
        """Refuses a time that does not say where it holds."""
        if self.written.tzinfo is None:
            raise SettingError.of("About", "written", "a time with a time zone", self.written.isoformat())


@dataclass(frozen=True)
class WorklistPaths:
    """The files of a worklist.

    Attributes:
        csv: for spreadsheets.
        json: for programs; docs/worklist.schema.json describes it.
        html: for people; one file, opens without a network.
    """

    csv: Path
    json: Path
    html: Path


def write_worklist(
    outcomes: Sequence[Outcome],
    folder: Path,
    about: About,
    pictures: Pictures | None = None,
    identifiers: Mapping[str, str] | None = None,
    strays: Sequence[RefusedFile] = (),
) -> WorklistPaths:
    """Writes the three files of a worklist, readable by their owner only; older ones are replaced, all or none.

    The files hold Study Instance UIDs, without which no study could be opened, and no other identifier unless the
    caller gives some.

    Args:
        outcomes: in the order of arrival.
        folder: made if it does not exist.
        about: the model and its calibration.
        pictures: shown as thumbnails in the page; heatmaps are shown only where the reader asked for them.
        identifiers: Study Instance UID -> identifier to be shown, such as the accession number.
        strays: files of no readable study. They are in no row, so page and JSON say how many there are, and why; a
            study may be missing because of them. The CSV file has rows only.

    Raises:
        SettingError: there are pictures or identifiers of a study that is not among the outcomes.
        OSError: the folder cannot be written to.
    """
    from medical.worklist.page import html

    pictures, identifiers = pictures or {}, identifiers or {}
    unknown = (set(pictures) | set(identifiers)) - {outcome.study for outcome in outcomes}
    if unknown:
        raise SettingError(f"pictures or identifiers of {len(unknown)} studies that are not in the worklist")
    found = rows(outcomes, about.calibration, identifiers)
    folder.mkdir(parents=True, exist_ok=True)
    paths = WorklistPaths(*(folder / f"worklist.{kind}" for kind in ("csv", "json", "html")))
    contents = {
        paths.csv: _csv(found),
        paths.json: json.dumps(_document(found, about, strays), indent=2, allow_nan=False) + "\n",
        paths.html: html(found, about, pictures, strays),
    }
    with ExitStack() as files:
        for path, text in contents.items():
            files.enter_context(whole_file(path)).write(text.encode("utf-8", "backslashreplace"))
    return paths


def _csv(found: Sequence[Row]) -> str:
    stream = io.StringIO(newline="")
    names = [*Row.__dataclass_fields__, "disclaimer"]
    table = csv.DictWriter(stream, names, quoting=csv.QUOTE_ALL)
    table.writeheader()
    table.writerows(row.as_cells() for row in found)
    return stream.getvalue()


def _document(found: Sequence[Row], about: About, strays: Sequence[RefusedFile]) -> dict[str, Any]:
    calibration, algorithm = about.calibration, about.algorithm
    return {
        "schema": SCHEMA,
        "disclaimer": f"{DISCLAIMER} {NOT_NORMAL}",
        "written": about.written.isoformat(timespec="seconds"),
        "order": RULE,
        "algorithm": {
            "name": algorithm.name,
            "version": algorithm.version,
            "model_sha256": algorithm.model,
            "settings": dict(algorithm.settings),
        },
        "calibration": {
            "unit": calibration.unit,
            "normals": len(calibration.scores),
            "review_above": calibration.review.value,
            "ng_above": calibration.ng.value,
            "in_words": calibration.in_words().splitlines(),
        },
        "counts": counts(found),
        "files_of_no_study": {"files": len(strays), "reasons": counted(strays)},
        "studies": [row.as_json() for row in found],
    }


def counts(found: Sequence[Row]) -> dict[str, Any]:
    """Returns how many studies are in which state, and why how many were not analysed."""
    states = Counter(row.state for row in found)
    return {
        "studies": len(found),
        "flagged": states["strong"] + states["flagged"],
        "strongly_flagged": states["strong"],
        "not_flagged": states["unflagged"],
        "partly_analysed": sum(row.status == "PARTLY_ANALYSED" for row in found),
        "not_analysed": states["none"],
        "not_analysed_by_reason": dict(Counter(_code(row) for row in found if row.state == "none")),
    }


def _code(row: Row) -> str:
    return next(iter(row.reasons), "UNKNOWN").split(":")[0]
