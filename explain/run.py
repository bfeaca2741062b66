"""The whole job: files -> scores -> explanations of what was flagged with all their figures, part by part."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Shaped

from anomaly.artifact import Artifact
from anomaly.calibration import Decision
from anomaly.detector import Scorer
from anomaly.errors import DatasetError, ImageFileError, InputError, SettingError
from anomaly.images import ImageLoader, read_mask
from anomaly.images.files import images_below
from anomaly.progress import Progress, silent
from anomaly.scoring import Verdict, judge, score_files
from explain.cells import Blend, Cells
from explain.explanation import Explanation
from explain.faithfulness import MARKED, Faithfulness, Ground, faithfulness, ground
from explain.localisation import against_mask
from explain.methods import CONTROLS, TITLES, Method
from explain.nearest import Nearest, PatchSearch
from explain.stability import Stability, randomised, stability
from explain.subject import Subject
from explain.trust import KNOW_NOTHING, Trust, trust
from explain.twin import Normals, Twin, make_twin

Mask = Bool[np.ndarray, "h w"]
Advance = Callable[[int], None]
CHECKED = 3
"""Parts on which randomised weights and sensitivity are checked, the strangest: they cost three explanations each, and
tell about method and model more than about a part."""


@dataclass(frozen=True)
class Judged:
    """One file that was scored.

    Attributes:
        path: the image file.
        score: anomaly score.
        verdict: p-value and decision.
    """

    path: Path
    score: float
    verdict: Verdict


@dataclass(frozen=True)
class Explained:
    """One explanation with all that is known about it.

    Attributes:
        explanation: the map.
        seconds: how long it took.
        found: faithfulness; None where it could not be judged.
        stable: stability; None where it was not checked.
        trust: the verdict in words.
        localised: figures against the mask; empty without one.
        marked: (h, w) bool, the strongest 4 % of the image that were removed.
    """

    explanation: Explanation
    seconds: float
    found: Faithfulness | None
    stable: Stability | None
    trust: Trust
    localised: dict[str, float]
    marked: Bool[np.ndarray, "h w"]

    @property
    def title(self) -> str:
        """The name of the method for people."""
        return TITLES[self.explanation.method]

    @property
    def control(self) -> bool:
        """Whether it is there to be beaten."""
        return self.explanation.method in {c.name for c in CONTROLS}


@dataclass(frozen=True)
class Part:
    """One image, explained.

    Attributes:
        judged: file, score and verdict.
        image: (h, w, c) raw frame.
        twin: what it should have looked like.
        ground: scores that faithfulness rests on.
        nearest: the nearest normal patch; None without normal images or without a backbone.
        explained: methods, then controls.
        refused: methods that this model does not allow, with the reason.
        mask: (h, w) bool, the known defect; None where it is not known.
    """

    judged: Judged
    image: Shaped[np.ndarray, "h w c"]
    twin: Twin
    ground: Ground
    nearest: Nearest | None
    explained: tuple[Explained, ...]
    refused: dict[str, str]
    mask: Bool[np.ndarray, "h w"] | None = None

    @property
    def anomaly_map(self) -> Float32[np.ndarray, "h w"]:
        """The detector's own map, above its smallest value."""
        return next(e for e in self.explained if e.explanation.method == "anomaly_map").explanation.map


