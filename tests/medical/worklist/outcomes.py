"""Outcomes for tests: a morning's studies, and outcomes of any kind for hypothesis."""

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from anomaly.calibration import Decision, calibrate
from medical.objects import RefusedFile
from medical.outcome import Algorithm, Outcome, Priority
from medical.refusals import Reason, Refusal
from medical.worklist import About

NORMALS = np.random.default_rng(1).gamma(4.0, 1.0, 400) - 3
CALIBRATION = calibrate(NORMALS, unit="patient_id")
ABOUT = About(
    Algorithm(
        "anomaly-suite subspace", "0.1.0", "3f" * 32, {"aggregation": "highest image", "input": "CR, DX chest PA"}
    ),
    CALIBRATION,
    datetime(2026, 11, 22, 7, 45, tzinfo=UTC),
)


@cache
def judged(score):
    """Decision and p-value; kept, since the check of shapes draws random numbers, which strategies must not do."""
    return CALIBRATION.decide(score), float(CALIBRATION.p_value(score))


SCORES = [*np.linspace(-5, 40, 91).tolist(), float("nan"), float("inf")]
LOW_SCORES = [score for score in SCORES if judged(score)[0] is Decision.OK]


def outcome(
    number=1, score=None, site=Priority.ROUTINE, acquired="2026-11-22T07:00:00", refusal=None, refused=(), **changes
):
    """An outcome; analysed if it has a score."""
    facts = {
        "study": f"1.2.826.0.1.3680043.8.498.{number}",
        "pseudonym": f"{number:016x}",
        "site_priority": site,
        "acquired": acquired,
        "modality": "DX",
        "decision": judged(score)[0] if score is not None else None,
        "score": score,
        "p_value": judged(score)[1] if score is not None else None,
        "analysed": (),
        "refused": tuple(refused),
        "refusal": refusal,
        "objects": 2 + len(refused),
    }
    return Outcome(**{**facts, **changes})


def refused_file(reason=Reason.SOP_CLASS, detail="PET objects are not analysed", kind="PET"):
    return RefusedFile(Path("/not/shown"), Refusal(reason, detail), kind=kind)


def morning():
    """Eleven studies with everything that a worklist can show."""
    top, high = CALIBRATION.ng.value, CALIBRATION.review.value
    late = {
        f"late{i}": outcome(20 + i, float(NORMALS[i]), acquired=f"2026-11-22T0{5 + i % 3}:1{i}:00") for i in range(3)
    }
    return [
        outcome(1, float(NORMALS[7]), Priority.STAT, "2026-11-22T06:58:10"),
        outcome(2, top + 6, acquired="2026-11-22T05:10:00"),
        outcome(3, high + 0.2, Priority.LOW, "2026-11-22T07:12:00"),
        outcome(
            4, high + 0.4, refused=[refused_file()] * 2 + [refused_file(Reason.VIEW, "LATERAL; the model reads PA, AP")]
        ),
        outcome(5, refusal=Refusal(Reason.MODALITY, "MR; the model reads CR, DX"), modality="MR", objects=214),
        outcome(6, refusal=Refusal(Reason.AGE, "under 18 years; the model was fitted on adults"), site=Priority.HIGH),
        outcome(7, float(NORMALS[9]), acquired=None),
        outcome(8, float(NORMALS[11]), refused=[refused_file(Reason.PIXELS, "the pixel data end early")]),
        *late.values(),
    ]


refusals = st.builds(Refusal, st.sampled_from(Reason), st.text(max_size=20))
times = st.none() | st.sampled_from([f"2026-11-22T0{hour}:00:00" for hour in range(6)])


@st.composite
def outcomes(draw):
    """Any outcome."""
    unread = draw(st.booleans())
    return outcome(
        draw(st.integers(0, 10**6)),
        None if unread else draw(st.sampled_from(SCORES)),
        draw(st.sampled_from(Priority)),
        draw(times),
        draw(refusals) if unread else None,
        [refused_file(draw(st.sampled_from(Reason)))] * draw(st.integers(0, 2)),
        modality=draw(st.text(max_size=8)),
    )


def flagged(number, site=Priority.ROUTINE):
    found = outcome(number, CALIBRATION.ng.value + 1, site)
    assert found.decision is Decision.NG
    return found
