"""A flagged study moves up, and nothing else moves."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from anomaly.calibration import Decision
from medical.outcome import Priority
from medical.refusals import Reason, Refusal
from medical.worklist import effective_order
from tests.medical.worklist.outcomes import CALIBRATION, LOW_SCORES, flagged, judged, outcome, outcomes

few = settings(max_examples=50, deadline=None)
lists = st.lists(outcomes(), max_size=12, unique_by=lambda one: one.study)


def unflagged(ordered):
    return [one.study for one in ordered if not one.flagged]


@few
@given(lists)
def test_nothing_is_lost_and_the_order_is_total(found):
    ordered = effective_order(found)
    assert sorted(map(id, ordered)) == sorted(map(id, found))
    assert [one.priority.rank for one in ordered] == sorted(one.priority.rank for one in found)


@few
@given(lists, outcomes())
def test_another_study_never_changes_the_order_of_the_rest(found, another):
    ordered = [one.study for one in effective_order([another, *found]) if one is not another]
    assert ordered == [one.study for one in effective_order(found)]


@few
@given(lists, st.data())
def test_scores_never_change_the_order_of_what_is_not_flagged(found, data):
    """Whatever the algorithm says of a study that it does not flag, even nothing, it stays where it was."""

    def other(one):
        if one.flagged:
            return one
        if data.draw(st.booleans()):
            nothing = {"decision": None, "score": None, "p_value": None}
            return replace(one, **nothing, refusal=Refusal(Reason.PIXELS, "broken"))
        score = data.draw(st.sampled_from(LOW_SCORES))
        return replace(one, refusal=None, decision=Decision.OK, score=score, p_value=judged(score)[1])

    assert unflagged(effective_order(map(other, found))) == unflagged(effective_order(found))


@few
@given(lists)
def test_nobody_s_priority_falls_and_flagging_moves_nobody_past_another(found):
    assert all(one.priority.rank <= one.site_priority.rank for one in found)
    without = effective_order(replace(one, decision=None, score=None, p_value=None) for one in found)
    kept = {one.study for one in found if not one.flagged}
    assert [one.study for one in without if one.study in kept] == unflagged(effective_order(found))


def test_the_order_of_a_morning():
    stat = outcome(1, -2.0, Priority.STAT)
    rare, rarer = outcome(2, CALIBRATION.review.value + 0.1), outcome(3, CALIBRATION.ng.value + 1)
    rarest = outcome(4, CALIBRATION.ng.value + 90)  # as rare among 400 normals, but higher
    high, broken = outcome(5, -2.0, Priority.HIGH), outcome(6, float("nan"))
    early, late = (outcome(7 + hour, 0.0, acquired=f"2026-11-22T0{hour}:00:00") for hour in (1, 2))
    unknown = outcome(10, 0.0, acquired=None)
    unread = outcome(11, acquired="2026-11-22T01:30:00", refusal=Refusal(Reason.PIXELS, "broken"))
    raised = outcome(12, CALIBRATION.review.value + 0.2, Priority.LOW)
    low = outcome(13, -2.0, Priority.LOW)
    wanted = [stat, broken, rarest, rarer, raised, rare, high, unknown, early, unread, late, low]
    assert effective_order(reversed(wanted)) == wanted
    assert rarest.p_value == broken.p_value


def test_flagged_studies_of_the_highest_priority_stay_there():
    found = flagged(1, Priority.STAT)
    assert found.priority is Priority.STAT
    assert effective_order([outcome(2, 0.0, Priority.STAT), found])[0] is found
