"""Compressed frames before they are decoded: fragments (PS3.5 A.4) and the size that the codestream itself declares.

Runs in the worker process. A codestream that declares another size than Rows and Columns is never given to a decoder,
which would reserve memory for the size declared.
"""

import os
import struct
from typing import BinaryIO

from medical.refusals import Reason, RefusedError

_ITEM, _END = 0xFFFEE000, 0xFFFEE0DD
_J2K_START, _J2K_SIZE = b"\xff\x4f", b"\xff\x51"
_JP2_BOX = b"jP  "
_TILE_PART = 0xFF90
_END_OF_IMAGE = b"\xff\xd9"  # the same in all three families
_PADDING = 64
"""Bytes at the end of a frame in which its end mark must lie: fragments are padded to even length, by some to more."""
_JPEG_START = b"\xff\xd8"
_JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # SOF markers; F7 is JPEG-LS


def count_fragments(buffer: BinaryIO, start: int) -> int:
    """Walks over the items without reading them and returns the number of fragments, the offset table not counted.

    Raises:
        RefusedError: the file ends before the last item, or something else than an item lies there.
    """
    end = buffer.seek(0, os.SEEK_END)
    here, count = start, -1
    while True:
        buffer.seek(here)
        head = buffer.read(8)
        if len(head) < 8:
            raise RefusedError(
                Reason.TRUNCATED, f"the file ends after {max(count, 0)} compressed fragments, without end mark"
            )
        group, element, length = struct.unpack("<HHL", head)
        tag = group << 16 | element
        if tag == _END:
            return max(count, 0)
        if tag != _ITEM or length == 0xFFFFFFFF:
            raise RefusedError(Reason.DAMAGED, f"after {max(count, 0)} compressed fragments follows something else")
        here += 8 + length
        if here > end:
            raise RefusedError(Reason.TRUNCATED, f"the file ends within compressed fragment {count + 1}")
        count += 1


def check_codestream(frame: bytes, codestream: str, rows: int, columns: int) -> None:
    """Compares the size that a compressed frame declares with Rows and Columns, and looks for its end.

    Decoders of JPEG 2000 return what there is of a frame cut short, without a word: all tiles must be there.

    Args:
        frame: one compressed frame.
        codestream: its family, as in `TransferSyntax`.
        rows: of the header.
        columns: of the header.

    Raises:
        RefusedError: the sizes differ, the frame is cut short, or does not begin like one of its transfer syntax.
    """
    if codestream == "RLE":  # declares no size; its decoder demands every byte
        return
    start = _start_of_j2k(frame) if codestream == "JPEG 2000" else 0
    size = _size_of_j2k(frame, start) if codestream == "JPEG 2000" else _size_of_jpeg(frame)
    if size is None:
        raise RefusedError(Reason.DAMAGED, f"the compressed frame does not begin as {codestream} does")
    if size != (rows, columns):
        raise RefusedError(
            Reason.DAMAGED,
            f"the compressed frame declares {size[0]} rows x {size[1]} columns, the header {rows} x {columns}",
        )
    if _END_OF_IMAGE not in frame[-_PADDING:]:
        raise RefusedError(Reason.TRUNCATED, "the compressed frame has no end mark")
    if codestream == "JPEG 2000":
        _check_tiles(frame, start)


def _start_of_j2k(frame: bytes) -> int:
    """Offset of the codestream; it may lie in a JP2 file, which DICOM does not allow and some write."""
    if frame[:2] == _J2K_START:
        return 0
    return frame.find(_J2K_START + _J2K_SIZE) if frame[4:8] == _JP2_BOX else -1


def _size_of_j2k(frame: bytes, start: int) -> tuple[int, int] | None:
    """Rows and columns by the SIZ marker segment (ISO/IEC 15444-1 A.5.1)."""
    siz = frame[start + 2 : start + 40]
    if start < 0 or siz[:2] != _J2K_SIZE or len(siz) < 38:
        return None
    width, height, left, top = struct.unpack(">4L", siz[6:22])
    return height - top, width - left


def _check_tiles(frame: bytes, start: int) -> None:
    """Walks over the tile-parts (A.4.2), which state their length, and counts the tiles."""
    width, height, _, _, across, down, left, top = struct.unpack(">8L", frame[start + 8 : start + 40])
    if not across or not down or left > width or top > height:
        raise RefusedError(Reason.DAMAGED, "the compressed frame declares impossible tiles")
    expected = -((left - width) // across) * -((top - height) // down)
    here, seen = start + 2, set()
    while here + 12 <= len(frame) and frame[here : here + 2] != _END_OF_IMAGE:
        marker, length = struct.unpack(">HH", frame[here : here + 4])
        if marker == _TILE_PART:
            tile, length = struct.unpack(">HL", frame[here + 4 : here + 10])
            seen.add(tile)
            if length == 0:  # up to the end mark
                here = len(frame)
                break
            here += length
        else:
            here += 2 + length
    if here > len(frame) or len(seen) < expected:
        raise RefusedError(Reason.TRUNCATED, f"the compressed frame holds {len(seen)} of {expected} tiles, or less")


def _size_of_jpeg(frame: bytes) -> tuple[int, int] | None:
    """Rows and columns by the frame header (ISO/IEC 10918-1 B.2.2; 14495-1 C.2.2)."""
    if frame[:2] != _JPEG_START:
        return None
    here = 2
    while here + 9 <= len(frame):
        if frame[here] != 0xFF:
            return None
        marker = frame[here + 1]
        if marker == 0xFF:  # a fill byte
            here += 1
        elif marker in _JPEG_FRAMES:
            rows, columns = struct.unpack(">HH", frame[here + 5 : here + 9])
            return rows, columns
        else:
            here += 2 + struct.unpack(">H", frame[here + 2 : here + 4])[0]
    return None
