"""De-identification of files: what lies below some paths is written under pseudonyms, or the table says why not.

An object is written only if the reader knows its kind and could look at its pixels, if nothing points to a name burned
into them (or the caller takes that risk), and if no identifier is found in the result.
"""

import csv
import io
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import FileDataset

from anomaly.errors import AnomalyError, SettingError
from anomaly.progress import Progress, silent
from medical.objects import Instance
from medical.privacy.burned_in import WORDS, Risk, lines_of_text, said_risks
from medical.privacy.deidentify import Deidentifier
from medical.privacy.files import whole_file
from medical.privacy.leftovers import IdentifierLeftError
from medical.privacy.profile import Options
from medical.pseudonyms import Pseudonyms
from medical.reading import FileEntry, PixelReader, take_inventory
from medical.reading.classes import SOP_CLASSES
from medical.refusals import Reason, RefusedError

WRITTEN, RISK, REFUSED = "WRITTEN", "BURNED_IN_RISK", "REFUSED"
TABLE = "deidentified.csv"
_STORAGE = "1.2.840.10008.5.1.4.1.1."
_NO_PICTURE = (f"{_STORAGE}88.", f"{_STORAGE}66.4", f"{_STORAGE}30")
"""Structured reports, segmentations and parametric maps: objects that the reader does not analyse and no name is drawn
into."""


@dataclass(frozen=True)
class FileResult:
    """What became of one file.

    Attributes:
        number: of the file, from 1, in the order in which `anomaly triage check` lists the same paths.
        status: WRITTEN, BURNED_IN_RISK or REFUSED; the latter two are not written.
        reason: code of the refusal or of an error, or the risks; empty where there is none.
        words: for people.
        kind: name of the SOP class.
        patient: pseudonym; like the next two, empty where nothing was written.
        study: pseudonym.
        object: pseudonym.
        removed: how many attributes were removed or emptied.
        replaced: how many got another value.
    """

    number: int
    status: str
    reason: str
    words: str
    kind: str
    patient: str = ""
    study: str = ""
    object: str = ""
    removed: int = 0
    replaced: int = 0


def deidentify_files(
    paths: Sequence[Path],
    out: Path,
    key: bytes,
    options: Options,
    *,
    accept_burned_in_risk: bool = False,
    progress: Progress = silent,
) -> list[FileResult]:
    """De-identifies every object below the paths into `out`/patient/study/object.dcm, and writes a table there.

    Args:
        paths: files, folders, DICOMDIRs and ZIP archives.
        out: folder; not below one of the paths.
        key: 32 bytes; the same key gives the same pseudonyms.
        options: of the profile.
        accept_burned_in_risk: write objects whose pixels may show who the patient is.
        progress: told of every file.

    Returns:
        One result per file, in the order of the inventory.

    Raises:
        SettingError: a path does not exist, or `out` lies below one.
        OSError: a file cannot be written.
    """
    for path in paths:
        if out.resolve().is_relative_to(path.resolve()):
            raise SettingError("the folder of the results must not lie in what is read; give another --out")
    deidentifier = Deidentifier(key, options)
    results = []
    with PixelReader() as pixels, take_inventory(paths, Pseudonyms(key), progress, pixels) as inventory:
        advance = progress("De-identifying", len(inventory.files))
        for number, entry in enumerate(inventory.files, 1):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom's repeat the values of attributes
                results.append(_file(number, entry, out, deidentifier, pixels, accept_burned_in_risk))
            advance(1)
    _write_table(results, out)
    return results


def _file(
    number: int, entry: FileEntry, out: Path, deidentifier: Deidentifier, pixels: PixelReader, accept: bool
) -> FileResult:
    known = SOP_CLASSES.get(str(entry.about.get("sop_class")))
    kind = "unknown" if known is None else known.name
    if not isinstance(entry.found, Instance) and not _without_picture(entry):
        return FileResult(number, REFUSED, entry.found.refusal.reason.value, entry.found.refusal.detail, kind)
    try:
        source = pydicom.dcmread(entry.found.path)
        risks = _risks(source, entry, pixels)
        reason, words = " ".join(risks), "; ".join(WORDS[risk] for risk in risks)
        if risks and not accept:
            return FileResult(number, RISK, reason, words, kind)
        done = deidentifier(source)
    except IdentifierLeftError as error:
        return FileResult(number, REFUSED, "IDENTIFIER_LEFT", str(error), kind)
    except (AnomalyError, ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        name = type(error).__name__  # its words may repeat values
        return FileResult(number, REFUSED, "FAILED", f"the object could not be rewritten ({name})", kind)
    target = out / done.patient / done.study / f"{done.instance}.dcm"
    target.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(target) as file:
        file.write(done.content)
    return FileResult(
        number, WRITTEN, reason, words, kind, done.patient, done.study, done.instance, done.removed, done.replaced
    )


def _without_picture(entry: FileEntry) -> bool:
    refused = entry.found
    known = not isinstance(refused, Instance) and refused.refusal.reason in (Reason.NO_IMAGE, Reason.RESULT)
    plain = entry.about.get("transfer_syntax") in ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", None)
    return known and plain and str(entry.about.get("sop_class")).startswith(_NO_PICTURE)


def _risks(source: FileDataset, entry: FileEntry, pixels: PixelReader) -> list[Risk]:
    """Looks at the header and at the first, the middle and the last frame."""
    found = said_risks(source)
    if not isinstance(entry.found, Instance):
        found.discard(Risk.CAPTURED)  # reports, segmentations and maps are made, not captured
    if isinstance(entry.found, Instance):
        frames = entry.found.frames
        try:
            if any(lines_of_text(pixels.image(entry.found, frame).values) for frame in {1, (frames + 1) // 2, frames}):
                found.add(Risk.TEXT_FOUND)
        except RefusedError:
            found.add(Risk.NOT_CHECKED)
    return sorted(found)


def _write_table(results: Sequence[FileResult], out: Path) -> None:
    stream = io.StringIO(newline="")
    table = csv.DictWriter(stream, list(FileResult.__dataclass_fields__))
    table.writeheader()
    table.writerows(asdict(result) for result in results)
    out.mkdir(parents=True, exist_ok=True)
    with whole_file(out / TABLE) as file:
        file.write(stream.getvalue().encode())
