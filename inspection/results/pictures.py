"""Pictures of parts on disk: the raw frame, lossless, and the heatmap over it; whole or not there, and not for ever.

    pictures/2026-11-22/<run>/<part>-<hash>.raw.png       (.tiff for float32 and for numbers of channels no PNG has)
    pictures/2026-11-22/<run>/<part>-<hash>.overlay.png

Names keep what is harmless of the part's id and are unique by a hash of all of it. The file `folder.id` names the
folder to the store, so that lines that share a store, and folders that were moved, are not mixed up.
"""

import hashlib
import os
import re
import shutil
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from anomaly.calibration import Decision
from anomaly.errors import AnomalyError, SettingError
from inspection.parts import Image, Inspected, PartResult
from inspection.results.records import Kind, Picture
from inspection.results.settings import PictureSettings

ID = "folder.id"
_PARTIAL = ".partial"
_LONGEST = 60
_DAY = 86400
_HARMLESS = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How heatmaps are drawn, the same for all parts of a model.

    Attributes:
        scale: map values where the colours begin and end.
        contour: map value above which pixels are outlined.
        value_range: lowest and highest raw value of the images.
    """

    scale: tuple[float, float]
    contour: float
    value_range: tuple[float, float] = (0.0, 255.0)

    def __post_init__(self) -> None:
        """Refuses a scale without extent."""
        if not self.scale[0] < self.scale[1]:
            raise SettingError.of("Look", "scale", "(low, high) with low < high", self.scale)


class PictureFolder:
    """Writes the pictures that the settings ask for.

    Attributes:
        id: names the folder in the store.
        path: where it is.
    """

    def __init__(self, settings: PictureSettings, folder: Path, look: Look | None) -> None:
        """Makes the folder.

        Args:
            settings: which pictures are stored.
            folder: of the recipe.
            look: how heatmaps are drawn; None only where the settings ask for none.

        Raises:
            SettingError: heatmaps are asked for without a look, or the folder cannot be made.
        """
        if look is None and (settings.overlay or settings.ok_share):
            raise SettingError.of("the pictures", "look", "given, because the recipe asks for overlays", look)
        self._settings = settings
        self._look = look
        self.path = folder.absolute() / settings.folder
        try:
            (self.path / _PARTIAL).mkdir(parents=True, exist_ok=True)
            self.id = self._identify()
        except OSError as error:
            raise SettingError(f"{self.path}: pictures cannot be written there ({error.strerror})") from error
        self._clean()

    def write(self, run: str, inspected: Inspected) -> list[Picture]:
        """Writes the pictures of a part that the settings ask for.

        Returns:
            What is on the disk now; empty where the settings ask for none, or the part has no image.

        Raises:
            PictureError: one cannot be written; those before it are in the error.
        """
        written: list[Picture] = []
        for kind in self._wanted(inspected):
            try:
                self._require_room()
                suffix, content = self._drawn(kind, inspected)
                name = f"{_name(inspected.result.part)}.{kind}.{suffix}"
                written.append(self._save(kind, f"{datetime.now(UTC):%Y-%m-%d}/{_name(run)}/{name}", content))
            except (OSError, ValueError, AnomalyError) as error:
                reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
                raise PictureError(f"picture of part {inspected.result.part!r}: {reason}", written) from error
        return written

    def locate(self, picture: Picture) -> Path | None:
        """Returns where a stored picture lies; None if it lies in another folder."""
        return self.path / picture.path if picture.folder == self.id else None

    def _wanted(self, inspected: Inspected) -> list[Kind]:
        result = inspected.result
        sampled = result.decision == Decision.OK and _share(result) < self._settings.ok_share
        kinds: list[Kind] = []
        if inspected.image is not None and (sampled or result.decision.value in self._settings.raw):
            kinds.append("raw")
        drawable = inspected.image is not None and inspected.map is not None
        if drawable and (sampled or result.decision.value in self._settings.overlay):
            kinds.append("overlay")
        return kinds

    def _require_room(self) -> None:
        free = shutil.disk_usage(self.path).free
        if free < self._settings.free_gigabytes * 1e9:
            raise PictureError(f"only {free / 1e9:.2f} GB are free, which are kept for results", [])

    def _drawn(self, kind: Kind, inspected: Inspected) -> tuple[str, bytes]:
        assert inspected.image is not None
        if kind == "raw":
            return lossless(inspected.image)
        assert inspected.map is not None
        assert self._look is not None
        return "png", _overlay(inspected.image, inspected.map, inspected.result, self._look)

    def _save(self, kind: Kind, path: str, content: bytes) -> Picture:
        """Writes a file so that it is on the disk, and whole, before it has its name."""
        target, partial = self.path / path, self.path / _PARTIAL / uuid.uuid4().hex
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():  # what was written for this part before, stays
            try:
                with partial.open("wb") as stream:
                    stream.write(content)
                    stream.flush()
                    os.fsync(stream.fileno())
                partial.replace(target)
            finally:
                partial.unlink(missing_ok=True)
        return Picture(kind=kind, folder=self.id, path=path, bytes=target.stat().st_size, written=datetime.now(UTC))

    def _identify(self) -> str:
        """Reads the id of the folder, or gives it one; of two processes that do so at once one wins."""
        place, mine = self.path / ID, self.path / _PARTIAL / uuid.uuid4().hex
        mine.write_text(uuid.uuid4().hex)
        with suppress(FileExistsError):
            os.link(mine, place)
        mine.unlink()
        return place.read_text().strip()

    def _clean(self) -> None:
        """Removes what killed processes have left half written."""
        for leftover in (self.path / _PARTIAL).iterdir():
            with suppress(OSError):
                if datetime.now(UTC).timestamp() - leftover.stat().st_mtime > _DAY:
                    leftover.unlink()


class PictureError(AnomalyError):
    """A picture could not be written; the result of its part is stored without it.

    Attributes:
        written: pictures of the part that were written before.
    """

    def __init__(self, reason: str, written: list[Picture]) -> None:
        """Stores the reason and what was written."""
        super().__init__(reason)
        self.written = written


def _share(result: PartResult) -> float:
    """A number in [0, 1) by which OK parts are chosen; the same whenever the part is seen again."""
    digest = hashlib.sha256(result.part.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _name(text: str) -> str:
    """A name of harmless letters, unique by a hash, also where upper and lower case are the same."""
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return f"{_HARMLESS.sub('_', text)[:_LONGEST].lstrip('.') or 'part'}-{digest}"


def lossless(image: Image) -> tuple[str, bytes]:
    """Encodes a frame without loss: suffix and content of a PNG file; of a TIFF file where PNG cannot hold it."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    if image.dtype in (np.uint8, np.uint16) and channels in (1, 3):
        import cv2

        shown = image[..., ::-1] if channels == 3 else image
        done, encoded = cv2.imencode(".png", np.ascontiguousarray(shown), [cv2.IMWRITE_PNG_COMPRESSION, 1])
        if not done:
            raise ValueError("cannot be encoded as PNG")
        return "png", encoded.tobytes()
    import io

    import tifffile

    stream = io.BytesIO()
    planes = None if channels == 1 else "contig"
    tifffile.imwrite(stream, image, compression="zlib", photometric="minisblack", planarconfig=planes)
    return "tiff", stream.getvalue()


def _overlay(image: Image, anomaly_map: NDArray[np.float32], result: PartResult, look: Look) -> bytes:
    import cv2

    from anomaly.report.heatmap import display, panel
    from anomaly.report.words import number

    picture = display(image if image.ndim == 3 else image[..., None], look.value_range)
    judged = (
        [f"score {number(result.score)}", f"p-value {number(result.p_value)}"]
        if result.score is not None and result.p_value is not None
        else []
    )
    found = [f"{len(result.defects)} defect{'s' if len(result.defects) > 1 else ''}"] if result.defects else []
    drawn = panel(
        picture,
        np.ascontiguousarray(anomaly_map, dtype=np.float32),
        look.scale,
        look.contour,
        title=result.part,
        decision=result.decision.value,
        facts=" · ".join([*judged, *found, *([result.detail] if result.detail else [])]),
    )
    return cv2.imencode(".png", drawn[..., ::-1])[1].tobytes()
