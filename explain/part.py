"""One image, explained: what every method says of it, and how far each can be believed."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath

import numpy as np
from jaxtyping import Bool, Float32, Shaped
from torch import Tensor

from anomaly.artifact import Artifact
from anomaly.detector import Scorer
from anomaly.errors import InputError, SettingError
from anomaly.scoring import Verdict
from explain.cells import Blend, Cells
from explain.explanation import Explanation
from explain.faithfulness import MARKED, Faithfulness, Ground, faithfulness, ground
from explain.localisation import against_mask
from explain.methods import CONTROLS, TITLES, Method
from explain.nearest import Nearest
from explain.stability import Stability, randomised, stability
from explain.subject import Subject
from explain.trust import KNOW_NOTHING, Trust, trust
from explain.twin import Twin
from explain.view import View

Mask = Bool[np.ndarray, "h w"]
Advance = Callable[[int], None]
CHECKED = 3
"""Parts on which randomised weights and sensitivity are checked, the strangest: they cost three explanations each, and
tell about method and model more than about a part."""


@dataclass(frozen=True)
class Judged:
    """What was scored: an image file, or what a frontend judges as one.

    Attributes:
        name: path of the file, or what people call it.
        score: anomaly score.
        verdict: p-value and decision.
        note: a sentence on what the score leaves out; empty where it leaves nothing out.
    """

    name: str
    score: float
    verdict: Verdict
    note: str = ""

    @property
    def label(self) -> str:
        """The name without its folders."""
        return PurePath(self.name).name


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
        judged: what was scored.
        image: (h, w, c) raw frame.
        view: how it is shown.
        twin: what it should have looked like.
        ground: scores that faithfulness rests on.
        nearest: the nearest normal patch; None without normal images or without a backbone.
        explained: methods, then controls.
        refused: methods that this model does not allow, with the reason.
        mask: (h, w) bool, the known defect; None where it is not known.
        detail: which image of what was judged, e.g. "slice 3 of 24"; empty where it is one image.
    """

    judged: Judged
    image: Shaped[np.ndarray, "h w c"]
    view: View
    twin: Twin
    ground: Ground
    nearest: Nearest | None
    explained: tuple[Explained, ...]
    refused: dict[str, str]
    mask: Bool[np.ndarray, "h w"] | None = None
    detail: str = ""

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.judged.label}, {self.detail}" if self.detail else self.judged.label

    @property
    def anomaly_map(self) -> Float32[np.ndarray, "h w"]:
        """The detector's own map, above its smallest value."""
        return next(e for e in self.explained if e.explanation.method == "anomaly_map").explanation.map


@dataclass
class Explainer:
    """Explains images before one model with several methods and all controls, and tests every map.

    Attributes:
        artifact: the model.
        methods: what to explain with; controls are added.
        seed: seed of methods that draw samples.
    """

    artifact: Artifact
    methods: Sequence[Method]
    seed: int = 0
    _checked: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        """Makes the copy of the model that has forgotten everything."""
        self._forgotten = randomised(self.artifact.scorer, self.seed)
        self._typical = float(np.median(self.artifact.calibration.scores))

    @property
    def steps(self) -> int:
        """How often `part` reports progress."""
        return len(self.methods) + len(CONTROLS)

    def part(
        self,
        judged: Judged,
        frame: Tensor,
        subject: Subject,
        view: View,
        *,
        nearest: Nearest | None = None,
        mask: Mask | None = None,
        detail: str = "",
        advance: Advance = lambda _: None,
    ) -> Part:
        """Explains one image.

        Args:
            judged: what was scored.
            frame: (C, h, w) raw values.
            subject: the frame before the scorer.
            view: how it is shown.
            nearest: the nearest normal patch.
            mask: (h, w) bool, the known defect.
            detail: see `Part`.
            advance: is told of every method that is done.
        """
        blend = Blend(subject, Cells.over(subject.size))
        on = ground(blend, self._typical)
        forgotten = self._forgotten if self._checked < CHECKED else None
        self._checked += 1
        explained, refused = self._all(subject, blend, on, forgotten, mask, advance)
        return Part(
            judged=judged,
            image=frame.permute(1, 2, 0).numpy(),
            view=view,
            twin=subject.twin,
            ground=on,
            nearest=nearest,
            explained=explained,
            refused=refused,
            mask=mask,
            detail=detail,
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


def _marked(cells: Cells, found: Explanation) -> Mask:
    """Returns the strongest 4 % of the cells."""
    order = cells.ranked(found.map)
    strongest = np.zeros(cells.count, dtype=bool)
    strongest[order[: math.ceil(MARKED * cells.count - 1e-9)]] = True
    return np.asarray(strongest[cells.labels])
