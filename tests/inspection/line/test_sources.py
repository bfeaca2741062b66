"""What sources deliver, and that nothing they have seen is skipped or comes twice."""

import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomaly.errors import DatasetError, SettingError
from inspection.line.errors import SourceError
from inspection.line.sources.base import FrameIds, Serial
from inspection.line.sources.files import ImageFiles
from inspection.line.sources.opening import SourceOptions, open_source
from inspection.parts import Part


def all_of(source) -> list[Part]:
    return list(source.parts(threading.Event()))


def test_files_come_in_natural_order_with_their_path_as_id_and_exactly_as_stored(tmp_path, picture):
    picture(tmp_path / "10.png")
    picture(tmp_path / "2.png")
    (tmp_path / "sub").mkdir()
    Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000).save(tmp_path / "sub" / "16bit.png")
    found = all_of(ImageFiles([tmp_path], Serial()))
    assert [part.id for part in found] == ["2.png", "10.png", "sub/16bit.png"]
    assert found[2].image.dtype == np.uint16
    assert found[2].image.max() == 60_000
    assert [part.source for part in found] == [str(tmp_path / part.id) for part in found]


def test_unreadable_files_are_parts_with_a_problem(tmp_path, picture):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "d.png").write_text("no image")
    found = all_of(ImageFiles([tmp_path], Serial()))
    assert [part.image is None for part in found] == [False, True, True, True]
    assert "truncated" in found[1].problem
    assert "empty" in found[2].problem
    assert "not a PNG" in found[3].problem


def test_a_list_names_files_relative_to_itself_and_missing_ones_are_parts(tmp_path, picture):
    picture(tmp_path / "images" / "a.png")
    (tmp_path / "list.txt").write_text("images/a.png\n\nimages/gone.png\n")
    found = all_of(ImageFiles([tmp_path / "list.txt"], Serial()))
    assert [part.id for part in found] == ["images/a.png", "images/gone.png"]
    assert "does not exist" in found[1].problem


def test_an_empty_list_or_folder_is_refused(tmp_path):
    (tmp_path / "list.txt").write_text("\n")
    with pytest.raises(DatasetError, match="lists no image"):
        ImageFiles([tmp_path / "list.txt"], Serial())
    with pytest.raises(DatasetError, match="does not exist"):
        ImageFiles([tmp_path / "gone"], Serial())


def test_the_serial_number_is_read_from_the_name_and_repeats_are_numbered():
    serial = Serial(r"SN(\d+)")
    assert serial.of(Path("cam1_SN0042_top.png")) == ("0042", "")
    assert serial.of(Path("cam1_SN0042_top.bmp")) == ("0042#2", "")
    name, problem = serial.of(Path("other.png"))
    assert name == "other.png"
    assert "no serial number" in problem
    with pytest.raises(SettingError, match="regular expression"):
        Serial("(")


def test_a_file_without_serial_number_is_not_judged(tmp_path, picture):
    picture(tmp_path / "SN1.png")
    picture(tmp_path / "x.png")
    assert [bool(part.problem) for part in all_of(ImageFiles([tmp_path], Serial(r"SN\d")))] == [False, True]


@given(st.lists(st.sampled_from(["a", "b", "a#2", "c"]), max_size=30))
def test_ids_from_names_are_unique_within_a_run(names):
    serial = Serial()
    given = [serial.of(Path(name))[0] for name in names]
    assert len(set(given)) == len(given)


def test_frame_ids_differ_within_and_between_runs():
    ids = FrameIds()
    assert len({ids.next() for _ in range(100)}) == 100
    assert ids.next().endswith("-000101")


def test_a_python_function_is_a_source(tmp_path, monkeypatch):
    (tmp_path / "my_camera_e2.py").write_text(
        "from inspection.line.testing import parts\n\ndef three():\n    return parts(3)\n"
    )
    monkeypatch.chdir(tmp_path)
    found = all_of(open_source("python:my_camera_e2:three", SourceOptions(memory=tmp_path)))
    assert [part.id for part in found] == ["p0000", "p0001", "p0002"]
    with pytest.raises(SourceError, match="cannot be imported"):
        open_source("python:my_camera_e2:four", SourceOptions(memory=tmp_path))


@pytest.mark.parametrize("text", ["gone/", "camera:x", "python:module", "ftp://x"])
def test_what_names_no_source_is_refused_with_what_is_valid(text, tmp_path):
    with pytest.raises(SettingError, match="--source"):
        open_source(text, SourceOptions(memory=tmp_path))
