"""What a line reports when something fails: each fault is brought about, and its parts are counted.

No part may be lost, none may be stored twice, and none may be OK that was not judged. The exit status is 1 if that does
not hold for a fault. Faults that cannot be brought about on this machine are listed with the reason.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from anomaly.errors import DatasetError
from anomaly.progress import Progress, bars, silent
from benchmarks.commands import names, new_parser, run
from benchmarks.environment import facts
from benchmarks.line_fault_cases import CASES, Case
from benchmarks.tables import markdown

EXAMPLES = """\
  python -m benchmarks.line_faults
  python -m benchmarks.line_faults --faults killed,disk_full --out results/line"""

_HEADER = ["fault", "what the line said", "results", "parts", "lost", "twice", "OK but not judged"]


def bring_about(wanted: Sequence[str], progress: Progress = silent) -> tuple[list[Case], list[str]]:
    """Brings faults about, one after the other.

    Args:
        wanted: names of faults; empty for all.
        progress: is told what is being done.

    Returns:
        The cases, and a line for each fault that cannot be brought about here.

    Raises:
        DatasetError: there is no such fault.
    """
    known = {case.__name__: case for case in CASES}
    unknown = set(wanted) - set(known)
    if unknown:
        raise DatasetError(f"unknown fault {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    cases, skipped = [], []
    advance = progress("faults", len(wanted or known))
    for name in wanted or known:
        with TemporaryDirectory() as folder:
            try:
                cases.append(known[name](Path(folder)))
            except DatasetError as error:
                skipped.append(f"{name}: {error}")
        advance(1)
    return cases, skipped


def table(cases: Sequence[Case]) -> str:
    """Returns the cases for people."""
    rows = [
        [
            *(
                case.fault,
                case.said,
                ", ".join(f"{count} {kind}" for kind, count in sorted(case.stored.items())) or "none",
            ),
            *(case.parts, case.lost, case.twice, case.wrongly_ok),
        ]
        for case in cases
    ]
    return markdown(_HEADER, rows, texts=3)


def main() -> None:
    """Runs the command."""
    parser = new_parser("benchmarks.line_faults", __doc__, EXAMPLES, "folder for line_faults.md")
    parser.add_argument("--faults", default="", help=f"of {', '.join(case.__name__ for case in CASES)} (all)")
    options = parser.parse_args()
    with bars() as progress:
        cases, skipped = bring_about(names(options.faults), progress)
    lines = [" | ".join(facts().values()), "", table(cases), "", *(f"not brought about: {line}" for line in skipped)]
    print("\n".join(lines))
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "line_faults.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if any(case.lost or case.twice or case.wrongly_ok for case in cases):
        sys.exit(1)


if __name__ == "__main__":
    run(main)
