"""Videos, cameras of OpenCV, and GigE Vision through harvesters."""

import sys
import threading
from importlib.machinery import ModuleSpec
from types import ModuleType, SimpleNamespace

import cv2
import numpy as np
import pytest

from anomaly.errors import MissingExtraError, SettingError
from inspection.line.errors import SourceError
from inspection.line.runner import Line
from inspection.line.settings import LineSettings
from inspection.line.sources.gige import GigECamera, frame_of, lost_frames
from inspection.line.sources.opencv import Camera, VideoFile
from inspection.line.sources.opening import SourceOptions, open_source
from inspection.line.testing import Judge, Kept


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
    found = list(open_source(str(video), SourceOptions(memory=video.parent)).parts(threading.Event()))
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
    found = list(VideoFile(video).parts(threading.Event()))
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
