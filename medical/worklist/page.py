"""worklist.html: one page that opens from disk, asks no server for anything, and prints."""

import base64
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from markupsafe import Markup

from anomaly.report.templates import template
from medical.objects import RefusedFile
from medical.outcome import DISCLAIMER
from medical.worklist.order import RULE
from medical.worklist.picture import ScorePicture, thumbnail
from medical.worklist.rows import Row
from medical.worklist.words import NOT_NORMAL, STATES, counted, headline, normals, places

if TYPE_CHECKING:
    from medical.worklist.writer import About, Pictures


def html(found: Sequence[Row], about: "About", pictures: "Pictures", strays: Sequence[RefusedFile] = ()) -> str:
    """Returns the page as one HTML document.

    Args:
        found: the rows, in the order of reading.
        about: the model and its calibration.
        pictures: Study Instance UID -> RGB pictures.
        strays: files of no readable study.
    """
    from medical.worklist.writer import counts

    folder = Path(__file__).parent
    script = (folder / "worklist.js").read_text("utf-8")
    drawn = ScorePicture(about.calibration, [row.score for row in found if row.score is not None])
    found_counts = counts(found)
    return template(folder / "worklist.html.j2").render(
        rows=found,
        about=about,
        counts=found_counts,
        headline=headline(found_counts),
        states=STATES,
        flagged_places=places([row.rank for row in found if row.state in ("strong", "flagged")]),
        silent_places=places([row.rank for row in found if row.state == "none"]),
        who=normals(about.calibration.unit),
        disclaimer=DISCLAIMER,
        not_normal=NOT_NORMAL,
        rule=RULE,
        drawn=drawn,
        thumbnails={row.rank: [thumbnail(one) for one in pictures.get(row.study_instance_uid, ())] for row in found},
        strays=counted(strays),
        stray_files=len(strays),
        script=Markup(script),  # noqa: S704  our own file
        script_hash=base64.b64encode(sha256(script.encode()).digest()).decode(),
    )
