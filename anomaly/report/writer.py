"""Writes what a run finds, part by part: nothing is lost when the run stops early, and memory stays small."""

import base64
import csv
import heapq
import json
import math
import os
import re
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain, count
from pathlib import Path
from types import TracebackType
from typing import TextIO

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Shaped, UInt8

from anomaly.calibration import Calibration
from anomaly.errors import SettingError
from anomaly.report.heatmap import display, pair, panel
from anomaly.report.page import Page, Thumbnail
from anomaly.report.rows import COLUMNS, Row, headline
from anomaly.report.words import NOT_SCORED, number

CSV, JSONL, HTML, HEATMAPS = "results.csv", "results.jsonl", "report.html", "heatmaps"
MOST_THUMBNAILS = 400
"""Parts with embedded pictures in the report; about 15 MB. The highest scores are kept."""
THUMBNAIL_SIDES = 256, 512
ENCODING = {".png": [], ".jpg": [cv2.IMWRITE_JPEG_QUALITY, 82]}
LONGEST_STEM = 80


class ResultWriter:
    """Writes results.csv, results.jsonl and heatmaps/*.png as parts come in, and report.html at the end.

    Use it in a `with` statement. After an exception in its body the report covers what was scored until then and says
    that it is incomplete. Memory: one row per part and the small encoded pictures of at most 400 parts.

    Attributes:
        metrics: name -> value, shown in the report; set it before the end of the `with` block where the truth is known.
    """

    def __init__(
        self,
        out: Path,
        *,
        title: str,
        model: Mapping[str, str],
        calibration: Calibration,
        scale: tuple[float, float],
        contour: float,
        value_range: tuple[float, float] = (0.0, 255.0),
    ) -> None:
        """Remembers what the report will say; nothing is written before the `with` block begins.

        Args:
            out: folder of the results; it is made where it is missing. It may hold the results of an earlier run, which
                are replaced, and nothing else.
            title: headline of the report, e.g. the name of the part.
            model: provenance, name -> value, in the order to be shown.
            calibration: thresholds and scores of the normals held out.
            scale: map values where the colours of the heatmaps begin and end; one for all parts.
            contour: pixel threshold of the map, in the unit of the map.
            value_range: lowest and highest raw value of the images, as `InputSpec.value_range`.

        Raises:
            SettingError: `scale` has no extent.
        """
        if not scale[0] < scale[1]:
            raise SettingError.of("ResultWriter", "scale", "(low, high) with low < high", scale)
        self.out = out
        self.metrics: Mapping[str, float] = {}
        self._page = Page(title=title, model=model, calibration=calibration, scale=scale, contour=contour)
        self._value_range = value_range
        self._stems: set[str] = set()
        self._pictured: list[tuple[float, int]] = []
        self._files = ExitStack()
        self._csv: csv.DictWriter[str]
        self._streams: tuple[TextIO, TextIO]

    def __enter__(self) -> "ResultWriter":
        """Makes the folder ready and opens the tables.

        Raises:
            SettingError: `out` is not a folder, or holds files that no earlier run has written.
        """
        _clear(self.out)
        (self.out / HEATMAPS).mkdir(parents=True, exist_ok=True)
        table = (self.out / CSV).open("w", encoding="utf-8", newline="")
        lines = (self.out / JSONL).open("w", encoding="utf-8", newline="\n")
        self._streams = self._files.enter_context(table), self._files.enter_context(lines)
        self._csv = csv.DictWriter(table, COLUMNS)
        self._csv.writeheader()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes report.html, also after an exception, which is passed on."""
        self._files.close()
        self._page.metrics = self.metrics
        self._page.interrupted = f"{kind.__name__}: {error}" if kind else ""
        (self.out / HTML).write_text(self._page.html(), encoding="utf-8")

    @property
    def headline(self) -> str:
        """The outcome so far in plain words: "37 parts scored: 5 NG, 3 REVIEW, 29 OK, 1 could not be scored"."""
        return headline(self._page.rows)

    def add(
        self,
        path: Path | str,
        image: Shaped[np.ndarray, "h w c"],
        anomaly_map: Float32[np.ndarray, "h w"],
        score: float,
        p_value: float,
        decision: str,
        label: int | None = None,
        kind: str = "",
        mask: Bool[np.ndarray, "h w"] | None = None,
    ) -> None:
        """Records a part that was judged. A score or map that is not finite is recorded as `failed`.

        Args:
            path: the image file.
            image: (H, W, C) uint8, uint16 or float32, raw values.
            anomaly_map: (H, W) float32 at the resolution of the image.
            score: anomaly score, raw; higher is more anomalous.
            p_value: conformal p-value in (0, 1].
            decision: "OK", "REVIEW" or "NG".
            label: 1 for a part known to be defective, 0 for one known to be good.
            kind: kind of the known defect.
            mask: (H, W) bool, where the known defect is.
        """
        if not (math.isfinite(score) and np.isfinite(anomaly_map).all()):
            self.failed(path, "the model gave a score or an anomaly map that is not a finite number")
            return
        name, contour = _text(path), self._page.contour
        peak_y, peak_x = (int(k) for k in np.unravel_index(anomaly_map.argmax(), anomaly_map.shape))
        row = Row(
            path=name,
            decision=str(decision),
            score=float(score),
            p_value=float(p_value),
            label=label,
            kind=kind,
            width=image.shape[1],
            height=image.shape[0],
            peak_x=peak_x,
            peak_y=peak_y,
            area_above_threshold=float((anomaly_map > contour).mean()),
            heatmap=f"{HEATMAPS}/{self._stem(Path(path))}.png",
        )
        self._record(row)
        picture = display(image, self._value_range)
        facts = f"score {number(score)} · p-value {number(p_value)} · strongest at x {peak_x}, y {peak_y}"
        drawn = panel(
            picture,
            anomaly_map,
            self._page.scale,
            contour,
            title=Path(name).name,
            decision=row.decision,
            facts=f"{facts} · known: {kind}" if kind else facts,
            mask=mask,
        )
        (self.out / row.heatmap).write_bytes(_encoded(drawn, ".png"))
        if self._makes_room(float(score)):
            original, overlaid = pair(
                picture,
                anomaly_map,
                self._page.scale,
                contour,
                sides=THUMBNAIL_SIDES,
                pointed=row.decision != "OK",
                mask=mask,
            )
            known = mask is not None and bool(mask.any())
            thumbnail = Thumbnail(_data_uri(original), _data_uri(overlaid), known)
            self._page.thumbnails[len(self._page.rows) - 1] = thumbnail

    def failed(self, path: Path | str, reason: str) -> None:
        """Records a part that could not be judged.

        Args:
            path: the image file.
            reason: why, in words.
        """
        self._record(Row(path=_text(path), decision=NOT_SCORED, reason=reason))

    def _record(self, row: Row) -> None:
        """Writes a row to both tables, before its picture: what the tables do not name is nobody's to replace."""
        self._page.rows.append(row)
        values = asdict(row)
        self._csv.writerow(values)
        self._streams[1].write(json.dumps(values) + "\n")
        for stream in self._streams:
            stream.flush()

    def _stem(self, path: Path) -> str:
        """A name for the picture that is safe in every file system and not yet taken."""
        stem = _safe(path.stem)
        wishes = chain([stem, f"{_safe(path.parent.name)}_{stem}"], (f"{stem}-{k}" for k in count(2)))
        free = next(wish for wish in wishes if wish.casefold() not in self._stems)
        self._stems.add(free.casefold())
        return free

    def _makes_room(self, score: float) -> bool:
        """Whether the latest part is among the highest scores; drops the pictures of the one that no longer is."""
        latest = score, len(self._page.rows) - 1
        if len(self._pictured) < MOST_THUMBNAILS:
            heapq.heappush(self._pictured, latest)
            return True
        dropped = heapq.heappushpop(self._pictured, latest)
        if dropped != latest:
            del self._page.thumbnails[dropped[1]]
        return dropped != latest


