"""GigE Vision and USB3 Vision cameras through harvesters and the GenTL producer (.cti) of the camera's vendor.

Pixel formats follow the names of the GenICam Pixel Format Naming Convention: Mono8 to Mono16 unpacked, RGB8, BGR8 and
the 8-bit Bayer patterns.
"""

from collections.abc import Generator
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np

from anomaly.errors import MissingExtraError
from inspection.line.errors import SourceError
from inspection.line.sources.base import Forgetful, FrameIds
from inspection.parts import Image, Part

_WAIT_S = 1.0
_GAP = 1000
_LOST = "the frame was lost or arrived incomplete; check network, packet size and cable"
_BAYER = {"BayerRG8": "COLOR_BayerBG2RGB", "BayerBG8": "COLOR_BayerRG2RGB"}
_BAYER |= {"BayerGR8": "COLOR_BayerGB2RGB", "BayerGB8": "COLOR_BayerGR2RGB"}
_GREY = {"Mono8": np.uint8, "Mono10": np.uint16, "Mono12": np.uint16, "Mono14": np.uint16, "Mono16": np.uint16}
_FORMATS = (*_GREY, "RGB8", "BGR8", *_BAYER)


class GigECamera(Forgetful):
    """Frames of one camera, as it delivers them; what it is set to (exposure, trigger) stays as it is."""

    def __init__(self, producer: Path, serial_number: str = "") -> None:
        """Connects to the camera.

        Args:
            producer: GenTL producer of the camera's vendor, *.cti.
            serial_number: of the camera; "" takes the only one that is found.

        Raises:
            MissingExtraError: harvesters is not installed.
            SourceError: the producer cannot be loaded, or not exactly one camera fits.
        """
        if find_spec("harvesters") is None:
            raise MissingExtraError.of("harvesters", "gige", "GigE Vision")
        if not producer.is_file():
            raise SourceError(
                f"{producer} is no GenTL producer; name the .cti file of the camera's vendor with --producer"
            )
        self.name = f"GigE camera {serial_number}".strip()
        self._harvester, self._camera = _connected(producer, serial_number)

    def parts(self, stop: Event) -> Generator[Part, None, None]:
        """Yields frames until `stop` is set; each frame that got lost is a part with a problem."""
        ids, last = FrameIds(), None
        self._camera.start()
        try:
            while not stop.is_set():
                buffer = self._camera.try_fetch(timeout=_WAIT_S)
                captured = datetime.now(UTC)
                if buffer is None:
                    continue
                with buffer:
                    image, problem = frame_of(buffer)
                    number = int(buffer.frame_id)
                for _ in range(lost_frames(last, number)):
                    yield Part(id=ids.next(), source=self.name, captured=captured, problem=_LOST)
                last = number
                yield Part(id=ids.next(), source=self.name, captured=captured, image=image, problem=problem)
        finally:
            self._camera.stop()

    def close(self) -> None:
        """Lets the camera go."""
        self._camera.destroy()
        self._harvester.reset()


def lost_frames(last: int | None, number: int) -> int:
    """Returns how many frames are missing between two that came, by the camera's numbers.

    harvesters discards frames that arrive incomplete, so a gap is all that is left of them. A number that goes back, or
    far ahead, is a camera that has begun to count anew (GigE Vision counts 1 to 65,535 or to 2^64 - 1).
    """
    missing = 0 if last is None else number - last - 1
    return missing if 0 < missing < _GAP else 0


def frame_of(buffer: Any) -> tuple[Image | None, str]:
    """Returns (H, W, 1) or (H, W, 3) RGB from a buffer of harvesters, or None and why there is no image."""
    if not buffer.payload.components:
        return None, "the camera sent no image in the frame"
    component = buffer.payload.components[0]
    height, width, name = component.height, component.width, component.data_format
    if name not in _FORMATS:
        return None, f"the camera sends {name}; set its PixelFormat to one of {', '.join(_FORMATS)}"
    data: Image = np.array(component.data)  # a copy: the buffer is the camera's
    channels = 3 if name in ("RGB8", "BGR8") else 1
    dtype = np.dtype(_GREY.get(name, np.uint8))
    if data.size != height * width * channels or data.dtype != dtype:
        return None, f"the frame has {data.size} values of {data.dtype}; {height} x {width} {name} was announced"
    return _as_rgb(data.reshape(height, width, channels), name), ""


def _as_rgb(data: Image, name: str) -> Image:
    import cv2

    if name == "BGR8":
        return np.ascontiguousarray(data[..., ::-1])
    if name in _BAYER:
        # OpenCV names a pattern by its second row and column, GenICam by its first.
        colour: Image = cv2.cvtColor(data[..., 0], getattr(cv2, _BAYER[name]))
        return colour
    return data


def _connected(producer: Path, serial_number: str) -> tuple[Any, Any]:
    from harvesters.core import Harvester

    harvester = Harvester()
    try:
        harvester.add_file(str(producer), check_existence=True, check_validity=True)
        harvester.update()
        found = [info.serial_number for info in harvester.device_info_list]
        fitting = [name for name in found if serial_number in ("", name)]
        if len(fitting) != 1:
            raise SourceError(
                f"{len(fitting)} cameras fit, exactly 1 is needed; found serial numbers: {', '.join(found) or 'none'}. "
                "Check cable and network, or name one, like --source gige:12345"
            )
        return harvester, harvester.create({"serial_number": fitting[0]})
    except SourceError:
        harvester.reset()
        raise
    except Exception as error:  # every producer raises its own
        harvester.reset()
        raise SourceError(f"{producer}: the camera cannot be opened ({error})") from error
