"""WM-811K, 811,457 wafer bin maps of real production, 172,950 of them labelled (LSWMD.pkl).

Source: Wu, Jang and Chen, Wafer Map Failure Pattern Recognition and Similarity Ranking for Large-Scale Data Sets, IEEE
Transactions on Semiconductor Manufacturing 28(1), 2015. The file is a pickled pandas table; see `restricted_pickle` for
how it is read without trusting it. `convert` does that once; from then on a plain npz file is used.

Cells: 0 no die, 1 passed, 2 failed. Maps of one lot look alike, so splits go by lot.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError, SettingError
from inspection.wafer.restricted_pickle import load_table

if TYPE_CHECKING:
    from anomaly.input_spec import InputSpec

FAILURES = ("none", "Center", "Donut", "Edge-Loc", "Edge-Ring", "Loc", "Near-full", "Random", "Scratch")
"""Failure types; "none" is a wafer that was looked at and shows no pattern."""

UNLABELLED = -1
SPLITS = ("Training", "Test")
COLUMNS = ("waferMap", "lotName", "waferIndex", "trianTestLabel", "failureType")  # the third one really is spelt so
GREY = np.array([0, 128, 255], np.uint8)
"""Grey value of a cell: no die, passed, failed."""


@dataclass(frozen=True, eq=False)
class WaferMaps:
    """Wafer bin maps of different sizes.

    Attributes:
        cells: all maps one after the other, uint8, 0 no die, 1 passed, 2 failed.
        shapes: (n, 2) rows and columns.
        lots: (n,) names of the lots.
        wafers: (n,) number of the wafer in its lot.
        failures: (n,) index in `FAILURES`, or `UNLABELLED`.
        splits: (n,) index in `SPLITS`, the split of the authors, or `UNLABELLED`.
    """

    cells: NDArray[np.uint8]
    shapes: NDArray[np.int64]
    lots: NDArray[np.str_]
    wafers: NDArray[np.int64]
    failures: NDArray[np.int64]
    splits: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuses what does not belong together."""
        sizes = self.shapes.prod(axis=1)
        columns = (self.lots, self.wafers, self.failures, self.splits)
        if any(len(column) != len(self.shapes) for column in columns) or sizes.sum() != len(self.cells):
            raise DatasetError(f"{len(self.shapes)} maps, columns {[len(c) for c in columns]}, {len(self.cells)} cells")
        if len(self.cells) and self.cells.max() >= len(GREY):
            raise DatasetError(f"cells must be 0, 1 or 2; got {self.cells.max()}")
        object.__setattr__(self, "_starts", np.concatenate([[0], np.cumsum(sizes)]))

    def __len__(self) -> int:
        """Returns the number of maps."""
        return len(self.shapes)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        """Returns one map, (rows, columns) uint8."""
        starts: NDArray[np.int64] = self._starts  # type: ignore[attr-defined]
        rows, columns = self.shapes[index].tolist()
        return self.cells[starts[index] : starts[index] + rows * columns].reshape(rows, columns)

    def of(self, failure: str) -> NDArray[np.int64]:
        """Returns the indices of the maps of a failure type.

        Raises:
            SettingError: no such type.
        """
        if failure not in FAILURES:
            raise SettingError.of("WaferMaps", "failure", f"one of {', '.join(FAILURES)}", failure)
        return np.flatnonzero(self.failures == FAILURES.index(failure))

    def split_by_lot(self, fraction: float, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns indices of two parts that share no lot.

        Args:
            fraction: share of the lots in the first part, above 0 and below 1.
            seed: seed of the draw.

        Raises:
            SettingError: the fraction is out of range or leaves a part empty.
        """
        if not 0 < fraction < 1:
            raise SettingError.of("WaferMaps", "fraction", "above 0 and below 1", fraction)
        lots = np.unique(self.lots)
        count = round(fraction * len(lots))
        if not 0 < count < len(lots):
            raise SettingError.of("WaferMaps", "fraction", f"one that divides {len(lots)} lots", fraction)
        first = np.random.default_rng(seed).permutation(lots)[:count]
        inside = np.isin(self.lots, first)
        return np.flatnonzero(inside), np.flatnonzero(~inside)

    def save(self, path: Path) -> None:
        """Writes the maps to an npz file.

        Raises:
            DatasetError: the file cannot be written.
        """
        partial = path.with_name(f".{path.name}.part.npz")
        names = ("cells", "shapes", "lots", "wafers", "failures", "splits")
        try:
            np.savez_compressed(partial, **{name: getattr(self, name) for name in names})
            partial.replace(path)
        except OSError as error:
            raise DatasetError(f"{path} cannot be written: {error.strerror or error}") from error

    @classmethod
    def load(cls, path: Path) -> "WaferMaps":
        """Reads an npz file that `save` wrote.

        Raises:
            DatasetError: no such file, or not of this layout.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                return cls(**{name: file[name] for name in file.files})
        except (OSError, ValueError, TypeError) as error:
            raise DatasetError(f"{path} is no file of wafer maps: {error}") from error


def convert(source: Path, target: Path) -> WaferMaps:
    """Reads LSWMD.pkl once and writes the npz file. Memory: the whole table and the maps once more, about 6 GB.

    Raises:
        PickleRefused: the pickle names anything but tables and arrays.
        DatasetError: a column is missing, or a value is not of the layout.
    """
    table = load_table(source)
    if missing := [name for name in COLUMNS if name not in table]:
        raise DatasetError(f"{source} has no column {', '.join(missing)}; it has {', '.join(table)}")
    maps = [np.asarray(one) for one in table["waferMap"]]
    for index, one in enumerate(maps):
        if one.ndim != 2 or one.dtype.kind not in "iu" or (one.size and not 0 <= one.min() <= one.max() < len(GREY)):
            raise DatasetError(f"map {index} of {source} must be (rows, columns) of 0, 1 and 2; got {one.shape}")
    empty = np.zeros(0, np.uint8)
    read = WaferMaps(
        cells=np.concatenate([empty, *(one.astype(np.uint8).ravel() for one in maps)]),
        shapes=np.array([one.shape for one in maps], np.int64).reshape(-1, 2),
        lots=np.array([str(name) for name in table["lotName"]], np.str_),
        wafers=np.array([int(number) for number in table["waferIndex"]], np.int64),
        failures=_codes(table["failureType"], FAILURES),
        splits=_codes(table["trianTestLabel"], SPLITS),
    )
    read.save(target)
    return read


def _codes(labels: Sequence[Any], names: tuple[str, ...]) -> NDArray[np.int64]:
    """Labels are nested arrays like [['Scratch']], empty where there is none."""
    codes = np.full(len(labels), UNLABELLED, np.int64)
    for index, label in enumerate(labels):
        words = [w.decode("latin-1") if isinstance(w, bytes) else w for w in np.asarray(label).ravel().tolist()]
        if len(words) == 1 and words[0] in names:
            codes[index] = names.index(words[0])
        elif words:
            raise DatasetError(f"the label of map {index} must be one of {', '.join(names)} or empty; got {words}")
    return codes


def as_frame(wafer_map: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Returns a bin map as a grey frame, (1, rows, columns) uint8: what a detector of `bin_map_input` accepts."""
    frame: NDArray[np.uint8] = GREY[wafer_map][None]
    return frame


def bin_map_input(size: tuple[int, int] = (64, 64)) -> "InputSpec":
    """Returns the input of detectors of bin maps: grey frames of any size, stretched so that every wafer is as large.

    Args:
        size: height and width of the canvas in pixels.
    """
    from anomaly.input_spec import InputSpec

    return InputSpec(channels=1, unit="0 no die, 128 passed, 255 failed", size=size, resize="stretch")
