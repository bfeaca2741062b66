"""Writes what a run explains: report.html, report.pdf, report.json and figures/*.png and *.svg, part by part."""

import base64
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32

from anomaly.calibration import Calibration
from anomaly.errors import SettingError
from explain import figures
from explain.localisation import Lift, stretched
from explain.page import PartPage, html
from explain.part import Judged, Part
from explain.pdf import Pdf
from explain.summary import Clusters, clusters, lift_words, localised, reduced_map
from explain.view import Wording

HTML, PDF, JSON, FIGURES = "report.html", "report.pdf", "report.json", "figures"
NOT_ENDED = "the run has not ended, or it was killed"
"""What report.json says until the report is written, so that the next run knows the figures beside it."""
LONGEST_STEM = 80


@dataclass(frozen=True)
class About:
    """What a report says of its run.

    Attributes:
        title: headline, e.g. the name of the part.
        model: provenance, name -> value, in the order to be shown.
        calibration: thresholds and scores of normals.
        methods: names of the methods that were asked for.
        normals: names of the normal images that replaced regions; none where there were none.
        seed: seed of what is drawn.
        wording: what things are called, and what must be said.
        beside: names of files that may lie in the folder besides the report, and stay there.
    """

    title: str
    model: Mapping[str, str]
    calibration: Calibration
    methods: tuple[str, ...]
    normals: tuple[str, ...] = ()
    seed: int = 0
    wording: Wording = field(default_factory=Wording)
    beside: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unused:
    """What could not be judged or explained.

    Attributes:
        name: path of the file, or what people call it.
        reason: why, for people.
        objects: how many files or objects this stands for; 0 for what was judged and only not explained.
    """

    name: str
    reason: str
    objects: int = 1

    def __str__(self) -> str:
        """Returns "name: reason"."""
        return f"{self.name}: {self.reason}"


@dataclass
class _Kept:
    """What is remembered of the parts for the summary, small."""

    maps: dict[str, list[Float32[np.ndarray, "_ _"]]] = field(default_factory=dict)
    masks: list[Bool[np.ndarray, "_ _"]] = field(default_factory=list)
    marked: list[Bool[np.ndarray, "_ _"]] = field(default_factory=list)
    trust: dict[str, Counter[str]] = field(default_factory=dict)
    removed: dict[str, list[float]] = field(default_factory=dict)
    background: np.ndarray | None = None


