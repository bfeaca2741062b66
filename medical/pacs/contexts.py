"""What is taken: the SOP classes of images (PS3.4 B.5) and the transfer syntaxes (PS3.5 section 10) that are read.

Images of kinds that no model judges are taken, too: a study that holds one is analysed in part only. This does not
reach images in another transfer syntax, as every video is, nor those that are larger than allowed: they are refused and
not counted, so their study may be ANALYSED without them. Objects that are no images (reports, presentation states,
segmentations) are refused at the door, with the status "SOP class not supported": they would make a study that is done
begin anew each time that somebody reports it. So is the deflated transfer syntax: a small file may grow a thousandfold
in this process.
"""

from typing import TYPE_CHECKING

from medical.reading.classes import (
    DEFLATED,
    DIRECTORY_CLASS,
    EXPLICIT,
    IMPLICIT,
    SOP_CLASSES,
    TRANSFER_SYNTAXES,
)

if TYPE_CHECKING:
    from pynetdicom.presentation import PresentationContext

IMAGES = tuple(uid for uid, known in SOP_CLASSES.items() if known.kind == "image" and uid != DIRECTORY_CLASS)
UNCOMPRESSED = (EXPLICIT, IMPLICIT)
SYNTAXES = (*UNCOMPRESSED, *(uid for uid in TRANSFER_SYNTAXES if uid not in (*UNCOMPRESSED, DEFLATED)))
"""The ones that are preferred first: a peer that offers several in one context gets the first of these."""


def storage_contexts() -> "list[PresentationContext]":
    """Returns a presentation context for each SOP class with all transfer syntaxes."""
    from pynetdicom import build_context

    return [build_context(uid, list(SYNTAXES)) for uid in IMAGES]
