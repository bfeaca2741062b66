"""drift.html and drift.json: what moved since when, in one file that opens without a network."""

import base64
import json
import os
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from anomaly.drift.charts import evidence_chart, ewma_chart
from anomaly.drift.run import DriftResult
from anomaly.errors import ImageFileError
from anomaly.images import read_image
from anomaly.report import display
from anomaly.report.templates import template

HTML, JSON = "drift.html", "drift.json"
EXAMPLES = 6
_SIDE = 256


class Example(NamedTuple):
    """A picture in the report.

    Attributes:
        uri: data URI of the picture.
        caption: number of the image and file name.
    """

    uri: str
    caption: str


def write_report(
    out: Path,
    result: DriftResult,
    *,
    title: str,
    model: Mapping[str, str],
    value_range: tuple[float, float],
    failures: Sequence[ImageFileError],
) -> Path:
    """Writes both files and returns the HTML one; files of these names are replaced.

    Args:
        out: folder; it is made where it is missing.
        result: of the run.
        title: headline of the report.
        model: provenance, name -> value.
        value_range: lowest and highest raw value of the images.
        failures: files that could not be used.
    """
    out.mkdir(parents=True, exist_ok=True)
    failed = [{"path": _text(failure.path), "reason": failure.reason} for failure in failures]
    content = {"model": dict(model), **result.to_dict(), "failed": failed}
    (out / JSON).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    last = len(result.paths)
    late = range(result.since, last) if result.alarms else range(max(0, last - EXAMPLES), last)
    html = template(Path(__file__).parent / "drift.html.j2").render(
        title=title,
        result=result,
        evidence=evidence_chart(result),
        ewma={name: ewma_chart(result, name) for name in result.numbers.names},
        alarmed={alarm.name: alarm for alarm in result.alarms},
        early=_examples(result, range(min(EXAMPLES, result.since or last)), value_range),
        late=_examples(result, late, value_range),
        model=model,
        failed=failed,
        written=datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
    )
    (out / HTML).write_text(html, encoding="utf-8")
    return out / HTML


def _examples(result: DriftResult, images: range, value_range: tuple[float, float]) -> list[Example]:
    """Pictures of at most `EXAMPLES` images, spread evenly; eight-bit grey values stay comparable between them."""
    places = np.linspace(images.start, images.stop - 1, EXAMPLES) if images else np.empty(0)
    found = []
    for k in np.unique(places.round().astype(int)):
        path = result.paths[int(k)]
        picture = display(read_image(path), value_range)
        factor = min(1.0, _SIDE / max(picture.shape[:2]))
        if factor < 1:
            picture = np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
        encoded = bytes(cv2.imencode(".jpg", picture[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1])
        uri = f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}"
        found.append(Example(uri, f"{int(k) + 1}: {_text(path.name)}"))
    return found


def _text(path: Path | str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
