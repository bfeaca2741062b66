"""What a run leaves behind for people and machines: results.csv, results.jsonl, heatmap pictures and report.html."""

from anomaly.report.heatmap import display, overlay, panel
from anomaly.report.words import NOT_SCORED
from anomaly.report.writer import ResultWriter

__all__ = ["NOT_SCORED", "ResultWriter", "display", "overlay", "panel"]
