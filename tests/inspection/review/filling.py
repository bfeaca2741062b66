"""A small store with pictures, filled as a line fills it, whose truth is known."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np

from anomaly.calibration import Decision
from inspection.parts import Defect, Inspected, Part, PartResult, Reason
from inspection.results.pictures import Look
from inspection.results.records import Run
from inspection.results.reporting import Reporter
from inspection.results.settings import PictureSettings, ResultsSettings

REVIEW_ABOVE, NG_ABOVE = 2.2, 3.2
START = datetime(2026, 11, 22, 6, tzinfo=UTC)
MODEL = "3f" * 32


def is_bad(part: str) -> bool:
    return part.endswith("-bad")


def fill(folder: Path, parts=120, bad=12, unjudged=3, seed=0, *, ok_share=0.3, run=None, step=60, size=(64, 96)) -> str:
    """Fills folder/results.sqlite and folder/pictures with one run; returns its id.

    Every `parts // bad`-th part is bad; the last `unjudged` ones could not be read. Ids end in -bad or -good.
    """
    rng = np.random.default_rng(seed)
    settings = ResultsSettings(pictures=PictureSettings(ok_share=ok_share, free_gigabytes=0.0))
    started = run or Run(id=f"run-{seed}", recipe="ab" * 32, model=MODEL, started=START, version="0.1.0")
    look = Look(scale=(1.0, 8.0), contour=4.0)
    with Reporter.open(settings, folder, started, look=look, publishers=[]) as reporter:
        for k in range(parts):
            wrong = k % (parts // bad) == parts // bad // 2
            name = f"part-{k:04d}-{'bad' if wrong else 'good'}"
            captured = START + timedelta(seconds=step * k)
            score = float(rng.normal(4.2, 1.2) if wrong else rng.normal())
            reporter.report([inspected(name, captured, score, rng, size)])
        for k in range(unjudged):
            part = Part(
                id=f"part-{parts + k:04d}-good",
                source=f"camera/{parts + k}.png",
                captured=START + timedelta(seconds=step * (parts + k)),
                problem="the file is truncated",
            )
            result = PartResult.not_judged(part, Decision.NG, Reason.UNREADABLE, part.problem, model=MODEL)
            reporter.report([Inspected(result)])
    return started.id


def inspected(name, captured, score, rng, size=(64, 96)) -> Inspected:
    """A part with a smooth surface and, if its score is high, a dark spot where its map is high."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    image = 150 + 25 * np.sin(columns / width * 9) + rng.normal(0, 5, (height, width))
    row, column = rng.integers(height // 4, 3 * height // 4), rng.integers(width // 4, 3 * width // 4)
    spot = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * (height / 14) ** 2))
    found = score > REVIEW_ABOVE
    image -= 80 * spot * found
    decision = Decision.NG if score > NG_ABOVE else Decision.REVIEW if found else Decision.OK
    defect = Defect(
        id=1,
        x_mm=column * 0.05,
        y_mm=row * 0.05,
        box_px=(int(row) - 4, int(column) - 4, int(row) + 4, int(column) + 4),
        area_mm2=0.16,
        length_mm=0.5,
        width_mm=0.4,
        peak=2 + score,
        mean=1 + score,
        p_value=0.005,
        severity="pit",
    )
    result = PartResult(
        part=name,
        source=f"camera/{name}.png",
        captured=captured,
        decision=decision,
        reason=Reason.SCORE,
        score=score,
        p_value=float(np.clip(np.exp(-max(score, 0.0)), 0.001, 1)),
        defects=(defect,) if found else (),
        recipe="ab" * 32,
        model=MODEL,
        milliseconds={"inspect": 12.5},
    )
    anomaly_map = (1 + spot * (2 + score) * found + rng.random((height, width)) * 0.3).astype(np.float32)
    return Inspected(result, image.clip(0, 255).astype(np.uint8)[..., None], anomaly_map)
