"""A wafer as a grid of bins, one code per die: what SEMI E142 and SEMI G85 files hold.

Rows count from the top and columns from the left of the map, with the notch where `notch` says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import SettingError
from inspection.wafer.defects import InspectedWafer
from inspection.wafer.geometry import Coverage, DieIndex, Side

NULL_BIN = 255
PASS, FAIL, UNTESTED = 1, 2, 3


class Bin(NamedTuple):
    """What a bin code means.

    Attributes:
        passed: whether dies of this bin are good; None for dies without a verdict.
        name: a description, "" if there is none.
    """

    passed: bool | None
    name: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class BinMap:
    """Bins of the dies of a wafer.

    Attributes:
        bins: (rows, columns) uint8, row 0 at the top; `NULL_BIN` where there is no die.
        codes: bin code, 0 to 254 -> what it means; every code of `bins` must be named.
        lot: name of the lot.
        wafer: name of the wafer.
        product: name of the product.
        notch: where the notch points.
        first: column and row index of the die in the lower left corner of the grid.
        die_mm: width and height of a die with its street, millimetres; None if unknown.
    """

    bins: NDArray[np.uint8]
    codes: Mapping[int, Bin]
    lot: str = ""
    wafer: str = ""
    product: str = ""
    notch: Side = Side.DOWN
    first: DieIndex = field(default_factory=lambda: DieIndex(0, 0))
    die_mm: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        """Refuses what no map can be."""
        if self.bins.ndim != 2 or self.bins.size == 0 or self.bins.dtype != np.uint8:
            raise SettingError.of("BinMap", "bins", "(rows, columns) uint8", (self.bins.shape, str(self.bins.dtype)))
        if bad := [code for code in self.codes if not 0 <= code < NULL_BIN]:
            raise SettingError.of("BinMap", "codes", f"0 to {NULL_BIN - 1}", bad)
        if unknown := set(np.unique(self.bins).tolist()) - {NULL_BIN} - set(self.codes):
            raise SettingError.of("BinMap", "bins", f"of the named codes {sorted(self.codes)}", sorted(unknown))

    def __eq__(self, other: object) -> bool:
        """Whether two maps say the same."""
        if not isinstance(other, BinMap):
            return NotImplemented
        rest = ("lot", "wafer", "product", "notch", "first", "die_mm")
        return (
            np.array_equal(self.bins, other.bins)
            and dict(self.codes) == dict(other.codes)
            and all(getattr(self, name) == getattr(other, name) for name in rest)
        )

    __hash__ = None  # type: ignore[assignment]

    @property
    def counts(self) -> dict[int, int]:
        """Bin code -> number of dies, also of codes that no die has."""
        return {code: int((self.bins == code).sum()) for code in self.codes}


def bin_map(wafer: InspectedWafer, *, partial_dies: bool = False) -> BinMap:
    """Returns the map of an inspected wafer: bin 1 passed, 2 failed, 3 not inspected.

    Args:
        wafer: the wafer; a die with any defect has failed.
        partial_dies: whether partial dies at the edge are on the map too; a defect fails them, else they are untested.
    """
    geometry = wafer.geometry
    dies = [*geometry.dies(), *(geometry.dies(Coverage.PARTIAL) if partial_dies else ())]
    dies = sorted({*dies, *wafer.inspected})
    if not dies:
        raise SettingError.of("bin_map", "wafer", "one that has dies", "a grid without a whole die")
    left, bottom = min(die.column for die in dies), min(die.row for die in dies)
    columns, rows = max(die.column for die in dies) - left + 1, max(die.row for die in dies) - bottom + 1
    bins = np.full((rows, columns), NULL_BIN, np.uint8)
    inspected, failed = set(wafer.inspected), {defect.die for defect in wafer.defects}
    for die in dies:
        code = FAIL if die in failed else PASS if die in inspected else UNTESTED
        bins[rows - 1 - (die.row - bottom), die.column - left] = code
    return BinMap(
        bins=bins,
        codes={PASS: Bin(True, "Pass"), FAIL: Bin(False, "Fail"), UNTESTED: Bin(None, "Untested")},
        lot=wafer.lot,
        wafer=wafer.wafer,
        product=wafer.device,
        notch=geometry.notch,
        first=DieIndex(left, bottom),
        die_mm=(geometry.pitch_um[0] / 1000, geometry.pitch_um[1] / 1000),
    )
