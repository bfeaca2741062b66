"""A part as a page shows it: its figures, and its picture embedded."""

import base64
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from anomaly.calibration import Decision
from inspection.parts import JUDGED, Defect, Image, PartResult
from inspection.results.pictures import ID
from inspection.results.records import Kind, StoredResult

LONGEST_SIDE = 1100
"""Pixels of an embedded picture; larger ones are made smaller."""
MOST_DEFECTS = 12
"""Defects in the table of a part."""
QUALITY = 82


@dataclass(frozen=True, kw_only=True)
class PartView:
    """What a page says of a part; texts are fit for HTML files whatever the file names are.

    Attributes:
        run: id of the run.
        part: id of the part, as it is.
        name: id of the part, for people.
        decision: "OK", "REVIEW" or "NG".
        reason: of the decision.
        detail: the reason in words.
        score: anomaly score; None if it was not judged.
        p_value: None if it was not judged.
        captured: when, in its own zone, to the second.
        source: where it came from.
        defects: the most severe ones.
        more_defects: how many more there are.
        verdict: "OK" or "NG", the latest that a person gave; "" without.
        why: why it is on the page.
        uri: its picture; "" without.
        overlaid: whether the picture shows the anomaly map.
        without: why there is no picture.
    """

    run: str
    part: str
    name: str
    decision: str
    reason: str
    detail: str
    score: float | None
    p_value: float | None
    captured: str
    source: str
    defects: tuple[Defect, ...]
    more_defects: int
    verdict: str
    why: str
    uri: str
    overlaid: bool
    without: str


def view(stored: StoredResult, pictures: Path, why: str = "", *, embed: bool = True) -> PartView:
    """Returns a part as a page shows it.

    Args:
        stored: the result.
        pictures: folder of the stored pictures.
        why: why it is on the page.
        embed: whether its picture is read and embedded.
    """
    result = stored.result
    uri, overlaid, without = _picture(stored, pictures) if embed else ("", False, "not embedded")
    return PartView(
        run=stored.run,
        part=result.part,
        name=text(result.part),
        decision=result.decision.value,
        reason=result.reason.value,
        detail=text(result.detail),
        score=result.score,
        p_value=result.p_value,
        captured=result.captured.isoformat(sep=" ", timespec="seconds"),
        source=text(result.source),
        defects=result.defects[:MOST_DEFECTS],
        more_defects=max(0, len(result.defects) - MOST_DEFECTS),
        verdict="" if stored.verdict is None else stored.verdict.verdict.value,
        why=why,
        uri=uri,
        overlaid=overlaid,
        without=without,
    )


def severity(result: PartResult) -> tuple[float, ...]:
    """Returns a key that sorts parts from harmless to severe: decision, then p-value, score, and area of the defects.

    Parts that were not judged come last among those of their decision: the page names them at its top.
    """
    if result.reason not in JUDGED:
        return (float(tuple(Decision).index(result.decision)), -2.0)
    area = sum(defect.area_mm2 for defect in result.defects)
    return (
        float(tuple(Decision).index(result.decision)),
        -float(result.p_value or 0.0),
        float(result.score or 0.0),
        area,
    )


def text(value: str) -> str:
    """Returns text that every file can hold, also where a file name was not UTF-8."""
    return os.fsencode(value).decode("utf-8", "backslashreplace") if value.isprintable() else ascii(value)[1:-1]


def stored_file(stored: StoredResult, kind: Kind, pictures: Path) -> Path | None:
    """Returns the file of a stored picture; None if it is not there, or the folder is another one.

    Args:
        stored: the result.
        kind: "raw" or "overlay".
        pictures: folder of the stored pictures.
    """
    for picture in stored.pictures:
        path = pictures / picture.path
        if picture.kind == kind and picture.folder == _folder_id(pictures) and path.is_file():
            return path
    return None


@lru_cache(maxsize=4)
def _folder_id(pictures: Path) -> str:
    try:
        return (pictures / ID).read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _picture(stored: StoredResult, pictures: Path) -> tuple[str, bool, str]:
    """The picture as data URI, whether it shows the map, and else why there is none."""
    if not stored.pictures:
        return "", False, "no picture was stored"
    kinds: tuple[Kind, Kind] = ("overlay", "raw")
    for kind in kinds:
        path = stored_file(stored, kind, pictures)
        uri = _embedded(path) if path else ""
        if uri:
            return uri, kind == "overlay", ""
    return "", False, f"its picture cannot be read in {text(str(pictures))}"


def _embedded(path: Path) -> str:
    """The picture as data URI of a JPEG; "" if it cannot be read."""
    import cv2
    import numpy as np

    from anomaly.report import display

    image = _read(path)
    if image is None:
        return ""
    shown = display(image, (0.0, 255.0))
    factor = LONGEST_SIDE / max(shown.shape[:2])
    if factor < 1:
        shown = np.asarray(cv2.resize(shown, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    encoded = bytes(cv2.imencode(".jpg", shown[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])
    return f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"


def _read(path: Path) -> Image | None:
    """Reads a stored picture (PNG, or TIFF where PNG cannot hold it) as (H, W, C); None if it is damaged or gone.

    `anomaly.images` would do, but loads torch, and a page should be there at once.
    """
    import cv2
    import numpy as np
    import tifffile

    try:
        if path.suffix == ".tiff":
            image = np.asarray(tifffile.imread(path))
        else:
            decoded = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED)
            if decoded is None:
                return None
            image = decoded[..., ::-1] if decoded.ndim == 3 else decoded
    except (OSError, ValueError, cv2.error):
        return None
    return image if image.ndim == 3 else image[..., None]
