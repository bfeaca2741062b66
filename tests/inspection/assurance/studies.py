"""Studies for the tests, with the counts of a worked example."""

from anomaly.calibration import Decision
from inspection.assurance.judgements import Judgement

OK, NG = Decision.OK, Decision.NG


def manual(name="A", misses=(1, 1, 1), alarms=(1, 1, 1, 1, 1)):
    """One appraiser of the example of AIAG MSA 4th edition: 16 bad and 34 good parts, three trials.

    `misses` and `alarms` say how many of the three decisions on each of the first bad and good parts were wrong. The
    defaults give the printed figures of appraiser A: 3 of 48 missed, 5 of 102 false alarms, 42 of 50 parts right.
    """
    found = []
    for truth, parts, wrong in ((NG, 16, misses), (OK, 34, alarms)):
        other = OK if truth == NG else NG
        for k in range(parts):
            count = wrong[k] if k < len(wrong) else 0
            for trial in range(3):
                decision = other if trial < count else truth
                part = f"{truth}-{k:02d}"
                found.append(Judgement(part=part, appraiser=name, trial=str(trial), decision=decision, truth=truth))
    return found
