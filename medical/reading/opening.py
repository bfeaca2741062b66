"""Opens one DICOM file up to its pixels, under limits (PS3.10 section 7, PS3.5 annex A).

Runs in the worker process. A file is taken for DICOM if it has "DICM" after 128 bytes; or, where a sender left the
preamble away, if it begins with the file meta information, group 0002; or, without that, with group 0008 of a data set,
which is then read only to say what it is, because nothing states its transfer syntax.
"""

import io
import os
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from medical.reading.attributes import known, text, uid, valid_uid
from medical.reading.classes import (
    BIG_ENDIAN,
    CLASSES_WITHOUT_PIXELS,
    DEFLATED,
    IMPLICIT,
    SOP_CLASSES,
    TRANSFER_SYNTAXES,
    class_kind,
    class_name,
    syntax_name,
)
from medical.reading.limits import Limits
from medical.refusals import Reason, RefusedError
from medical.vocabulary import MODALITIES

_META, _IDENTIFYING = 0x0002, 0x0008
_PIXELS = {0x7FE00008: "FloatPixelData", 0x7FE00009: "DoubleFloatPixelData", 0x7FE00010: "PixelData"}
_FIRST_ELEMENTS = 0x0018
_ELEMENT_HEAD = 8
"""Bytes that pydicom reads first of each element: tag, and VR or length."""
UNDEFINED = 0xFFFFFFFF


@dataclass(frozen=True)
class PixelElement:
    """Where the pixels of an object lie.

    Attributes:
        keyword: "PixelData", or one of the floating-point ones.
        start: offset of the value in the buffer.
        length: as stated; UNDEFINED for encapsulated pixels.
        available: bytes from there to the end of the buffer.
    """

    keyword: str
    start: int
    length: int
    available: int


@dataclass
class Opened:
    """A file, read up to its pixels.

    Attributes:
        buffer: the file, or its inflated data set.
        header: the data set without pixels.
        transfer_syntax: its UID.
        pixels: where they lie; None where there are none.
    """

    buffer: BinaryIO
    header: Dataset
    transfer_syntax: str
    pixels: PixelElement | None

    def close(self) -> None:
        """Closes the file."""
        self.buffer.close()


class _Limited(io.RawIOBase):
    """A file of which only so many bytes may be read; remembers whether something was read beyond the end."""

    def __init__(self, buffer: BinaryIO, limits: Limits) -> None:
        self._buffer, self._left, self._elements = buffer, limits.header_bytes, limits.header_elements
        here = buffer.tell()
        self._size = buffer.seek(0, os.SEEK_END)
        buffer.seek(here)
        self.short = False

    def read(self, size: int = -1) -> bytes:
        here = self._buffer.tell()
        rest = max(self._size - here, 0)
        if 0 < rest < size or (rest == 0 and size not in (0, _ELEMENT_HEAD)):  # between two elements: the end
            self.short = True
        taken = min(rest, size) if size >= 0 else rest
        self._left -= taken
        self._elements -= size == _ELEMENT_HEAD
        if self._left < 0 or self._elements < 0:
            raise RefusedError(Reason.TOO_LARGE, "the header is larger, or has more elements, than allowed")
        return self._buffer.read(taken)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._buffer.seek(offset, whence)

    def tell(self) -> int:
        return self._buffer.tell()


