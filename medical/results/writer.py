"""The job: an outcome -> DICOM files, all of them or none."""

import logging
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from medical.outcome import Algorithm, Outcome
from medical.pseudonyms import Pseudonyms
from medical.results.key_objects import key_objects
from medical.results.layers import Layer, layers
from medical.results.parametric_map import parametric_map
from medical.results.report import Region, reference_only, region, report
from medical.results.segmentation import segmentation
from medical.results.settings import Kind, ResultError, ResultSettings, Written
from medical.results.sources import Sources, read_sources
from medical.results.stamp import Stamp
from medical.results.summary import summary

PART = ".part"
T = TypeVar("T")


def write_results(
    outcome: Outcome, algorithm: Algorithm, folder: Path, settings: ResultSettings, pseudonyms: Pseudonyms
) -> tuple[Written, ...]:
    """Writes the results of one study as DICOM objects in new series of that study.

    Patient and study come from the source files. A second run for the same objects with the same model and settings
    writes the same identifiers and file names.

    Args:
        outcome: of the study; with maps where regions are wanted.
        algorithm: what computed it.
        folder: gets the files; made where it does not exist.
        settings: what is written.
        pseudonyms: make the file names.

    Returns:
        What was written; the report last, when all that it refers to exists.

    Raises:
        ResultError: a result cannot be built or written; no file of this study is left then. Without patient data.
    """
    with _discreet():
        sources = read_sources(outcome)
        mode = f"{settings.with_heatmaps} {settings.compact_maps}"
        stamp = Stamp.of(algorithm, outcome, sources, mode=mode)
        files = _Files(folder, outcome.pseudonym, pseudonyms)
        try:
            _write(outcome, sources, stamp, settings, files)
            return files.publish()
        except BaseException:
            files.withdraw()
            raise


def _write(outcome: Outcome, sources: Sources, stamp: Stamp, settings: ResultSettings, files: "_Files") -> None:
    """Writes the report last: it refers to all others."""
    regions: list[Region] = []
    marks = settings.with_heatmaps
    if settings.wants(Kind.SEG) or settings.wants(Kind.PM):
        for place, layer in enumerate(_built("anomaly map", lambda: layers(outcome, sources))):
            regions += _write_layer(layer, place, stamp, settings, files)
    if settings.wants(Kind.SC):
        files.write(_built("summary", lambda: summary(outcome, sources, stamp, with_heatmaps=marks)), Kind.SC)
    if settings.wants(Kind.KO):
        files.write(_built("key objects", lambda: key_objects(outcome, sources, stamp, with_heatmaps=marks)), Kind.KO)
    if settings.wants(Kind.SR):
        files.write(_built("report", lambda: report(outcome, sources, stamp, regions, files.references)), Kind.SR)


def _write_layer(layer: Layer, place: int, stamp: Stamp, settings: ResultSettings, files: "_Files") -> list[Region]:
    """One object after the other: a map of a volume may take gigabytes while it is built."""
    regions = []
    if settings.wants(Kind.SEG):
        marked = _built("segmentation", lambda: segmentation(layer, stamp, place))
        if marked is not None:
            regions.append(region(layer, marked))
            files.write(marked, Kind.SEG)
        del marked
    if settings.wants(Kind.PM):
        compact = settings.compact_maps
        files.write(_built("parametric map", lambda: parametric_map(layer, stamp, place, compact=compact)), Kind.PM)
    return regions


@dataclass
class _Files:
    """Files of one study that become visible together, and the identifiers of their objects."""

    folder: Path
    pseudonym: str
    pseudonyms: Pseudonyms
    written: list[Written] = field(default_factory=list)
    references: list[Any] = field(default_factory=list)

    def write(self, made: Any | None, kind: Kind) -> None:
        """Writes an object under a name that nobody takes for finished; nothing where there is none."""
        if made is None:
            return
        uid = str(made.SOPInstanceUID)
        path = self.folder / f"{self.pseudonym}-{kind}-{self.pseudonyms.of(uid)}.dcm"
        self.written.append(Written(path, str(made.SOPClassUID), uid, kind))
        self.references.append(reference_only(made))
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _part(path).open("wb") as file:
                _built(str(kind), lambda: made.save_as(file, enforce_file_format=True))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResultError(f"a result cannot be written to its folder: {error.strerror}") from None

    def publish(self) -> tuple[Written, ...]:
        """Gives all files their names."""
        for one in self.written:
            _part(one.path).replace(one.path)
        return tuple(self.written)

    def withdraw(self) -> None:
        """Removes what was begun."""
        for one in self.written:
            with suppress(OSError):  # it may be the folder itself that is the trouble
                _part(one.path).unlink(missing_ok=True)


def _part(path: Path) -> Path:
    return path.with_name(path.name + PART)


def _built(what: str, build: Callable[[], T]) -> T:
    """Calls `build`; errors of the libraries repeat values, so that only their kind and place are told."""
    try:
        return build()
    except (ResultError, OSError, MemoryError):
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(frame.filename).name}:{frame.lineno}"
        raise ResultError(
            f"the {what} cannot be built from the source objects: {type(error).__name__} at {place}"
        ) from None


@contextmanager
def _discreet() -> Iterator[None]:
    """Silences warnings and notes of the libraries: they repeat names, dates and identifiers."""
    logger = logging.getLogger("highdicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            yield
    finally:
        logger.setLevel(level)