def _clear(out: Path) -> None:
    """Removes the results of an earlier run; refuses a folder that holds anything else."""
    if out.exists() and not out.is_dir():
        raise SettingError.of("the results", "folder", "a folder that is empty or does not exist yet", str(out))
    found = {path for path in out.rglob("*") if path != out / HEATMAPS} if out.exists() else set()
    own = _own(out)
    foreign = sorted(found - own)
    if foreign:
        raise SettingError.of(
            "the results",
            "folder",
            f"new, empty, or hold only the results of an earlier run (it holds {len(foreign)} other file(s), such as "
            f"{foreign[0].relative_to(out).as_posix()!r}); choose another",
            str(out),
        )
    for path in found:
        path.unlink()


def _own(out: Path) -> set[Path]:
    """What an earlier run has written, as its table names it; nothing if the table is missing or not one of ours."""
    table = out / CSV
    if not table.is_file():
        return set()
    with table.open(encoding="utf-8", errors="replace", newline="") as stream:
        rows = csv.DictReader(stream)
        if tuple(rows.fieldnames or ()) != COLUMNS:
            return set()
        heatmaps = {out / row["heatmap"] for row in rows if row["heatmap"]}
    return {table, out / JSONL, out / HTML} | heatmaps


def _text(path: Path | str) -> str:
    """The path as text that every file can hold, also where its bytes are not UTF-8."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _safe(stem: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "_", stem)[:LONGEST_STEM].strip(".") or "image"


def _encoded(picture: UInt8[np.ndarray, "h w 3"], extension: str) -> bytes:
    return bytes(cv2.imencode(extension, picture[..., ::-1], ENCODING[extension])[1])


def _data_uri(picture: UInt8[np.ndarray, "h w 3"]) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(_encoded(picture, '.jpg')).decode()}"
