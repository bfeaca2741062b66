"""Secondary capture (PS3.3 A.8) of a summary page: what every viewer can show, the warning in its pixels."""

from typing import Any

from anomaly.errors import AnomalyError
from medical.outcome import Analysed, Outcome
from medical.results.body_parts import give_body_part
from medical.results.page import draw_page
from medical.results.picture import Shown, shown
from medical.results.settings import Kind
from medical.results.sources import Sources, without_patient
from medical.results.stamp import Stamp, finish


def summary(outcome: Outcome, sources: Sources, stamp: Stamp, *, with_heatmaps: bool) -> Any:
    """Builds the summary of a study, with the image of the highest score.

    Args:
        outcome: of the study.
        sources: its headers.
        stamp: identity of the results.
        with_heatmaps: whether the map is laid over the image.

    Returns:
        A highdicom.sc.SCImage, RGB, uncompressed.
    """
    from highdicom.sc import SCImage

    analysed = max(outcome.analysed, key=lambda one: one.score, default=None)
    image = _rendered(analysed, sources, with_heatmaps)
    header = sources.headers[0] if image is None else image.header
    made = SCImage.from_ref_dataset(
        ref_dataset=without_patient(header),
        pixel_array=draw_page(outcome, stamp.algorithm, image, analysed),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "F"),  # demanded here, but no word of it is true of a page
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        **stamp.arguments(Kind.SC),
    )
    made.PatientOrientation = ""
    made.ConversionType, made.BurnedInAnnotation, made.ContentQualification = "SYN", "NO", "RESEARCH"
    give_body_part(made, header)
    if image is not None:
        made.SourceImageSequence = [_reference(image)]
    return finish(made, header)


def _rendered(analysed: Analysed | None, sources: Sources, with_heatmaps: bool) -> Shown | None:
    if analysed is None:
        return None
    try:
        return shown(analysed, sources, with_heatmaps=with_heatmaps)
    except AnomalyError:  # words alone are better than no summary
        return None


def _reference(image: Shown) -> Any:
    from pydicom.dataset import Dataset

    made = Dataset()
    made.ReferencedSOPClassUID = image.header.SOPClassUID
    made.ReferencedSOPInstanceUID = image.header.SOPInstanceUID
    if image.frame is not None:
        made.ReferencedFrameNumber = image.frame
    return made
