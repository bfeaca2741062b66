"""A line that reports part after part until it is killed: python writer.py FOLDER SETTINGS-AS-JSON; prints ids."""

import sys
from datetime import UTC, datetime
from pathlib import Path

from anomaly.calibration import Decision
from inspection.parts import Inspected, PartResult, Reason
from inspection.results.records import Run
from inspection.results.reporting import Reporter
from inspection.results.settings import ResultsSettings

settings = ResultsSettings.model_validate_json(sys.argv[2])
reporter = Reporter.open(settings, Path(sys.argv[1]), Run.now(recipe="r", model="m"))
for part in range(1_000_000):
    reporter.report(
        [
            Inspected(
                PartResult(
                    part=str(part), source="", captured=datetime.now(UTC), decision=Decision.NG, reason=Reason.ERROR
                )
            )
        ]
    )
    print(part, flush=True)
