"""Pictures of what was marked, for pages: the image with the anomaly map over it, as the summary shows it."""

import numpy as np
from jaxtyping import UInt8

from anomaly.report.heatmap import pair
from medical.outcome import Analysed, Outcome
from medical.results.picture import shown
from medical.results.sources import read_sources

SIDE = 640
MOST = 3


def marked_pictures(outcome: Outcome) -> list[UInt8[np.ndarray, "h w 3"]]:
    """Returns RGB pictures of the analysed images with the highest scores, three at most, the highest first.

    Args:
        outcome: with maps; images without one are left out.

    Raises:
        ResultError: a source object is gone.
        AnomalyError: a frame cannot be decoded any more.
    """
    with_map = [one for one in outcome.analysed if one.map is not None]
    if not with_map:
        return []
    sources = read_sources(outcome)
    highest: list[Analysed] = sorted(with_map, key=lambda one: -one.score)[:MOST]
    pictures = []
    for analysed in highest:
        image = shown(analysed, sources, with_heatmaps=True)
        if image.plane is not None:
            sides = SIDE // 2, SIDE
            _, over = pair(image.picture, image.plane, analysed.scale, analysed.contour, sides=sides, pointed=True)
            pictures.append(over)
    return pictures