@dataclass
class Explainer:
    """Explains files with one model.

    Attributes:
        artifact: the model.
        methods: what to explain with; controls are added.
        normals: normal images; None where there are none.
        masks: folder with masks of known defects; None without.
        seed: seed of methods that draw samples.
        failures: files that could not be used.
    """

    artifact: Artifact
    methods: Sequence[Method]
    normals: Normals | None = None
    masks: Path | None = None
    seed: int = 0
    failures: list[ImageFileError] = field(default_factory=list)

    def judged(self, files: Sequence[Path], progress: Progress = silent) -> list[Judged]:
        """Scores files; the highest score first."""
        advance = progress("scoring", len(files))
        found = []
        for scored in score_files(self.artifact.scorer, files, self.failures):
            found.append(Judged(scored.path, scored.score, judge(self.artifact, scored.score)))
            advance(1)
        return sorted(found, key=lambda one: (-one.score, str(one.path)))

    def explained(self, chosen: Sequence[Judged], progress: Progress = silent) -> Iterator[Part]:
        """Explains parts in order; a file that has become unreadable or whose mask does not fit is a failure."""
        scorer = self.artifact.scorer
        search = PatchSearch.of(scorer, self.normals)
        forgotten = randomised(scorer, self.seed)
        typical = float(np.median(self.artifact.calibration.scores))
        per_part = len(self.methods) + len(CONTROLS)
        advance = progress("explaining", len(chosen) * per_part)
        finder = MaskFinder(self.masks) if self.masks else None
        for number, one in enumerate(chosen):
            loader = ImageLoader([one.path], scorer.input, 1)
            frames = [batch.images[0] for batch in loader]
            if not frames:
                self.failures.extend(loader.failures)
                advance(per_part)
                continue
            image = frames[0]
            try:
                mask = finder.find(one.path, image.shape[-2], image.shape[-1]) if finder else None
            except ImageFileError as error:
                self.failures.append(error)
                mask = None
            twin = make_twin(scorer, image, self.normals)
            more = self.normals.resized(*image.shape[-2:])[:8] if self.normals else None
            subject = Subject.of(scorer, image, twin, more, self.seed)
            blend = Blend(subject, Cells.over(subject.size))
            on = ground(blend, typical)
            explained, refused = self._all(subject, blend, on, forgotten if number < CHECKED else None, mask, advance)
            yield Part(
                judged=one,
                image=image.permute(1, 2, 0).numpy(),
                twin=twin,
                ground=on,
                nearest=search.nearest(subject) if search else None,
                explained=explained,
                refused=refused,
                mask=mask,
            )

    def _all(
        self, subject: Subject, blend: Blend, on: Ground, forgotten: Scorer | None, mask: Mask | None, advance: Advance
    ) -> tuple[tuple[Explained, ...], dict[str, str]]:
        """Explains one subject with every method; one that the model does not allow is refused, with its reason."""
        made: list[tuple[Method, Explanation, float]] = []
        refused: dict[str, str] = {}
        for method in [*self.methods, *CONTROLS]:
            started = time.perf_counter()
            try:
                made.append((method, method.explain(subject), time.perf_counter() - started))
            except (SettingError, InputError) as error:
                refused[method.name] = str(error)
            advance(1)
        faithful = {method.name: faithfulness(found, blend, on) for method, found, _ in made}
        explained = []
        for method, found, seconds in made:
            own = faithful[method.name]
            known = method.name not in KNOW_NOTHING
            stable = stability(method, found, subject, forgotten) if forgotten is not None and known else None
            verdict = trust(found, own, stable, on, faithful)
            localised = against_mask(found.map, mask) if mask is not None and mask.any() else {}
            marked = _marked(blend.cells, found)
            explained.append(Explained(found, seconds, own, stable, verdict, localised, marked))
        return tuple(explained), refused


def choose(judged: Sequence[Judged], most: int, everything: bool) -> list[Judged]:
    """Returns what to explain: what is not OK, or everything, the highest scores first, at most `most`."""
    return [one for one in judged if everything or one.verdict.decision != Decision.OK][:most]


class MaskFinder:
    """Finds the mask of an image: FOLDER/KIND/STEM_mask.png, FOLDER/STEM_mask.png, or the same without "_mask"."""

    def __init__(self, folder: Path) -> None:
        """Lists the folder.

        Raises:
            DatasetError: it holds no image.
        """
        files = images_below(folder) if folder.is_dir() else []
        if not files:
            raise DatasetError(f"{folder} holds no mask")
        self._files = {(file.parent.name if file.parent != folder else "", file.stem): file for file in files}

    def find(self, path: Path, height: int, width: int) -> Mask | None:
        """Returns the mask of an image; None where there is none.

        Raises:
            ImageFileError: the mask cannot be read or has another size.
        """
        for kind in (path.parent.name, ""):
            for stem in (f"{path.stem}_mask", path.stem):
                if (kind, stem) in self._files:
                    return read_mask(self._files[kind, stem], height, width)
        return None


def _marked(cells: Cells, found: Explanation) -> Mask:
    """Returns the strongest 4 % of the cells."""
    order = cells.ranked(found.map)
    strongest = np.zeros(cells.count, dtype=bool)
    strongest[order[: math.ceil(MARKED * cells.count - 1e-9)]] = True
    return np.asarray(strongest[cells.labels])
