"""Reads a pickled pandas table without running anything that the pickle asks for.

A pickle is a program: it names functions and calls them. Here every name is looked up in a short table, and what is
found there is not pandas but a stand-in that only keeps what it is given. numpy's arrays are built by numpy, from plain
types alone. Everything else is refused, so a hostile file can at worst be wrong data.

Tables of pandas before 0.20 (as LSWMD.pkl, from Python 2) and of pandas 1 and 2 are understood.
"""

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anomaly.errors import DatasetError
from inspection.wafer.errors import PickleRefused


class _Kept:
    """Stands in for a class: keeps its arguments and its state."""

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Table(_Kept):
    pass


class _Blocks(_Kept):
    pass


class _Index(_Kept):
    pass


class _Range(_Kept):
    pass


class _NdArray:
    """Named by pickles as the type to rebuild; never called."""


def _new_index(kind: type[_Kept], values: Mapping[str, Any]) -> _Kept:
    kept = kind() if kind in (_Index, _Range) else _Index()
    kept.state = dict(values)
    return kept


def _block(values: Any, placement: Any, dimensions: int) -> dict[str, Any]:
    return {"values": values, "mgr_locs": placement}


def _array(kind: type, shape: tuple[int, ...], typecode: Any) -> NDArray[Any]:
    """Numpy's `_reconstruct`: an empty array, filled by its state afterwards."""
    if kind is not _NdArray or shape != (0,):
        raise PickleRefused(f"an array must be rebuilt as an empty ndarray; got shape {shape!r}")
    return np.ndarray((0,), np.int8)


def _dtype(name: Any, *flags: Any) -> np.dtype[Any]:
    text = name.decode("ascii") if isinstance(name, bytes) else name
    if not isinstance(text, str) or len(text) > 8:
        raise PickleRefused(f"a dtype must be a short name; got {name!r}")
    return np.dtype(text)


def _scalar(dtype: np.dtype[Any], data: Any = b"") -> Any:
    raw = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise PickleRefused("a scalar must be a number or text")
    return np.frombuffer(raw, dtype, 1)[0]


def _from_buffer(buffer: Any, dtype: np.dtype[Any], shape: tuple[int, ...], order: str = "C") -> NDArray[Any]:
    """An array of protocol 5."""
    if not isinstance(buffer, bytes | bytearray) or not isinstance(dtype, np.dtype) or dtype.hasobject:
        raise PickleRefused("an array must be made of bytes and of numbers or text")
    return np.frombuffer(buffer, dtype).reshape(shape, order="F" if order == "F" else "C")


def _encode(text: str, encoding: str = "latin1") -> bytes:
    """Bytes of Python 3 in old protocols."""
    if encoding != "latin1" or not isinstance(text, str):
        raise PickleRefused(f"bytes must be written as latin1; got {encoding!r}")
    return text.encode("latin-1")


def _bytes(*content: Any) -> bytes:
    if content:
        raise PickleRefused("only empty bytes are made by a call")
    return b""


def _reconstructor(kind: type[_Kept], base: Any, state: Any) -> _Kept:
    """copy_reg's way to make an object of Python 2."""
    if not (isinstance(kind, type) and issubclass(kind, _Kept)):
        raise PickleRefused(f"only parts of tables are made; got {kind!r}")
    return kind()


_INDEXES = ("pandas.indexes", "pandas.core.indexes")
ALLOWED: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("pandas", "DataFrame"): _Table,
    ("pandas.core.frame", "DataFrame"): _Table,
    ("pandas.core.internals", "BlockManager"): _Blocks,
    ("pandas.core.internals.managers", "BlockManager"): _Blocks,
    ("pandas._libs.internals", "_unpickle_block"): _block,
    ("pandas", "Index"): _Index,
    ("pandas", "RangeIndex"): _Range,
    ("pandas.core.index", "Index"): _Index,
    ("pandas.core.index", "_new_Index"): _new_index,
    **{(f"{package}.base", "Index"): _Index for package in _INDEXES},
    **{(f"{package}.base", "_new_Index"): _new_index for package in _INDEXES},
    **{(f"{package}.range", "RangeIndex"): _Range for package in _INDEXES},
    **{(f"{package}.numeric", "Int64Index"): _Index for package in _INDEXES},
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _dtype,
    **{(f"numpy.{core}.multiarray", "_reconstruct"): _array for core in ("core", "_core")},
    **{(f"numpy.{core}.multiarray", "scalar"): _scalar for core in ("core", "_core")},
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
    ("_codecs", "encode"): _encode,
    ("copy_reg", "_reconstructor"): _reconstructor,
    ("copyreg", "_reconstructor"): _reconstructor,
    ("__builtin__", "object"): object,
    ("builtins", "object"): object,
    ("__builtin__", "slice"): slice,
    ("builtins", "slice"): slice,
    ("__builtin__", "bytes"): _bytes,
    ("builtins", "bytes"): _bytes,
}
"""(module, name) in a pickle -> what is used in its place."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise PickleRefused(f"the pickle asks for {module}.{name}, which no table needs; it was not loaded")
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        raise PickleRefused("the pickle refers to something outside itself; it was not loaded")


def load_table(path: Path) -> dict[str, list[Any]]:
    """Reads a pickled table.

    Args:
        path: the pickle.

    Returns:
        Column -> its values.

    Raises:
        PickleRefused: the pickle names anything but tables and arrays.
        DatasetError: no such file, truncated, or not a table.
    """
    try:
        with path.open("rb") as file:
            table = _Unpickler(file, encoding="latin1").load()
    except PickleRefused as error:
        raise PickleRefused(f"{path}: {error}") from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise DatasetError(f"{path} is truncated or no pickle: {error}") from error
    try:
        return _columns(table)
    except (TypeError, KeyError, ValueError, IndexError, AttributeError) as error:
        raise DatasetError(f"{path} is no table in a layout that is known: {error!r}") from error


def _columns(table: Any) -> dict[str, list[Any]]:
    if not isinstance(table, _Table):
        raise TypeError(f"a {type(table).__name__}")
    manager = table.state["_mgr" if "_mgr" in table.state else "_data"]
    if not isinstance(manager, _Blocks):
        raise TypeError("blocks are missing")
    if manager.arguments:  # pandas 1 and later
        blocks, axes = manager.arguments
    else:
        inner = manager.state[3]["0.14.1"]
        blocks, axes = inner["blocks"], inner["axes"]
    names = [str(name) for name in np.asarray(axes[0].state["data"]).tolist()]
    columns: dict[str, list[Any]] = {}
    for block in blocks:
        places = block["mgr_locs"]
        chosen = names[places] if isinstance(places, slice) else [names[i] for i in np.asarray(places).tolist()]
        for name, values in zip(chosen, block["values"], strict=True):
            columns[name] = list(values)
    if len({len(values) for values in columns.values()}) > 1 or set(columns) != set(names):
        raise ValueError("columns of different lengths")
    return {name: columns[name] for name in names}
