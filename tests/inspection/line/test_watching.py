"""A watched folder: complete files, restarts, and what cannot be read."""

import shutil
import sqlite3
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from anomaly.errors import DatasetError, SettingError
from inspection.line.errors import SourceError
from inspection.line.sources.base import Serial
from inspection.line.sources.memory import FileKey, FileMemory, OpenFile
from inspection.line.sources.watching import WatchedFolder, WatchTimes
from inspection.line.testing import in_thread, wait_until
from inspection.parts import Part

FAST = WatchTimes(poll=0.01, settle=0.05, give_up=0.3)


class Watching:
    """A watched folder whose parts are collected in a thread, until the `with` block ends."""

    def __init__(self, folder: Path, serial: str = "", **options) -> None:
        self.source = WatchedFolder(folder, folder.parent / "memory.sqlite", Serial(serial), times=FAST, **options)
        self.parts: list[Part] = []
        self._stop = threading.Event()

    def __enter__(self):
        self._thread, _ = in_thread(lambda: self.parts.extend(self._collected()))
        return self

    def _collected(self):
        for part in self.source.parts(self._stop):
            self.parts.append(part)
        return []

    def wait(self, count: int) -> list[Part]:
        wait_until(lambda: len(self.parts) >= count)
        time.sleep(0.15)  # would more come?
        assert len(self.parts) == count
        return self.parts

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join(5)
        self.source.close()


def test_a_watched_folder_yields_what_is_there_and_what_comes(tmp_path, picture):
    picture(tmp_path / "in" / "1.png")
    with Watching(tmp_path / "in") as watching:
        watching.wait(1)
        picture(tmp_path / "in" / "deep" / "2.png")
        watching.wait(2)
    assert [part.id for part in watching.parts] == ["1.png", "deep/2.png"]


def test_a_slowly_written_file_is_read_once_it_is_complete(tmp_path, picture):
    content = picture(tmp_path / "whole.png", size=64).read_bytes()
    (tmp_path / "in").mkdir()
    with Watching(tmp_path / "in") as watching:
        with (tmp_path / "in" / "slow.png").open("wb", buffering=0) as file:
            step = len(content) // 8 + 1
            for begin in range(0, len(content), step):
                assert watching.parts == []
                file.write(content[begin : begin + step])
                time.sleep(0.09)  # longer than a file must stand still: only decoding tells that it is not complete
        (part,) = watching.wait(1)
    assert part.problem == ""
    assert np.array_equal(part.image, np.asarray(Image.open(tmp_path / "whole.png")))


def test_temporary_names_are_ignored_until_the_file_is_renamed(tmp_path, picture):
    (tmp_path / "in").mkdir()
    with Watching(tmp_path / "in") as watching:
        for temporary in (".hidden.png", "x.png.tmp", "y.png.part"):
            shutil.copy(picture(tmp_path / "whole.png"), tmp_path / "in" / temporary)
        time.sleep(0.2)
        assert watching.parts == []
        (tmp_path / "in" / ".hidden.png").rename(tmp_path / "in" / "a.png")
        (tmp_path / "in" / "x.png.tmp").rename(tmp_path / "in" / "b.png")
        watching.wait(2)
    assert sorted(part.id for part in watching.parts) == ["a.png", "b.png"]


def test_a_broken_file_is_given_time_and_then_is_a_part_with_a_problem(tmp_path, picture):
    (tmp_path / "in").mkdir()
    with Watching(tmp_path / "in") as watching:
        (tmp_path / "in" / "bad.png").write_bytes(picture(tmp_path / "whole.png").read_bytes()[:150])
        begun = time.monotonic()
        (part,) = watching.wait(1)
    assert time.monotonic() - begun > FAST.give_up
    assert "truncated" in part.problem


def test_a_file_that_never_was_complete_and_goes_away_is_no_part(tmp_path, picture):
    (tmp_path / "in").mkdir()
    with Watching(tmp_path / "in") as watching:
        (tmp_path / "in" / "a.png").write_bytes(b"\x89PNG")
        time.sleep(0.15)
        (tmp_path / "in" / "a.png").unlink()
        picture(tmp_path / "in" / "b.png")
        watching.wait(1)
    assert [part.id for part in watching.parts] == ["b.png"]


