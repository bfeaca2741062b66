"""KLARF 1.1, 1.2 and 1.8, the files of yield systems: tolerant to read, strict to write."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from anomaly.errors import SettingError
from inspection.wafer.defects import InspectedWafer
from inspection.wafer.errors import KlarfError
from inspection.wafer.klarf.flat_reader import read_flat
from inspection.wafer.klarf.flat_writer import write_flat
from inspection.wafer.klarf.model import VERSIONS, Extra, ExtraColumns, KlarfFile, Version, as_stored
from inspection.wafer.klarf.tokens import KlarfWarning
from inspection.wafer.klarf.tree_reader import read_tree
from inspection.wafer.klarf.tree_writer import write_tree

__all__ = [
    "VERSIONS",
    "Extra",
    "ExtraColumns",
    "KlarfFile",
    "KlarfWarning",
    "Version",
    "as_stored",
    "dumps",
    "klarf_file",
    "loads",
    "read",
    "write",
]

MAX_BYTES = 1 << 30


def klarf_file(
    wafers: Sequence[InspectedWafer] | InspectedWafer, version: Version = "1.2", time: str = ""
) -> KlarfFile:
    """Returns a file of wafers of one lot.

    Args:
        wafers: one wafer, or those of a lot.
        version: "1.1", "1.2" or "1.8".
        time: date and time of the file, ISO 8601 in whole seconds without zone; "" leaves it out.
    """
    several = (wafers,) if isinstance(wafers, InspectedWafer) else tuple(wafers)
    return KlarfFile(version=version, wafers=several, time=time)


def loads(text: str) -> KlarfFile:
    """Reads the text of a KLARF file of any version.

    Unknown parts are kept in `KlarfFile.extras` and `columns`; everything that was repaired or could not be read is
    named in `KlarfFile.warnings`.

    Raises:
        KlarfError: no KLARF file, or what is needed to place its defects is missing.
    """
    text = text.removeprefix("\ufeff")
    begin = text.split(maxsplit=1)[:1]
    try:
        return read_tree(text) if begin == ["Record"] else read_flat(text)
    except SettingError as error:
        raise KlarfError(f"the file describes a wafer that cannot be: {error}") from error


def dumps(file: KlarfFile) -> str:
    """Returns the text of a KLARF file; it is read back and compared before it is handed out.

    Raises:
        KlarfError: the version cannot say something that the file holds, the wafers are not of one lot and product, or
            the file would not be read back as it is.
    """
    if file.version not in VERSIONS:
        raise KlarfError(f"version must be one of {', '.join(VERSIONS)}; got {file.version!r}")
    if not file.wafers:
        raise KlarfError("a KLARF file holds at least one wafer")
    _check_lot(file)
    stored = replace(file, wafers=tuple(as_stored(wafer) for wafer in file.wafers))
    text = write_tree(stored) if file.version == "1.8" else write_flat(stored)
    back = loads(text)
    if back.warnings:
        raise KlarfError(f"the file would not be valid: {back.warnings[0].message}")
    for wafer, found in zip(stored.wafers, back.wafers, strict=True):
        if wafer != found:
            raise KlarfError(f"wafer {wafer.wafer!r} would not be read back as it is; its names or values do not fit")
    return text


def read(path: Path) -> KlarfFile:
    """Reads a KLARF file; UTF-8, or else Latin-1.

    Raises:
        KlarfError: no such file, larger than 1 GiB, or as `loads`.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise KlarfError(f"{path} is larger than {MAX_BYTES} bytes")
        content = path.read_bytes()
    except OSError as error:
        raise KlarfError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    try:
        return loads(text)
    except KlarfError as error:
        raise KlarfError(f"{path}: {error}") from error


def write(path: Path, file: KlarfFile) -> None:
    """Writes a KLARF file with lines that end in CRLF; the file appears only when it is complete.

    Raises:
        KlarfError: as `dumps`, or the file cannot be written.
    """
    content = dumps(file).replace("\n", "\r\n").encode("utf-8")
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        raise KlarfError(f"{path} cannot be written: {error.strerror or error}") from error


def _check_lot(file: KlarfFile) -> None:
    def shared(wafer: InspectedWafer) -> tuple[object, ...]:
        grid = wafer.geometry
        names = (wafer.lot, wafer.device, wafer.step, wafer.recipe, wafer.station, dict(wafer.classes))
        return *names, grid.pitch_um, grid.diameter_mm, grid.notch, grid.flat

    first = shared(file.wafers[0])
    for wafer in file.wafers[1:]:
        if shared(wafer) != first:
            raise KlarfError(
                f"wafers of a file share lot, device, step, recipe, station, classes and grid; {wafer.wafer!r} differs"
            )
