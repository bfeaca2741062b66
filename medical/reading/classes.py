"""What is read: SOP classes (PS3.4 B.5) and transfer syntaxes (PS3.5 section 10), each with its one decoder."""

from dataclasses import dataclass
from typing import Literal

from medical.reading.not_read import HAVE_PIXELS, IMAGES, NO_IMAGES, RESULTS

Use = Literal["image", "slice", "frames", "multiframe volume"]
"""What objects of a class can be analysed as: one image; a slice, alone or in the volume of its series; images one by
one; a volume in one object, or its frames one by one."""
Kind = Literal["image", "result", "no image"]


@dataclass(frozen=True)
class SopClass:
    """A class of objects.

    Attributes:
        name: for people.
        use: what its objects can be analysed as; None where they are refused.
        kind: an image, which is read or not; what was computed from images; or no image.
    """

    name: str
    use: Use | None = None
    kind: Kind = "image"


_STORAGE = "1.2.840.10008.5.1.4.1.1"
SOP_CLASSES = {
    f"{_STORAGE}.1": SopClass("Computed Radiography", "image"),
    f"{_STORAGE}.1.1": SopClass("Digital X-Ray, for presentation", "image"),
    f"{_STORAGE}.1.1.1": SopClass("Digital X-Ray, for processing", "image"),
    f"{_STORAGE}.1.2": SopClass("Mammography, for presentation", "image"),
    f"{_STORAGE}.1.2.1": SopClass("Mammography, for processing", "image"),
    f"{_STORAGE}.2": SopClass("CT", "slice"),
    f"{_STORAGE}.2.1": SopClass("Enhanced CT", "multiframe volume"),
    f"{_STORAGE}.2.2": SopClass("Legacy Converted Enhanced CT", "multiframe volume"),
    f"{_STORAGE}.4": SopClass("MR", "slice"),
    f"{_STORAGE}.4.1": SopClass("Enhanced MR", "multiframe volume"),
    f"{_STORAGE}.4.4": SopClass("Legacy Converted Enhanced MR", "multiframe volume"),
    f"{_STORAGE}.3.1": SopClass("Ultrasound Multi-frame", "frames"),
    f"{_STORAGE}.6.1": SopClass("Ultrasound", "image"),
    f"{_STORAGE}.7": SopClass("Secondary Capture", "frames"),
    f"{_STORAGE}.7.2": SopClass("Multi-frame Grayscale Byte Secondary Capture", "frames"),
    f"{_STORAGE}.7.3": SopClass("Multi-frame Grayscale Word Secondary Capture", "frames"),
    f"{_STORAGE}.7.4": SopClass("Multi-frame True Color Secondary Capture", "frames"),
    f"{_STORAGE}.20": SopClass("Nuclear Medicine", "frames"),
    "1.2.840.10008.1.3.10": SopClass("Media Storage Directory"),
    **{f"{_STORAGE}.{tail}": SopClass(name) for tail, name in IMAGES.items()},
    **{f"{_STORAGE}.{tail}": SopClass(name, kind="result") for tail, name in RESULTS.items()},
    **{f"{_STORAGE}.{tail}": SopClass(name, kind="no image") for tail, name in NO_IMAGES.items()},
}
HU_CLASSES = {f"{_STORAGE}.2", f"{_STORAGE}.2.1", f"{_STORAGE}.2.2"}
SECONDARY_CAPTURE = f"{_STORAGE}.7"
CLASSES_WITHOUT_PIXELS = {f"{_STORAGE}.{tail}" for tail in NO_IMAGES.keys() - HAVE_PIXELS}
CT_CLASS = f"{_STORAGE}.2"
DIRECTORY_CLASS = "1.2.840.10008.1.3.10"
PROJECTION_CLASSES = {f"{_STORAGE}.{tail}" for tail in ("1", "1.1", "1.1.1", "1.2", "1.2.1")}


@dataclass(frozen=True)
class TransferSyntax:
    """How an object is encoded.

    Attributes:
        name: for people, short.
        plugin: of pydicom, which alone decodes it; None for native pixels.
        codestream: family of the compressed frames: "JPEG", "JPEG-LS", "JPEG 2000" or "RLE"; None for native pixels.
    """

    name: str
    plugin: str | None = None
    codestream: str | None = None


IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG_ENDIAN = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
JPEG_EXTENDED = "1.2.840.10008.1.2.4.51"
_COMPRESSED = "1.2.840.10008.1.2.4"
TRANSFER_SYNTAXES = {
    IMPLICIT: TransferSyntax("implicit LE"),
    EXPLICIT: TransferSyntax("explicit LE"),
    DEFLATED: TransferSyntax("deflated"),
    BIG_ENDIAN: TransferSyntax("explicit BE"),
    "1.2.840.10008.1.2.5": TransferSyntax("RLE", "pylibjpeg", "RLE"),
    f"{_COMPRESSED}.50": TransferSyntax("JPEG baseline", "pillow", "JPEG"),
    JPEG_EXTENDED: TransferSyntax("JPEG extended", "imagecodecs", "JPEG"),
    f"{_COMPRESSED}.57": TransferSyntax("JPEG lossless", "gdcm", "JPEG"),
    f"{_COMPRESSED}.70": TransferSyntax("JPEG lossless SV1", "gdcm", "JPEG"),
    f"{_COMPRESSED}.80": TransferSyntax("JPEG-LS lossless", "pyjpegls", "JPEG-LS"),
    f"{_COMPRESSED}.81": TransferSyntax("JPEG-LS near-lossless", "pyjpegls", "JPEG-LS"),
    f"{_COMPRESSED}.90": TransferSyntax("JPEG 2000 lossless", "pylibjpeg", "JPEG 2000"),
    f"{_COMPRESSED}.91": TransferSyntax("JPEG 2000", "pylibjpeg", "JPEG 2000"),
    f"{_COMPRESSED}.201": TransferSyntax("HTJ2K lossless", "pylibjpeg", "JPEG 2000"),
    f"{_COMPRESSED}.202": TransferSyntax("HTJ2K lossless RPCL", "pylibjpeg", "JPEG 2000"),
    f"{_COMPRESSED}.203": TransferSyntax("HTJ2K", "pylibjpeg", "JPEG 2000"),
}


def class_name(uid: str | None) -> str:
    """Returns the name of a SOP class, "unknown class" where it has none here, "" where it is missing."""
    if not uid:
        return ""
    return SOP_CLASSES[uid].name if uid in SOP_CLASSES else "unknown class"


def class_kind(uid: str) -> Kind:
    """Returns the kind of a SOP class; an unknown one may be that of an image."""
    return SOP_CLASSES[uid].kind if uid in SOP_CLASSES else "image"


def syntax_name(uid: str | None) -> str:
    """Returns the short name of a transfer syntax, as `class_name` does."""
    if not uid:
        return ""
    return TRANSFER_SYNTAXES[uid].name if uid in TRANSFER_SYNTAXES else "not supported"
