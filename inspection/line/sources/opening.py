"""What `--source` means: one word that names any source."""

import importlib
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from anomaly.errors import SettingError
from inspection.line.errors import SourceError
from inspection.line.sources.base import Serial, Source
from inspection.line.sources.memory import OpenFile

VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg")
KINDS = """\
FOLDER, FILE or LIST.txt  images that are there already, each once; a list has one path a line
watch:FOLDER              images that come into a folder, until stopped; a restart goes on where it was
VIDEO.mp4 or video:FILE   every frame of a video file
camera:0                  USB camera by its number
rtsp://..., http://...    IP camera
gige:SERIAL or gige:      GigE Vision or USB3 Vision camera, with --producer FILE.cti of its vendor
python:MODULE:FUNCTION    the parts that a Python function yields (inspection.parts.Part)"""


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """What sources need beside their name.

    Attributes:
        memory: folder for what watched folders remember.
        serial: regular expression of the serial number in a file name; "" takes the name.
        producer: GenTL producer of GigE Vision cameras.
        was_reported: whether there is a durable result of a file that was under way when the line was killed.
    """

    memory: Path
    serial: str = ""
    producer: Path | None = None
    was_reported: Callable[[OpenFile], bool] = lambda file: False


def open_source(text: str, options: SourceOptions) -> Source:
    """Opens the source that `text` names; see `KINDS`.

    Raises:
        SettingError: it names no source, or one of its options is missing.
        SourceError: it cannot be opened.
        DatasetError: a file or folder is not there.
        MissingExtraError: its package is not installed.
    """
    kind, colon, rest = text.partition(":")
    if kind in ("rtsp", "rtsps", "http", "https") and rest.startswith("//"):
        from inspection.line.sources.opencv import Camera

        return Camera(text)
    if colon and kind in _NAMED:
        return _NAMED[kind](rest, options)
    if Path(text).suffix.lower() in VIDEO_SUFFIXES:
        return _video(text, options)
    if not Path(text).exists():
        raise SettingError(f"--source {text!r} is no file or folder, and names no source. Valid:\n{KINDS}")
    from inspection.line.sources.files import ImageFiles

    return ImageFiles([Path(text)], Serial(options.serial))


def _watch(rest: str, options: SourceOptions) -> Source:
    from hashlib import sha256

    from inspection.line.sources.watching import WatchedFolder

    folder = Path(rest).resolve()
    memory = options.memory / f"watched-{sha256(str(folder).encode()).hexdigest()[:16]}.sqlite"
    return WatchedFolder(folder, memory, Serial(options.serial), options.was_reported)


def _video(rest: str, options: SourceOptions) -> Source:
    from inspection.line.sources.opencv import VideoFile

    return VideoFile(Path(rest))


def _camera(rest: str, options: SourceOptions) -> Source:
    from inspection.line.sources.opencv import Camera

    if not rest.isdigit():
        raise SettingError(f"--source camera:N needs the number of a USB camera, like camera:0; got {rest!r}")
    return Camera(int(rest))


def _gige(rest: str, options: SourceOptions) -> Source:
    from inspection.line.sources.gige import GigECamera

    if options.producer is None:
        raise SettingError(
            "--source gige:SERIAL needs --producer with the GenTL producer (.cti) of the camera's vendor"
        )
    return GigECamera(options.producer, rest)


def _python(rest: str, options: SourceOptions) -> Source:
    from inspection.line.sources.given import GivenParts

    module, colon, function = rest.partition(":")
    if not (module and colon and function):
        raise SettingError(f"--source python:MODULE:FUNCTION needs both names; got {rest!r}")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Callable[[], Iterable[Any]] = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise SourceError(
            f"python:{rest} cannot be imported ({error}); modules are looked for in {Path.cwd()}"
        ) from error
    finally:
        sys.path.pop(0)
    return GivenParts(found(), f"python:{rest}")


_NAMED: dict[str, Callable[[str, SourceOptions], Source]] = {
    "watch": _watch,
    "video": _video,
    "camera": _camera,
    "gige": _gige,
    "python": _python,
}