class ReportWriter:
    """Writes figures as parts come in, and the reports at the end, also after an exception, which they then name.

    Memory: the encoded pictures of the parts, and their maps at 256 px.
    """

    def __init__(self, out: Path, about: About, judged: Sequence[Judged], chosen: Sequence[Judged]) -> None:
        """Remembers what was scored and what is to be explained; nothing is written before the `with` block."""
        self.out, self.about, self.judged, self.chosen = out, about, judged, chosen
        self.failures: list[Unused] = []
        self._pages: list[PartPage] = []
        self._rows: list[dict[str, Any]] = []
        self._kept = _Kept()
        self._stems: set[str] = set()
        self._pdf: Pdf

    def __enter__(self) -> "ReportWriter":
        """Makes the folder ready.

        Raises:
            SettingError: `out` is not a folder, or holds files that no earlier run has written.
        """
        earlier = refuse_foreign(self.out, self.about.beside)
        (self.out / FIGURES).mkdir(parents=True, exist_ok=True)
        begun = {"title": self.about.title, "interrupted": NOT_ENDED}
        (self.out / JSON).write_text(json.dumps(begun, indent=1) + "\n", encoding="utf-8")
        for path in earlier - {self.out / JSON}:
            path.unlink(missing_ok=True)
        self._pdf = Pdf(self.out / PDF, self.about.wording)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes the reports."""
        interrupted = f"{kind.__name__}: {error}" if kind else ""
        shown = {page.part.judged: page.part.judged.score for page in self._pages}
        scores = figures.scores_figure(
            self.about.calibration, [one.score for one in self.judged], list(shown.values()), self.about.wording
        )
        found, lifts = self._clusters(), localised(self._kept.maps, self._kept.masks, self.about.seed)
        pictures = {"scores": scores}
        if found is not None:
            assert self._kept.background is not None
            background = cv2.resize(self._kept.background, found.counts.shape[::-1], interpolation=cv2.INTER_AREA)
            pictures["clusters"] = figures.clusters_figure(found.counts, background, found.parts, self.about.wording)
        encoded = {name: figures.encoded(figure, "png") for name, figure in pictures.items()}
        for name, figure in pictures.items():
            self._write_figure(f"_{name}", figure, encoded[name])
        summary = self._summary(found, lifts)
        written = datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        text = {
            "headline": self.headline,
            "summary": summary,
            "table": self.table(),
            "lifts": [lift_words(name, lift) for name, lift in lifts.items()],
            "interrupted": interrupted,
            "written": written,
            "failures": [str(failure) for failure in self.failures],
        }
        uris = {name: _uri(picture) for name, picture in encoded.items()}
        others = [one for one in self.judged if one not in shown]
        (self.out / HTML).write_text(html(self.about, self._pages, others, uris, text), encoding="utf-8")
        self._pdf.close(self.about, encoded, text)
        (self.out / JSON).write_text(json.dumps(self._json(text, lifts), indent=1) + "\n", encoding="utf-8")

    @property
    def headline(self) -> str:
        """The outcome in plain words."""
        wording, counts = self.about.wording, Counter(str(one.verdict.decision) for one in self.judged)
        words = {name: badge.word for name, badge in wording.badges.items()}
        words |= {name: word[0].lower() + word[1:] for name, word in words.items() if not word.isupper()}
        decided = ", ".join(f"{counts[name]} {word}" for name, word in words.items() if counts[name])
        done = len({page.part.judged for page in self._pages})
        lost = sum(failure.objects for failure in self.failures)
        failed = f", {lost} {'file or object' if lost == 1 else 'files or objects'} could not be used" if lost else ""
        cases = wording.case if len(self.judged) == 1 else wording.cases
        return f"{len(self.judged)} {cases} scored: {decided or 'none'}; {done} explained{failed}"

    def add(self, part: Part) -> None:
        """Draws a part and remembers its figures."""
        stem = self._stem(part)
        sheet = figures.part_figure(part, self.about.wording)
        drawn = figures.encoded(sheet, "png")
        self._write_figure(stem, sheet, drawn)
        curves: bytes | None = None
        if part.ground.judged:
            plot = figures.curves_figure(part, self.about.wording)
            curves = figures.encoded(plot, "png")
            self._write_figure(f"{stem}_curves", plot, curves)
        page = PartPage(_light(part), _uri(drawn), _uri(curves) if curves else "", f"{FIGURES}/{stem}.svg")
        self._pages.append(page)
        place = f"{self.about.wording.case} {self.chosen.index(part.judged) + 1} of {len(self.chosen)}"
        self._pdf.part(page, drawn, curves, place, self.about.calibration.ng.value)
        self._rows.append(_row(part, page))
        self._keep(part)

    def table(self) -> list[dict[str, Any]]:
        """Returns one row per method over all parts: how often it held, and what its strongest 4 % takes away."""
        rows = []
        for name, counts in self._kept.trust.items():
            removed = self._kept.removed.get(name, [])
            rows.append(
                {
                    "method": name,
                    "holds": counts["holds"],
                    "doubtful": counts["doubtful"],
                    "not judged": counts["not judged"],
                    "removed": float(np.mean(removed)) if removed else None,
                }
            )
        return rows

    def _keep(self, part: Part) -> None:
        kept = self._kept
        for one in part.explained:
            name = one.explanation.method
            kept.trust.setdefault(name, Counter())[one.trust.word] += 1
            if one.found is not None:
                kept.removed.setdefault(name, []).append(one.found.removed)
            if name == "anomaly_map":
                kept.marked.append(reduced_map(one.marked.astype(np.float32)) > 0.5)
        if kept.background is None:
            kept.background = part.view.picture
        if part.mask is not None and part.mask.any():
            for one in part.explained:
                kept.maps.setdefault(one.explanation.method, []).append(reduced_map(one.explanation.map))
            kept.masks.append(stretched(part.mask, reduced_map(part.explained[0].explanation.map).shape))

    def _clusters(self) -> Clusters | None:
        return clusters(self._kept.marked) if self._kept.marked and self.about.wording.alike else None

    def _summary(self, found: Clusters | None, lifts: Mapping[str, Mapping[str, Lift]]) -> list[str]:
        wording = self.about.wording
        lines = [found.words] if found else []
        if not self.judged:
            lines.append(f"No {wording.case} could be judged: nothing is known of them.")
        elif not self.chosen:
            lines.append(f"No {wording.case} was flagged, so there is nothing to explain.")
        left = len(self.chosen) - len({page.part.judged for page in self._pages})
        flagged = sum(str(one.verdict.decision) != "OK" for one in self.judged)
        if flagged > len(self.chosen):
            missing = flagged - len(self.chosen)
            listed = f"{wording.case} is" if missing == 1 else f"{wording.cases} are"
            lines.append(f"{missing} flagged {listed} listed but not explained: raise --most.")
        if left:
            lines.append(f"{left} of {len(self.chosen)} {wording.cases} that were to be explained could not be.")
        if self._pages and not self.about.normals:
            lines.append(
                "No normal images were given, so what replaced regions is a stand-in: give --normals for figures that "
                "mean what they say."
            )
        if lifts:
            lines.append(
                f"The maps were compared with the known defects of {len(self._kept.masks)} of the explained images."
            )
        return lines

    def _json(self, text: Mapping[str, Any], lifts: Mapping[str, Mapping[str, Lift]]) -> dict[str, Any]:
        return {
            "title": self.about.title,
            "notice": " ".join((self.about.wording.notice, *self.about.wording.cautions)).strip(),
            "headline": text["headline"],
            "interrupted": text["interrupted"],
            "written": text["written"],
            "model": dict(self.about.model),
            "methods": list(self.about.methods),
            "normals": list(self.about.normals),
            "summary": text["summary"],
            "methods_over_parts": text["table"],
            "localisation": {name: {k: asdict(v) for k, v in found.items()} for name, found in lifts.items()},
            "images": [
                {
                    "name": one.name,
                    "score": one.score,
                    "p_value": one.verdict.p_value,
                    "decision": str(one.verdict.decision),
                    "note": one.note,
                }
                for one in self.judged
            ],
            "parts": self._rows,
            "failed": [asdict(failure) for failure in self.failures],
        }

    def _write_figure(self, stem: str, figure: Any, png: bytes) -> None:
        (self.out / FIGURES / f"{stem}.png").write_bytes(png)
        (self.out / FIGURES / f"{stem}.svg").write_bytes(figures.encoded(figure, "svg"))

    def _stem(self, part: Part) -> str:
        name = f"{Path(part.judged.label).stem} {part.detail}"
        plain = re.sub(r"[^A-Za-z0-9.-]+", "-", name)[:LONGEST_STEM].strip(".-") or "image"
        stem, number = plain, 1
        while stem in self._stems:
            number += 1
            stem = f"{plain}-{number}"
        self._stems.add(stem)
        return stem


def _light(part: Part) -> Part:
    """Returns a part without its pixels, which are drawn: words and numbers of many parts are held to the end."""
    gone = np.zeros((1, 1), np.float32)
    explained = tuple(
        replace(one, explanation=replace(one.explanation, map=gone), marked=gone > 0) for one in part.explained
    )
    view = replace(part.view, picture=np.zeros((1, 1, 3), np.uint8), twin=None, nearest=None)
    twin = replace(part.twin, image=torch.zeros(1, 1, 1))
    return replace(part, image=gone[..., None], view=view, twin=twin, explained=explained, mask=None)


def _row(part: Part, page: PartPage) -> dict[str, Any]:
    """The numbers of a part as JSON."""
    return {
        "name": part.judged.name,
        "detail": part.detail,
        "score": part.judged.score,
        "p_value": part.judged.verdict.p_value,
        "decision": str(part.judged.verdict.decision),
        "score_of_the_picture": part.ground.image,
        "twin": {"kind": part.twin.kind, "score": part.ground.twin, "sources": list(part.twin.sources[:5])},
        "judged": part.ground.judged,
        "nearest": asdict(part.nearest) if part.nearest else None,
        "figure": page.figure,
        "refused": part.refused,
        "explanations": [
            {
                "method": one.explanation.method,
                "control": one.control,
                "settings": dict(one.explanation.settings),
                "check": asdict(one.explanation.check) if one.explanation.check else None,
                "seconds": round(one.seconds, 3),
                "faithfulness": asdict(one.found) if one.found else None,
                "stability": asdict(one.stable) if one.stable else None,
                "localised": one.localised,
                "trust": one.trust.word,
                "warnings": list(one.trust.warnings),
            }
            for one in part.explained
        ],
    }


def _uri(png: bytes) -> str:
    """A picture for a page: JPEG where it is smaller, which photographs are."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    jpeg = bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 88])[1])
    kind, content = ("jpeg", jpeg) if len(jpeg) < len(png) else ("png", png)
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def refuse_foreign(out: Path, beside: Sequence[str] = ()) -> set[Path]:
    """Returns the files of an earlier report, which a new one replaces; call it before any work, too.

    Args:
        out: folder for the report.
        beside: names of files that may lie there besides the report.

    Raises:
        SettingError: `out` is not a folder, or holds files that no earlier run has written.
    """
    if out.exists() and not out.is_dir():
        raise SettingError.of("the report", "folder", "a folder that is empty or does not exist yet", str(out))
    own = {out / name for name in (HTML, PDF, JSON)}
    drawn = {path for path in (out / FIGURES).glob("*") if path.suffix in (".png", ".svg")}
    earlier = own | drawn if (out / JSON).is_file() else set()
    allowed = earlier | {out / FIGURES, *(out / name for name in beside)}
    foreign = sorted(path for path in out.rglob("*") if path not in allowed)
    if foreign:
        raise SettingError.of(
            "the report",
            "folder",
            f"new, empty, or hold only an earlier report (it holds {foreign[0].relative_to(out).as_posix()!r}); choose "
            "another",
            str(out),
        )
    return earlier
