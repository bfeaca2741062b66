"""The triage worklist: as CSV, JSON and a page that says what to open first and what was not analysed, and why."""

from medical.worklist.order import effective_order
from medical.worklist.writer import About, WorklistPaths, write_worklist

__all__ = ["About", "WorklistPaths", "effective_order", "write_worklist"]
