"""Stored values of a frame -> Hounsfield units or 0..1; padding is masked first (PS3.3 C.7.5.1.1.2, C.11.1).

Runs in the worker process.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut

from medical.objects import Unit
from medical.reading.attributes import integer, items, numbers, text, values
from medical.reading.classes import CT_CLASS, HU_CLASSES
from medical.reading.groups import group
from medical.refusals import Reason, RefusedError


@dataclass(frozen=True)
class Values:
    """What a frame says.

    Attributes:
        values: (H, W) or (H, W, 3) float32 in `unit`; padding holds the lowest valid value.
        valid: (H, W), False where the pixel is padding.
        unit: as in `medical.objects`.
    """

    values: Float32[np.ndarray, "h w *c"]
    valid: Bool[np.ndarray, "h w"]
    unit: Unit


def values_of(stored: np.ndarray, header: Dataset, frame: int, constant: bool = False) -> Values:
    """Maps the stored values of a frame.

    Args:
        stored: (H, W) or (H, W, 3), as `decode` returns them.
        header: the object's.
        frame: 1-based.
        constant: whether all valid pixels may have one value, and there may be none: slices of a volume.

    Raises:
        RefusedError: the frame is all padding or all of one value, exceeds its bits, or its mapping is malformed.
    """
    photometric = str(header.PhotometricInterpretation)
    if stored.ndim == 3 or photometric == "PALETTE COLOR":
        found = Values(_colours(stored, header), np.ones(stored.shape[:2], dtype=bool), "stored")
    else:
        _check_range(stored, header)
        valid = _valid(stored, header)
        mapped, unit = _grey(stored, header, frame)
        lowest = mapped[valid].min() if valid.any() else mapped.min()
        found = Values(mapped if valid.all() else np.where(valid, mapped, lowest), valid, unit)
    if not constant:
        _check_content(found)
    return found


def _check_content(found: Values) -> None:
    if not found.valid.any():
        raise RefusedError(Reason.PIXELS, "all pixels are padding")
    inside = found.values if found.valid.all() else found.values[found.valid]
    if inside.min() == inside.max():
        raise RefusedError(Reason.PIXELS, "all pixels have the same value")


def _bounds(header: Dataset) -> tuple[int, int]:
    """The lowest and highest value that Bits Stored can express."""
    bits = int(header.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if int(header.PixelRepresentation) else (0, 2**bits - 1)


def _check_range(stored: np.ndarray, header: Dataset) -> None:
    low, high = _bounds(header)
    if stored.min() < low or stored.max() > high:
        raise RefusedError(Reason.PIXELS, f"stored values exceed {low} to {high}, the range of Bits Stored")


def _valid(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """False on padding: Pixel Padding Value, up to Pixel Padding Range Limit where there is one."""
    padding, limit = (_stored_number(header, name) for name in ("PixelPaddingValue", "PixelPaddingRangeLimit"))
    if padding is None:
        return np.ones(stored.shape, dtype=bool)
    low, high = sorted((padding, padding if limit is None else limit))
    return (stored < low) | (stored > high)


def _stored_number(header: Dataset, name: str) -> int | None:
    """A value with the VR "US or SS", which writers confuse: read as the pixels are, two's complement of 16 bits."""
    found = integer(header, name)
    if found is None:
        return None
    found &= 0xFFFF
    return found - 0x10000 if int(header.PixelRepresentation) and found > 0x7FFF else found


def _grey(stored: np.ndarray, header: Dataset, frame: int) -> tuple[np.ndarray, Unit]:
    mapping = group(header, "PixelValueTransformationSequence", frame)
    source = header if mapping is None else mapping
    table = items(header, "ModalityLUTSequence")
    if table:
        mapped = _by_table(stored, header)
        bounds: tuple[float, float] = (0.0, 2.0 ** _table_bits(table[0]) - 1)
    else:
        slope, intercept = _linear(source)
        mapped = stored.astype(np.float32)
        if (slope, intercept) != (1.0, 0.0):
            mapped *= np.float32(slope)
            mapped += np.float32(intercept)
        low, high = sorted(slope * bound + intercept for bound in _bounds(header))
        bounds = (low, high)
    if not table and _hounsfield(header, source):
        return mapped, "HU"
    mapped = (mapped - np.float32(bounds[0])) / np.float32(bounds[1] - bounds[0])
    np.clip(mapped, 0, 1, out=mapped)  # rounding only: the range was checked on the stored values
    return (1 - mapped if str(header.PhotometricInterpretation) == "MONOCHROME1" else mapped), "stored"


def _linear(source: Dataset) -> tuple[float, float]:
    slope, intercept = numbers(source, "RescaleSlope", 1), numbers(source, "RescaleIntercept", 1)
    if slope is None and intercept is None and not {"RescaleSlope", "RescaleIntercept"} & set(source.dir("Rescale")):
        return 1.0, 0.0
    if slope is None or intercept is None or slope[0] == 0:
        raise RefusedError(Reason.PIXELS, "Rescale Slope and Intercept are not two numbers, the slope not 0")
    return slope[0], intercept[0]


def _by_table(stored: np.ndarray, header: Dataset) -> np.ndarray:
    try:
        return np.asarray(apply_modality_lut(stored, header), dtype=np.float32)
    except Exception as error:  # whatever a malformed table makes pydicom raise
        raise RefusedError(Reason.PIXELS, f"the Modality LUT cannot be applied ({type(error).__name__})") from None


def _table_bits(table: Dataset) -> int:
    descriptor = values(table, "LUTDescriptor")
    return int(descriptor[2]) if len(descriptor) == 3 and int(descriptor[2]) in (8, 16) else 16


def _hounsfield(header: Dataset, source: Dataset) -> bool:
    """Whether rescaled values are Hounsfield units: Rescale Type HU; or none, in CT slices (C.8.2.1.1)."""
    if str(header.SOPClassUID) not in HU_CLASSES or numbers(source, "RescaleSlope", 1) is None:
        return False
    kind = text(source, "RescaleType")
    localiser = "LOCALIZER" in [str(one).upper() for one in values(header, "ImageType")]
    several_energies = text(header, "MultienergyCTAcquisition") == "YES"
    single = str(header.SOPClassUID) == CT_CLASS
    return kind == "HU" or (not kind and single and not localiser and not several_energies)


def _colours(stored: np.ndarray, header: Dataset) -> np.ndarray:
    """(H, W, 3) in 0..1."""
    if stored.ndim == 3:
        return stored.astype(np.float32) / np.float32(2 ** int(header.BitsStored) - 1)
    try:
        coloured = apply_color_lut(stored, header)
    except Exception as error:  # whatever a malformed palette makes pydicom raise
        raise RefusedError(Reason.PIXELS, f"the palette cannot be applied ({type(error).__name__})") from None
    return np.asarray(coloured, dtype=np.float32) / np.float32(np.iinfo(coloured.dtype).max)
