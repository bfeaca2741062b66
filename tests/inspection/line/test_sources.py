"""What sources deliver, and that nothing they have seen is skipped or comes twice."""

import shutil
import sqlite3
import sys
import threading
import time
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from anomaly.errors import DatasetError, MissingExtraError, SettingError
from inspection.line.errors import SourceError
from inspection.line.runner import Line
from inspection.line.settings import LineSettings
from inspection.line.sources.base import FrameIds, Serial
from inspection.line.sources.files import ImageFiles
from inspection.line.sources.gige import GigECamera, frame_of, lost_frames
from inspection.line.sources.memory import FileKey, FileMemory, OpenFile
from inspection.line.sources.opencv import Camera, VideoFile
from inspection.line.sources.opening import SourceOptions, open_source
from inspection.line.sources.watching import WatchedFolder, WatchTimes
from inspection.line.testing import Judge, Kept, in_thread, wait_until
from inspection.parts import Part

FAST = WatchTimes(poll=0.01, settle=0.05, give_up=0.3)


def picture(path: Path, value: int = 100, size: int = 16) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(value).integers(0, 255, (size, size, 3), np.uint8)
    Image.fromarray(noise).save(path)
    return path


def all_of(source) -> list[Part]:
    return list(source.parts(threading.Event()))


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


def test_files_come_in_natural_order_with_their_path_as_id_and_exactly_as_stored(tmp_path):
    picture(tmp_path / "10.png")
    picture(tmp_path / "2.png")
    (tmp_path / "sub").mkdir()
    Image.fromarray(np.arange(16, dtype=np.uint16).reshape(4, 4) * 4000).save(tmp_path / "sub" / "16bit.png")
    found = all_of(ImageFiles([tmp_path], Serial()))
    assert [part.id for part in found] == ["2.png", "10.png", "sub/16bit.png"]
    assert found[2].image.dtype == np.uint16
    assert found[2].image.max() == 60_000
    assert [part.source for part in found] == [str(tmp_path / part.id) for part in found]


def test_unreadable_files_are_parts_with_a_problem(tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:200])
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "d.png").write_text("no image")
    found = all_of(ImageFiles([tmp_path], Serial()))
    assert [part.image is None for part in found] == [False, True, True, True]
    assert "truncated" in found[1].problem
    assert "empty" in found[2].problem
    assert "not a PNG" in found[3].problem


def test_a_list_names_files_relative_to_itself_and_missing_ones_are_parts(tmp_path):
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


def test_a_file_without_serial_number_is_not_judged(tmp_path):
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


def test_a_watched_folder_yields_what_is_there_and_what_comes(tmp_path):
    picture(tmp_path / "in" / "1.png")
    with Watching(tmp_path / "in") as watching:
        watching.wait(1)
        picture(tmp_path / "in" / "deep" / "2.png")
        watching.wait(2)
    assert [part.id for part in watching.parts] == ["1.png", "deep/2.png"]


def test_a_slowly_written_file_is_read_once_it_is_complete(tmp_path):
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


def test_temporary_names_are_ignored_until_the_file_is_renamed(tmp_path):
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


def test_a_broken_file_is_given_time_and_then_is_a_part_with_a_problem(tmp_path):
    (tmp_path / "in").mkdir()
    with Watching(tmp_path / "in") as watching:
        (tmp_path / "in" / "bad.png").write_bytes(picture(tmp_path / "whole.png").read_bytes()[:150])
        begun = time.monotonic()
        (part,) = watching.wait(1)
    assert time.monotonic() - begun > FAST.give_up
    assert "truncated" in part.problem


def test_a_file_that_never_was_complete_and_goes_away_is_no_part(tmp_path):
    (tmp_path / "in").mkdir()
    with Watching(tmp_path / "in") as watching:
        (tmp_path / "in" / "a.png").write_bytes(b"\x89PNG")
        time.sleep(0.15)
        (tmp_path / "in" / "a.png").unlink()
        picture(tmp_path / "in" / "b.png")
        watching.wait(1)
    assert [part.id for part in watching.parts] == ["b.png"]


def test_the_same_name_with_other_content_is_another_part(tmp_path):
    picture(tmp_path / "in" / "a.png", 1)
    with Watching(tmp_path / "in") as watching:
        watching.wait(1)
        picture(tmp_path / "in" / "a.png", 2)
        watching.wait(2)
    assert [part.id for part in watching.parts] == ["a.png", "a.png#2"]
    assert not np.array_equal(watching.parts[0].image, watching.parts[1].image)


