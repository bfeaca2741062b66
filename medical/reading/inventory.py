"""Paths -> studies: every file below them is read to its header, and is in the inventory once, taken or refused."""

import atexit
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

from anomaly.progress import Progress, silent
from medical.objects import Instance, RefusedFile, Series, Spacing, Study
from medical.pseudonyms import Pseudonyms
from medical.reading.classes import class_name
from medical.reading.finding import Candidate, find
from medical.reading.process import Worker
from medical.reading.reader import PixelReader
from medical.reading.series import Planes, as_series, planes_of
from medical.refusals import Reason, Refusal, RefusedError

_NOBODY = {"", "0", "ANON", "ANONYM", "ANONYMISED", "ANONYMIZED", "ANONYMOUS", "N/A", "NA", "NONE", "NULL", "UNKNOWN"}
"""Patient identifiers that stand for no particular patient."""


@dataclass(frozen=True)
class FileEntry:
    """One file of an inventory.

    Attributes:
        name: for people: relative to the path that was given; "archive.zip!member" for a file in an archive.
        about: what its header says: sop_class, transfer_syntax, modality, rows, columns, frames; None where unknown.
        found: the instance, or why it was refused.
    """

    name: str
    about: dict[str, Any]
    found: Instance | RefusedFile


@dataclass(frozen=True)
class Inventory:
    """What lies below some paths; a context manager, because archives are unpacked to a folder that it removes.

    Attributes:
        studies: all studies of which an object could be identified, with what was refused of them.
        refused: files of no known study.
        files: every file, in the order in which they were found.
        unpacked: folder with the content of archives; None where there was none.
    """

    studies: tuple[Study, ...]
    refused: tuple[RefusedFile, ...]
    files: tuple[FileEntry, ...]
    unpacked: Path | None = None

    def __enter__(self) -> "Inventory":
        """Returns itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes what was unpacked."""
        self.close()

    def close(self) -> None:
        """Removes what was unpacked; happens at the end of the process at the latest."""
        if self.unpacked is not None:
            shutil.rmtree(self.unpacked, ignore_errors=True)


