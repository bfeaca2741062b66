"""The job: a study -> an `Outcome`. What cannot be judged is NOT_ANALYSED, with its reason, and never "low"."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import numpy as np

from medical.model import TriageModel
from medical.objects import UNKNOWN, Image, RefusedFile, Study, Volume
from medical.outcome import Analysed, Outcome, Priority
from medical.privacy.log_fields import Event
from medical.privacy.logs import log
from medical.pseudonyms import Pseudonyms
from medical.refusals import Reason, Refusal, RefusedError
from medical.scoring import UnitScore, prepare
from medical.units import Pixels, Read, instances_of, one_for_each, read_ahead, summed_up


class Triage:
    """Judges studies with one model."""

    def __init__(
        self,
        model: TriageModel,
        pixels: Pixels,
        pseudonyms: Pseudonyms,
        keep_maps: bool = False,
        priorities: Callable[[str], Priority | None] = lambda study: None,
    ) -> None:
        """Keeps what is needed.

        Args:
            model: the model.
            pixels: decodes objects.
            pseudonyms: names for logs and files.
            keep_maps: whether outcomes keep the anomaly maps.
            priorities: Study Instance UID -> the site's priority, where a worklist of the site states it; None leaves
                it to the objects.
        """
        self._model = model
        self._pixels = pixels
        self._pseudonyms = pseudonyms
        self._keep_maps = keep_maps
        self._priorities = priorities

    def outcomes(self, studies: Iterable[Study]) -> Iterator[Outcome]:
        """Judges studies in their order; the next one is read while one is scored."""
        for study, read in read_ahead(studies, self._model.contract, self._pixels):
            yield self._outcome(study, read)

    def _outcome(self, study: Study, read: list[Read]) -> Outcome:
        refused = [one for one in read if isinstance(one, RefusedFile)]
        analysed: list[Analysed] = []
        for unit in read:
            if not isinstance(unit, RefusedFile):
                found = self._analysed(unit)
                if isinstance(found, Refusal):
                    refused += [RefusedFile(i.path, found, i.study) for i in instances_of(unit)]
                else:
                    analysed.append(found)
        everything = one_for_each(refused)
        score = max((one.score for one in analysed), default=None)
        calibration = self._model.artifact.calibration
        instances = study.instances
        shown = analysed[0].instances[0] if analysed else instances[0] if instances else None
        return Outcome(
            study=study.uid,
            pseudonym=self._pseudonyms.of(study.uid),
            site_priority=self._site_priority(study),
            acquired=min((i.acquired for i in instances if i.acquired), default=None),
            modality=shown.modality if shown else UNKNOWN,
            decision=None if score is None else calibration.decide(score),
            score=score,
            p_value=None if score is None else float(calibration.p_value(score)),
            analysed=tuple(analysed),
            refused=tuple(one for one in everything if one.refusal.of_image),
            refusal=summed_up(everything) if score is None else None,
            objects=len(instances) + len(study.refused),
            others=tuple(one for one in everything if not one.refusal.of_image),
        )

    def _analysed(self, unit: Image | Volume) -> Analysed | Refusal:
        model = self._model
        try:
            prepared = prepare(unit, model.contract, model.voxel)
            distance = float(model.familiarity.distance(prepared.layout()[None])[0])
            if not model.familiarity.knows(distance):
                far = f"distance {distance:.3g}, limit {model.familiarity.limit:.3g}"
                words = f"this is not the kind of image that the model was trained on ({far})"
                return Refusal(Reason.OUT_OF_DISTRIBUTION, words)
            found = prepared.score(model.artifact.scorer, model.aggregation)
        except RefusedError as error:
            return error.refusal
        except Exception as error:  # whatever it is, one study must not stop the others
            log(Event.FAILED, error=error)
            return Refusal(Reason.FAILED, f"the analysis failed ({type(error).__name__})")
        if not math.isfinite(found.score) or not np.isfinite(found.map).all():
            return Refusal(Reason.FAILED, "the analysis gave no finite score or map")
        return self._made(unit, found)

    def _made(self, unit: Image | Volume, found: UnitScore) -> Analysed:
        calibration, maps = self._model.artifact.calibration, self._model.artifact.map_calibration
        image = isinstance(unit, Image)
        made = Analysed(
            instances=instances_of(unit),
            frame=unit.frame if isinstance(unit, Image) else None,
            score=found.score,
            p_value=float(calibration.p_value(found.score)),
            map=found.map,
            contour=maps.threshold.value,
            scale=maps.scale,
            affine=None if image else unit.affine,  # type: ignore[union-attr]
        )
        return made if self._keep_maps else replace(made, map=None)

    def _site_priority(self, study: Study) -> Priority:
        stated = self._priorities(study.uid)
        if stated is not None:
            return stated
        known = [Priority(i.priority) for i in study.instances if i.priority in Priority.__members__]
        return min(known, key=lambda priority: priority.rank, default=Priority.ROUTINE)