def test_a_folder_that_is_gone_for_a_while_is_waited_for(tmp_path):
    picture(tmp_path / "in" / "a.png")
    with Watching(tmp_path / "in") as watching:
        watching.wait(1)
        watching.source.reported(watching.parts)
        (tmp_path / "in").rename(tmp_path / "unmounted")
        time.sleep(0.1)
        (tmp_path / "unmounted").rename(tmp_path / "in")
        picture(tmp_path / "in" / "b.png")
        watching.wait(2)


def test_a_restart_repeats_only_what_was_not_reported(tmp_path):
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.png")
    with Watching(tmp_path / "in") as watching:
        watching.wait(3)
        watching.source.reported([part for part in watching.parts if part.id != "b.png"])
    with Watching(tmp_path / "in") as watching:
        watching.wait(1)
    assert [part.id for part in watching.parts] == ["b.png"]


def test_a_restart_asks_for_parts_that_were_under_way(tmp_path):
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


def test_a_file_waits_in_the_folder_while_it_cannot_be_remembered(tmp_path, monkeypatch, caplog):
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


@pytest.fixture
def video(tmp_path):
    path = tmp_path / "part.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for number in range(12):
        frame = np.zeros((48, 64, 3), np.uint8)
        frame[..., 2] = 20 * number  # red, for OpenCV writes BGR
        writer.write(frame)
    writer.release()
    return path


def test_every_frame_of_a_video_is_a_part_in_rgb(video):
    found = all_of(open_source(str(video), SourceOptions(memory=video.parent)))
    assert [part.id for part in found] == [f"part-{number:06d}" for number in range(1, 13)]
    assert found[0].image.shape == (48, 64, 3)
    means = np.array([part.image.mean((0, 1)) for part in found])
    assert np.abs(means[:, 0] - 20 * np.arange(12)).max() < 8
    assert means[:, 1:].max() < 8


def test_a_video_runs_through_a_line(video):
    kept = Kept()
    status = Line(VideoFile(video), Judge(), kept, LineSettings()).run()
    assert len(kept.names) == status.figures.judged == 12


