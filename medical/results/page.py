"""The pixels of a summary: a dark page for a dark room, with the image, the score, and what is missing.

No patient data: the viewer shows those of the data set. Every decision is a word as well as a colour.
"""

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from anomaly.calibration import Decision
from anomaly.report.heatmap import BAR, overlay, pair
from anomaly.report.words import number
from medical.outcome import Algorithm, Analysed, Outcome
from medical.results.codes import REASONS
from medical.results.flagged import threshold
from medical.results.picture import Edges, Shown
from medical.results.stamp import WARNING

Page = UInt8[np.ndarray, "h w 3"]

WIDTH, HEIGHT, MARGIN = 1024, 760, 24
VIEW = 496
"""Side of the square that the image is fitted into."""
COLUMN = MARGIN + VIEW + 28
"""Left end of the column of words."""
ROOM = WIDTH - MARGIN - COLUMN
PAPER, PANEL, INK, FAINT = "#0c0a09", "#000000", "#f5f5f4", "#a8a29e"
ALERT, ALERT_INK = "#fbbf24", "#1c1917"
WORDS = {
    Decision.OK: (
        "NOT FLAGGED",
        "Not above the threshold. This does not mean that the study is normal.",
        "#57534e",
        "#ffffff",
    ),
    Decision.REVIEW: ("REVIEW", "Flagged: unlike the normal studies of the training.", "#fbbf24", "#1c1917"),
    Decision.NG: ("REVIEW FIRST", "Flagged: strongly unlike the normal studies of the training.", "#c2410c", "#ffffff"),
}
"""Decision -> word, sentence, background and ink of its badge."""
NOT_ANALYSED = (
    "NOT ANALYSED",
    "The model said nothing. This does not mean that the study is normal.",
    "#1d4ed8",
    "#ffffff",
)
LEAST = 1e-4
"""Right end of the scale of p-values."""
REASONS_SHOWN = 4


def draw_page(outcome: Outcome, algorithm: Algorithm, image: Shown | None, analysed: Analysed | None) -> Page:
    """Draws the summary of a study.

    Args:
        outcome: of the study.
        algorithm: what computed it.
        image: what is shown; None where nothing can be.
        analysed: where it comes from, for the scale and the contour of a map.

    Returns:
        (HEIGHT, WIDTH, 3) uint8 RGB.
    """
    canvas = Image.new("RGB", (WIDTH, HEIGHT), PAPER)
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((0, 0, WIDTH, 52), ALERT)
    draw.text((MARGIN, 27), WARNING, ALERT_INK, _font(26), anchor="lm")
    draw.text((WIDTH - MARGIN, 27), "Research use only. Not a medical device.", ALERT_INK, _font(18), anchor="rm")
    _image(canvas, draw, image, analysed)
    top = _decision(draw, outcome)
    if outcome.p_value is not None and outcome.score is not None:
        top = _score(draw, top, outcome.score, outcome.p_value, threshold(algorithm))
    _missing(draw, top, outcome)
    _footer(draw, algorithm)
    return np.asarray(canvas)


def _image(canvas: Image.Image, draw: ImageDraw.ImageDraw, image: Shown | None, analysed: Analysed | None) -> None:
    left, top = MARGIN, 76
    draw.rectangle((left, top, left + VIEW, top + VIEW), PANEL)
    if image is None or analysed is None:
        words = "no image was analysed" if analysed is None else "the image cannot be shown"
        draw.text((left + VIEW / 2, top + VIEW / 2), words, FAINT, _font(20), anchor="mm")
        return
    picture, has_map = image.picture, image.plane is not None
    height, width = _fitted_size(picture.shape[0] * image.aspect, picture.shape[1])
    if image.plane is not None:
        size = width, height
        values = cv2.resize(image.plane, size, interpolation=cv2.INTER_LINEAR)
        _, picture = pair(
            _scaled(picture, size), values, analysed.scale, analysed.contour, sides=(VIEW, VIEW), pointed=True
        )
    picture = _scaled(picture, (width, height))
    corner = left + (VIEW - width) // 2, top + (VIEW - height) // 2
    canvas.paste(Image.fromarray(picture), corner)
    _letters(draw, image.edges)
    draw.text((left + 8, top + 8), WARNING, ALERT, _font(13), stroke_width=2, stroke_fill="#000000")
    below = top + VIEW + 10
    caption = image.words or "the image with the highest score"
    draw.text((left, below), caption, FAINT, _font(16))
    if has_map:
        _legend(canvas, draw, below + 28, analysed)
    else:
        draw.text((left, below + 24), "Nothing is marked: heatmaps are off.", FAINT, _font(16))