def open_object(path: Path, limits: Limits, about: dict[str, Any]) -> Opened:
    """Reads the header of a file; the caller closes what it gets.

    Args:
        path: the file.
        limits: of the header and of inflated data sets.
        about: filled with what is known of the object, also where it is then refused.

    Raises:
        RefusedError: it is not DICOM, of a class or transfer syntax that is not read, truncated, damaged or too large.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise RefusedError(Reason.NOT_DICOM, f"the file cannot be opened: {os.strerror(error.errno or 0)}") from None
    try:
        return _opened(file, limits, about)
    except BaseException:
        file.close()
        raise


def _opened(file: BinaryIO, limits: Limits, about: dict[str, Any]) -> Opened:
    meta = _meta(file, limits)
    sop_class, syntax = uid(meta, "MediaStorageSOPClassUID"), uid(meta, "TransferSyntaxUID")
    about |= {"sop_class": sop_class, "transfer_syntax": syntax}
    try:
        buffer, header = _header(file, syntax, limits, about)
    except RefusedError as error:
        if sop_class and (class_kind(sop_class) == "image" or error.refusal.reason is Reason.TOO_LARGE):
            check_class(sop_class)  # an image that is not read, or a large document, whatever else is wrong with it
        raise
    found = uid(header, "SOPClassUID")
    about["sop_class"] = found or sop_class
    _identify(header, about)
    if not found or sop_class not in ("", found):  # nobody knows whether it is an image
        if class_kind(found or sop_class) == "image":
            check_class(found or sop_class)
        raise RefusedError(Reason.HEADER, "the data set names no SOP class, or another than the file meta information")
    pixels = _pixel_element(buffer, syntax == IMPLICIT, syntax != BIG_ENDIAN)
    if pixels is not None and found in CLASSES_WITHOUT_PIXELS:
        raise RefusedError(
            Reason.HEADER, f"an object with pixels that says it is a {class_name(found)}, which has none"
        )
    check_class(found)
    return Opened(buffer, header, syntax, pixels)


def _header(file: BinaryIO, syntax: str, limits: Limits, about: dict[str, Any]) -> tuple[BinaryIO, Dataset]:
    if not syntax:
        _refuse_without_syntax(file, limits, about)
    if syntax not in TRANSFER_SYNTAXES:
        with suppress(RefusedError):  # e.g. a video: the data set around encoded pixels is explicit LE (PS3.5 A.4)
            _identify(_dataset(file, False, True, lambda tag: tag in _PIXELS, limits), about)
        raise RefusedError(
            Reason.TRANSFER_SYNTAX, f"the transfer syntax is not one of those read: {syntax_name(syntax)}"
        )
    buffer = _inflated(file, limits) if syntax == DEFLATED else file
    return buffer, _dataset(buffer, syntax == IMPLICIT, syntax != BIG_ENDIAN, lambda tag: tag in _PIXELS, limits)


def _identify(header: Dataset, about: dict[str, Any]) -> None:
    """What a refused object is, too, so that it stays with its study."""
    about["modality"] = known(header, "Modality", MODALITIES)
    about["patient"] = [text(header, "IssuerOfPatientID"), text(header, "PatientID")]
    if valid_uid(study := uid(header, "StudyInstanceUID")):
        about["study"] = study


def read_any(file: BinaryIO, limits: Limits, about: dict[str, Any]) -> Dataset:
    """Reads the whole data set of a file in explicit VR little endian, of whatever class.

    Raises:
        RefusedError: it is not DICOM, truncated, damaged or too large.
    """
    meta = _meta(file, limits)
    about |= {"sop_class": uid(meta, "MediaStorageSOPClassUID"), "transfer_syntax": uid(meta, "TransferSyntaxUID")}
    return _dataset(file, False, True, lambda tag: tag in _PIXELS, limits)


def check_class(sop_class: str) -> None:
    """Raises RefusedError where objects of this SOP class are not read."""
    if not sop_class:
        raise RefusedError(Reason.HEADER, "SOP Class UID is missing")
    if class_kind(sop_class) == "no image":
        raise RefusedError(Reason.NO_IMAGE, f"{class_name(sop_class)} objects are no images")
    if class_kind(sop_class) == "result":
        raise RefusedError(Reason.RESULT, f"{class_name(sop_class)} objects are computed from images")
    if sop_class not in SOP_CLASSES or SOP_CLASSES[sop_class].use is None:
        raise RefusedError(Reason.SOP_CLASS, f"{class_name(sop_class)} objects are not analysed")


def _meta(file: BinaryIO, limits: Limits) -> Dataset:
    """Leaves the file at the first byte after the file meta information."""
    head = file.read(132)
    start = 132 if head[128:132] == b"DICM" else 0
    file.seek(start)
    first = file.read(6)
    file.seek(start)
    if len(first) < 6:
        reason = Reason.TRUNCATED if start else Reason.NOT_DICOM
        raise RefusedError(reason, "the file ends before its first element" if start else "the file is too short")
    group, element = struct.unpack("<HH", first[:4])
    if start == 0 and group != _META and not (group == _IDENTIFYING and element <= _FIRST_ELEMENTS):
        raise RefusedError(Reason.NOT_DICOM, "the file has neither the mark DICM nor a data set at its beginning")
    return _dataset(file, False, True, lambda tag: tag >> 16 != _META, limits, meta=True)


def _refuse_without_syntax(file: BinaryIO, limits: Limits, about: dict[str, Any]) -> NoReturn:
    """Says what the object is, as far as that can be guessed; it is refused in any case."""
    here = file.tell()
    vr = file.read(6)[4:6]
    file.seek(here)
    explicit = vr.isalpha() and vr.isupper()
    header = _dataset(file, not explicit, True, lambda tag: tag >= 0x00090000, limits)
    if sop_class := uid(header, "SOPClassUID"):
        about["sop_class"] = sop_class
        if class_kind(sop_class) == "image":  # that it is none, nothing confirms
            check_class(sop_class)
    raise RefusedError(Reason.TRANSFER_SYNTAX, "the file does not state its transfer syntax")


def _dataset(
    buffer: BinaryIO, implicit: bool, little: bool, stop: Callable[[int], bool], limits: Limits, meta: bool = False
) -> Dataset:
    """Reads elements until `stop`; leaves the buffer before that element."""
    limited = _Limited(buffer, limits)
    try:
        found = read_dataset(limited, implicit, little, stop_when=lambda tag, vr, length: stop(int(tag)))
    except RefusedError:
        raise
    except EOFError:
        limited.short, found = True, Dataset()
    except RecursionError:
        raise RefusedError(Reason.DAMAGED, "sequences are nested too deep") from None
    except MemoryError:
        raise RefusedError(Reason.TOO_LARGE, "the header needs more memory than allowed") from None
    except Exception as error:  # whatever a damaged header makes the parser raise; its words may hold values
        if not limited.short:
            raise RefusedError(Reason.DAMAGED, f"the header cannot be read ({type(error).__name__})") from None
    if limited.short:
        what = "file meta information" if meta else "header"
        raise RefusedError(Reason.TRUNCATED, f"the file ends within its {what}")
    return found


def _inflated(file: BinaryIO, limits: Limits) -> BinaryIO:
    """The deflated data set (PS3.5 A.5), inflated piece by piece under the limit."""
    unpacker, pieces, size = zlib.decompressobj(-zlib.MAX_WBITS), [], 0
    try:
        while packed := file.read(1 << 16):
            while packed:
                piece = unpacker.decompress(packed, 1 << 20)
                packed, size = unpacker.unconsumed_tail, size + len(piece)
                if size > limits.inflated_bytes:
                    raise RefusedError(
                        Reason.TOO_LARGE,
                        f"the deflated data set is larger than {limits.inflated_bytes >> 20} MiB when inflated",
                    )
                pieces.append(piece)
            if unpacker.eof:
                break
    except zlib.error:
        raise RefusedError(Reason.DAMAGED, "the deflated data set cannot be inflated") from None
    if not unpacker.eof:
        raise RefusedError(Reason.TRUNCATED, "the deflated data set ends early")
    file.close()
    return io.BytesIO(b"".join(pieces))


def _pixel_element(buffer: BinaryIO, implicit: bool, little: bool) -> PixelElement | None:
    head = buffer.read(8 if implicit else 12)
    if not head:
        return None
    order = "<" if little else ">"
    if len(head) < (8 if implicit else 12):
        raise RefusedError(Reason.TRUNCATED, "the file ends within the header of its pixels")
    group, element = struct.unpack(f"{order}HH", head[:4])
    (length,) = struct.unpack(f"{order}L", head[-4:])
    start = buffer.tell()
    end = buffer.seek(0, os.SEEK_END)
    return PixelElement(_PIXELS[group << 16 | element], start, length, end - start)
