"""Crops of defects, cut from the stored raw frames: what each defect looks like."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from anomaly.images import read_image
from inspection.report.view import stored_file
from inspection.results.pictures import lossless
from inspection.results.records import StoredResult

_CONTEXT = 0.5
_LEAST_PX = 8


class Crops(NamedTuple):
    """What became of the defects.

    Attributes:
        written: crops that were written.
        without_frame: defects whose raw frame is not stored, or no longer.
    """

    written: int
    without_frame: int


def write_crops(out: Path, results: Iterable[StoredResult], pictures: Path) -> Crops:
    """Writes one picture per defect, with half its box (8 px at least) around it; depth and channels stay.

    A file is named after the stored frame and the number of the defect on its part: `FRAME-1.png` of `FRAME.raw.png`.

    Args:
        out: folder; made if it does not exist.
        results: stored results.
        pictures: folder of the stored pictures.

    Raises:
        ImageFileError: a stored frame cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = without_frame = 0
    for stored in results:
        defects = stored.result.defects
        frame = stored_file(stored, "raw", pictures) if defects else None
        if frame is None:
            without_frame += len(defects)
            continue
        image = read_image(frame)
        for defect in defects:
            rows, columns = _around(*defect.box_px[::2]), _around(*defect.box_px[1::2])
            suffix, content = lossless(image[rows, columns])
            (out / f"{frame.stem.removesuffix('.raw')}-{defect.id}.{suffix}").write_bytes(content)
            written += 1
    return Crops(written, without_frame)


def _around(first: int, last: int) -> slice:
    margin = max(_LEAST_PX, round(_CONTEXT * (last - first)))
    return slice(max(0, first - margin), last + margin)