def test_the_same_name_with_other_content_is_another_part(tmp_path, picture):
    picture(tmp_path / "in" / "a.png", 1)
    with Watching(tmp_path / "in") as watching:
        watching.wait(1)
        picture(tmp_path / "in" / "a.png", 2)
        watching.wait(2)
    assert [part.id for part in watching.parts] == ["a.png", "a.png#2"]
    assert not np.array_equal(watching.parts[0].image, watching.parts[1].image)


def test_a_folder_that_is_gone_for_a_while_is_waited_for(tmp_path, picture):
    picture(tmp_path / "in" / "a.png")
    with Watching(tmp_path / "in") as watching:
        watching.wait(1)
        watching.source.reported(watching.parts)
        (tmp_path / "in").rename(tmp_path / "unmounted")
        time.sleep(0.1)
        (tmp_path / "unmounted").rename(tmp_path / "in")
        picture(tmp_path / "in" / "b.png")
        watching.wait(2)


def test_a_restart_repeats_only_what_was_not_reported(tmp_path, picture):
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.png")
    with Watching(tmp_path / "in") as watching:
        watching.wait(3)
        watching.source.reported([part for part in watching.parts if part.id != "b.png"])
    with Watching(tmp_path / "in") as watching:
        watching.wait(1)
    assert [part.id for part in watching.parts] == ["b.png"]


def test_a_restart_asks_for_parts_that_were_under_way(tmp_path, picture):
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")
    with Watching(tmp_path / "in") as watching:
        first = watching.wait(2)
    asked: list[OpenFile] = []

    def was_reported(file: OpenFile) -> bool:
        asked.append(file)
        return file.part == "a.png"

    with Watching(tmp_path / "in", was_reported=was_reported) as watching:
        watching.wait(1)
    assert [part.id for part in watching.parts] == ["b.png"]
    assert {(file.part, file.captured) for file in asked} == {(p.id, p.captured.isoformat()) for p in first}


def test_a_file_waits_in_the_folder_while_it_cannot_be_remembered(tmp_path, monkeypatch, caplog, picture):
    faults = iter([sqlite3.OperationalError("database or disk is full")] * 2)
    remember = FileMemory.open

    def full_at_first(self, file):
        fault = next(faults, None)
        if fault:
            raise fault
        remember(self, file)

    monkeypatch.setattr(FileMemory, "open", full_at_first)
    picture(tmp_path / "in" / "a.png")
    with Watching(tmp_path / "in") as watching:
        (part,) = watching.wait(1)
    assert part.id == "a.png"
    assert caplog.text.count("disk is full") == 2


def test_a_folder_that_is_not_there_or_a_broken_memory_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="no folder"):
        WatchedFolder(tmp_path / "gone", tmp_path / "memory.sqlite", Serial())
    (tmp_path / "memory.sqlite").write_text("this is no database, and long enough to be looked at" * 40)
    with pytest.raises(SourceError, match="cannot remember"):
        WatchedFolder(tmp_path, tmp_path / "memory.sqlite", Serial())


def test_memory_that_cannot_be_written_closes_nothing_in_part(tmp_path):
    memory = FileMemory(tmp_path / "memory.sqlite")
    files = [OpenFile(FileKey(f"{n}.png", 1, 1), f"{n}.png", "now") for n in range(3)]
    for file in files:
        memory.open(file)
    other = sqlite3.connect(tmp_path / "memory.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        memory.close([file.key for file in files])
    other.execute("ROLLBACK")
    other.close()
    assert memory.known() == set()
    memory.close([file.key for file in files])
    assert memory.known() == {file.key for file in files}
    memory.shut()


@pytest.mark.parametrize("times", [{"poll": 0.0}, {"settle": 2.0, "give_up": 1.0}, {"settle": -1.0}])
def test_times_that_make_no_sense_are_refused(times):
    with pytest.raises(SettingError):
        WatchTimes(**times)
