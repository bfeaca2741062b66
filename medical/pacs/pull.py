"""Copies studies out of a PACS into a folder, by QIDO-RS and WADO-RS or by C-FIND and C-GET, and goes on where it was.

    OUT/STUDY/SERIES/OBJECT.dcm      pseudonyms, mode 0600 in folders 0700

A file has its name only when it is whole (written elsewhere, fsync, rename), so what is there is not fetched again.
"""

import secrets
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from anomaly.errors import SettingError
from anomaly.progress import Progress, silent
from medical.pacs.associations import Remote, dataset, find, get
from medical.pacs.contexts import IMAGES
from medical.pacs.errors import PeerError
from medical.pacs.headers import valid_uid
from medical.pacs.web import INSTANCE, SERIES, SOP_CLASS, STUDY, WebPeer, value
from medical.privacy.files import sync_folder
from medical.pseudonyms import Pseudonyms, kept_key

if TYPE_CHECKING:
    from pynetdicom.events import Event


@dataclass(frozen=True)
class Query:
    """Which studies.

    Attributes:
        dates: Study Date, "20260101" or "20260101-20260131"; "" for all.
        modality: a modality that the study has, e.g. "CR"; "" for all.
        accessions: Accession Numbers, any of them; empty for all.
    """

    dates: str = ""
    modality: str = ""
    accessions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Checks the dates.

        Raises:
            SettingError: they are no date or range of dates, or nothing narrows the query.
        """
        days = self.dates.split("-") if self.dates else []
        if len(days) > 2 or any(day and not (len(day) == 8 and day.isdigit()) for day in days):
            raise SettingError.of("Query", "dates", "YYYYMMDD or YYYYMMDD-YYYYMMDD", self.dates)
        if not (self.dates or self.accessions):
            raise SettingError("a query needs dates or accession numbers, so that it does not copy a whole PACS")

    def filters(self) -> Iterator[dict[str, str]]:
        """Yields the attributes of each question to ask."""
        base = {"StudyDate": self.dates} if self.dates else {}
        base |= {"ModalitiesInStudy": self.modality} if self.modality else {}
        for number in self.accessions or ("",):
            yield base | ({"AccessionNumber": number} if number else {})


@dataclass(frozen=True)
class Found:
    """An object of the PACS: its UIDs."""

    study: str
    series: str
    uid: str


class Source(Protocol):
    """A PACS."""

    def studies(self, query: Query) -> list[str]:
        """Returns Study Instance UIDs."""
        ...

    def objects(self, study: str) -> list[Found]:
        """Returns the images of a study."""
        ...

    def fetch(self, objects: Sequence[Found], folder: Path) -> Iterator[tuple[Found, Path]]:
        """Yields objects and new files in the folder, as they come; raises PeerError at the end if some did not."""
        ...


class WebSource:
    """A DICOMweb server."""

    def __init__(self, peer: WebPeer) -> None:
        """Keeps the server."""
        self._peer = peer

    def studies(self, query: Query) -> list[str]:
        """Asks by QIDO-RS."""
        found = [value(one, STUDY) for filters in query.filters() for one in self._peer.studies(filters)]
        return list(dict.fromkeys(found))

    def objects(self, study: str) -> list[Found]:
        """Asks by QIDO-RS."""
        images = (one for one in self._peer.instances(study) if value(one, SOP_CLASS) in IMAGES)
        return [Found(study, value(one, SERIES), value(one, INSTANCE)) for one in images]

    def fetch(self, objects: Sequence[Found], folder: Path) -> Iterator[tuple[Found, Path]]:
        """Fetches by WADO-RS, one after the other."""
        lost: list[PeerError] = []
        for one in objects:
            file = folder / f".{secrets.token_hex(8)}.part"
            try:
                self._peer.fetch(one.study, one.series, one.uid, file)
            except PeerError as error:
                lost.append(error)
                file.unlink(missing_ok=True)
            else:
                yield one, file
        if lost:
            raise PeerError(f"{len(lost)} of {len(objects)} objects did not come: {lost[0]}")


class DicomSource:
    """A PACS that takes C-FIND and C-GET."""

    def __init__(self, remote: Remote) -> None:
        """Keeps the peer."""
        self._remote = remote

    def studies(self, query: Query) -> list[str]:
        """Asks by C-FIND at STUDY level."""
        questions = [dataset(QueryRetrieveLevel="STUDY", StudyInstanceUID="", **f) for f in query.filters()]
        found = [str(one.get("StudyInstanceUID", "")) for answers in find(self._remote, questions) for one in answers]
        return list(dict.fromkeys(found))

    def objects(self, study: str) -> list[Found]:
        """Asks by C-FIND at SERIES and IMAGE level."""
        question = dataset(QueryRetrieveLevel="SERIES", StudyInstanceUID=study, SeriesInstanceUID="")
        series = [str(one.SeriesInstanceUID) for answers in find(self._remote, [question]) for one in answers]
        level = {"QueryRetrieveLevel": "IMAGE", "StudyInstanceUID": study, "SOPInstanceUID": "", "SOPClassUID": ""}
        found = []
        for uid, answers in zip(
            series, find(self._remote, [dataset(**level, SeriesInstanceUID=one) for one in series]), strict=True
        ):
            images = (one for one in answers if str(one.get("SOPClassUID", "")) in ("", *IMAGES))
            found += [Found(study, uid, str(one.SOPInstanceUID)) for one in images]
        return found

    def fetch(self, objects: Sequence[Found], folder: Path) -> Iterator[tuple[Found, Path]]:
        """Fetches by C-GET, one object per request, so that what is missing is known by its name."""
        files: list[Path] = []

        def keep(event: "Event") -> int:
            file = folder / f".{secrets.token_hex(8)}.part"
            file.write_bytes(event.encoded_dataset())
            files.append(file)
            return 0x0000

        image = {"QueryRetrieveLevel": "IMAGE"}
        questions = [
            dataset(**image, StudyInstanceUID=one.study, SeriesInstanceUID=one.series, SOPInstanceUID=one.uid)
            for one in objects
        ]
        lost = []
        for one, (_, problem) in zip(objects, get(self._remote, questions, keep), strict=True):
            if problem is None and len(files) == 1:
                yield one, files.pop()
            else:
                lost.append(problem or f"{self._remote.ae_title} sent {len(files)} objects where one was asked for")
            for file in files:
                file.unlink()
            files.clear()
        if lost:
            raise PeerError(f"{len(lost)} of {len(objects)} objects did not come: {lost[0]}")


@dataclass
class Pulled:
    """What a pull did.

    Attributes:
        studies: number of studies that match.
        fetched: objects that were fetched now.
        present: objects that were there already.
        problems: studies that could not be copied completely: pseudonym -> why.
    """

    studies: int = 0
    fetched: int = 0
    present: int = 0
    problems: dict[str, str] = field(default_factory=dict)


def pull(source: Source, query: Query, out: Path, key: bytes | None, progress: Progress = silent) -> Pulled:
    """Copies all images of the studies that match.

    Args:
        source: the PACS.
        query: which studies.
        out: folder; made where it is missing.
        key: of the pseudonyms; a random one that is kept in the folder where none is given.
        progress: reports to whoever waits.

    Raises:
        PeerError: the studies could not be asked for.
        SettingError: the key of the folder cannot be used.
    """
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in out.rglob(".*.part"):
        left.unlink()
    names = Pseudonyms(key or kept_key(out))
    studies, pulled = source.studies(query), Pulled()
    advance = progress("studies", len(studies))
    for study in studies:
        pulled.studies += 1
        try:
            _copy(source, study, out, names, pulled)
        except PeerError as error:
            pulled.problems[names.of(study)] = str(error)
        advance(1)
    return pulled


def _copy(source: Source, study: str, out: Path, names: Pseudonyms, pulled: Pulled) -> None:
    objects = [one for one in source.objects(study) if all(map(valid_uid, (one.study, one.series, one.uid)))]
    wanted = []
    for one in objects:
        if _place_of(one, out, names).is_file():
            pulled.present += 1
        else:
            wanted.append(one)
    if not wanted:
        return
    with closing(source.fetch(wanted, out)) as coming:  # type: ignore[type-var]  # generators close
        for one, file in coming:
            target = _place_of(one, out, names)
            for folder in (target.parent.parent, target.parent):
                folder.mkdir(mode=0o700, exist_ok=True)
            _durable(file)
            file.replace(target)
            sync_folder(target.parent)
            pulled.fetched += 1


def _place_of(one: Found, out: Path, names: Pseudonyms) -> Path:
    return out / names.of(one.study) / names.of(one.series) / f"{names.of(one.uid)}.dcm"


def _durable(file: Path) -> None:
    import os

    file.chmod(0o600)
    with file.open("rb") as opened:
        os.fsync(opened.fileno())
