"""What is taken: the image SOP classes (PS3.4 B.5) and transfer syntaxes (PS3.5 section 10) that the reader reads.

Other objects of a study (reports, presentation states, our own segmentations) are refused at the door, with the status
"SOP class not supported". So is the deflated transfer syntax: a small file may grow a thousandfold in this process.
"""

from typing import TYPE_CHECKING

from medical.reading.classes import DEFLATED, EXPLICIT, IMPLICIT, SOP_CLASSES, TRANSFER_SYNTAXES

if TYPE_CHECKING:
    from pynetdicom.presentation import PresentationContext

IMAGES = tuple(uid for uid, known in SOP_CLASSES.items() if known.use is not None)
UNCOMPRESSED = (EXPLICIT, IMPLICIT)
SYNTAXES = (*UNCOMPRESSED, *(uid for uid in TRANSFER_SYNTAXES if uid not in (*UNCOMPRESSED, DEFLATED)))
"""The ones that are preferred first: a peer that offers several in one context gets the first of these."""


def storage_contexts() -> "list[PresentationContext]":
    """Returns a presentation context for each SOP class with all transfer syntaxes."""
    from pynetdicom import build_context

    return [build_context(uid, list(SYNTAXES)) for uid in IMAGES]
