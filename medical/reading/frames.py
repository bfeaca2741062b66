"""Decodes one frame with the decoder that is pinned for its transfer syntax, and says which that was.

Runs in the worker process. Decoders differ by some grey levels on lossy frames, so each transfer syntax has one, and no
other is tried. JPEG Extended is decoded by libjpeg-turbo 3 through imagecodecs, because no plugin of
pydicom under a permissive licence decodes 12 bits.
"""

from importlib.metadata import version
from typing import Any

import numpy as np
from pydicom.encaps import get_frame
from pydicom.pixels import as_pixel_options, get_decoder
from pydicom.uid import UID

from medical.reading.classes import DEFLATED, EXPLICIT, JPEG_EXTENDED, TRANSFER_SYNTAXES
from medical.reading.encapsulated import check_codestream
from medical.reading.opening import Opened
from medical.refusals import Reason, RefusedError

_PACKAGES = {
    "pillow": ("pillow",),
    "gdcm": ("python-gdcm",),
    "pyjpegls": ("pyjpegls",),
    "imagecodecs": ("imagecodecs",),
}
_LIBRARIES = {"RLE": ("pylibjpeg", "pylibjpeg-rle"), "JPEG 2000": ("pylibjpeg", "pylibjpeg-openjpeg")}


def decoder_of(transfer_syntax: str) -> str:
    """Returns packages and versions that decode it, e.g. "pylibjpeg 2.1.0 + rle 2.2.0"; "none" for native pixels."""
    syntax = TRANSFER_SYNTAXES[transfer_syntax]
    if syntax.plugin is None or syntax.codestream is None:
        return "none"
    packages = _LIBRARIES[syntax.codestream] if syntax.plugin == "pylibjpeg" else _PACKAGES[syntax.plugin]
    return " + ".join(f"{name.removeprefix('pylibjpeg-').removeprefix('python-')} {version(name)}" for name in packages)


def decode(opened: Opened, frame: int) -> np.ndarray:
    """Decodes one frame.

    Args:
        opened: object with a checked header.
        frame: 1-based.

    Returns:
        (H, W) stored values, uint8, uint16, int8 or int16; (H, W, 3) where the object is RGB or YBR, as RGB.

    Raises:
        RefusedError: the frame cannot be decoded, or declares another size than the header.
    """
    syntax = TRANSFER_SYNTAXES[opened.transfer_syntax]
    try:
        if syntax.codestream is not None:
            coded = _coded(opened, frame)
            check_codestream(coded, syntax.codestream, int(opened.header.Rows), int(opened.header.Columns))
            if syntax.plugin == "imagecodecs":
                return _extended(coded, opened)
        return _by_pydicom(opened, frame, syntax.plugin)
    except (RefusedError, MemoryError):
        raise
    except Exception as error:  # decoders raise ValueError, RuntimeError, AttributeError, ... on damaged frames
        raise RefusedError(
            Reason.DECODER,
            f"frame {frame} cannot be decoded by {decoder_of(opened.transfer_syntax)} ({type(error).__name__})",
        ) from None


def _coded(opened: Opened, frame: int) -> bytes:
    assert opened.pixels is not None
    opened.buffer.seek(opened.pixels.start)
    return bytes(get_frame(opened.buffer, frame - 1, **_offsets(opened)))


def _offsets(opened: Opened) -> dict[str, Any]:
    found: dict[str, Any] = {"number_of_frames": int(opened.header.get("NumberOfFrames") or 1)}
    if "ExtendedOffsetTable" in opened.header and "ExtendedOffsetTableLengths" in opened.header:
        found["extended_offsets"] = (opened.header.ExtendedOffsetTable, opened.header.ExtendedOffsetTableLengths)
    return found


def _by_pydicom(opened: Opened, frame: int, plugin: str | None) -> np.ndarray:
    assert opened.pixels is not None
    opened.buffer.seek(opened.pixels.start)
    syntax = UID(EXPLICIT if opened.transfer_syntax == DEFLATED else opened.transfer_syntax)  # inflated when opened
    options = as_pixel_options(opened.header, pixel_keyword="PixelData", pixel_vr="OW")
    if opened.header.BitsAllocated == 8:
        options["pixel_vr"] = "OB"
    found: np.ndarray
    found, _ = get_decoder(syntax).as_array(
        opened.buffer, index=frame - 1, decoding_plugin=plugin or "", transfer_syntax_uid=syntax, **options
    )
    return found


def _extended(coded: bytes, opened: Opened) -> np.ndarray:
    import imagecodecs

    if int(opened.header.SamplesPerPixel) != 1 or int(opened.header.PixelRepresentation) != 0:
        raise RefusedError(Reason.TRANSFER_SYNTAX, f"{JPEG_EXTENDED} is read for unsigned grey values only")
    found: np.ndarray = imagecodecs.jpeg_decode(coded)
    return found
