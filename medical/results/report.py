"""Comprehensive 3D SR (PS3.3 A.35.13) after PS3.16 TID 1500: score, p-value, decision, what was not analysed and why.

One measurement group (TID 1501) holds the study, one each of its images and volumes, one each reason for which objects
were not analysed; with segmentations, one region group each (TID 1410 for images, TID 1411 for volumes). The report is
PRELIMINARY and UNVERIFIED, and PARTIAL unless everything was analysed. A study that was not analysed gets a report too:
a coded reason in the archive is better than silence, which could be taken for "nothing found".
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from medical.outcome import DISCLAIMER, Analysed, Outcome
from medical.refusals import Reason
from medical.results import codes
from medical.results.flagged import frame_number, threshold
from medical.results.layers import Layer
from medical.results.observer import observer
from medical.results.settings import Kind
from medical.results.sources import Sources, without_patient
from medical.results.stamp import Stamp, finish
from medical.vocabulary import OURS

DETAILS = 10
"""At most so many different details of one reason are told."""


@dataclass(frozen=True)
class Region:
    """A written segmentation, for the report.

    Attributes:
        layer: key of its layer.
        header: of the first source object.
        sop_class: SOP Class UID of the segmentation.
        uid: SOP Instance UID of the segmentation.
        image: whether it marks one image; else slices of a series or frames of an object.
        frame: 1-based frame of the source that the image is; None where the source has one.
        size: mm2 of an image, mm3 of a volume; None where the spacing is unknown.
        highest: highest value of the map.
    """

    layer: str
    header: Any
    sop_class: str
    uid: str
    image: bool
    frame: int | None
    size: float | None
    highest: float


def region(layer: Layer, segmentation: Any) -> Region:
    """Returns what the report says of a segmentation."""
    lengths = layer.voxel if len(layer.values) > 1 else layer.voxel[1:]
    size: float | None = float(layer.marked.sum())
    for length in lengths:
        size = None if length is None or size is None else size * length
    return Region(
        layer=layer.key,
        header=layer.header,
        sop_class=str(segmentation.SOPClassUID),
        uid=str(segmentation.SOPInstanceUID),
        image=len(layer.values) == 1,
        frame=layer.frames[0] if len(layer.frames) == 1 else None,
        size=size,
        highest=float(layer.values.max()),
    )


def reference_only(header: Any) -> Any:
    """Returns the identifiers of an object, without patient and pixels."""
    from pydicom.dataset import Dataset

    made = Dataset()
    for name in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality"):
        if name in header:
            setattr(made, name, header[name].value)
    return made


def report(outcome: Outcome, sources: Sources, stamp: Stamp, regions: Sequence[Region], results: Sequence[Any]) -> Any:
    """Builds the report of a study.

    Args:
        outcome: of the study.
        sources: its headers.
        stamp: identity of the results.
        regions: segmentations that were written.
        results: identifiers of all other results of the study, those segmentations among them; they become evidence
            of the current procedure (PS3.3 C.17.2.3), so that who finds the report finds them.

    Returns:
        A highdicom.sr.Comprehensive3DSR.
    """
    from highdicom.sr import Comprehensive3DSR, MeasurementReport, ObservationContext

    groups = [_study(outcome, sources, stamp)]
    groups += [_analysed(n, a, sources.of(a), stamp) for n, a in enumerate(outcome.analysed, 1)]
    groups += [_region(found, stamp) for found in regions]
    groups += _refused(outcome, sources, stamp)
    content = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=observer(stamp)),
        procedure_reported=codes.IMAGING_PROCEDURE.concept(),
        imaging_measurements=groups,
        title=codes.MEASUREMENT_REPORT.concept(),
    )
    images = [header for header in sources.headers if _is_image(header)]
    if images:
        content[0].ContentSequence.insert(-1, _library(images))
    first = sources.headers[0]
    made = Comprehensive3DSR(
        evidence=[without_patient(first), *map(reference_only, sources.headers[1:]), *results],
        content=content[0],
        is_complete=outcome.status == "ANALYSED",
        is_final=False,
        is_verified=False,
        **stamp.arguments(Kind.SR),
    )
    return finish(made, first)


def _is_image(header: Any) -> bool:
    return "Rows" in header and "Columns" in header


def _study(outcome: Outcome, sources: Sources, stamp: Stamp) -> Any:
    from highdicom.sr import AlgorithmIdentification, MeasurementsAndQualitativeEvaluations

    algorithm = AlgorithmIdentification(
        name=stamp.algorithm.name,
        version=stamp.algorithm.version,
        parameters=stamp.parameters,
        family=codes.ARTIFICIAL_INTELLIGENCE.concept(),
        manufacturer=OURS,
    )
    comments = [DISCLAIMER, "A score that is not flagged does not mean that the study is normal."]
    evaluations = [(codes.STATUS, codes.STATUSES[outcome.status])]
    if outcome.decision is not None:
        evaluations.append((codes.TRIAGE_DECISION, codes.DECISIONS[outcome.decision]))
    if outcome.refusal is not None:
        evaluations.append((codes.REASON, codes.reason_code(outcome.refusal.reason)))
        comments.append(outcome.refusal.detail)
    measured = [(codes.SCORE, outcome.score), (codes.P_VALUE, outcome.p_value)]
    measured += [(codes.THRESHOLD, threshold(stamp.algorithm))] if outcome.score is not None else []
    group = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(stamp, "study"),
        algorithm_id=algorithm,
        measurements=_measurements(measured),
        qualitative_evaluations=_evaluations(evaluations),
        source_images=_group_images(list(sources.analysed.values()) or [header for header, _ in sources.refused]),
    )
    return _commented(group, comments)


def _analysed(number: int, analysed: Analysed, headers: Sequence[Any], stamp: Stamp) -> Any:
    from highdicom.sr import MeasurementsAndQualitativeEvaluations

    name = f"{'image' if analysed.affine is None else 'volume'} {number}"
    return MeasurementsAndQualitativeEvaluations(
        tracking_identifier=_tracking(stamp, name),
        measurements=_measurements([(codes.SCORE, analysed.score), (codes.P_VALUE, analysed.p_value)]),
        source_images=_group_images(headers, frame_number(analysed)),
    )


def _refused(outcome: Outcome, sources: Sources, stamp: Stamp) -> list[Any]:
    """One group per reason."""
    from highdicom.sr import MeasurementsAndQualitativeEvaluations

    details: dict[Reason, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    headers: dict[Reason, list[Any]] = defaultdict(list)
    for file in outcome.unread:
        details[file.refusal.reason][file.refusal.detail] += 1
    for header, index in sources.refused:
        headers[outcome.unread[index].refusal.reason].append(header)
    groups = []
    for reason, counts in details.items():
        group = MeasurementsAndQualitativeEvaluations(
            tracking_identifier=_tracking(stamp, f"not analysed: {reason}"),
            qualitative_evaluations=_evaluations(
                [(codes.STATUS, codes.STATUSES["NOT_ANALYSED"]), (codes.REASON, codes.reason_code(reason))]
            ),
            source_images=_group_images(headers[reason]),
        )
        ranked = sorted(counts.items(), key=lambda item: -item[1])
        comments = [f"{count} {'object' if count == 1 else 'objects'}: {detail}" for detail, count in ranked[:DETAILS]]
        rest = sum(count for _, count in ranked[DETAILS:])
        groups.append(_commented(group, [*comments, *([f"{rest} more objects"] if rest else [])]))
    return groups


def _region(found: Region, stamp: Stamp) -> Any:
    from highdicom.sr import (
        PlanarROIMeasurementsAndQualitativeEvaluations,
        ReferencedSegment,
        ReferencedSegmentationFrame,
        SourceImageForSegmentation,
        SourceSeriesForSegmentation,
        TrackingIdentifier,
    )

    unit = codes.SQUARE_MILLIMETRE if found.image else codes.CUBIC_MILLIMETRE
    shared = {
        "tracking_identifier": TrackingIdentifier(stamp.uid("region", found.layer), "unlike normal"),
        "finding_type": codes.UNLIKE_NORMAL.concept(),
        "measurements": [
            *_measurements([(codes.AREA if found.image else codes.VOLUME, found.size)], unit),
            *_measurements([(codes.MAP_MAXIMUM, found.highest)]),
        ],
    }
    if found.image:
        frames = None if found.frame is None else [found.frame]
        source = SourceImageForSegmentation(found.header.SOPClassUID, found.header.SOPInstanceUID, frames)
        reference = ReferencedSegmentationFrame(found.sop_class, found.uid, 1, 1, source)
        del reference[0].ReferencedSOPSequence[0].ReferencedSegmentNumber  # not beside a frame number: PS3.3 10.3
        return PlanarROIMeasurementsAndQualitativeEvaluations(referenced_segment=reference, **shared)
    from highdicom.sr import VolumetricROIMeasurementsAndQualitativeEvaluations

    series = SourceSeriesForSegmentation(found.header.SeriesInstanceUID)
    segment = ReferencedSegment(found.sop_class, found.uid, 1, source_series=series)
    return VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=segment, **shared)


def _tracking(stamp: Stamp, name: str) -> Any:
    from highdicom.sr import TrackingIdentifier

    return TrackingIdentifier(stamp.uid("tracking", name), name)


def _measurements(values: Iterable[tuple[codes.Code, float | None]], unit: codes.Code = codes.NO_UNITS) -> list[Any]:
    from highdicom.sr import Measurement

    return [Measurement(name.concept(), float(v), unit.concept()) for name, v in values if v is not None]


def _evaluations(pairs: Iterable[tuple[codes.Code, codes.Code]]) -> list[Any]:
    from highdicom.sr import QualitativeEvaluation

    return [QualitativeEvaluation(name.concept(), value.concept()) for name, value in pairs]


def _group_images(headers: Iterable[Any], frame: int | None = None) -> list[Any] | None:
    from highdicom.sr import SourceImageForMeasurementGroup

    frames = None if frame is None else [frame]
    images = [h for h in headers if _is_image(h)]
    return [SourceImageForMeasurementGroup(h.SOPClassUID, h.SOPInstanceUID, frames) for h in images] or None


def _commented(group: Any, texts: Iterable[str]) -> Any:
    """Adds comments to a group: TID 1501 may be extended."""
    from highdicom.sr import RelationshipTypeValues, TextContentItem

    for text in texts:
        item = TextContentItem(codes.COMMENT.concept(), text, RelationshipTypeValues.CONTAINS)
        group[0].ContentSequence.append(item)
    return group


def _library(headers: Sequence[Any]) -> Any:
    """The image library (TID 1600) with what every object has: highdicom's own needs attributes that are optional."""
    from highdicom.sr import (
        CodeContentItem,
        ContainerContentItem,
        ContentSequence,
        ImageContentItem,
        NumContentItem,
        RelationshipTypeValues,
    )
    from pydicom.sr.codedict import codes as standard

    contains, context = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.HAS_ACQ_CONTEXT
    group = ContainerContentItem(standard.DCM.ImageLibraryGroup, relationship_type=contains)
    group.ContentSequence = ContentSequence()
    pixels = codes.Code("{pixels}", "UCUM", "Pixels").concept()
    for header in headers:
        image = ImageContentItem(
            codes.SOURCE.concept(), header.SOPClassUID, header.SOPInstanceUID, relationship_type=contains
        )
        image.ContentSequence = ContentSequence()
        modality = codes.modality(str(header.get("Modality", "")))
        if modality is not None:
            image.ContentSequence.append(CodeContentItem(standard.DCM.Modality, modality.concept(), context))
        for name, value in (
            (standard.DCM.PixelDataRows, header.Rows),
            (standard.DCM.PixelDataColumns, header.Columns),
        ):
            image.ContentSequence.append(NumContentItem(name, int(value), pixels, relationship_type=context))
        group.ContentSequence.append(image)
    library = ContainerContentItem(standard.DCM.ImageLibrary, relationship_type=contains)
    library.ContentSequence = ContentSequence()
    library.ContentSequence.append(group)
    return library
