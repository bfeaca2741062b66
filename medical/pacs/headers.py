"""The few attributes of a DICOM file that decide whether it is taken and where it belongs; pixels are not read."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from medical.pacs.errors import ObjectError

INVALID_INSTANCE, SOP_CLASS, NOT_UNDERSTOOD, MISMATCH = 0x0117, 0x0122, 0xC000, 0xA900
_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_READ = 1 << 20


@dataclass(frozen=True)
class Header:
    """What is known of a DICOM file.

    Attributes:
        uid: SOP Instance UID; like all UIDs here valid after PS3.5 section 9.1.
        sop_class: SOP Class UID.
        study: Study Instance UID.
        series: Series Instance UID.
        transfer_syntax: Transfer Syntax UID.
        digest: sha256 of the data set as it is encoded, without preamble and file meta information, in which senders
            write their own names.
        bytes: size of the file.
    """

    uid: str
    sop_class: str
    study: str
    series: str
    transfer_syntax: str
    digest: str
    bytes: int


def valid_uid(text: str) -> bool:
    """Whether a text is a UID after PS3.5 section 9.1."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


def read_header(path: Path, transfer_syntaxes: frozenset[str] | None = None) -> Header:
    """Reads a file in the DICOM File Format (PS3.10 section 7).

    Args:
        path: the file.
        transfer_syntaxes: those that are allowed, checked before the data set is touched: a deflated one may grow a
            thousandfold. None allows all.

    Raises:
        ObjectError: it is no such file, is damaged, has an UID that is none, or another transfer syntax.
    """
    from pydicom import dcmread
    from pynetdicom.dsutils import split_dataset

    try:
        meta, offset = split_dataset(path)
        syntax = str(meta.get("TransferSyntaxUID", ""))
    except Exception:  # pydicom raises many kinds; their words may repeat what the file holds
        raise ObjectError(NOT_UNDERSTOOD, "this is no DICOM file") from None
    if offset == 0:
        raise ObjectError(NOT_UNDERSTOOD, "the file meta information is missing (PS3.10 7.1)")
    if not syntax or (transfer_syntaxes is not None and syntax not in transfer_syntaxes):
        raise ObjectError(NOT_UNDERSTOOD, "its transfer syntax is not supported")
    names = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]
    try:
        found = dcmread(path, stop_before_pixels=True, specific_tags=names)
        sop_class, uid, study, series = (str(found.get(name, "")) for name in names)
    except Exception:
        raise ObjectError(NOT_UNDERSTOOD, "its data set cannot be read") from None
    if not all(map(valid_uid, (sop_class, uid, study, series))):
        raise ObjectError(INVALID_INSTANCE, "one of its UIDs is missing or not valid (PS3.5 9.1)")
    if uid != str(meta.get("MediaStorageSOPInstanceUID", uid)):
        raise ObjectError(MISMATCH, "file meta information and data set name different objects")
    return Header(uid, sop_class, study, series, syntax, digest_of(path, offset), path.stat().st_size)


def digest_of(path: Path, offset: int | None = None) -> str:
    """Returns the sha256 of the data set of a DICOM file, which begins at `offset` (found where it is not given)."""
    if offset is None:
        from pynetdicom.dsutils import split_dataset

        offset = split_dataset(path)[1]
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(offset)
        while block := file.read(_READ):
            digest.update(block)
    return digest.hexdigest()
