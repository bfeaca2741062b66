"""Whatever fails, no part is lost, none is stored twice, and none is OK that was not judged."""

import os
import shutil
import subprocess

import pytest

from anomaly.errors import DatasetError
from benchmarks import line_fault_cases as cases
from benchmarks.line_faults import bring_about, table


def sound(case: cases.Case) -> cases.Case:
    assert (case.lost, case.twice, case.wrongly_ok) == (0, 0, 0), case
    return case


def test_a_camera_that_stalls_raises_an_alarm_that_ends(tmp_path):
    case = sound(cases.camera_stalls(tmp_path))
    assert case.stored == {"OK": 20}
    assert case.said == "alarm SOURCE_STALLED"


def test_a_camera_that_fails_ends_the_line_with_what_it_delivered_reported(tmp_path):
    case = sound(cases.camera_fails(tmp_path))
    assert case.stored == {"OK": 20}
    assert "no such device" in case.said


def test_an_inspection_that_hangs_gives_timeouts(tmp_path):
    case = sound(cases.inspection_hangs(tmp_path))
    assert case.stored == {"OK": 10, "NG TIMEOUT": 10}
    assert case.said == "alarm INSPECTION_HANGS (lasts)"


def test_an_inspection_that_raises_gives_errors(tmp_path):
    assert sound(cases.inspection_fails(tmp_path)).stored == {"OK": 16, "NG ERROR": 4}


def test_an_overload_gives_ng(tmp_path):
    case = sound(cases.overload(tmp_path))
    assert case.stored["NG OVERLOAD"] > 30
    assert "OVERLOAD" in case.said


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")


@needs_root
def test_a_disk_that_is_full_for_a_while_loses_nothing(tmp_path):
    case = sound(cases.disk_full_for_a_while(tmp_path))
    assert case.stored == {"OK": 40}
    assert case.said == "alarm REPORTING_FAILS"


@needs_root
def test_a_disk_that_stays_full_stops_the_line_and_a_restart_does_the_rest(tmp_path):
    case = sound(cases.disk_full(tmp_path))
    assert case.stored == {"OK": 20}
    assert "results cannot be kept" in case.said.split("Restart:")[0]
    assert "error" not in case.said.split("Restart:")[1]


@pytest.mark.slow
def test_a_corrupt_model_is_refused_before_a_part_is_taken(tmp_path):
    case = cases.model_corrupt(tmp_path)
    assert case.parts == 0
    assert "exit 2" in case.said
    assert "part.safetensors is not the file" in case.said


@pytest.mark.slow
def test_after_kill_9_a_restart_inspects_exactly_the_rest(tmp_path):
    case = sound(cases.killed(tmp_path, 60))
    assert case.parts == 60
    assert sum(case.stored.values()) == 60
    assert "exit 0 after SIGTERM" in case.said


@pytest.mark.slow
def test_a_stop_by_signal_judges_what_was_taken_in(tmp_path):
    case = sound(cases.terminated(tmp_path, 200))
    assert "exit 0, DONE" in case.said
    assert 0 < case.parts < 200
    assert not any(" " in kind for kind in case.stored), "nothing was left unjudged"


@pytest.mark.slow
def test_unreadable_images_among_a_thousand_are_never_ok(tmp_path):
    case = sound(cases.unreadable(tmp_path))
    assert case.parts == 1000
    assert case.stored["NG UNREADABLE"] == 50
    assert "exit 1" in case.said


@pytest.mark.slow
@pytest.mark.peer
def test_a_broker_that_is_away_gets_every_result_later(tmp_path):
    if not shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin"):
        pytest.skip("no mosquitto: apt-get install mosquitto")
    case = sound(cases.broker_down(tmp_path))
    assert case.parts == 41
    assert "41 of 41 messages came" in case.said


def test_the_audit_counts_what_is_lost_twice_and_wrongly_ok():
    from inspection.line.testing import ok, part

    results = [ok(part(name)).result for name in ("a", "a", "b")]
    case = cases.counted("fault", "said", ["a", "b", "c"], results, ["a"])
    assert (case.parts, case.lost, case.twice, case.wrongly_ok) == (3, 1, 1, 1)
    assert "| 1 |" in table([case]).replace("    ", " ").replace("   ", " ").replace("  ", " ")


def test_what_cannot_be_brought_about_is_listed_and_an_unknown_fault_refused(monkeypatch):
    with pytest.raises(DatasetError, match="unknown fault nonsense"):
        bring_about(["nonsense"])
    monkeypatch.setattr(subprocess, "run", lambda *words, **more: subprocess.CompletedProcess(words, 1, "", "not root"))
    done, skipped = bring_about(["disk_full"])
    assert done == []
    assert "not root" in skipped[0]
