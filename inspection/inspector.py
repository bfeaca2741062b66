"""A recipe put to work: parts in, results out. Whatever is wrong with a part ends as its result, never as OK."""

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import numpy as np

from anomaly.calibration import Decision
from anomaly.deploy.runtime import Runtime, load
from anomaly.errors import InputError
from inspection.defects import DefectFinder
from inspection.geometry.errors import NotRegisteredError
from inspection.measuring import Measured, Measuring, View, as_bands
from inspection.part_calibration import Thresholds
from inspection.parts import Inspected, Part, PartResult, Reason
from inspection.recipe.files import measuring_of, thresholds_of
from inspection.recipe.recipe import Recipe


class _Viewed(NamedTuple):
    """A part whose frame can be scored, and how long it took to get there."""

    place: int
    part: Part
    view: View
    milliseconds: float


class RecipeInspector:
    """Judges parts as a recipe says; an `Inspector`.

    Attributes:
        recipe: the recipe.
        runtime: the model.
        measuring: how frames become maps.
        thresholds: what decides.
    """

    def __init__(self, recipe: Recipe, runtime: Runtime, measuring: Measuring, thresholds: Thresholds) -> None:
        """Takes what `open` has checked."""
        self.recipe, self.runtime, self.measuring, self.thresholds = recipe, runtime, measuring, thresholds
        self._finder = DefectFinder(
            threshold=thresholds.defects.ng.value,
            p_value=lambda peak: float(thresholds.defects.p_value(peak)),
            rules=recipe.defects,
            pixel_size_mm=recipe.frame.pixel_size_mm,
        )

    @classmethod
    def open(cls, path: Path) -> "RecipeInspector":
        """Reads a recipe, checks every file that it names, loads the model and warms it up.

        Raises:
            RecipeError: the recipe has a fault, or a file is not the one that it was made with.
            ArtifactError: the model or the calibration is damaged.
            DeviceError: the device is not there.
            MissingExtraError: the package of the runtime is not installed.
        """
        recipe = Recipe.read(path)
        wanted = recipe.runtime
        model = recipe.file("model.file", recipe.model.file, recipe.model.sha256)
        thresholds = thresholds_of(recipe)
        runtime = load(model, device=wanted.device, provider=wanted.provider, threads=wanted.threads)
        inspector = cls(recipe, runtime, measuring_of(recipe), thresholds)
        inspector.warm_up()
        return inspector

    @property
    def contour(self) -> float:
        """Map value above which pixels belong to defects."""
        return self._finder.threshold

    @property
    def scale(self) -> tuple[float, float]:
        """Map values where the colours of a heatmap begin and end; the contour lies in the middle."""
        low = min(self.runtime.manifest.map_typical, self.contour - 1e-6 * max(1.0, abs(self.contour)))
        return low, 2 * self.contour - low

    @property
    def value_range(self) -> tuple[float, float]:
        """Lowest and highest raw value of a frame."""
        return self.runtime.frame.value_range

    def warm_up(self) -> None:
        """Runs the model on what it will see, where the recipe says how large that is: first runs are slow."""
        golden, tiling = self.measuring.golden, self.measuring.tiling
        size = (tiling.size, tiling.size) if tiling else golden.image.shape[:2] if golden else self.measuring.frame
        if size is None or self.runtime.frame.height is not None:
            self.runtime.warm_up(1)
            return
        shape = (1, *size) if self.runtime.frame.layout == "NHWC" else (1, self.runtime.frame.channels, *size)
        self.runtime(np.full(shape, self.runtime.frame.value_range[0], self.runtime.frame.dtype))

    def __call__(self, parts: Sequence[Part]) -> list[Inspected]:
        """Returns one result per part, in order; parts whose frames are alike go through the model together."""
        results: dict[int, Inspected] = {}
        viewed = []
        for index, part in enumerate(parts):
            found = self._viewed(index, part)
            if isinstance(found, Inspected):
                results[index] = found
            else:
                viewed.append(found)
        viewed.sort(key=lambda found: found.view.pixels.shape)
        for _, alike in groupby(viewed, key=lambda found: found.view.pixels.shape):
            together = list(alike)
            for found, inspected in zip(together, self._measured(together), strict=True):
                results[found.place] = inspected
        return [results[index] for index in range(len(parts))]

    def _viewed(self, index: int, part: Part) -> _Viewed | Inspected:
        begun = time.perf_counter()
        if part.image is None:
            return self._failed(part, Reason.UNREADABLE, part.problem)
        try:
            pixels = as_bands(part.image, self.runtime.frame.channels)
            if str(pixels.dtype) != self.runtime.frame.dtype:
                raise InputError(f"a frame must be {self.runtime.frame.dtype}, as the model takes; got {pixels.dtype}")
            return _Viewed(index, part, self.measuring.view(pixels), _since(begun))
        except NotRegisteredError as error:
            return self._failed(part, Reason.NOT_REGISTERED, str(error))
        except InputError as error:
            return self._failed(part, Reason.UNREADABLE, str(error))
        except Exception as error:  # one part must never stop the line
            return self._failed(part, Reason.ERROR, _in_words(error))

    def _measured(self, viewed: list[_Viewed]) -> Iterator[Inspected]:
        """Yields the results of parts whose frames are alike; after a failure each part is tried by itself."""
        done = 0
        try:
            begun = time.perf_counter()
            for measured in self.measuring.measured([found.view for found in viewed], self.runtime):
                yield self._judged(viewed[done], measured, _since(begun))
                done += 1
                begun = time.perf_counter()
        except Exception as error:
            if len(viewed) > 1:
                for found in viewed[done:]:
                    yield from self._measured([found])
            else:
                reason = Reason.UNREADABLE if isinstance(error, InputError) else Reason.ERROR
                yield self._failed(viewed[0].part, reason, _in_words(error))

    def _judged(self, viewed: _Viewed, measured: Measured, milliseconds: float) -> Inspected:
        begun = time.perf_counter()
        defects = self._finder.find(measured.map, measured.judged)
        by_score, by_defects = self.thresholds.score.decide(measured.score), self._finder.decision(defects)
        order = tuple(Decision)
        by_defects_alone = order.index(by_defects) > order.index(by_score)
        result = PartResult(
            part=viewed.part.id,
            source=viewed.part.source,
            captured=viewed.part.captured,
            decision=by_defects if by_defects_alone else by_score,
            reason=Reason.DEFECTS if by_defects_alone else Reason.SCORE,
            detail=_of_defects(len(defects), defects[0].severity, defects[0].area_mm2) if by_defects_alone else "",
            score=measured.score,
            p_value=float(self.thresholds.score.p_value(measured.score)),
            defects=defects,
            recipe=self.recipe.sha256,
            model=self.recipe.model.sha256,
            milliseconds={"prepare": viewed.milliseconds, "score": milliseconds, "defects": _since(begun)},
        )
        return Inspected(result, viewed.part.image, measured.map)

    def _failed(self, part: Part, reason: Reason, detail: str) -> Inspected:
        known = {"recipe": self.recipe.sha256, "model": self.recipe.model.sha256}
        return Inspected(PartResult.not_judged(part, self.recipe.line.unjudged, reason, detail, **known), part.image)


def _of_defects(count: int, severity: str, area_mm2: float) -> str:
    return f"{count} defect{'s' * (count > 1)}, the most severe: {severity}, {area_mm2:.3g} mm2"


def _in_words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _since(begun: float) -> float:
    return (time.perf_counter() - begun) * 1000
