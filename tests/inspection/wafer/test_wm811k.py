"""WM-811K: the true layout of the pickle is read, a hostile one is refused, and detectors run on bin maps."""

import io
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from anomaly import catalog
from anomaly.errors import DatasetError, SettingError
from anomaly.metrics import auroc
from inspection.wafer.errors import PickleRefused
from inspection.wafer.restricted_pickle import load_table
from inspection.wafer.wm811k import FAILURES, UNLABELLED, WaferMaps, as_frame, bin_map_input, convert


class Global:
    """Something that a pickle names."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        raise AssertionError("only named")


class Made:
    """Something that a pickle makes: a call, then a state."""

    def __init__(self, call, arguments, state=None):
        self.recipe = (call, arguments) if state is None else (call, arguments, state)


class Python2Pickler(pickle._Pickler):
    """Writes what Python 2 with pandas 0.19 and numpy 1.11 wrote: old names, strings as bytes, protocol 2."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_global_by_name(self, thing):
        self.write(b"c" + f"{thing.module}\n{thing.name}\n".encode())
        self.memoize(thing)

    def save_made(self, thing):
        self.save_reduce(*thing.recipe, obj=thing)

    def save_bytes_of_python2(self, text):
        raw = text.encode("latin-1") if isinstance(text, str) else text
        self.write(b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    def save_array(self, array):
        values = array.ravel().tolist() if array.dtype.kind == "O" else array.tobytes()
        dtype = Made(Global("numpy", "dtype"), (array.dtype.str[1:], 0, 1), dtype_state(array.dtype))
        state = (1, array.shape, dtype, False, values)
        empty = (Global("numpy", "ndarray"), (0,), "b")
        self.save_reduce(Global("numpy.core.multiarray", "_reconstruct"), empty, state, obj=array)

    dispatch[Global] = save_global_by_name
    dispatch[Made] = save_made
    dispatch[str] = save_bytes_of_python2
    dispatch[bytes] = save_bytes_of_python2
    dispatch[np.ndarray] = save_array


def dtype_state(dtype):
    order = "|" if dtype.kind in "OS" or dtype.itemsize == 1 else "<"
    size, align = (dtype.itemsize, 1) if dtype.kind == "S" else (-1, -1)
    return (3, order, None, None, None, size, align, 63 if dtype.kind == "O" else 0)


def label(word):
    return np.array([[word.encode()]]) if word else np.zeros((0, 0), "f8")


def old_table(columns: dict) -> bytes:
    """A table as LSWMD.pkl holds it: one block of floats, one of objects."""
    floats = [name for name in columns if columns[name].dtype == float]
    objects = [name for name in columns if name not in floats]
    names = np.array(list(columns), object)
    index = Made(
        Global("pandas.indexes.base", "_new_Index"),
        (Global("pandas.indexes.base", "Index"), {"data": names, "name": None}),
    )
    rows = Made(
        Global("pandas.indexes.base", "_new_Index"),
        (Global("pandas.indexes.range", "RangeIndex"), {"start": 0, "step": 1, "stop": 3, "name": None}),
    )
    blocks = [
        {"values": np.stack([columns[name] for name in part]),
         "mgr_locs": np.array([list(columns).index(name) for name in part], "i8")}
        for part in (floats, objects)
    ]  # fmt: skip
    axes = [index, rows]
    state = (axes, [], [], {"0.14.1": {"axes": axes, "blocks": blocks}})
    base = Global("__builtin__", "object")
    make = Global("copy_reg", "_reconstructor")
    manager = Made(make, (Global("pandas.core.internals", "BlockManager"), base, None), state)
    frame = {"_metadata": [], "_typ": "dataframe", "_data": manager}
    out = io.BytesIO()
    Python2Pickler(out, protocol=2).dump(Made(make, (Global("pandas.core.frame", "DataFrame"), base, None), frame))
    return out.getvalue()


def objects(*values):
    made = np.empty(len(values), object)
    made[:] = values
    return made


MAPS = [np.array([[0, 1, 0], [1, 2, 1]], np.uint8), np.full((2, 2), 2, np.uint8), np.array([[1]], np.uint8)]


def columns():
    maps = np.empty(3, object)
    for i, one in enumerate(MAPS):
        maps[i] = one
    labels, splits = np.empty(3, object), np.empty(3, object)
    for i, (failure, split) in enumerate([("none", "Training"), ("Edge-Ring", "Test"), ("", "")]):
        labels[i], splits[i] = label(failure), label(split)
    return {
        "waferMap": maps,
        "dieSize": np.array([6.0, 4.0, 1.0]),
        "lotName": objects("lot1", "lot1", "lot2"),
        "waferIndex": np.array([1.0, 2.0, 1.0]),
        "trianTestLabel": splits,
        "failureType": labels,
    }


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "LSWMD.pkl"
    path.write_bytes(old_table(columns()))
    return path


def check(maps: WaferMaps):
    assert len(maps) == 3
    for index, expected in enumerate(MAPS):
        np.testing.assert_array_equal(maps[index], expected)
    assert maps.lots.tolist() == ["lot1", "lot1", "lot2"]
    assert maps.wafers.tolist() == [1, 2, 1]
    assert maps.failures.tolist() == [FAILURES.index("none"), FAILURES.index("Edge-Ring"), UNLABELLED]
    assert maps.splits.tolist() == [0, 1, UNLABELLED]


def test_table_of_python_2_is_converted_once(source, tmp_path):
    assert b"pandas.indexes.base" in source.read_bytes()
    check(convert(source, tmp_path / "maps.npz"))
    check(WaferMaps.load(tmp_path / "maps.npz"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["LSWMD.pkl", "maps.npz"]


def test_table_of_today_is_converted_too(tmp_path):
    pandas = pytest.importorskip("pandas")
    modern = {name: list(values) for name, values in columns().items()}
    for name in ("failureType", "trianTestLabel"):
        modern[name] = [one.astype(str) if one.size else np.array([]) for one in modern[name]]
    table = pandas.DataFrame({name: pandas.Series(values, dtype=object) for name, values in modern.items()})
    table.columns = pandas.Index(list(modern), dtype=object)
    for protocol in (2, 4, 5):
        table.to_pickle(tmp_path / "t.pkl", protocol=protocol)
        maps = convert(tmp_path / "t.pkl", tmp_path / "maps.npz")
        np.testing.assert_array_equal(maps[1], MAPS[1])
        assert maps.failures.tolist() == [0, FAILURES.index("Edge-Ring"), UNLABELLED]


class Hostile:
    """Runs a command when it is unpickled."""

    def __init__(self, call, *arguments):
        self.recipe = call, arguments

    def __reduce__(self):
        return self.recipe


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("call", [os.system, eval, exec, __import__, getattr, open, np.load], ids=lambda c: c.__name__)
def test_hostile_pickles_are_refused_and_run_nothing(tmp_path, call, protocol, monkeypatch):
    trace = tmp_path / "trace"
    argument = f"touch {trace}" if call is os.system else f"__import__('pathlib').Path({str(trace)!r}).touch()"
    if call in (open, np.load):
        argument = str(trace)
    path = tmp_path / "bad.pkl"
    path.write_bytes(pickle.dumps([Hostile(call, argument)], protocol=protocol))
    if call in (os.system, eval, exec):
        pickle.loads(path.read_bytes())  # the file really is hostile
        assert trace.exists()
        trace.unlink()
    with pytest.raises(PickleRefused, match="which no table needs"):
        load_table(path)
    assert not trace.exists()


def test_allowed_names_cannot_be_misused(tmp_path):
    path = tmp_path / "bad.pkl"

    def dump(thing):
        out = io.BytesIO()
        Python2Pickler(out, protocol=2).dump(thing)
        path.write_bytes(out.getvalue())

    for thing in (
        Made(Global("numpy", "dtype"), ({"names": ["a"]},)),
        Made(Global("numpy.core.multiarray", "_reconstruct"), (Global("numpy", "ndarray"), (10**12,), "b")),
        Made(Global("__builtin__", "bytes"), (10**12,)),
        Made(Global("_codecs", "encode"), ("x", "rot13")),
        Made(Global("copy_reg", "_reconstructor"), (Global("numpy", "ndarray"), Global("__builtin__", "object"), None)),
    ):
        dump(thing)
        with pytest.raises(PickleRefused):
            load_table(path)


def test_damaged_files_are_reported(source, tmp_path):
    whole = source.read_bytes()
    for end in range(0, len(whole) - 1, 97):
        source.write_bytes(whole[:end])
        with pytest.raises((DatasetError, PickleRefused)):
            load_table(source)
    with pytest.raises(DatasetError, match="cannot be read"):
        load_table(tmp_path / "none.pkl")
    (tmp_path / "no.npz").write_bytes(b"nothing")
    with pytest.raises(DatasetError, match="no file of wafer maps"):
        WaferMaps.load(tmp_path / "no.npz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("failureType"), "has no column failureType"),
        (lambda c: c["waferMap"].__setitem__(1, np.full((2, 2), 3, np.uint8)), "map 1 .* must be"),
        (lambda c: c["failureType"].__setitem__(0, label("Spiral")), "label of map 0"),
    ],
)
def test_other_layouts_are_refused(tmp_path, change, message):
    changed = columns()
    change(changed)
    path = tmp_path / "t.pkl"
    path.write_bytes(old_table(changed))
    with pytest.raises(DatasetError, match=message):
        convert(path, tmp_path / "maps.npz")


def generated(count, rng):
    """Bin maps with random failures; every second one has a failed ring at its edge."""
    maps, failures = [], []
    for index in range(count):
        side = int(rng.integers(24, 34))
        y, x = np.mgrid[:side, :side] - (side - 1) / 2
        radius = np.hypot(y, x) / (side / 2)
        chance = np.where((radius > 0.82) & (index % 2 == 1), 0.75, 0.06)
        maps.append(np.where(radius <= 1, 1 + (rng.random((side, side)) < chance), 0).astype(np.uint8))
        failures.append(FAILURES.index("Edge-Ring" if index % 2 else "none"))
    return WaferMaps(
        cells=np.concatenate([one.ravel() for one in maps]),
        shapes=np.array([one.shape for one in maps]),
        lots=np.array([f"lot{index // 4}" for index in range(count)]),
        wafers=np.arange(count),
        failures=np.array(failures),
        splits=np.full(count, UNLABELLED),
    )


def test_splits_share_no_lot():
    maps = generated(40, np.random.default_rng(0))
    first, second = maps.split_by_lot(0.6, seed=1)
    assert sorted([*first, *second]) == list(range(40))
    assert not set(maps.lots[first]) & set(maps.lots[second])
    assert len(first) == 24
    with pytest.raises(SettingError, match="divides 10 lots"):
        maps.split_by_lot(0.01)
    with pytest.raises(SettingError, match="one of none, Center"):
        maps.of("Spiral")


def test_a_detector_of_bin_maps_finds_the_rings():
    maps = generated(60, np.random.default_rng(4))
    first, second = maps.split_by_lot(0.5)
    detector = catalog.build(catalog.detector_class("subspace"), {"input": bin_map_input((64, 64))})
    normal = np.intersect1d(first, maps.of("none"))
    scorer = detector.fit([[torch.from_numpy(as_frame(maps[i])) for i in normal]])
    with torch.inference_mode():
        scores = scorer([torch.from_numpy(as_frame(maps[i])) for i in second]).score.numpy()
    assert auroc(scores, maps.failures[second] != FAILURES.index("none")) > 0.95