def test_a_video_that_breaks_off_ends_with_a_problem(video):
    content = video.read_bytes()
    video.write_bytes(content[: len(content) * 2 // 3])
    found = all_of(VideoFile(video))
    assert len(found) < 13
    assert [part.problem == "" for part in found] == [True] * (len(found) - 1) + [False]
    assert "breaks off" in found[-1].problem


def test_what_is_no_video_or_camera_is_refused(tmp_path, capfd):
    (tmp_path / "no.mp4").write_text("no video")
    with pytest.raises(SourceError, match="no video"):
        VideoFile(tmp_path / "no.mp4")
    with pytest.raises(SourceError, match="cannot be opened"):
        Camera(99)
    with pytest.raises(SourceError) as caught:
        Camera("rtsp://admin:secret@127.0.0.1:1/stream")
    assert "secret" not in str(caught.value)


def test_a_camera_that_fails_is_opened_again(video, monkeypatch):
    monkeypatch.setattr("inspection.line.sources.opencv._PAUSE_S", 0.01)
    camera = Camera(str(video))  # to OpenCV a file is a camera that stops after 12 frames
    stop, ids = threading.Event(), []
    for part in camera.parts(stop):
        ids.append(part.id)
        if len(ids) == 30:
            stop.set()
    assert len(set(ids)) == 30


def buffer_of(data: np.ndarray, name: str, height: int, width: int):
    component = SimpleNamespace(data=data.ravel(), data_format=name, height=height, width=width)
    return SimpleNamespace(payload=SimpleNamespace(components=[component]))


def test_frames_of_gige_cameras_become_grey_or_rgb():
    grey = np.arange(12, dtype=np.uint16).reshape(3, 4)
    image, problem = frame_of(buffer_of(grey, "Mono12", 3, 4))
    assert problem == ""
    assert np.array_equal(image, grey[..., None])
    colour = np.arange(36, dtype=np.uint8).reshape(3, 4, 3)
    assert np.array_equal(frame_of(buffer_of(colour, "BGR8", 3, 4))[0], colour[..., ::-1])
    assert np.array_equal(frame_of(buffer_of(colour, "RGB8", 3, 4))[0], colour)


@pytest.mark.parametrize("first_row", ["RG", "GR", "GB", "BG"])
def test_bayer_patterns_are_named_by_their_first_pixels(first_row):
    # Only the red filter sees light: every colour pixel must come out red.
    rows = {"RG": ["RG", "GB"], "GR": ["GR", "BG"], "GB": ["GB", "RG"], "BG": ["BG", "GR"]}[first_row]
    red = np.array([[200 if colour == "R" else 0 for colour in row] for row in rows], np.uint8)
    image, problem = frame_of(buffer_of(np.tile(red, (8, 8)), f"Bayer{first_row}8", 16, 16))
    assert problem == ""
    assert image[4:12, 4:12, 0].min() == 200
    assert image[4:12, 4:12, 1:].max() == 0


def test_frames_that_cannot_be_used_say_why():
    assert "set its PixelFormat" in frame_of(buffer_of(np.zeros(12, np.uint8), "Mono12Packed", 2, 4))[1]
    assert "was announced" in frame_of(buffer_of(np.zeros(11, np.uint8), "Mono8", 3, 4))[1]
    assert "no image" in frame_of(SimpleNamespace(payload=SimpleNamespace(components=[])))[1]


@pytest.mark.parametrize(
    ("last", "number", "lost"), [(None, 7, 0), (7, 8, 0), (7, 10, 2), (65535, 1, 0), (9, 9, 0), (5, 90_000, 0)]
)
def test_gaps_in_the_numbers_of_frames_are_lost_frames(last, number, lost):
    assert lost_frames(last, number) == lost


def test_gige_without_its_package_or_producer_says_what_to_do(tmp_path, monkeypatch):
    with pytest.raises(SettingError, match="--producer"):
        open_source("gige:123", SourceOptions(memory=tmp_path))
    monkeypatch.setitem(sys.modules, "harvesters", None)
    with pytest.raises(MissingExtraError, match=r"anomaly-suite\[gige\]"):
        GigECamera(tmp_path / "x.cti")


class FakeCamera:
    """What harvesters calls an image acquirer, as far as it is used here."""

    def __init__(self, numbers):
        self.numbers, self.log = iter(numbers), []

    def try_fetch(self, *, timeout):
        number = next(self.numbers)
        if number is None:
            return None
        buffer = buffer_of(np.full((2, 3), number, np.uint8), "Mono8", 2, 3)
        buffer.frame_id = number
        return lent_buffer(buffer, self.log)

    def __getattr__(self, name):
        return lambda *words: self.log.append(name)


def lent_buffer(buffer, log):
    class Buffer(SimpleNamespace):
        def __enter__(self):
            return self

        def __exit__(self, *error):
            log.append("queued")

    return Buffer(**vars(buffer))


@pytest.fixture
def harvesters(monkeypatch):
    """A stand-in for the package, with two cameras; the first sends frames 1, 2, nothing, 5."""
    camera, core = FakeCamera([1, 2, None, 5]), ModuleType("harvesters.core")

    class Harvester:
        device_info_list = (SimpleNamespace(serial_number="A"), SimpleNamespace(serial_number="B"))

        def create(self, key):
            assert key == {"serial_number": "A"}
            return camera

        def __getattr__(self, name):
            return lambda *words, **options: None

    core.Harvester = Harvester
    package = ModuleType("harvesters")
    package.__spec__ = ModuleSpec("harvesters", None)
    monkeypatch.setitem(sys.modules, "harvesters", package)
    monkeypatch.setitem(sys.modules, "harvesters.core", core)
    return camera


def test_frames_that_a_gige_camera_lost_are_parts_with_a_problem(harvesters, tmp_path):
    (tmp_path / "vendor.cti").touch()
    camera = open_source("gige:A", SourceOptions(memory=tmp_path, producer=tmp_path / "vendor.cti"))
    stop, found = threading.Event(), []
    for one in camera.parts(stop):
        found.append(one)
        if len(found) == 5:
            stop.set()
    camera.close()
    assert [one.image is None or int(one.image[0, 0, 0]) for one in found] == [1, 2, True, True, 5]
    assert all("lost" in one.problem for one in found[2:4])
    assert harvesters.log == ["start", "queued", "queued", "queued", "stop", "destroy"]


def test_a_gige_camera_must_be_named_where_there_are_several(harvesters, tmp_path):
    (tmp_path / "vendor.cti").touch()
    options = SourceOptions(memory=tmp_path, producer=tmp_path / "vendor.cti")
    with pytest.raises(SourceError, match="2 cameras fit, exactly 1 is needed; found serial numbers: A, B"):
        open_source("gige:", options)
    with pytest.raises(SourceError, match="no GenTL producer"):
        GigECamera(tmp_path / "gone.cti")


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
