"""Normal studies -> a calibrated triage model. Patients are never split; every object is read once, none is held."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import chain

import numpy as np
from jaxtyping import Float32
from torch import Tensor

from anomaly.artifact import Artifact, MapCalibration, Training
from anomaly.calibration import Calibration, Decision, calibrate, hold_out
from anomaly.detector import Detector, Scorer
from anomaly.errors import AnomalyError, CalibrationError, DatasetError
from anomaly.fitting import Plan, fingerprint_of
from anomaly.progress import Progress, silent
from medical.contract import Contract
from medical.familiarity import learn
from medical.model import Aggregation, TriageModel
from medical.objects import Instance, RefusedFile, Study
from medical.preparing import Voxel
from medical.refusals import Reason, Refusal, RefusedError
from medical.scoring import Prepared, UnitScore, prepare
from medical.subgroups import Member, subgroups
from medical.units import Pixels, Read, instances_of, read_ahead, summed_up

UNIT = "patient"

Layouts = list[Float32[np.ndarray, " d"]]


@dataclass
class _HeldOut:
    """What is collected of normal studies that the fit has not seen: one entry per study, layouts one per unit."""

    patients: list[str] = field(default_factory=list)
    first: list[Instance] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    highest: list[float] = field(default_factory=list)
    typical: list[float] = field(default_factory=list)
    layouts: Layouts = field(default_factory=list)
    objects: int = 0

    def add(self, study: Study, first: Instance, scores: Sequence[UnitScore]) -> None:
        self.patients.append(study.patient)
        self.first.append(first)
        self.scores.append(max(score.score for score in scores))
        self.highest.append(max(score.highest for score in scores))
        self.typical.append(float(np.median([score.typical for score in scores])))

    def members(self, calibration: Calibration) -> Iterator[Member]:
        """Yields each patient with whether any of their studies is flagged."""
        flags: dict[str, bool] = {}
        for patient, score in zip(self.patients, self.scores, strict=True):
            flags[patient] = flags.get(patient, False) or calibration.decide(score) != Decision.OK
        first = dict(zip(reversed(self.patients), reversed(self.first), strict=True))
        yield from (Member(first[patient], flagged) for patient, flagged in flags.items())


@dataclass
class StudyFit:
    """A fit on studies.

    Attributes:
        pixels: decodes the objects.
        contract: what the model may be asked about; objects that it refuses are not learned from.
        plan: share of the patients held out, and wanted rates; its groups are those of the studies.
        aggregation: slices -> volume.
        voxel: voxel size of a detector of whole volumes; None for images and slices.
        progress: is told what is being done.
        refused: receives what could not be learned from.
    """

    pixels: Pixels
    contract: Contract
    plan: Plan
    aggregation: Aggregation = field(default_factory=Aggregation)
    voxel: Voxel | None = None
    progress: Progress = silent
    refused: list[RefusedFile] = field(default_factory=list)

    def fit(self, detector: Detector, studies: Sequence[Study]) -> TriageModel:
        """Fits a detector on studies of normal patients and calibrates it on patients that it holds out.

        Raises:
            CalibrationError: fewer than two patients, or none held out can be used.
            DatasetError: no study can be learned from.
        """
        ordered = sorted(studies, key=lambda study: study.uid)
        first: dict[str, str] = {}  # a patient is named after a study: keys of patients differ from run to run
        patients = {study.uid: first.setdefault(study.patient, study.uid) for study in ordered}
        names = [study.uid for study in ordered]
        fitted, held = hold_out(names, seed=detector.seed, fraction=self.plan.fraction, groups=patients)
        order = np.random.default_rng(detector.seed).permutation(len(fitted))  # the first may be taken as typical
        layouts: Layouts = []
        used: list[Instance] = []
        scorer = self._learn(detector, [ordered[fitted[i]] for i in order], layouts, used)
        found = self._score(scorer, [ordered[i] for i in held])
        calibrated = partial(
            calibrate,
            groups=found.patients,
            unit=UNIT,
            review_rate=self.plan.review_rate,
            ng_rate=self.plan.ng_rate,
            confidence=self.plan.confidence,
        )
        calibration = calibrated(found.scores)
        artifact = Artifact(
            scorer=scorer,
            calibration=calibration,
            map_calibration=MapCalibration(float(np.median(found.typical)), calibrated(found.highest).ng),
            training=Training(
                images=len(used),
                held_out=found.objects,
                fingerprint=fingerprint_of([instance.path for instance in used]),
                created=datetime.now(UTC).isoformat(timespec="seconds"),
            ),
        )
        return TriageModel(
            artifact=artifact,
            contract=self.contract,
            familiarity=learn(np.stack(layouts), np.stack(found.layouts)),
            aggregation=self.aggregation,
            voxel=self.voxel,
            subgroups=subgroups(found.members(calibration)),
        )

    def _learn(self, detector: Detector, studies: Sequence[Study], layouts: Layouts, used: list[Instance]) -> Scorer:
        def batches() -> Iterator[Tensor]:
            advance = self.progress("learning what is normal", len(studies))
            for _, prepared in self._prepared(studies):
                for unit in prepared:
                    layouts.append(unit.layout())
                    used.extend(instances_of(unit.source))
                    yield from unit.batches()
                advance(1)

        stream = batches()
        first = next(stream, None)
        if first is None:
            raise DatasetError(f"none of {len(studies)} studies can be learned from: {summed_up(self.refused)}")
        return detector.fit(chain([first], stream)).eval()

    def _score(self, scorer: Scorer, studies: Sequence[Study]) -> _HeldOut:
        found = _HeldOut()
        advance = self.progress("scoring the patients held out", len(studies))
        for study, prepared in self._prepared(studies):
            scores, first = [], None
            for unit in prepared:
                scores.append(unit.score(scorer, self.aggregation))
                found.layouts.append(unit.layout())
                found.objects += len(instances_of(unit.source))
                first = first or instances_of(unit.source)[0]
            if first is not None:
                found.add(study, first, scores)
            advance(1)
        if not found.scores:
            raise CalibrationError(f"none of {len(studies)} studies held out can be used: {summed_up(self.refused)}")
        return found

    def _prepared(self, studies: Sequence[Study]) -> Iterator[tuple[Study, Iterator[Prepared]]]:
        """Yields each study with its units, made as they are asked for."""

        def units(read: Sequence[Read]) -> Iterator[Prepared]:
            for unit in read:
                if isinstance(unit, RefusedFile):
                    self.refused.append(unit)
                    continue
                try:
                    yield prepare(unit, self.contract, self.voxel)
                except AnomalyError as error:
                    words = Refusal(Reason.FAILED, f"preparing failed ({type(error).__name__})")
                    refusal = error.refusal if isinstance(error, RefusedError) else words
                    self.refused += [RefusedFile(i.path, refusal, i.study) for i in instances_of(unit)]

        for study, read in read_ahead(studies, self.contract, self.pixels):
            yield study, units(read)
