"""The folder of a run: one key of pseudonyms for all that lies in it, so that a study is never there under two names.

A second run into the same folder replaces: the worklist as a whole, and of each study that it judges the DICOM results.
Results of other studies stay, and the run says how many they are.
"""

import csv
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from anomaly.errors import SettingError
from medical.pseudonyms import KEY_FILE, Pseudonyms, kept_key

LOG = "run.log"
"""File within it: the log."""
STUDIES = "studies.csv"
"""File within it: which study each pseudonym of a report of explanations stands for."""
DICOM = "dicom"
"""Folder within it: results as DICOM objects, PSEUDONYM-KIND-OBJECT.dcm."""
_RESULT = re.compile(r"([0-9a-f]{16})-[a-z]+-[0-9a-f]{16}\.dcm")


def folder_pseudonyms(folder: Path, key: bytes | None) -> Pseudonyms:
    """Returns the pseudonyms of a folder that exists.

    Args:
        folder: of the run.
        key: of the site; None where it has none: then a random one is kept in the folder.

    Raises:
        SettingError: the folder holds results that were named with another key.
    """
    kept = folder / KEY_FILE
    named = dict(_named(folder))
    if key is None and not kept.exists() and named:
        raise _other_key(folder)
    pseudonyms = Pseudonyms(key or kept_key(folder))
    if any(pseudonyms.of(study) != name for name, study in named.items()):
        raise _other_key(folder)
    return pseudonyms


def results_of(folder: Path, pseudonym: str = "") -> set[Path]:
    """Returns the DICOM results in the folder of a run, of one study or of all."""
    found = (folder / DICOM).glob(f"{pseudonym}*.dcm")
    return {path for path in found if _RESULT.fullmatch(path.name)}


def _other_key(folder: Path) -> SettingError:
    where = f"it is in {folder / KEY_FILE}" if (folder / KEY_FILE).exists() else "--key-file or ANOMALY_MEDICAL_KEY"
    return SettingError(
        f"{folder} holds results that were named with another key; with this one every study would lie there twice, "
        f"under two names. Give the key of that run ({where}), or another --out; nothing was changed"
    )


def _named(folder: Path) -> Iterator[tuple[str, str]]:
    """Yields the pseudonyms that stand in the folder and the studies that they stand for."""
    with suppress(OSError, ValueError, KeyError, TypeError):  # there is none, or nothing that a run wrote
        rows = json.loads((folder / "worklist.json").read_bytes())["studies"]
        yield from ((str(row["pseudonym"]), str(row["study_instance_uid"])) for row in rows)
    with (
        suppress(OSError, ValueError, KeyError, TypeError, csv.Error),
        (folder / STUDIES).open(newline="", encoding="utf-8") as file,
    ):
        yield from ((row["pseudonym"], row["study_instance_uid"]) for row in csv.DictReader(file))
    one_each = {path.name.split("-")[0]: path for path in results_of(folder)}
    for name, path in one_each.items():
        if study := _study_of(path):
            yield name, study


def _study_of(path: Path) -> str:
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        found = dcmread(path, stop_before_pixels=True, specific_tags=["StudyInstanceUID"])
        return str(found.get("StudyInstanceUID", ""))
    except (OSError, InvalidDicomError, ValueError, TypeError, KeyError, AttributeError, EOFError):
        return ""  # no result of a run, or a damaged one