@dataclass
class _Taking:
    """What has been found so far."""

    pseudonyms: Pseudonyms
    files: list[FileEntry] = field(default_factory=list)
    paths: set[Path] = field(default_factory=set)
    uids: set[str] = field(default_factory=set)
    patients: dict[str, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    issuers: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    planes: dict[str, Planes] = field(default_factory=dict)

    def add(self, candidate: Candidate, worker: Worker) -> None:
        resolved = candidate.path.resolve()
        if resolved in self.paths:
            self.refuse(candidate, Refusal(Reason.DUPLICATE_OBJECT, "the same file was listed before"))
            return
        self.paths.add(resolved)
        try:
            answer, _ = worker.ask("header", candidate.path)
        except RefusedError as error:
            about = getattr(error, "about", {})
            study = about.get("study")
            if study is not None:
                self._names(about["patient"], study)
            self.refuse(candidate, error.refusal, about, study)
            return
        instance = _instance(candidate.path, answer["instance"])
        about = {name: getattr(instance, name) for name in _ABOUT}
        self._names(answer["patient"], instance.study)
        if instance.uid in self.uids:
            words = "another file holds an object of the same SOP Instance UID; the one found first is taken"
            self.refuse(candidate, Refusal(Reason.DUPLICATE_OBJECT, words), about, instance.study)
            return
        self.uids.add(instance.uid)
        if answer["planes"] is not None:
            self.planes[instance.uid] = planes_of(instance, answer["planes"])
        self.files.append(FileEntry(printable(candidate.name), about, instance))

    def refuse(
        self, candidate: Candidate, refusal: Refusal, about: dict[str, Any] | None = None, study: str | None = None
    ) -> None:
        known = {name: (about or {}).get(name) for name in _ABOUT}
        found = RefusedFile(candidate.path, refusal, study, class_name(known["sop_class"]))
        self.files.append(FileEntry(printable(candidate.name), known, found))

    def _names(self, patient: Sequence[str], study: str) -> None:
        """Keeps who the patient is; the study itself where the identifier stands for nobody: they are not one."""
        issuer, identifier = patient
        nobody = identifier in _NOBODY or set(identifier) <= set("0X-?* ")
        name = (f"study|{study}", "") if nobody else (f"patient|{identifier}", issuer)
        self.patients[study].add(name)
        self.issuers[name[0]].add(name[1])

    def _key(self, study: str) -> str:
        """The key of its patient. Many senders leave the issuer out: then an identifier is one patient, whoever issued.

        Two patients taken for one harm no split; one taken for two would be on both sides of it.
        """
        identifier, issuer = min(self.patients[study])
        return self.pseudonyms.of(identifier if "" in self.issuers[identifier] else f"{identifier}|{issuer}")

    def _patients_in(self, study: str) -> int:
        """How many patients the objects of a study name for certain; an issuer that is not said is no other one."""
        identifiers = {identifier for identifier, _ in self.patients[study]}
        return max(len(identifiers), len({issuer for _, issuer in self.patients[study]} - {""}))

    def studies(self) -> tuple[tuple[Study, ...], tuple[RefusedFile, ...], tuple[FileEntry, ...]]:
        """Groups what was found; the objects of a study that names several patients are all refused."""
        files = tuple(self._one_patient(entry) for entry in self.files)
        taken: dict[str, dict[str, list[Instance]]] = {study: defaultdict(list) for study in self.patients}
        refused: dict[str | None, list[RefusedFile]] = defaultdict(list)
        for entry in files:
            if isinstance(entry.found, Instance):
                taken[entry.found.study][entry.found.series].append(entry.found)
            else:
                refused[entry.found.study].append(entry.found)
        studies = tuple(
            Study(uid, self._key(uid), tuple(map(self._series, series.values())), tuple(refused.pop(uid, ())))
            for uid, series in taken.items()
        )
        return studies, tuple(one for some in refused.values() for one in some), files

    def _one_patient(self, entry: FileEntry) -> FileEntry:
        if not isinstance(entry.found, Instance) or (count := self._patients_in(entry.found.study)) == 1:
            return entry
        refusal = Refusal(Reason.HEADER, f"the objects of its study name {count} different patients")
        return FileEntry(entry.name, entry.about, RefusedFile(entry.found.path, refusal, entry.found.study))

    def _series(self, instances: list[Instance]) -> Series:
        planes = self.planes.get(instances[0].uid) if len(instances) == 1 else None
        return as_series(instances, planes)


_ABOUT = ("sop_class", "transfer_syntax", "modality", "rows", "columns", "frames")


def take_inventory(
    paths: Sequence[Path], pseudonyms: Pseudonyms, progress: Progress = silent, pixels: PixelReader | None = None
) -> Inventory:
    """Finds and checks all DICOM objects below some paths, without decoding pixels.

    Args:
        paths: files, folders, DICOMDIRs and ZIP archives.
        pseudonyms: make the keys of patients.
        progress: told of every file.
        pixels: whose process and limits are used; None: a process of its own, which ends with the call.

    Returns:
        The inventory, to be closed after its pixels were read.

    Raises:
        SettingError: a path does not exist.
        AnomalyError: the reading process does not start.
    """
    if pixels is None:
        with PixelReader() as own:
            return take_inventory(paths, pseudonyms, progress, own)
    worker = pixels.worker
    folder = Path(tempfile.mkdtemp(prefix="anomaly-dicom-"))
    taking = _Taking(pseudonyms)
    try:
        found = list(find(paths, worker, folder, progress))
        advance = progress("Reading headers", len(found))
        for one in found:
            if isinstance(one, Candidate):
                taking.add(one, worker)
            else:
                taking.files.append(FileEntry(printable(one[1]), dict.fromkeys(_ABOUT), one[0]))
            advance(1)
        inventory = Inventory(*taking.studies())
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if not any(folder.iterdir()):
        folder.rmdir()
        return inventory
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return replace(inventory, unpacked=folder)


def printable(name: str) -> str:
    """Returns a file's name with what cannot be shown, or would steer a terminal, as escapes."""
    text = name.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def _instance(path: Path, fields: dict[str, Any]) -> Instance:
    spacing, orientation, position = fields["spacing"], fields["orientation"], fields["position"]
    return Instance(
        **fields
        | {
            "path": path,
            "image_type": tuple(fields["image_type"]),
            "spacing": None if spacing is None else Spacing(*spacing),
            "orientation": None if orientation is None else tuple(orientation),
            "position": None if position is None else tuple(position),
        }
    )
