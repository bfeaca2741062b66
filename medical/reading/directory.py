"""The files that a DICOMDIR lists (PS3.3 F.5, PS3.10 8.2). Runs in the worker process."""

import os
from pathlib import Path
from typing import Any

from medical.reading.attributes import items, values
from medical.reading.classes import DIRECTORY_CLASS, EXPLICIT
from medical.reading.limits import Limits
from medical.reading.opening import read_any
from medical.refusals import Reason, RefusedError


def listed(path: Path, limits: Limits) -> list[list[str]]:
    """Returns the Referenced File IDs of a DICOMDIR, each as its components.

    Raises:
        RefusedError: the file is no DICOMDIR, or is damaged.
    """
    about: dict[str, Any] = {}
    try:
        with path.open("rb") as file:
            header = read_any(file, limits, about)
    except OSError as error:
        raise RefusedError(Reason.NOT_DICOM, f"the file cannot be opened: {os.strerror(error.errno or 0)}") from None
    if about["sop_class"] != DIRECTORY_CLASS or about["transfer_syntax"] != EXPLICIT:
        raise RefusedError(Reason.HEADER, "a file of the name DICOMDIR is none")
    records = items(header, "DirectoryRecordSequence")
    found = ([str(part).strip() for part in values(record, "ReferencedFileID")] for record in records)
    return [parts for parts in found if parts]
