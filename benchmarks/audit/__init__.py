"""Shortcut audit: what do global numbers, files and leaks give away before any detector has looked?"""

from benchmarks.audit.findings import Audit, Finding, audit
from benchmarks.audit.leakage import Leakage

__all__ = ["Audit", "Finding", "Leakage", "audit"]