def _scaled(picture: Page, size: tuple[int, int]) -> Page:
    smaller = size[0] < picture.shape[1] or size[1] < picture.shape[0]
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC), np.uint8)


def _fitted_size(height: float, width: float) -> tuple[int, int]:
    factor = VIEW / max(height, width)
    return max(1, round(height * factor)), max(1, round(width * factor))


def _letters(draw: ImageDraw.ImageDraw, edges: Edges) -> None:
    left, top = MARGIN, 76
    middle, inset = VIEW / 2, 8
    places = (
        (left + inset, top + middle, "lm"),
        (left + VIEW - inset, top + middle, "rm"),
        (left + middle, top + inset, "ma"),
        (left + middle, top + VIEW - inset, "md"),
    )
    for word, (x, y, anchor) in zip(edges, places, strict=True):
        draw.text((x, y), word, "#fde047", _font(22), anchor=anchor, stroke_width=3, stroke_fill="#000000")


def _legend(canvas: Image.Image, draw: ImageDraw.ImageDraw, top: int, analysed: Analysed) -> None:
    values = np.tile(np.linspace(*analysed.scale, VIEW, dtype=np.float32), (BAR, 1))
    bar = overlay(np.full((BAR, VIEW, 3), 90, np.uint8), values, analysed.scale, math.inf)
    canvas.paste(Image.fromarray(bar), (MARGIN, top))
    draw.text((MARGIN, top + BAR + 4), "as normal", FAINT, _font(15))
    draw.text((MARGIN + VIEW / 2, top + BAR + 4), "white line: the contour", FAINT, _font(15), anchor="ma")
    draw.text((MARGIN + VIEW, top + BAR + 4), "unlike normal", FAINT, _font(15), anchor="ra")


def _decision(draw: ImageDraw.ImageDraw, outcome: Outcome) -> int:
    word, sentence, background, ink = NOT_ANALYSED if outcome.decision is None else WORDS[outcome.decision]
    width = _font(30).getlength(word) + 40
    draw.rounded_rectangle((COLUMN, 76, COLUMN + width, 132), 8, background)
    draw.text((COLUMN + width / 2, 104), word, ink, _font(30), anchor="mm")
    return _paragraph(draw, 148, sentence, 19, INK) + 14


def _score(draw: ImageDraw.ImageDraw, top: int, score: float, p_value: float, limit: float | None) -> int:
    against = f" (flagged above {number(limit)})" if limit is not None else ""
    draw.text((COLUMN, top), f"Score {number(score)}{against}", INK, _font(19))
    top = _paragraph(draw, top + 30, share_in_words(p_value), 17, INK) + 18
    draw.line((COLUMN, top, COLUMN + ROOM, top), FAINT, 3)
    for share, word in ((1.0, "all"), (0.1, "1 in 10"), (0.01, "1 in 100"), (0.001, "1 in 1,000"), (LEAST, "fewer")):
        x = _place(share)
        draw.line((x, top - 5, x, top + 5), FAINT, 2)
        anchor = "la" if share == 1.0 else "ra" if share == LEAST else "ma"
        draw.text((x, top + 12), word, FAINT, _font(14), anchor=anchor)
    x = _place(p_value)
    draw.polygon([(x, top - 2), (x - 9, top - 18), (x + 9, top - 18)], "#fde047")
    draw.text((COLUMN, top + 34), "normal patients that score at least as high", FAINT, _font(14))
    return top + 70


