"""Studies that were judged -> explained pictures: the images and slices that carry the score of the study.

Pixels are read and prepared as `anomaly triage run` does it, once more and for chosen studies only; what it refused is
not looked at. Of volumes, slices are explained: before a model of slices each by itself, before a model of whole
volumes while all other slices stay as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from anomaly.progress import Progress, silent
from anomaly.scoring import Verdict
from explain.gradients import GradientShap, IntegratedGradients
from explain.methods import Method
from explain.part import Explainer, Judged, Part
from explain.subject import SliceScore, Subject
from explain.twin import MOST_BASELINES, Twin, make_twin
from explain.writer import Unused
from medical.explaining.drawing import DIFFERENCES, Drawn, draw_image, draw_on_grid, draw_slice
from medical.explaining.normals import NormalContent, place_of
from medical.explaining.wording import missed_in_words, score_in_words
from medical.model import TriageModel
from medical.objects import Study, Volume
from medical.outcome import Analysed, Outcome
from medical.preparing import slices_of
from medical.privacy.log_fields import Event
from medical.privacy.logs import log, words_of
from medical.refusals import Reason, Refusal, RefusedError
from medical.scoring import Frames, Resampled, prepare
from medical.units import Pixels


@dataclass(frozen=True, eq=False)
class _Picture:
    """One image or slice that is to be explained.

    Attributes:
        frame: (1, h, w) float32 as the scorer takes it.
        place: where in its volume it lies, 0 to 1.
        drawn: how a viewer shows it.
        own: its own score, where that is not the score of the study.
        detail: which one of the study it is; empty where the study has one.
        subject: makes the subject of a twin and further normal frames.
        score: what scores frames in its place; None where the scorer does.
    """

    frame: Float[Tensor, "1 h w"]
    place: float
    drawn: Drawn
    own: float | None
    detail: str
    subject: Callable[[Twin, Tensor | None], Subject]
    score: Callable[[Tensor], Tensor] | None = None


@dataclass
class StudyExplainer:
    """Explains studies with one model.

    Attributes:
        model: what judged them.
        pixels: decodes objects.
        methods: what to explain with; controls are added.
        normals: content of normal studies; None where there is none.
        top: images or slices of a study that are explained at most.
        seed: seed of methods that draw samples.
        failures: receives what could not be explained, and why.
    """

    model: TriageModel
    pixels: Pixels
    methods: Sequence[Method]
    normals: NormalContent | None = None
    top: int = 3
    seed: int = 0
    failures: list[Unused] = field(default_factory=list)

    def explained(self, chosen: Sequence[tuple[Study, Outcome]], progress: Progress = silent) -> Iterator[Part]:
        """Explains studies in order; one that cannot be explained any more is a failure and stops no other.

        Args:
            chosen: studies with their outcomes, all with a score.
            progress: is told of every study.
        """
        explainer = Explainer(self.model.artifact, self.methods, self.seed)
        advance = progress("explaining studies", len(chosen) * self.top * explainer.steps)
        for study, outcome in chosen:
            done = 0

            def count(steps: int) -> None:
                nonlocal done
                done += steps
                advance(steps)

            try:
                for picture in self._pictures(study, outcome):
                    yield self._part(explainer, study, outcome, picture, count)
            except RefusedError as error:
                self._failed(outcome, error.refusal, error)
            except Exception as error:  # whatever it is, one study must not stop the others
                refusal = Refusal(Reason.FAILED, f"the explanation failed ({words_of(error)})")
                self._failed(outcome, refusal, error)
            advance(self.top * explainer.steps - done)

    def _failed(self, outcome: Outcome, refusal: Refusal, error: Exception) -> None:
        log(Event.FAILED, study=outcome.pseudonym, error=error)
        words = f"scored, but not explained, or not to the end: {refusal}"
        self.failures.append(Unused(f"study {outcome.pseudonym}", words, 0))

    def _part(
        self, explainer: Explainer, study: Study, outcome: Outcome, picture: _Picture, advance: Callable[[int], None]
    ) -> Part:
        scorer = self.model.artifact.scorer
        normals = self.normals.like(study.patient, picture.place) if self.normals else None
        twin = make_twin(scorer, picture.frame, normals, picture.score)
        more = normals.resized(*picture.frame.shape[-2:])[:MOST_BASELINES] if normals else None
        subject = picture.subject(twin, more)
        view = picture.drawn.view(score_in_words(outcome, self.model, picture.own), twin)
        if twin.sources and any(isinstance(method, IntegratedGradients | GradientShap) for method in self.methods):
            view = replace(view, notes=(*view.notes, DIFFERENCES))
        return explainer.part(judged_of(outcome), picture.frame, subject, view, detail=picture.detail, advance=advance)

    def _pictures(self, study: Study, outcome: Outcome) -> Iterator[_Picture]:
        ranked = sorted(outcome.analysed, key=lambda analysed: -analysed.score)
        if ranked[0].affine is None:
            yield from self._images(ranked)
        else:
            yield from self._slices(study, ranked[0], len(ranked))

    def _images(self, ranked: Sequence[Analysed]) -> Iterator[_Picture]:
        """Yields the image with the highest score, and others that would be flagged by themselves."""
        limit = self.model.artifact.calibration.review.value
        kept = [one for place, one in enumerate(ranked) if place == 0 or one.score > limit][: self.top]
        for rank, analysed in enumerate(kept, 1):
            instance, number = analysed.instances[0], analysed.frame or 1
            image = self.pixels.image(instance, number)
            prepared = prepare(image, self.model.contract, None)
            assert isinstance(prepared, Frames)
            drawn = draw_image(instance, number, prepared.values[0, 0].numpy())
            frame = prepared.values[0].clamp(*prepared.window)
            several = len(ranked) > 1
            detail = f"image {rank} of {len(ranked)}, highest score first" if several else ""
            place = f" ({drawn.place})" if several and drawn.place else ""
            own = analysed.score if several else None
            yield _Picture(frame, 0.0, drawn, own, detail + place, self._subject_of(frame))

    def _slices(self, study: Study, analysed: Analysed, volumes: int) -> Iterator[_Picture]:
        """Yields the slices of the volume with the highest score that carry it, the highest first."""
        wanted = {instance.uid for instance in analysed.instances}
        series = next(one for one in study.series if wanted <= {instance.uid for instance in one.instances})
        volume = self.pixels.volume(series)
        prepared = prepare(volume, self.model.contract, self.model.voxel)
        other = f"; the volume with the highest score of {volumes}" if volumes > 1 else ""
        made = self._of_frames(volume, prepared) if isinstance(prepared, Frames) else self._of_planes(volume, prepared)
        for picture in made:
            yield replace(picture, detail=picture.detail + other)

    def _of_frames(self, volume: Volume, prepared: Frames) -> Iterator[_Picture]:
        """Yields slices that the model scores each by itself."""
        scorer = self.model.artifact.scorer
        with torch.no_grad():
            scores = torch.cat([scorer(batch).score for batch in prepared.batches()])
        for index in scores.argsort(descending=True)[: self.top].tolist():
            values = prepared.values[index]
            frame, drawn = values.clamp(*prepared.window), draw_slice(volume, index, values[0].numpy())
            detail = _where(index, len(scores), volume.spacing[0], drawn)
            place, own = place_of(index, len(scores)), float(scores[index])
            yield _Picture(frame, place, drawn, own, detail, self._subject_of(frame))

    def _of_planes(self, volume: Volume, prepared: Resampled) -> Iterator[_Picture]:
        """Yields slices of the grid of a model of whole volumes, those where its map is highest."""
        scorer, placed, voxel = self.model.artifact.scorer, prepared.placed.as_tensor(), self.model.voxel
        assert voxel is not None
        with torch.no_grad():
            highest = scorer([placed]).map[0].amax(dim=(1, 2))
        scaled = slices_of(volume, self.model.contract)[:, 0].numpy()
        for index in highest.argsort(descending=True)[: self.top].tolist():
            frame = placed[:, index]
            drawn = draw_on_grid(volume, scaled, frame[0].numpy(), voxel)
            detail = _where(index, len(highest), voxel[0], drawn)

            def subject(twin: Twin, _: Tensor | None, index: int = index) -> Subject:
                return Subject.of_slice(scorer, placed, index, twin, self.seed)

            score = SliceScore(scorer, placed, index)
            yield _Picture(frame, place_of(index, len(highest)), drawn, None, detail, subject, score)

    def _subject_of(self, frame: Float[Tensor, "1 h w"]) -> Callable[[Twin, Tensor | None], Subject]:
        return lambda twin, more: Subject.of(self.model.artifact.scorer, frame, twin, more, self.seed)


def judged_of(outcome: Outcome) -> Judged:
    """Returns an analysed study as reports list it: by its pseudonym."""
    assert outcome.score is not None
    assert outcome.p_value is not None
    assert outcome.decision is not None
    verdict = Verdict(outcome.p_value, outcome.decision)
    return Judged(outcome.pseudonym, outcome.score, verdict, missed_in_words(outcome))


def _where(index: int, count: int, distance: float, drawn: Drawn) -> str:
    """Names a slice so that it is found in a viewer."""
    named = f", {drawn.place}" if drawn.place else ""
    return f"slice {index + 1} of {count} ({index * distance:.4g} mm from the first{named})"
