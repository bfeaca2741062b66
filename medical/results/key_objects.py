"""Key object selections (PS3.3 A.35.4, PS3.16 TID 2010): the images for which a study was flagged, "Of Interest".

A flagged volume is listed with all of its slices; only with heatmaps are the slices picked out that hold a region.
"""

from typing import Any

from medical.outcome import DISCLAIMER, Analysed, Outcome
from medical.results.codes import OF_INTEREST
from medical.results.flagged import flagged_images, frame_number
from medical.results.layers import many_frames, planes_of
from medical.results.observer import observer
from medical.results.settings import Kind
from medical.results.sources import Sources, without_patient
from medical.results.stamp import Stamp, finish


def key_objects(outcome: Outcome, sources: Sources, stamp: Stamp, *, with_heatmaps: bool) -> Any | None:
    """Builds the key object selection of a flagged study; None where it was not flagged.

    Args:
        outcome: of the study.
        sources: its headers.
        stamp: identity of the results.
        with_heatmaps: whether slices may be picked out of volumes.

    Returns:
        A highdicom.ko.KeyObjectSelectionDocument.
    """
    from highdicom.ko import KeyObjectSelection, KeyObjectSelectionDocument

    flagged = flagged_images(outcome, stamp.algorithm)
    if not flagged:
        return None
    chosen: dict[str, tuple[Any, set[int]]] = {}
    for analysed in flagged:
        for header, frame in chosen_frames(analysed, sources.of(analysed), with_heatmaps=with_heatmaps):
            _, frames = chosen.setdefault(str(header.SOPInstanceUID), (without_patient(header), set()))
            frames.update([] if frame is None else [frame])
    content = KeyObjectSelection(
        document_title=OF_INTEREST.concept(),
        referenced_objects=[header for header, _ in chosen.values()],
        observer_device_context=observer(stamp),
        description=f"Flagged by {stamp.algorithm.name}. {DISCLAIMER}",
    )
    for item in content[0].ContentSequence:
        if item.ValueType == "IMAGE":
            reference = item.ReferencedSOPSequence[0]
            numbers = sorted(chosen[str(reference.ReferencedSOPInstanceUID)][1])
            if numbers:
                reference.ReferencedFrameNumber = numbers
    arguments = stamp.arguments(Kind.KO)
    made = KeyObjectSelectionDocument(evidence=[header for header, _ in chosen.values()], content=content, **arguments)
    return finish(made, sources.of(flagged[0])[0])


def chosen_frames(analysed: Analysed, headers: list[Any], *, with_heatmaps: bool) -> list[tuple[Any, int | None]]:
    """Returns (header, 1-based frame or None for all of the object) of an image or of the slices of a volume."""
    if analysed.affine is None:
        return [(headers[0], frame_number(analysed))]
    if not with_heatmaps or analysed.map is None:
        return [(header, None) for header in headers]
    marked = [plane for plane in planes_of(analysed, headers) if (plane.values > plane.contour).any()]
    several = many_frames(headers[0])
    return [(p.header, p.frame if several else None) for p in marked] or [(header, None) for header in headers]
