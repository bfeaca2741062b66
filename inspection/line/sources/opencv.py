"""Video files, USB cameras and IP cameras through OpenCV. Frames are RGB or grey, uint8."""

from collections.abc import Generator
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from typing import Any

from inspection.line.errors import SourceError
from inspection.line.sources.base import Forgetful, FrameIds
from inspection.parts import Image, Part

_PAUSE_S = 1.0


class VideoFile(Forgetful):
    """The frames of a video file, each once. Ids are the name of the file and the number of the frame, from 1."""

    def __init__(self, path: Path) -> None:
        """Looks whether the file can be opened.

        Raises:
            SourceError: it is missing, or no video that OpenCV can read.
        """
        self.name = str(path)
        self._path = path
        _opened(
            str(path), f"{path} is no video that OpenCV can read; check the path, or convert it to MP4 or AVI"
        ).release()

    def parts(self, stop: Event) -> Generator[Part, None, None]:
        """Yields the frames; a file that ends before the number of frames in its header ends with a problem."""
        import cv2

        video = _opened(self.name, f"{self._path} cannot be opened any more")
        try:
            stated, count = int(video.get(cv2.CAP_PROP_FRAME_COUNT)), 0
            while not stop.is_set():
                captured = datetime.now(UTC)
                there, frame = video.read()
                count += 1
                names: dict[str, Any] = {
                    "id": f"{self._path.stem}-{count:06d}",
                    "source": self.name,
                    "captured": captured,
                }
                if there:
                    yield Part(**names, image=_rgb(frame))
                    continue
                if count <= stated:
                    yield Part(
                        **names, problem=f"cannot be read: the video breaks off; its header states {stated} frames"
                    )
                return
        finally:
            video.release()


class Camera(Forgetful):
    """A USB camera by its number, or an IP camera by its address; frames as they come.

    A camera that fails is opened again until it delivers; meanwhile the line's watchdog raises the alarm. OpenCV keeps
    a few frames of its own, so a frame may be some tens of milliseconds older than the time at which it was read.
    """

    def __init__(self, address: int | str) -> None:
        """Opens the camera.

        Args:
            address: 0, 1, ... for USB cameras, or e.g. "rtsp://192.168.0.10/stream". A password in it is not repeated.

        Raises:
            SourceError: there is no such camera, or it cannot be opened.
        """
        self.name = f"camera {_without_password(address)}"
        self._address = address
        self._camera: Any = _opened(address, f"{self.name} cannot be opened; check that it is connected and not in use")

    def parts(self, stop: Event) -> Generator[Part, None, None]:
        """Yields frames until `stop` is set."""
        ids = FrameIds()
        try:
            while not stop.is_set():
                there, frame = self._camera.read()
                captured = datetime.now(UTC)
                if there:
                    yield Part(id=ids.next(), source=self.name, captured=captured, image=_rgb(frame))
                else:
                    self._reopen(stop)
        finally:
            self._camera.release()

    def _reopen(self, stop: Event) -> None:
        self._camera.release()
        while not stop.wait(_PAUSE_S):
            try:
                self._camera = _opened(self._address, "")
            except SourceError:
                continue
            return


def _opened(address: int | str, otherwise: str) -> Any:
    import cv2

    capture = cv2.VideoCapture(address)
    if not capture.isOpened():
        capture.release()
        raise SourceError(otherwise)
    return capture


def _rgb(frame: Image) -> Image:
    """Returns OpenCV's frame as (H, W, 3) RGB or (H, W, 1)."""
    import cv2

    if frame.ndim == 2:
        return frame[..., None]
    converted: Image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) if frame.shape[-1] == 3 else frame
    return converted


def _without_password(address: int | str) -> str:
    before, at, host = str(address).rpartition("@")
    return f"{before.partition('://')[0]}://...@{host}" if at else str(address)
