"""Parametric maps (PS3.3 A.75) of anomaly maps of CT and MR: every value, at its place in the patient.

By default the float32 values themselves. Compact maps hold 256 levels from the lowest to the highest value, run-length
encoded, with the real-world value mapping that leads back: a value is then exact to half a level. They use 16 bits,
because C.8.32.2 allows no 8; the upper byte is always zero, which run lengths reduce to next to nothing.
"""

from typing import Any

import numpy as np
from jaxtyping import Float32, UInt16

from medical.results.body_parts import give_body_part
from medical.results.codes import MAP_VALUE, NO_UNITS
from medical.results.layers import Layer
from medical.results.segmentation import positions
from medical.results.settings import Kind
from medical.results.stamp import Stamp, finish

LEVELS = 255
RLE, EXPLICIT = "1.2.840.10008.1.2.5", "1.2.840.10008.1.2.1"


def parametric_map(layer: Layer, stamp: Stamp, place: int, *, compact: bool) -> Any | None:
    """Builds the parametric map of a layer; None where its images have no place in the patient.

    Args:
        layer: maps and their sources.
        stamp: identity of the results.
        place: how many maps of the study come before.
        compact: 256 levels, run-length encoded, in the place of float32 values.

    Returns:
        A highdicom.pm.ParametricMap with one channel.
    """
    from highdicom import VOILUTTransformation
    from highdicom.pm import ParametricMap

    if not layer.placed:
        return None
    low, step = float(layer.values.min()), 1.0
    stored: Float32[np.ndarray, "n h w"] | UInt16[np.ndarray, "n h w"] = layer.values
    if compact:
        stored, low, step = quantised(layer.values)
    centre, width = (layer.scale[0] + layer.scale[1]) / 2, layer.scale[1] - layer.scale[0]
    offset = low if compact else 0.0
    made = ParametricMap(
        source_images=list(layer.sources),
        pixel_array=stored,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[_mapping(layer, compact, low, step)],
        voi_lut_transformations=[
            VOILUTTransformation(window_center=(centre - offset) / step, window_width=width / step)
        ],
        transfer_syntax_uid=RLE if compact else EXPLICIT,
        content_label="ANOMALY",
        content_description="Anomaly map: higher is less like normal",
        image_flavor="VOLUME",
        derived_pixel_contrast="QUANTITY",
        plane_positions=positions(layer),
        **stamp.arguments(Kind.PM, layer.key, place),
    )
    give_body_part(made, layer.header)
    return finish(made, layer.header)


def quantised(values: Float32[np.ndarray, "n h w"]) -> tuple[UInt16[np.ndarray, "n h w"], float, float]:
    """Returns 256 levels, the value of level 0 and the value of one step; value = first + step * level."""
    low, high = float(values.min()), float(values.max())
    step = (high - low) / LEVELS or 1.0
    levels = np.empty(values.shape, np.uint16)
    for index, plane in enumerate(values):  # plane by plane: a whole volume of temporaries would double the memory
        levels[index] = np.clip(np.round((plane - low) / step), 0, LEVELS)
    return levels, low, step


def _mapping(layer: Layer, compact: bool, low: float, step: float) -> Any:
    from highdicom.pm import RealWorldValueMapping

    return RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly map, raw values",
        unit=NO_UNITS.concept(),
        value_range=(0, LEVELS) if compact else (low, float(layer.values.max())),
        slope=step if compact else 1.0,
        intercept=low if compact else 0.0,
        quantity_definition=MAP_VALUE.concept(),
    )
