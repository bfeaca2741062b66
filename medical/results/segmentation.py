"""Segmentations (PS3.3 A.51) of what lies above the contour of an anomaly map.

Images with a place in the patient become BINARY. Projection X-ray has no frame of reference, so that no parametric map
can hold its values: its segmentation is FRACTIONAL and keeps their strength. A fraction is 0 outside of the contour and
grows inside from one half (at the contour) to one (at the upper end of the colour scale), so that a viewer that cuts at
one half draws the contour. PS3.3 C.8.20.2.3 knows only probability and occupancy; it is declared as PROBABILITY and the
description of the object says that it is not calibrated.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32

from medical.results.codes import ARTIFICIAL_INTELLIGENCE, SPATIAL_CONCEPT, UNLIKE_NORMAL
from medical.results.layers import Layer
from medical.results.settings import Kind
from medical.results.stamp import Stamp, finish
from medical.vocabulary import OURS

COLOUR = 253, 231, 37
"""RGB of the segment: yellow, told apart from grey with every colour vision."""


def segmentation(layer: Layer, stamp: Stamp, place: int) -> Any | None:
    """Builds the segmentation of a layer; None where no pixel is above the contour.

    Args:
        layer: maps and their sources.
        stamp: identity of the results.
        place: how many segmentations of the study come before.

    Returns:
        A highdicom.seg.Segmentation with one segment.
    """
    from highdicom.seg import Segmentation

    if not layer.marked.any():
        return None
    fractional = not layer.placed
    made = Segmentation(
        source_images=list(layer.sources),
        pixel_array=fractions(layer) if fractional else layer.marked.astype(np.uint8),
        segmentation_type="FRACTIONAL" if fractional else "BINARY",
        segment_descriptions=[_description(layer, stamp)],
        content_label="ANOMALY",
        content_description="Above the contour; strength, not a calibrated probability"
        if fractional
        else "Above the contour",
        plane_positions=positions(layer),
        **stamp.arguments(Kind.SEG, layer.key, place),
    )
    point_at_frame(made, layer)
    if fractional:
        made.PatientOrientation = layer.header.get("PatientOrientation") or ""
    return finish(made, layer.header)


def fractions(layer: Layer) -> Float32[np.ndarray, "n h w"]:
    """Returns 0 outside of the contour; inside 0.5 at the contour to 1 at the upper end of the scale."""
    extent = max(layer.scale[1] - layer.contour, float(np.finfo(np.float32).tiny))
    inside = 0.5 + 0.5 * np.clip((layer.values - layer.contour) / extent, 0, 1)
    return np.where(layer.marked, inside, 0).astype(np.float32)


def positions(layer: Layer) -> Any | None:
    """Returns the plane positions that highdicom cannot take from the sources: those of some frames of an object."""
    from highdicom import PlanePositionSequence

    from medical.results.layers import frames_of

    if not layer.placed or not layer.several_frames:
        return None
    frames = frames_of([layer.header])
    if len(frames) == len(layer.frames):
        return None
    return [PlanePositionSequence("PATIENT", tuple(frames[frame - 1][2][0])) for frame in layer.frames]


def point_at_frame(made: Any, layer: Layer) -> None:
    """Puts the references of an object right whose source was shown to the library as one frame of another kind."""
    if layer.placed:
        return
    _correct(made, layer)
    if int(layer.header.get("NumberOfFrames") or 1) == 1:
        return
    for group in made.PerFrameFunctionalGroupsSequence:
        for derivation in group.DerivationImageSequence:
            for reference in derivation.SourceImageSequence:
                reference.ReferencedFrameNumber = layer.frames[0]


def _correct(made: Any, layer: Layer) -> None:
    if made.get("ReferencedSOPInstanceUID") == layer.header.SOPInstanceUID:
        made.ReferencedSOPClassUID = layer.header.SOPClassUID
    for element in made:
        if element.VR == "SQ":
            for item in element.value:
                _correct(item, layer)


def _description(layer: Layer, stamp: Stamp) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentDescription

    return SegmentDescription(
        segment_number=1,
        segment_label="Unlike normal (research)",
        segmented_property_category=SPATIAL_CONCEPT.concept(),
        segmented_property_type=UNLIKE_NORMAL.concept(),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name=stamp.algorithm.name,
            family=ARTIFICIAL_INTELLIGENCE.concept(),
            version=stamp.algorithm.version,
            source=OURS,
            parameters={**stamp.algorithm.settings, "model": stamp.algorithm.model},
        ),
        tracking_uid=stamp.uid("region", layer.key),
        tracking_id="unlike normal",
        display_color=CIELabColor.from_rgb(*COLOUR),
    )
