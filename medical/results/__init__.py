"""Results as DICOM: report, segmentations, parametric maps, summary, key objects; see docs/triage-results.md."""

from medical.results.checking import checker_installed, standard_errors
from medical.results.marked import marked_pictures
from medical.results.settings import Kind, ResultError, ResultSettings, Written
from medical.results.writer import write_results

__all__ = [
    "Kind",
    "ResultError",
    "ResultSettings",
    "Written",
    "checker_installed",
    "marked_pictures",
    "standard_errors",
    "write_results",
]