def _place(share: float) -> float:
    return COLUMN + ROOM * min(1.0, math.log(max(share, LEAST)) / math.log(LEAST))


def share_in_words(p_value: float) -> str:
    """Returns what a p-value says, e.g. "About 3 in 1,000 normal patients score at least as high (p=0.003)."."""
    per = next((n for n in (10, 100, 1_000, 10_000) if p_value * n >= 1), 100_000)
    count = f"{p_value * per:.1f}".removesuffix(".0")
    return f"About {count} in {per:,} normal patients score at least as high (p={p_value:.2g})."


def _missing(draw: ImageDraw.ImageDraw, top: int, outcome: Outcome) -> None:
    """What was not analysed and why; the number of what does not fit."""
    if outcome.refusal is not None:
        draw.text((COLUMN, top), "Why", INK, _font(19))
        why = REASONS[outcome.refusal.reason]
        top = _paragraph(draw, top + 30, f"{outcome.refusal.reason}: {why}", 17, INK)
        top = _paragraph(draw, top + 4, outcome.refusal.detail, 15, FAINT, lines=4) + 16
    counts: dict[str, int] = {}
    for file in outcome.refused:
        counts[file.refusal.reason] = counts.get(file.refusal.reason, 0) + 1
    if not counts:
        if outcome.refusal is None:
            all_of_it = "The one image" if outcome.images == 1 else f"All {outcome.images} images"
            draw.text((COLUMN, top), f"{all_of_it} of the study: analysed.", FAINT, _font(16))
        return
    total = sum(counts.values())
    top = _paragraph(draw, top, f"Not analysed: {total} of {outcome.images} images", 19, ALERT) + 6
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    for reason, count in ranked[:REASONS_SHOWN]:
        top = _paragraph(draw, top, f"{count} x {reason}: {_reason_words(reason)}", 16, INK, lines=2) + 3
    if len(ranked) > REASONS_SHOWN:
        rest = sum(count for _, count in ranked[REASONS_SHOWN:])
        draw.text((COLUMN, top), f"{rest} more, for other reasons: see the report", FAINT, _font(16))


def _reason_words(reason: str) -> str:
    return next(words for known, words in REASONS.items() if known == reason)


def _footer(draw: ImageDraw.ImageDraw, algorithm: Algorithm) -> None:
    top = HEIGHT - 84
    draw.line((MARGIN, top, WIDTH - MARGIN, top), "#44403c", 1)
    settings = "   ".join(f"{name}: {value}" for name, value in algorithm.settings.items())
    lines = (
        f"{algorithm.name} {algorithm.version}   model {algorithm.model[:16]}",
        settings,
        "Raises priorities only. A study that is not flagged keeps its place and is read as usual.",
    )
    for index, line in enumerate(lines):
        draw.text((MARGIN, top + 10 + 22 * index), _cut(line, 15, WIDTH - 2 * MARGIN), FAINT, _font(15))


def _paragraph(draw: ImageDraw.ImageDraw, top: int, text: str, size: int, ink: str, lines: int = 3) -> int:
    """Draws wrapped text in the column of words; returns where it ends."""
    wrapped = _wrapped(text.split(), size)
    if len(wrapped) > lines:
        wrapped = [*wrapped[: lines - 1], _cut(" ".join(wrapped[lines - 1 :]), size, ROOM)]
    for line in wrapped:
        draw.text((COLUMN, top), _cut(line, size, ROOM), ink, _font(size))
        top += round(size * 1.4)
    return top


def _wrapped(words: Sequence[str], size: int) -> list[str]:
    lines = [""]
    for word in words:
        longer = f"{lines[-1]} {word}".strip()
        if _font(size).getlength(longer) <= ROOM or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _cut(text: str, size: int, room: float) -> str:
    """Leaves out the end of what is too long; "?" for what cannot be drawn."""
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    if _font(size).getlength(text) <= room:
        return text
    while text and _font(size).getlength(text + "…") > room:
        text = text[:-1]
    return text + "…"


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
